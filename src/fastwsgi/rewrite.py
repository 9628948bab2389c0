"""Applications behind paths that a regular expression rewrites, or redirects."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# RFC 3986, 3.3: what stands in a path as it is, beside letters, digits and "-._~".
IN_PATH = "/!$&'()*+,;=:@"


def rewritten(application: "WSGIApplication | None", rewriting: str | None) -> "WSGIApplication | None":
    """The application as a route's `rewrite` has it: `REGEX PATH`, or `REGEX ADDRESS STATUS`.

    The expression is looked for in the whole path, decoded. REQUEST_URI stays what the client has sent.
    """
    if application is None or rewriting is None:
        return application
    regex, target, *statuses = rewriting.split()
    find = re.compile(regex, re.DOTALL).search  # a path may have a newline in it
    # Paths are octets, each as one character (PEP 3333, "Unicode Issues").
    parts = re.split(r"\$([0-9])", target.encode().decode("latin-1"))
    inner = application
    if statuses:
        return redirecting(inner, find, parts, status_line(int(statuses[0])))

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        script, path = environ["SCRIPT_NAME"], environ["PATH_INFO"]
        found = find(script + path)
        if found is not None:
            path = expand(found, parts, str)
            # Below the place where it is mounted, or else at the root.
            if script and path.startswith(f"{script}/"):
                environ["PATH_INFO"] = path[len(script) :]
            else:
                environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", path
        return inner(environ, start_response)

    return call


def redirecting(
    inner: "WSGIApplication",
    find: Callable[[str], re.Match[str] | None],
    parts: list[str],
    status: str,
) -> "WSGIApplication":
    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        found = find(environ["SCRIPT_NAME"] + environ["PATH_INFO"])
        if found is None:
            return inner(environ, start_response)
        location = expand(found, parts, lambda group: quote(group.encode("latin-1"), safe=IN_PATH))
        if location.startswith("/"):
            location = f"/{location.lstrip('/')}"  # with two slashes it would be another host
        if environ["QUERY_STRING"] and "?" not in location:
            location += f"?{environ['QUERY_STRING']}"
        start_response(status, [("Location", location), ("Content-Length", "0")])
        return []

    return call


def expand(found: re.Match[str], parts: list[str], show: Callable[[str], str]) -> str:
    """The parts of the target, each second one the number of a group."""
    return "".join(show(found[int(part)] or "") if number % 2 else part for number, part in enumerate(parts))


def status_line(status: int) -> str:
    from http import HTTPStatus  # for servers that have such a route

    return f"{status} {HTTPStatus(status).phrase}"

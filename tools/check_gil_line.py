"""Fail when generated C of a module below the GIL line takes the GIL.

A nogil function or function pointer type without `noexcept` makes its callers ask for the GIL, to look for
an exception; `with gil` takes it outright. Neither has a place below the line.
"""

import re
import sys
from pathlib import Path

BELOW = {
    "_accesslog",
    "_answer",
    "_chunked",
    "_conditions",
    "_connection",
    "_content",
    "_delivery",
    "_forwarded",
    "_guard",
    "_journal",
    "_local",
    "_loop",
    "_networks",
    "_outbox",
    "_overdue",
    "_parser",
    "_proxy",
    "_rates",
    "_refusals",
    "_requestid",
    "_response",
    "_router",
    "_static",
    "_stats",
    "_trust",
    "_types",
}
ABOVE = {
    "_crew",
    "_encoding",
    "_environ",
    "_exchange",
    "_greenlets",
    "_process",
    "_stacks",
    "_survivors",
    "_tls",
}

GENERATED = Path("build/plain/src")
TAKES_GIL = re.compile(r"__Pyx_ErrOccurredWithGIL|PyGILState_Ensure")
# Cython names the line that it translates in a comment before the C.
ORIGIN = re.compile(r'/\* "([^"]+)":(\d+)')


def places(c_file: Path) -> list[str]:
    """Lines of the Cython source whose C takes the GIL; what Cython brings along itself is left out."""
    code = c_file.read_text()
    body = code.split("Code section: module_code", 1)[1].split("Code section:", 1)[0]
    found, origin = [], c_file.name
    for line in body.splitlines():
        if match := ORIGIN.search(line):
            origin = f"{match[1]}:{match[2]}"
        if TAKES_GIL.search(line):
            found.append(origin)
    return list(dict.fromkeys(found))


def main() -> int:
    modules = {path.stem for path in Path("src").glob("_*.pyx")}
    complaints = [
        f"src/{name}.pyx: say in {__file__} on which side it is" for name in modules - BELOW - ABOVE
    ]
    for name in sorted(modules & BELOW):
        complaints += [f"{place}: takes the GIL below the line" for place in places(GENERATED / f"{name}.c")]
    print(*complaints, sep="\n", end="\n" if complaints else "", file=sys.stderr)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())

"""Routes as they are written, refused, inherited, and handed to the core."""

import tomllib

import pytest

from fastwsgi import mounts
from fastwsgi.commands import print_config
from fastwsgi.config import OPTIONS, Settings
from fastwsgi.errors import ConfigError
from fastwsgi.mounts import KEYS, missing_directories, parse, plan, plans, targets
from fastwsgi.rewrite import rewritten
from fastwsgi.sources import gather


def made(*routes, has_application=True, **options):
    """The routes of the core, by host and path."""
    found = plan(Settings(route=routes, **options), has_application).routes
    return {f"{route.host}{route.path}": route for route in found}


# How they are written.


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("/admin app=shop:app", "/admin app=shop:app"),
        ("example.com/admin/ app=shop:app", "example.com/admin app=shop:app"),
        ("Example.COM. app=shop:app".replace(" ", "/ "), "example.com/ app=shop:app"),
        ("a.org,*.b.org/x respond='410 Gone for ever.'", "'a.org,*.b.org/x' 'respond=410 Gone for ever.'"),
        ("/caf%C3%A9 respond=204", "'/café' respond=204"),
        ("/ header='A: b' header='C: d'", "/ 'header=A: b' 'header=C: d'"),
        ({"host": "a.org", "path": "/x", "respond": 410}, "a.org/x respond=410"),
        (
            {"host": ["a.org", "b.org"], "redirect": "/y", "status": 301},
            "a.org,b.org/ redirect=/y status=301",
        ),
        (
            {"path": "/x", "security_headers": True, "header": ["A: b"]},
            "/x security-headers=on 'header=A: b'",
        ),
    ],
)
def test_forms(given, text):
    assert str(parse(given)) == text
    assert Settings(route=[given]).route == (text,)
    assert Settings(route=text).route == (text,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("admin=x", "'admin=x' does not begin with HOST/PATH, such as example.com/admin or /admin"),
        ("", "'' does not begin with HOST/PATH, such as example.com/admin or /admin"),
        ("/x 'a", '"/x \'a": No closing quotation'),
        ("/x ap=y", "/x: unknown key ap; did you mean app?"),
        ("/x app", "/x: what is 'app'? A key has a value: app=..."),
        ("/x app=a app=b", "/x: app is there twice"),
        ("/x app=a static=b", "/x: app and static cannot both answer; give one of them"),
        ("/x//y app=a", "'/x//y' is not a path such as /admin: it begins with /, and has no //, /. and /.."),
        (
            "/x/%2e%2e app=a",
            "'/x/%2e%2e' is not a path such as /admin: it begins with /, and has no //, /. and /..",
        ),
        ("/x* app=a", "'/x*' is not the beginning of a path, such as /admin (no * and no ?)"),
        ("a.org:80/ app=a", "'a.org:80' has a port: routes are by host alone; leave it out"),
        (
            "a.*.org/ app=a",
            "'a.*.org' is not a host such as example.com or *.example.com (nothing: any host)",
        ),
        (7, "7 is not a route such as 'example.com/admin allow=10.0.0.0/8'"),
        ({"host": 7}, "host: 7 is not a host or a list of hosts"),
        ({"path": "x"}, "'x' is not a path such as /admin: it begins with /, and has no //, /. and /.."),
        ("/x status=300", "/x: status: '300' is not one of 301, 302, 303, 307, 308"),
        ("/x respond=99", "/x: respond: '99' is not a status from 200 to 599, perhaps with a text behind it"),
        ("/x redirect=x", "/x: redirect: 'x' is not an address such as https://example.com$uri or /new$rest"),
        (
            "/x redirect=/$uir",
            "/x: redirect: '/$uir' is not an address: what is $uir? There are "
            "$uri, $path, $query, $rest, $host, $scheme",
        ),
        ("/x header=y", "/x: header: 'y' is not a field such as 'X-Robots-Tag: noindex'"),
        (
            "/x header='A: b\nC: d'",
            "/x: header: 'A: b\\nC: d' is not a field such as 'X-Robots-Tag: noindex'",
        ),
        (
            "/x header='Content-Length: 1'",
            "/x: header: 'Content-Length: 1' is not a field that can be added: Content-Length is the server",
        ),
        (
            "/x rewrite='( /'",
            "/x: rewrite: '( /' is not a regular expression: missing ), unterminated subpattern ",
        ),
        ("/x rewrite='a /$1'", "/x: rewrite: 'a /$1' is not an expression with so many groups: it has 0"),
        (
            "/x static=b fallback=/x",
            "/x: fallback: '/x' is not app or the path of a file as it is in that dir",
        ),
        ("/x static=b index=a,../x", "/x: index: 'a,../x' is not the path of a file as it is in that dir"),
        ({"pat": "/x"}, "/: unknown key pat; did you mean path?"),
        ("https://a.org/ app=a", "'https:' is not a host: routes are by host and path, whatever the scheme"),
        ("/x canonical-host=a/b", "/x: canonical-host: 'a/b' is not a host such as example.com"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ConfigError) as caught:
        Settings(route=[given])
    assert str(caught.value).startswith(f"route: {message}")


def test_a_fallback_to_no_application():
    settings = Settings(route=["/x static=b fallback=app"])
    assert plan(settings).routes[1].action == "static"
    with pytest.raises(ConfigError, match="route /x: fallback=app, and there is no application"):
        plan(settings, has_application=False)


def test_keys_that_do_nothing_alone():
    for given in (
        ["/x internal=on"],
        ["/x internal=on", "/xy static=b"],
        ["a.org/x realm=x", "b.org/x auth=f"],
        ["/ status=301"],
        ["/x rate=1/s", "/y burst=2"],
        ["/x maintenance-allow=::1"],
    ):
        with pytest.raises(ConfigError, match=r"route .*: .* does nothing without .*: give that, too"):
            plan(Settings(route=given))
    for given in (
        ["/x internal=on", "/x/y static=b"],
        ["/x internal=off"],
        ["/ static=b", "/x internal=on"],
        ["/ realm=x", "a.org/x auth=f"],
        ["*.org/ burst=3", "a.org/x rate=1/s"],
        ["/ auth=f", "/x realm=y"],
    ):
        plan(Settings(route=given))


def test_missing_directories_are_named_with_what_names_them(tmp_path):
    settings = Settings(
        route=[f"/x static={tmp_path}/x", "/x/y expires=off", f"/z static={tmp_path}"],
        acme_dir=f"{tmp_path}/acme",
        sendfile_root=[f"{tmp_path}/send"],
    )
    why = "is no directory: until it is one, what is served from there is not found"
    assert sorted(missing_directories(settings, plan(settings).routes)) == [
        f"--acme-dir: {tmp_path}/acme {why}",
        f"--sendfile-root: {tmp_path}/send {why}",
        f"route /x: {tmp_path}/x {why}",
    ]


def test_short_forms():
    settings = Settings(mount=["/blog=blog:app", "a.org/=a:app"], static={"/static": "/srv/static"})
    found = {f"{route.host}{route.path}": route for route in plan(settings).routes}
    assert [found[place].action for place in ("/", "/blog", "a.org/", "/static")] == [
        "app",
        "app",
        "app",
        "static",
    ]
    assert settings.static == ("/static=/srv/static",)
    assert found["/static"].values["static"] == "/srv/static"
    assert targets(settings) == {"blog:app": "/blog", "a:app": "a.org/"}


@pytest.mark.parametrize("value", ["blog=blog:app", "/blog", "/blog="])
def test_wrong_short_forms(value):
    with pytest.raises(ConfigError, match=r"^mount: "):
        Settings(mount=[value])


def test_forms_add_up_unless_they_contradict():
    found = made("/blog header='A: b'", mount=["/blog=blog:app"])["/blog"]
    assert (found.action, found.fields) == ("app", (("A", "b"),))
    with pytest.raises(ConfigError, match=r"^route /blog: app is there twice; give one of them$"):
        made("/blog app=a:app", mount=["/blog=b:app"])
    with pytest.raises(ConfigError, match=r"^route /x: static and app cannot both answer; give one of them$"):
        made(static=["/x=/srv"], mount=["/x=b:app"])


def configuration(*words, directory="/"):
    return gather(words, {}, str(directory))


def test_an_application_need_not_be_named(tmp_path):
    answers = configuration("--route", "/ respond=204", directory=tmp_path)
    assert (answers.application, answers.origins["app"]) == ("", "routes")
    assert configuration("--mount", "/x=x:app", directory=tmp_path).application == ""
    with pytest.raises(ConfigError, match=r"^which application\?"):
        configuration("--route", "/x header='A: b'", directory=tmp_path)
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...\n")
    assert configuration("--mount", "/x=x:app", directory=tmp_path).application == "app:app"
    assert configuration("--static", "/=/srv", directory=tmp_path).application == ""


def test_routes_are_printed_as_they_can_be_read(tmp_path):
    given = configuration(
        "--route", "a.org/x header='A: \"b\"' respond='410 No more.'", "--header", "C: d", "a:app"
    )
    printed = print_config(given)
    assert tomllib.loads(printed)["route"] == ["a.org/x 'header=A: \"b\"' 'respond=410 No more.'"]
    (tmp_path / "fastwsgi.toml").write_text(printed)
    assert configuration(directory=tmp_path).settings == given.settings


def test_the_option_is_named():
    with pytest.raises(ConfigError, match=r"^--route: /x: unknown key alow; did you mean allow\?$"):
        configuration("--route", "/x alow=1", "a:app")
    with pytest.raises(ConfigError, match=r"^--mount: 'blog' is not PATH=MODULE:NAME, such as /app=\.\.\.$"):
        configuration("--mount", "blog", "a:app")
    with pytest.raises(ConfigError, match=r"^route /x: app is there twice; give one of them$"):
        configuration("--route", "/x app=a:app", "--mount", "/x=b:app", "a:app")


def test_every_key_says_what_it_does():
    for key in KEYS.values():
        assert key.help and not key.help.endswith("."), key.name


# What holds where.


def test_without_routes_there_is_no_plan():
    assert plan(Settings()).routes == []


def test_keys_come_from_shorter_paths_and_wider_hosts():
    found = made(
        "/ header='A: any'",
        "/admin header='B: any admin' status=307",
        "*.a.org/admin header='C: wide'",
        "b.a.org/admin/x redirect=/y",
    )
    assert found["/admin"].fields == (("B", "any admin"), ("A", "any"))
    assert found["*.a.org/admin"].fields == (("C", "wide"), ("B", "any admin"), ("A", "any"))
    inner = found["b.a.org/admin/x"]
    assert inner.fields == (("C", "wide"), ("B", "any admin"), ("A", "any"))
    assert inner.answer.status == 307
    assert found["b.a.org/"].action == found["*.a.org/"].action == "app"


def test_a_host_whose_root_answers_is_a_site_of_its_own():
    found = made(
        "/ header='A: any'", "/admin header='B: any'", "a.org/ app=a:app", "*.org/x header='C: wide'"
    )
    assert {place for place in found if place.startswith("a.org")} == {"a.org/"}
    assert found["a.org/"].fields == (("A", "any"),)
    assert set(found) == {"/", "/admin", "a.org/", "*.org/", "*.org/x", "*.org/admin"}


def test_what_is_beneath_an_application_is_its_own():
    found = made("/blog app=b:app", "/blog/admin header='A: b'", "/blog/files static=/srv")
    assert [found["/blog/admin"].application_path, found["/blog/files"].application_path] == [
        "/blog",
        "/blog",
    ]
    assert [found["/blog/admin"].action_path, found["/blog/files"].action_path] == ["/blog", "/blog/files"]
    assert found["/blog"].application == found["/blog/files"].application == 1


def test_what_nothing_answers_is_not_found():
    found = made("/blog app=b:app", has_application=False)
    assert (found["/"].action, found["/"].answer.status) == ("answer", 404)
    assert found["/blog"].action == "app"


def test_a_canonical_host():
    found = made("*.a.org/ canonical-host=a.org:8443", "/x header='A: b'")
    answer = found["*.a.org/"].answer
    assert (answer.status, answer.location) == (308, (("scheme", ""), ("", "://a.org:8443"), ("uri", "")))
    assert found["a.org/"].action == found["/"].action == "app"
    everywhere = made("/ canonical-host=a.org")
    assert everywhere["/"].answer.status == 308
    assert everywhere["a.org/"].action == "app"


def test_fields_for_all_and_fields_not_sent():
    found = made("/x header='A:' security-headers=on header='X-Frame-Options: DENY'", header=["A: b", "C: d"])
    assert found["/"].fields == (("A", "b"), ("C", "d"))
    fields = dict(found["/x"].fields)
    assert "A" not in fields
    assert (fields["C"], fields["X-Frame-Options"], fields["X-Content-Type-Options"]) == (
        "d",
        "DENY",
        "nosniff",
    )


@pytest.mark.parametrize(
    ("respond", "status_line", "content"),
    [
        ("404", "404 Not Found", "404 Not Found\n"),
        ("410 It has moved.", "410 Gone", "It has moved.\n"),
        ("204", "204 No Content", ""),
        ("299", "299 Status", "299 Status\n"),
    ],
)
def test_fixed_answers(respond, status_line, content):
    answer = made(f"/x respond='{respond}'")["/x"].answer
    assert (answer.status_line, answer.content) == (status_line, content)


def test_too_many_routes(monkeypatch):
    monkeypatch.setattr(mounts, "ROUTES_MOST", 100)
    hosts = [f"h{number}.org/x header='A: b'" for number in range(10)]
    with pytest.raises(ConfigError, match=r"^there are more than 100 routes: those of any host count again"):
        made(*hosts, *(f"/p{number} respond=204" for number in range(10)))


# Rewriting.


def asked(rewriting, path, script="", query=""):
    """What becomes of a path: what the application gets, or where a redirect leads."""
    seen = []

    def application(environ, start_response):
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        return []

    environ = {"SCRIPT_NAME": script, "PATH_INFO": path, "QUERY_STRING": query}
    rewritten(application, rewriting)(environ, lambda status, fields: seen.append((status, fields[0][1])))
    return seen[0]


@pytest.mark.parametrize(
    ("rewriting", "arguments", "expected"),
    [
        ("^/old/([0-9]+)(.*) /item/$1$2", ("/old/12/x",), ("", "/item/12/x")),
        ("^/old/([0-9]+)(.*) /item/$1$2", ("/old/x",), ("", "/old/x")),
        ("^/blog/a(.*) /blog/b$1", ("/ax", "/blog"), ("/blog", "/bx")),
        ("^/blog/a(.*) /c$1", ("/ax", "/blog"), ("", "/cx")),
        ("/x(y)? /z$1", ("/x",), ("", "/z")),
        (
            "^/old(.*) https://a.org/new$1 301",
            ("/old/b c",),
            ("301 Moved Permanently", "https://a.org/new/b%20c"),
        ),
        ("^/old(.*) /new$1 308", ("/old/x", "", "q=1"), ("308 Permanent Redirect", "/new/x?q=1")),
        ("^/old(.*) /$1 302", ("/old//evil.org",), ("302 Found", "/evil.org")),
        ("^/old(.*) /new$1 302", ("/old/\r\nSet-Cookie:x",), ("302 Found", "/new/%0D%0ASet-Cookie:x")),
        ("^/old /new 302", ("/new",), ("", "/new")),
    ],
)
def test_rewriting(rewriting, arguments, expected):
    assert asked(rewriting, *arguments) == expected


# With TLS.


def secure(**options):
    return Settings(certfile="x.pem", bind=["http://:80", ":443"], **options)


def test_plans_are_one_where_nothing_differs():
    first, second = plans(secure(route="/x respond=410"), True, 443)
    assert first is second


def test_hsts_is_for_answers_over_tls():
    over_tls, plain = plans(secure(hsts="2h", header="A: b"), True, 443)
    assert over_tls.routes[0].fields == (("A", "b"), ("Strict-Transport-Security", "max-age=7200"))
    assert plain.routes[0].fields == (("A", "b"),)
    # The option alone is two years, which is what lists of such hosts ask for.
    assert OPTIONS["hsts"].kind.alone == "730d"


@pytest.mark.parametrize(
    ("given", "port", "authority"),
    [("on", 443, ""), ("on", 8443, ":8443"), ("443", 8443, ""), (444, 8443, ":444")],
)
def test_redirects_to_tls(given, port, authority):
    over_tls, plain = plans(secure(tls_redirect=given), True, port)
    assert over_tls.routes == []
    (route,) = plain.routes
    assert "".join(f"${name}" if name else text for name, text in route.answer.location) == (
        f"https://$host{authority}$uri"
    )
    assert (route.answer.status, route.answer.other_status) == (301, 308)


def test_challenges_are_answered_without_tls():
    _, plain = plans(secure(tls_redirect=True, acme_dir="/srv/acme"), True, 443)
    assert [(route.path, route.action) for route in plain.routes] == [
        ("/", "answer"),
        ("/.well-known/acme-challenge", "static"),
    ]

"""Files beneath directories: what a path is, and what is remembered of it."""

import os
import resource
import socket

import pytest

from fastwsgi._static import Files, Site

SETTLED = 2_000_000_000  # a clock by which every file of the tests has its time for long


@pytest.fixture
def tree(tmp_path):
    """root/ with files, links and what is none; beside it what must not be seen."""
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("hello")
    (root / "sub" / "index.html").write_text("<p>sub")
    (root / "sub" / "deep" / "b.css").write_text("b {}")
    (root / "large.bin").write_bytes(b"x" * 40_000)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "secret").write_text("secret")
    (root / "inside").symlink_to("sub/deep")
    (root / "inside.txt").symlink_to("a.txt")
    (root / "out").symlink_to("..")
    (root / "out.txt").symlink_to("../secret")
    (root / "absolute.txt").symlink_to(root / "a.txt")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    os.utime(root / "a.txt", (784111777, 784111777))
    return root


@pytest.fixture(params=[False, True], ids=["resolve", "walk"])
def site(tree, request):
    return Site([(str(tree), "")], walks=request.param)


def status(site, path):
    return site.look(path, SETTLED)[0]


def test_a_file(site):
    found, [(coding, size, tag, lines, content)] = site.look(b"a.txt", SETTLED)
    assert (found, coding, size, tag, content) == (200, "identity", 5, '"2ebc98a1-5"', b"hello")
    assert lines.splitlines() == [
        "Content-Type: text/plain; charset=utf-8",
        "Accept-Ranges: bytes",
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        'ETag: "2ebc98a1-5"',
        "Cache-Control: max-age=3600",
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"sub/deep/b.css", 200),
        (b"sub/", 200),
        (b"sub", 301),
        (b"sub/deep", 301),
        (b"", 403),
        (b"empty/", 403),
        (b"nothing", 404),
        (b"nothing/", 404),
        (b"a.txt/", 404),
        (b"a.txt/b", 404),
        (b"fifo", 404),
        (b"a.txt\0.png", 404),
        (b"x" * 300, 404),
        (b"x/" * 3000, 404),
        (b"./a.txt", 200),
        (b"sub//deep///b.css", 200),
    ],
)
def test_what_a_path_is(site, path, expected):
    assert status(site, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        b"../secret",
        b"../root-too/secret",
        b"sub/../../secret",
        b"sub/deep/../../../secret",
        b"out/secret",
        b"out.txt",
        b"out/root/a.txt",
        b"absolute.txt",
        b"loop",
        b"..",
        b"out",
    ],
)
def test_nothing_leads_out(site, path):
    found, forms = site.look(path, SETTLED)
    assert found in (403, 404)
    assert forms == []


def test_links_that_stay_beneath(tree):
    resolving, walking = (Site([(str(tree), "")], walks=walks) for walks in (False, True))
    assert status(resolving, b"inside.txt") == status(resolving, b"inside/b.css") == 200
    # Without openat2 no link is followed.
    assert status(walking, b"inside.txt") == 403
    assert status(walking, b"inside/b.css") in (403, 404)


def test_the_directory_itself_may_be_a_link_and_be_exchanged(tree, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.txt").write_text("new")
    current = tmp_path / "current"
    current.symlink_to(tree)
    site = Site([(str(current), "")])
    assert site.look(b"a.txt")[1][0][4] == b"hello"
    current.unlink()
    current.symlink_to("new")
    assert site.look(b"a.txt")[1][0][4] == b"new"


def test_a_socket_and_a_device(tree, site, monkeypatch):
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
    assert status(site, b"socket") == 404
    assert Site([("/dev", "")]).look(b"null")[0] == 404


def test_large_files_keep_a_descriptor(site):
    assert site.look(b"large.bin")[1][0][1:5:3] == (40_000, None)


def test_sidecars(tree, site):
    for ending, size in ((".br", 1), (".zst", 2), (".gz", 3)):
        (tree / f"a.txt{ending}").write_bytes(b"y" * size)
    forms = site.look(b"a.txt", SETTLED)[1]
    assert [form[:2] for form in forms] == [("identity", 5), ("br", 1), ("zstd", 2), ("gzip", 3)]
    assert all("Vary: Accept-Encoding\r\n" in form[3] for form in forms)
    assert "Content-Type: text/plain; charset=utf-8\r\nContent-Encoding: br\r\n" in forms[1][3]
    # Each has a tag of its own.
    assert len({form[2] for form in forms}) == 4


def test_sidecars_that_are_older_are_not_used(tree, site):
    (tree / "a.txt.gz").write_bytes(b"old")
    os.utime(tree / "a.txt.gz", (784111776, 784111776))
    assert len(site.look(b"a.txt", SETTLED)[1]) == 1


def test_a_file_that_has_just_changed_has_a_weak_tag(tree, site):
    (tree / "a.txt").write_text("now")
    now = int((tree / "a.txt").stat().st_mtime)
    assert "ETag: W/" in site.look(b"a.txt", now + 1)[1][0][3]
    assert "ETag: W/" not in site.look(b"a.txt", now + 2)[1][0][3]


def test_indexes(tree):
    site = Site([(str(tree), "")], indexes=("index.htm", "b.css", "index.html"))
    assert site.look(b"sub/")[1][0][4] == b"<p>sub"
    assert site.look(b"sub/deep/")[1][0][4] == b"b {}"
    assert status(Site([(str(tree), "")], indexes=()), b"sub/") == 403


def test_fallback(tree):
    site = Site([(str(tree), "")], fallback="a.txt")
    for path in (b"nothing", b"no/thing/", b"empty/", b"empty"):
        assert site.look(path, SETTLED)[1][0][4] == b"hello"
    assert status(site, b"sub") == 301
    assert status(site, b"out.txt") == 403


def test_directories_without_an_index_are_the_applications(tree):
    site = Site([(str(tree), "")], falls_to_application=True)
    assert status(site, b"sub") == 301
    assert status(site, b"empty") == 404


def test_several_directories(tree, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("more")
    (tmp_path / "more" / "c.txt").write_text("c")
    site = Site([(str(tree), ""), (str(tmp_path / "more"), ""), (str(tmp_path / "more"), "extra")])
    assert site.look(b"a.txt")[1][0][4] == b"hello"
    assert site.look(b"c.txt")[1][0][4] == b"c"
    assert site.look(b"extra/c.txt")[1][0][4] == b"c"
    assert status(site, b"extrac.txt") == status(site, b"other/c.txt") == 404


@pytest.mark.parametrize(
    ("expires", "name", "expected"),
    [
        ("auto", "app.3f2a9c1b.js", "max-age=31536000, immutable"),
        ("auto", "app.js", "max-age=3600"),
        ("off", "app.js", None),
        ("max-age=60", "app.3f2a9c1b.js", "max-age=60"),
    ],
)
def test_cache_control(tree, expires, name, expected):
    (tree / name).write_text("x")
    lines = Site([(str(tree), "")], expires=expires).look(name.encode())[1][0][3]
    assert (f"Cache-Control: {expected}\r\n" in lines) if expected else ("Cache-Control" not in lines)


def test_what_is_found_is_remembered_for_a_second(tree, site):
    files = Files()
    assert files.find(site, b"a.txt", 10_000) == files.find(site, b"a.txt", 10_999) == 200
    assert files.looks == 1
    (tree / "a.txt").unlink()
    assert files.find(site, b"a.txt", 10_999) == 200
    assert files.find(site, b"a.txt", 11_000) == 404
    (tree / "a.txt").write_text("again")
    assert files.find(site, b"a.txt", 11_999) == 404
    assert files.find(site, b"a.txt", 12_000) == 200


def test_what_is_kept_is_bounded(tree, site):
    files = Files()
    for i in range(3000):
        assert files.find(site, b"nothing%d" % i, 10_000) == 404
    assert files.held[0] == 2048
    for i in range(200):
        (tree / f"large{i}").write_bytes(b"x" * 33_000)
        assert files.find(site, b"large%d" % i, 10_000) == 200
    assert files.held[1] == 128
    # The one that was used last is still there.
    files.find(site, b"large199", 10_000)
    assert files.looks == 3200


def test_content_that_is_kept_is_bounded(tree, site):
    files = Files()
    for i in range(600):
        (tree / f"small{i}").write_bytes(b"x" * 32_000)
        files.find(site, b"small%d" % i, 10_000)
    assert files.held[2] <= 16 << 20
    assert files.held[0] == (16 << 20) // 32_000


def test_without_descriptors(site):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)
    os.close(taken)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
        assert status(site, b"a.txt") == 503
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert status(site, b"a.txt") == 200

"""Which changes of files count, and which do not."""

import os
import sys
import time
from types import ModuleType

import pytest

from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.reloader import (
    RESTLESS,
    Code,
    Report,
    Reporter,
    Tree,
    Watch,
    check_engine,
    files_of,
    forget_bytecode,
    module_files,
    remarks_on,
)


def write(path, text="1"):
    """Another file of the same name, as long as the former and written in the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(".new")
    new.write_text(text)
    new.replace(path)


def report(*files, has_failed=False, began_ns=None):
    now = time.time_ns()
    began_ns = now if began_ns is None else began_ns
    return Report(began_ns, now, began_ns, has_failed, [str(file) for file in files])


def shown(watch, changed):
    return sorted(watch.show(path) for path in changed)


def test_files_of_the_project(tmp_path):
    for name in (
        *("app.py", "shop/__init__.py", "shop/templates/a/b.html", "shop/notes.txt", "shop/jinja2/x"),
        *(".git/x.py", "node_modules/x.py", "venv/pyvenv.cfg", "venv/lib/x.py", "shop/templates/old~"),
        *("__pycache__/x.py", "lib/site-packages/x.py", "shop/.hidden.py"),
    ):
        write(tmp_path / name)
    tree = Tree([str(tmp_path)])
    expected = ["app.py", "shop/__init__.py", "shop/jinja2/x", "shop/templates/a/b.html"]
    for _ in range(2):
        assert sorted(os.path.relpath(path, tmp_path) for path in tree.files()) == expected
    write(tmp_path / "shop/new/deep.py")
    assert str(tmp_path / "shop/new/deep.py") in tree.files()
    (tmp_path / "shop/new/deep.py").unlink()
    assert str(tmp_path / "shop/new/deep.py") not in tree.files()
    assert list(Tree([str(tmp_path / "none")]).files()) == []


def test_what_is_imported_counts(tmp_path):
    project, other = tmp_path / "project", tmp_path / "other.py"
    for path in (project / "app.py", project / "unused.py", other):
        write(path)
    watch = Watch([str(project)])
    assert watch.take(report(project / "app.py", other, tmp_path / "none.py")) == set()
    for path in (project / "app.py", project / "unused.py", project / "new.py", other):
        write(path)
    # Only now and then are all looked at.
    assert shown(watch, watch.scan(is_whole=False)) == ["app.py"]
    assert shown(watch, watch.scan()) == [str(other)]
    assert watch.scan() == set()
    (project / "app.py").unlink()
    assert shown(watch, watch.scan()) == ["app.py"]
    write(project / "app.py")
    assert shown(watch, watch.scan()) == ["app.py"]


def test_what_may_be_missing_counts_while_the_import_fails(tmp_path):
    write(tmp_path / "app.py")
    watch = Watch([str(tmp_path)])
    assert watch.take(report(tmp_path / "app.py", has_failed=True)) == set()
    write(tmp_path / "missing/__init__.py")
    assert shown(watch, watch.scan()) == ["missing/__init__.py"]
    # It comes while the next one is imported.
    began_ns = time.time_ns() - 1_000_000_000
    write(tmp_path / "other.py")
    watch.scan()
    assert "other.py" in shown(watch, watch.take(report(has_failed=True, began_ns=began_ns)))
    watch.take(report(tmp_path / "app.py"))
    write(tmp_path / "unused.py")
    assert watch.scan() == set()


def test_what_is_written_after_it_was_read(tmp_path):
    began_ns = time.time_ns() - 1_000_000_000
    write(tmp_path / "elsewhere/late.py")
    watch = Watch([str(tmp_path / "project")])
    assert len(watch.take(report(tmp_path / "elsewhere/late.py", began_ns=began_ns))) == 1
    # Only once, whatever the clock says.
    assert watch.take(report(tmp_path / "elsewhere/late.py", began_ns=began_ns)) == set()


def test_extra_files(tmp_path):
    write(tmp_path / "conf/a.yaml")
    watch = Watch([str(tmp_path)], ["none.toml", "conf/**/*.yaml", "data"])
    for name in ("none.toml", "conf/a.yaml", "conf/deep/b.yaml", "data/deep/c", "conf/d.txt"):
        write(tmp_path / name, "2")
    expected = ["conf/a.yaml", "conf/deep/b.yaml", "data/deep/c", "none.toml"]
    assert shown(watch, watch.scan()) == expected
    assert str(tmp_path / "data/deep") in watch.directories()
    for path in (tmp_path / "conf/a.yaml", tmp_path / "data/deep/c", tmp_path / "none.toml"):
        path.unlink()
    assert shown(watch, watch.scan()) == ["conf/a.yaml", "data/deep/c", "none.toml"]
    assert watch.scan() == set()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("made.py", "shop/made.py"),
        ("*_pb2.py", "shop/x_pb2.py"),
        ("shop/made/*", "shop/made/x.py"),
        ("made/", "shop/made/deep/x.py"),
        ("{}/app.py", "app.py"),
    ],
)
def test_ignored_files(tmp_path, pattern, name):
    write(tmp_path / name)
    write(tmp_path / "other.py")
    watch = Watch([str(tmp_path)], ["other.py", name], [pattern.format(tmp_path)])
    watch.take(report(tmp_path / name))
    write(tmp_path / name)
    assert watch.scan() == set()
    write(tmp_path / "other.py")
    assert shown(watch, watch.scan()) == ["other.py"]


def test_a_file_that_its_import_writes_is_given_up(tmp_path):
    write(tmp_path / "app.py")
    write(tmp_path / "made.py")
    watch = Watch([str(tmp_path)])
    watch.take(report(tmp_path / "app.py", tmp_path / "made.py"))
    times = 0
    while not watch.notices and times < 2 * RESTLESS:
        times += 1
        # The clock of files is behind by some milliseconds.
        began_ns = time.time_ns() - 10_000_000
        write(tmp_path / "made.py")
        # Before or after the end of the import.
        changed = watch.scan()
        if times % 2:
            watch.take(report(began_ns=began_ns))
        assert shown(watch, watch.heed(changed)) == ([] if watch.notices else ["made.py"])
    assert times in (RESTLESS, RESTLESS + 1)
    write(tmp_path / "made.py")
    assert watch.heed(watch.scan()) == set()
    [notice] = watch.notices
    assert notice.startswith("made.py is written whenever the application is imported")
    # Who saves a file again and again does it when that is over.
    for _ in range(2 * RESTLESS):
        write(tmp_path / "app.py")
        assert shown(watch, watch.heed(watch.scan())) == ["app.py"]
        watch.take(report(began_ns=time.time_ns() + 10**9))


def test_bytecode_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    source = tmp_path / "same_second.py"
    source.write_text("word = 1")
    os.utime(source, (1e9, 1e9))
    import same_second

    assert list(tmp_path.glob("__pycache__/same_second*"))
    forget_bytecode([str(source), str(tmp_path / "none.py"), str(tmp_path / "page.html")])
    assert not list(tmp_path.glob("__pycache__/same_second*"))
    assert same_second.word == 1
    del sys.modules["same_second"]


def test_reports(tmp_path, monkeypatch):
    code = Code()
    assert code.latest() is None
    assert not code.is_loaded
    version, token = code.version, code.token
    module = ModuleType("late_module")
    module.__file__ = str(tmp_path / "late.py")
    reporter = Reporter(code)
    reporter.look()
    assert code.latest() is None
    reporter.loaded("fastwsgi.reloader", ["remark"])
    assert code.is_loaded
    assert code.version != version
    first = code.latest()
    assert first.entry == sys.modules["fastwsgi.reloader"].__file__
    assert first.remarks == ["remark"]
    assert first.entry in first.files
    monkeypatch.setitem(sys.modules, "late_module", module)
    reporter.look()
    later = code.latest()
    assert set(later.files) - set(first.files) == {module.__file__}
    assert (later.began_ns, later.entry) == (first.began_ns, first.entry)
    assert later.since_ns >= first.since_ns
    code.failure, code.is_told = "why", True
    code.change()
    assert (code.failure, code.is_told) == ("", False)
    assert code.token != token
    reporter.failed(None)
    assert not code.is_loaded
    code.close()


def test_files_of_failures(tmp_path):
    (tmp_path / "wrong.py").write_text("def (")
    try:
        try:
            compile((tmp_path / "wrong.py").read_text(), str(tmp_path / "wrong.py"), "exec")
        except SyntaxError as error:
            raise LookupError from error
    except LookupError as error:
        assert set(files_of(error)) == {__file__, str(tmp_path / "wrong.py")}


def test_nothing_is_asked_of_modules(monkeypatch):
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(name)

    lazy = Lazy("lazy")
    ModuleType.__getattribute__(lazy, "__dict__")["__file__"] = "/lazy.py"
    odd = ModuleType("odd")
    odd.__file__ = 5
    assert list(module_files({"lazy": lazy, "none": None, "odd": odd})) == ["/lazy.py"]


def test_what_is_for_debugging(monkeypatch):
    class Application:
        debug = True

    class Failing:
        @property
        def debug(self):
            raise LookupError

    assert list(remarks_on(Application())) == ["debug of Application"]
    assert list(remarks_on(Failing())) == []


def test_an_engine_that_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_engine(Settings(reload=True, reload_engine="auto"))
    with pytest.raises(ConfigError, match="--reload-engine watchfiles: the package is not installed"):
        check_engine(Settings(reload=True, reload_engine="watchfiles"))

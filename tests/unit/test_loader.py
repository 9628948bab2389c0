"""Loading: what is found, one line for what is not, and the traceback of the application's own errors."""

import os
import sys
import traceback

import pytest

from fastwsgi import loader
from fastwsgi.errors import AppLoadError, ConfigError

APP = """
def app(environ, start_response):
    return []

class Holder:
    def method(self, environ, start_response):
        return []

holder = Holder()
config = {"a": 1}
calls = []

def create_app(*args, **kwargs):
    calls.append((args, kwargs))
    return app

def needs_one(name):
    return app

def fails():
    raise LookupError("in the factory")

class Application:
    def __init__(self, environ, start_response):
        pass
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """modules(name=source, ...): write modules into the directory that is looked through first."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path.joinpath(*name.split("__"))
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".py").write_text(source)

    write(shop=APP)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_named_callable(modules):
    assert loader.load("shop:app") is sys.modules["shop"].app


def test_dotted_names(modules):
    assert loader.load("shop:holder.method") == sys.modules["shop"].holder.method


def test_a_class_is_a_callable(modules):
    assert loader.load("shop:Application") is sys.modules["shop"].Application


def test_what_has_no_signature_is_taken_on_trust(modules):
    modules(odd="app = type")
    assert loader.load("odd:app") is type


def test_default_names(modules):
    modules(
        both="application = lambda environ, start_response: 1\napp = 2", package__init="", package__wsgi=APP
    )
    assert loader.load("shop") is sys.modules["shop"].app
    assert loader.load("both") is sys.modules["both"].application
    assert loader.load("package.wsgi") is sys.modules["package.wsgi"].app


@pytest.mark.parametrize(
    ("call", "args", "kwargs"),
    [
        ("create_app()", (), {}),
        ("create_app('x', 2, debug=True)", ("x", 2), {"debug": True}),
        ("create_app({'a': [1, None]})", ({"a": [1, None]},), {}),
    ],
)
def test_factories(modules, call, args, kwargs):
    assert loader.load(f"shop:{call}") is sys.modules["shop"].app
    assert sys.modules["shop"].calls == [(args, kwargs)]


def refusal(target):
    with pytest.raises(AppLoadError) as caught:
        loader.load(target)
    message = str(caught.value)
    assert "\n" not in message
    return message, caught.value.__cause__


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shap:app", "there is no module 'shap' in {cwd} or on the Python path; did you mean 'shop'?"),
        ("shop.app", "shop is a module, not a package; did you mean shop:app?"),
        ("nowhere.at.all:app", "there is no module 'nowhere' in {cwd} or on the Python path"),
        ("package.wsg", "there is no module 'wsg' in package; did you mean 'wsgi'?"),
        ("package", "package has no 'application' or 'app'; name the callable: package:NAME"),
        ("shop:ap", "shop has no 'ap'; did you mean 'app'?"),
        ("shop:holder.methud", "shop:holder has no 'methud'; did you mean 'method'?"),
        (
            "shop:zzz",
            "shop has no 'zzz'; "
            "it has Application, Holder, app, calls, config, create_app, fails, holder, ...",
        ),
        ("shop:config", "shop:config is not callable: it is of type dict"),
        ("shop:config()", "shop:config() is not callable: it is of type dict"),
        (
            "shop:needs_one",
            "shop:needs_one takes (name), not (environ, start_response); if it makes the application, "
            "write 'shop:needs_one()'",
        ),
        ("shop.py:app", "'shop.py:app' names a file; give the module: shop:app"),
        ("./package/wsgi.py", "'./package/wsgi.py' names a file; give the module: package.wsgi"),
        (
            "/srv/site/wsgi.py:app",
            "'/srv/site/wsgi.py:app' names a file; give the module: --chdir /srv/site wsgi:app",
        ),
        (
            "shop:f({[]:1})",
            "'shop:f({{[]:1}})': 'f({{[]:1}})' is not a name or a call with literal arguments",
        ),
        ("", "'' is not of the form module:callable, such as app:app"),
        (":app", "':app' is not of the form module:callable, such as app:app"),
        ("shop:", "'shop:' is not of the form module:callable, such as app:app"),
        ("shop:app(", "'shop:app(': 'app(' is not a name or a call with literal arguments"),
        ("shop:app[0]", "'shop:app[0]': 'app[0]' is not a name or a call with literal arguments"),
        (
            "shop:create_app(x)",
            "'shop:create_app(x)': 'create_app(x)' is not a name or a call with literal arguments",
        ),
        (
            "shop:create_app(**{})",
            "'shop:create_app(**{{}})': 'create_app(**{{}})' is not a name or a call with literal arguments",
        ),
    ],
)
def test_one_line_for_what_is_wrong(modules, tmp_path, target, message):
    modules(package__init="", package__wsgi=APP)
    (tmp_path / "package" / "init.py").rename(tmp_path / "package" / "__init__.py")
    text, cause = refusal(target)
    assert text == message.format(cwd=tmp_path)
    assert cause is None


@pytest.mark.parametrize("target", ["lazy:app", "lazy", "lazy:holder.app"])
def test_an_error_in_looking_up_is_the_applications(modules, target):
    modules(
        lazy="""
class Holder:
    @property
    def app(self):
        raise LookupError("lazy")

holder = Holder()

def __getattr__(name):
    raise LookupError("lazy")
"""
    )
    message, cause = refusal(target)
    assert message.startswith("looking up lazy:")
    assert message.endswith(" raised LookupError")
    assert own_traceback(cause) == ["lazy.py"]


def test_a_submodule_is_no_default_application(modules, tmp_path):
    modules(
        pk__init="from . import application\napp = application.make()\n",
        pk__application=f"{APP}\ndef make():\n    return app\n",
    )
    (tmp_path / "pk" / "init.py").rename(tmp_path / "pk" / "__init__.py")
    assert loader.load("pk") is sys.modules["pk"].app


def own_traceback(error):
    return [frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(error.__traceback__)]


def test_a_module_that_imports_what_is_not_there_is_not_called_missing(modules):
    modules(outer="import inner", inner="import no_such_module")
    message, cause = refusal("outer:app")
    assert message == "importing outer raised ModuleNotFoundError"
    assert cause.name == "no_such_module"
    assert own_traceback(cause)[0] == "outer.py"
    assert own_traceback(cause)[-1] == "inner.py"


def test_a_module_that_imports_itself_wrongly_keeps_its_traceback(modules):
    modules(selfish="import selfish.part")
    message, cause = refusal("selfish:app")
    assert message == "importing selfish raised ModuleNotFoundError"
    assert own_traceback(cause)[0] == "selfish.py"


@pytest.mark.parametrize(
    ("source", "kind"),
    [("1/0", ZeroDivisionError), ("def f(:", SyntaxError), ("raise SystemExit(3)", SystemExit)],
)
def test_errors_while_importing(modules, source, kind):
    modules(broken=source)
    message, cause = refusal("broken:app")
    assert message == f"importing broken raised {kind.__name__}"
    assert type(cause) is kind
    assert set(own_traceback(cause)) <= {"broken.py"}


def test_errors_in_a_factory(modules):
    message, cause = refusal("shop:fails()")
    assert message == "calling shop:fails() raised LookupError"
    assert own_traceback(cause) == ["shop.py"]


def test_interrupts_pass(modules):
    modules(slow="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loader.load("slow:app")


def test_the_path(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", ["old"])
    monkeypatch.chdir("/")
    loader.prepare_path(str(tmp_path), "lib,/opt/more")
    assert sys.path == [str(tmp_path), str(tmp_path / "lib"), "/opt/more", "old"]


def test_a_wrong_directory(tmp_path):
    with pytest.raises(ConfigError, match=r"^--chdir .*/missing: No such file or directory$"):
        loader.prepare_path(str(tmp_path / "missing"), None)


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setattr(os, "environ", {"A": "1"})
    loader.prepare_environ(("B=2=3", "A=", "B=4"))
    assert os.environ == {"A": "", "B": "4"}

"""From "module:name" or "module:factory()" to a callable."""

import ast
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fastwsgi import gil
from fastwsgi.errors import AppLoadError, ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

T = TypeVar("T")
Arguments: TypeAlias = tuple[list[Any], dict[str, Any]]

DEFAULT_NAMES = ("application", "app")
MISSING = object()

# The module that somebody's application is in, where a factory of ours (fastwsgi.contrib) has loaded it.
made_from = ""


def prepare_path(chdir: str | None, pythonpath: str | None) -> None:
    """Change the directory; put it and then the `pythonpath` ones first where modules are looked for.

    Raises ConfigError if there is no such directory.
    """
    if chdir is not None:
        change_directory(chdir)
    here = current_directory()
    extra = [os.path.abspath(directory) for directory in (pythonpath or "").split(",") if directory]
    sys.path[:0] = [here, *extra]


def prepare_environ(variables: Iterable[str]) -> None:
    """Set NAME=VALUE variables of the environment."""
    for one in variables:
        name, _, value = one.partition("=")
        os.environ[name] = value


def change_directory(directory: str) -> None:
    """As --chdir says; raise ConfigError if there is no such directory."""
    try:
        os.chdir(directory)
    except OSError as error:
        raise ConfigError(f"--chdir {directory}: {error.strerror}") from None


def current_directory() -> str:
    """Where we are; raise ConfigError if that is gone."""
    try:
        return os.getcwd()
    except OSError as error:
        raise ConfigError(f"the current directory cannot be found ({error.strerror}); give --chdir") from None


def load_all(
    application: "WSGIApplication | str", mounted: Mapping[str, str]
) -> "tuple[WSGIApplication | None, ...]":
    """The application, then those that routes mount; raise AppLoadError, which names the route.

    application: as `load` takes it, or loaded already; "" if routes have all. mounted: `module:name` to the
    place of its route.
    """
    gil.watch()
    loaded: list[WSGIApplication | None] = []
    if not isinstance(application, str):
        loaded.append(application)
    else:
        loaded.append(load(application) if application else None)
    for target, place in mounted.items():
        try:
            loaded.append(loaded[0] if target == application else load(target))
        except AppLoadError as error:
            raise AppLoadError(f"{place} app={target}: {error}") from error.__cause__
    return tuple(loaded)


def load(target: str) -> "WSGIApplication":
    """Import the application named by `module:name`, `module:factory()` or `module`; raise AppLoadError.

    `name` may be dotted; a factory may be given literal arguments; a module alone is looked through for
    `application`, then `app`. If code of the application raised, that is the error's cause.
    """
    module_name, colon, expression = target.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        path = module_name.removesuffix(".py")
        directory, name = os.path.split(path)
        advice = f"--chdir {directory} {name}" if os.path.isabs(path) else path.strip("./").replace("/", ".")
        raise AppLoadError(f"{target!r} names a file; give the module: {advice}{colon}{expression}")
    if not all(part.isidentifier() for part in module_name.split(".")) or (colon and not expression):
        raise AppLoadError(f"{target!r} is not of the form module:callable, such as app:app")
    steps, arguments = parse_expression(expression, target) if colon else ((), None)
    module = import_module(module_name)
    found = find(module, steps) if steps else find_default(module)
    if arguments is not None:
        require_callable(found, target)
        args, kwargs = arguments
        found = call(lambda: found(*args, **kwargs), f"calling {target}")
    require_callable(found, target)
    require_wsgi(found, target)
    application: WSGIApplication = found
    return application


def parse_expression(expression: str, target: str) -> tuple[tuple[str, ...], Arguments | None]:
    """Split `a.b` or `a.b("x", y=1)` into the names and, for a call, its arguments."""
    wrong = AppLoadError(f"{target!r}: {expression!r} is not a name or a call with literal arguments")
    try:
        node = ast.parse(expression, mode="eval").body
        arguments = None
        if isinstance(node, ast.Call):
            args = [ast.literal_eval(argument) for argument in node.args]
            kwargs = {str(pair.arg): ast.literal_eval(pair.value) for pair in node.keywords if pair.arg}
            if len(kwargs) != len(node.keywords):
                raise wrong
            arguments = (args, kwargs)
            node = node.func
        steps: list[str] = []
        while isinstance(node, ast.Attribute):
            steps.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise wrong
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise wrong from None
    return (node.id, *steps), arguments


def import_module(name: str) -> ModuleType:
    try:
        return call(lambda: importlib.import_module(name), f"importing {name}")
    except AppLoadError as error:
        cause = error.__cause__
        # Without a frame of the application, it is the module itself that is missing, not one it imports.
        if not isinstance(cause, ModuleNotFoundError) or cause.__traceback__ is not None:
            raise
        missing = cause.name or name
    parent, _, last = missing.rpartition(".")
    if parent and not hasattr(sys.modules[parent], "__path__"):
        raise AppLoadError(f"{parent} is a module, not a package; did you mean {parent}:{last}?")
    places = sys.modules[parent].__path__ if parent else [os.getcwd()]
    known = get_close_matches(last, [found.name for found in pkgutil.iter_modules(places)])
    where = f"in {parent}" if parent else f"in {os.getcwd()} or on the Python path"
    advice = f"; did you mean {' or '.join(map(repr, known))}?" if known else ""
    raise AppLoadError(f"there is no module {last!r} {where}{advice}")


def find(module: ModuleType, steps: Iterable[str]) -> Any:
    """Follow the attribute names from the module."""
    found: Any = module
    path, mark = module.__name__, ":"
    for name in steps:
        held = attribute(found, name, f"looking up {path}{mark}{name}")
        if held is MISSING:
            raise AppLoadError(f"{path} has no {name!r}{suggest(name, names_in(found))}")
        found = held
        path, mark = f"{path}{mark}{name}", "."
    return found


def find_default(module: ModuleType) -> Any:
    for name in DEFAULT_NAMES:
        found = attribute(module, name, f"looking up {module.__name__}:{name}")
        # A package may well have a submodule of that name.
        if found is not MISSING and not isinstance(found, ModuleType):
            return found
    named = " or ".join(map(repr, DEFAULT_NAMES))
    raise AppLoadError(f"{module.__name__} has no {named}; name the callable: {module.__name__}:NAME")


def attribute(holder: object, name: str, doing: str) -> Any:
    """The attribute, or MISSING; what the application raises for it is the cause of an AppLoadError."""

    def get() -> Any:
        try:
            return getattr(holder, name)
        except AttributeError:
            return MISSING

    return call(get, doing)


def names_in(holder: object) -> list[str]:
    return [name for name in dir(holder) if not name.startswith("_")]


def suggest(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=3, cutoff=0.6)
    if nearest:
        return f"; did you mean {' or '.join(map(repr, nearest))}?"
    return f"; it has {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else ""


def require_callable(found: object, target: str) -> None:
    if not callable(found):
        raise AppLoadError(f"{target} is not callable: it is of type {type(found).__name__}")


def require_wsgi(found: Callable[..., object], target: str) -> None:
    """Refuse what cannot take (environ, start_response), as a factory named without its parentheses."""
    try:
        signature = inspect.signature(found, follow_wrapped=False)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(None, None)
    except TypeError:
        is_bare_name = ":" in target and "(" not in target
        advice = f"; if it makes the application, write '{target}()'" if is_bare_name else ""
        raise AppLoadError(f"{target} takes {signature}, not (environ, start_response){advice}") from None


def call(function: Callable[[], T], doing: str) -> T:
    """Call into the application; what it raises becomes the cause of an AppLoadError, without our frames.

    An AppLoadError of a factory is raised as it is.
    """
    try:
        return function()
    except AppLoadError:
        raise
    except (Exception, SystemExit) as error:
        error.__traceback__ = trim(error.__traceback__)
        raise AppLoadError(f"{doing} raised {type(error).__name__}") from error


def trim(traceback: TracebackType | None) -> TracebackType | None:
    """Drop the leading frames, which are of this module and of the import system."""
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if name != __file__ and not name.startswith("<frozen importlib") and name != importlib.__file__:
            break
        traceback = traceback.tb_next
    return traceback

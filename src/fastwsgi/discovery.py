"""Finds the application of a directory when nobody names it; reads source files, and imports nothing."""

import ast
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fastwsgi.errors import ConfigError

MODULES = ("app", "wsgi", "main")
NAMES = ("application", "app")
FACTORY = "create_app"
VARIABLE = "DJANGO_SETTINGS_MODULE"

ADVICE = "name it, as in: fastwsgi app:app"


@dataclass(frozen=True, slots=True)
class Found:
    """An application, how it was found, and the directory to import it from if it is not the one searched."""

    application: str
    how: str
    path: str | None = None


class NothingFound(ConfigError):
    """There is no application where one is looked for."""


def find(directory: str, settings_module: str | None = None) -> Found:
    """Look for a Django project, then for app.py, wsgi.py and main.py, here and then in src/.

    `settings_module` is what the environment has for Django. Raises ConfigError, saying what was looked
    for, if there is nothing or more than one.
    """
    for path in (directory, os.path.join(directory, "src")):
        within = "" if path == directory else "src/"
        found = find_django(path, within, settings_module) or find_module(path, within)
        if found is not None:
            application, how = found
            return Found(application, how, path if within else None)
    names = ", ".join(NAMES)
    raise NothingFound(
        f"which application? None is named, and {directory} has no Django manage.py and no "
        f"{', '.join(f'{module}.py' for module in MODULES)} with {names} or {FACTORY}(); {ADVICE}"
    )


def parse(path: str) -> ast.Module | None:
    """The source of a file; None if there is none. Of what is no Python, what stands before the line that is
    wrong: the import will tell.
    """
    try:
        with open(path, "rb") as file:
            lines = file.readlines()
    except OSError:
        return None
    while lines:
        try:
            return ast.parse(b"".join(lines), path)
        except SyntaxError as error:
            del lines[min(len(lines), error.lineno or 1) - 1 :]
            if lines and lines[-1].rstrip().endswith(b":"):
                lines[-1] = lines[-1].rstrip() + b" pass\n"
        except (ValueError, RecursionError, MemoryError):
            break
    return ast.Module([], [])


def source_of(directory: str, module: str) -> tuple[str, ast.Module] | None:
    """The file of a module, a package's being its __init__.py, relative to the directory; and its source."""
    place = module.replace(".", "/")
    for name in (f"{place}.py", f"{place}/__init__.py"):
        source = parse(os.path.join(directory, name))
        if source is not None:
            return name, source
    return None


def find_django(directory: str, within: str, settings_module: str | None) -> tuple[str, str] | None:
    """The application that a manage.py leads to; raise ConfigError if it leads nowhere."""
    manage = parse(os.path.join(directory, "manage.py"))
    module = None if manage is None else settings_module or named_settings(manage)
    if module is None:
        return None
    how = f"{within}manage.py"
    named = wsgi_application(directory, module)
    if named is not None and "." in named:
        return ":".join(named.rsplit(".", 1)), f"{how} and WSGI_APPLICATION of {module}"
    package = module
    while "." in package:
        package = package.rpartition(".")[0]
        if os.path.exists(os.path.join(directory, package.replace(".", "/"), "wsgi.py")):
            return f"{package}.wsgi:application", f"{how} and {within}{package.replace('.', '/')}/wsgi.py"
    raise ConfigError(
        f"which application? {how} uses the settings {module}, but there is neither WSGI_APPLICATION in them "
        f"nor a wsgi.py beside them; {ADVICE}"
    )


def named_settings(source: ast.Module) -> str | None:
    """The module of os.environ.setdefault("DJANGO_SETTINGS_MODULE", ...), or of an assignment to it."""
    for node in ast.walk(source):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="setdefault"),
                args=[ast.Constant(value=str(name)), ast.Constant(value=str(module))],
            ) if name == VARIABLE:
                return module
            case ast.Assign(
                targets=[ast.Subscript(slice=ast.Constant(value=str(name)))],
                value=ast.Constant(value=str(module)),
            ) if name == VARIABLE:
                return module
    return None


def wsgi_application(directory: str, module: str, seen: tuple[str, ...] = ()) -> str | None:
    """WSGI_APPLICATION of a settings module, or of one that it takes everything from by `import *`."""
    settings = source_of(directory, module)
    if settings is None or module in seen:
        return None
    file, source = settings
    value = None
    for node in statements(source.body):
        match node:
            case ast.Assign(targets=[ast.Name(id="WSGI_APPLICATION")], value=ast.Constant(value=str(named))):
                value = named
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                package = module if file.endswith("__init__.py") else module.rpartition(".")[0]
                base = origin_of(node, package)
                value = wsgi_application(directory, base, (*seen, module)) or value
    return value


def origin_of(node: ast.ImportFrom, package: str) -> str:
    """The module that a `from ... import` in a package takes from."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, and within its if, try and with; not what runs in a script alone."""
    for node in body:
        match node:
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                pass
            case ast.If() | ast.Try() | ast.With():
                for name in ("body", "handlers", "orelse", "finalbody"):
                    for inner in getattr(node, name, ()):
                        yield from statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])
            case _:
                yield node


@dataclass(slots=True)
class Candidate:
    """A module that may have the application: under which names, and which modules it imports from."""

    module: str
    file: str
    names: set[str] = field(default_factory=set)
    has_factory: bool = False
    imports: set[str] = field(default_factory=set)

    @property
    def expression(self) -> str | None:
        for name in NAMES:
            if name in self.names:
                return name
        return f"{FACTORY}()" if self.has_factory else None


def find_module(directory: str, within: str) -> tuple[str, str] | None:
    """The one of app.py, wsgi.py and main.py that has an application; raise ConfigError if several have."""
    candidates = [
        look_at(module, *found) for module in MODULES if (found := source_of(directory, module)) is not None
    ]
    candidates = [candidate for candidate in candidates if candidate.expression is not None]
    # wsgi.py with `from app import app` is what serves app.py.
    imported = {name for candidate in candidates for name in candidate.imports - {candidate.module}}
    entries = [candidate for candidate in candidates if candidate.module not in imported] or candidates
    if len(entries) > 1:
        choices = " or ".join(f"{entry.module}:{entry.expression}" for entry in entries)
        raise ConfigError(f"which application? {directory} has more than one: {choices}; {ADVICE}")
    if not entries:
        return None
    [entry] = entries
    return f"{entry.module}:{entry.expression}", f"{entry.expression} in {within}{entry.file}"


def look_at(module: str, file: str, source: ast.Module) -> Candidate:
    candidate = Candidate(module, file)
    for node in statements(source.body):
        match node:
            case ast.FunctionDef(name=name, args=arguments):
                required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
                if name == FACTORY:
                    candidate.has_factory = not required and None not in arguments.kw_defaults
                elif name in NAMES:
                    candidate.names.add(name)
            case ast.ImportFrom(module=origin, names=aliases):
                names = {alias.asname or alias.name for alias in aliases}
                candidate.names |= names & set(NAMES)
                candidate.has_factory |= FACTORY in names
                candidate.imports.add(origin or "")
            case ast.Import(names=aliases):
                candidate.imports |= {alias.name for alias in aliases}
            case ast.Assign(targets=targets, value=value) if not isinstance(value, ast.Constant):
                for target in targets:
                    if isinstance(target, ast.Name) and target.id in NAMES:
                        candidate.names.add(target.id)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name in NAMES:
                if not isinstance(value, ast.Constant):
                    candidate.names.add(name)
    return candidate

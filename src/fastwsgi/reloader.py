"""Watches the files of an application, and says when one has changed (`--reload`).

Workers say what they have imported (`Reporter`), in memory that all processes of the server share (`Code`). A
process of its own looks at these files (`Watcher`) and tells the supervisor, which replaces the workers. So
neither a file system that hangs nor a package that watches for us can hold up anything else.
"""

import fcntl
import importlib.util
import json
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from glob import glob, has_magic
from select import poll
from traceback import walk_tb
from typing import Any
from urllib.parse import quote

from fastwsgi.config import Settings
from fastwsgi.control import View
from fastwsgi.errors import ConfigError
from fastwsgi.logs import LOG
from fastwsgi.monitor import Helper, has_ended
from fastwsgi.process import nameless_file

# How often the files of the project are looked at, in seconds; and all others, each so many times.
PAUSE = 0.25
WHOLE_EACH = 4
# The same where watchfiles says when something happens: it may miss something.
WATCHED_EACH = 8
# Whoever writes several files is done when nothing has changed for so long, or after so long in any case.
SETTLED = 0.05
LONGEST_SETTLING = 1.0
# How often a worker looks whether more has been imported.
REPORT_PAUSE = 0.5
# The clock of file systems is behind by a tick or two.
CLOCK_SLACK_NS = 10_000_000
# Some file systems know of every other second only.
CLOCK_GRAIN_NS = 2_100_000_000

# Directories in which nobody writes an application, beside hidden ones and virtual environments.
FOREIGN_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages"})
# What is in these counts whatever it is.
TEMPLATES = frozenset({"templates", "jinja2"})
# So many directories beneath the project are looked at; what is imported from others is all the same.
MOST_DIRECTORIES = 4000
# A file that is written by its own import would have it imported for ever: it is given up after so many times
# in a row.
RESTLESS = 8

# Of the stacks of a crash.
MOST_STACK = 16384

# What is known of a file: when it was written, how long it is, which one it is. None: there is none.
Signature = tuple[int, int, int] | None


@dataclass(slots=True)
class Report:
    """What a worker says of the code that it has imported."""

    began_ns: int  # the time of day before the import
    ended_ns: int  # and after it
    since_ns: int  # and when a worker has looked before at what it has imported
    has_failed: bool
    files: list[str]
    entry: str = ""  # the file of the application
    remarks: list[str] = field(default_factory=list)  # what of it is not for production


class Code:
    """What the supervisor and its workers know of the code; the workers are forks of the supervisor."""

    def __init__(self) -> None:
        self.edition = 1  # counts changes
        self.failure = ""  # how a worker has ended that was to import this edition
        self.crash_fd = nameless_file()  # for faulthandler, while the application is imported
        fcntl.fcntl(self.crash_fd, fcntl.F_SETFL, os.O_APPEND)  # what has been there may be cut off
        self.is_told = False  # somebody has said, or will, what is wrong with this edition
        self._memory = nameless_file()
        self._token = f"{os.getpid():x}-{time.time_ns():x}"

    @property
    def token(self) -> str:
        """Names the edition, and is never the same for another one."""
        return f"{self._token}-{self.edition}"

    def change(self) -> None:
        """There is a new edition."""
        self.edition += 1
        self.failure, self.is_told = "", False
        os.ftruncate(self.crash_fd, 0)

    def fail(self, what: str) -> str:
        """A worker has ended while it imported this edition; returns all that is known of it."""
        stack = os.pread(self.crash_fd, MOST_STACK, 0).decode("utf-8", "replace")
        self.failure = f"{what}\n\n{stack}".strip()
        return self.failure

    def report(self, report: Report) -> None:
        """Say what is imported, for `latest`."""
        content = json.dumps({name: getattr(report, name) for name in Report.__slots__}).encode()
        with locked(self._memory):
            os.ftruncate(self._memory, 0)
            os.pwrite(self._memory, content, 0)

    def latest(self) -> Report | None:
        """What was reported last."""
        with locked(self._memory):
            content = os.pread(self._memory, os.fstat(self._memory).st_size, 0)
        return Report(**json.loads(content)) if content else None

    @property
    def is_loaded(self) -> bool:
        """The last worker that has tried has imported the application."""
        report = self.latest()
        return report is not None and not report.has_failed

    @property
    def version(self) -> tuple[int, int]:
        """Another one after each report."""
        found = os.fstat(self._memory)
        return found.st_mtime_ns, found.st_size

    def close(self) -> None:
        os.close(self._memory)
        os.close(self.crash_fd)


@contextmanager
def locked(fd: int) -> Iterator[None]:
    """Have a file for this process alone while it lasts."""
    fcntl.lockf(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def remarks_on(app: object) -> Iterator[str]:
    """What an application has switched on that is not for production."""
    with suppress(Exception):
        django: Any = sys.modules.get("django.conf")
        if django is not None and django.settings.configured and django.settings.DEBUG:
            yield "DEBUG of Django"
    with suppress(Exception):
        if getattr(app, "debug", False) is True:
            yield f"debug of {type(app).__name__}"


class Reporter:
    """A worker's side: says what is imported, at the start and when there is more."""

    pause = REPORT_PAUSE

    def __init__(self, code: Code) -> None:
        self.code = code
        self._began_ns = self._since_ns = time.time_ns() - CLOCK_SLACK_NS
        self._modules = 0
        self._said: Report | None = None

    def loaded(self, entry: str, remarks: Iterable[str]) -> None:
        """The application is imported; `entry` is its module."""
        file = getattr(sys.modules.get(entry), "__file__", None)
        self._report(module_files(sys.modules), file or "", remarks)

    def failed(self, error: BaseException | None) -> None:
        """It cannot be imported."""
        self._report({*module_files(sys.modules), *files_of(error)}, has_failed=True)

    def _report(
        self, files: Iterable[str], entry: str = "", remarks: Iterable[str] = (), *, has_failed: bool = False
    ) -> None:
        self._said = Report(
            self._began_ns,
            time.time_ns(),
            self._since_ns,
            has_failed,
            sorted(files),
            entry,
            list(remarks),
        )
        self._modules = len(sys.modules)
        self.code.report(self._said)

    def look(self) -> None:
        """Say it again if there is more."""
        since, self._since_ns = self._since_ns, time.time_ns() - CLOCK_SLACK_NS
        if self._said is not None and len(sys.modules) != self._modules:
            files = {*self._said.files, *module_files(sys.modules)}
            self._modules = len(sys.modules)
            self._said = replace(self._said, since_ns=since, files=sorted(files))
            self.code.report(self._said)


def module_files(modules: Mapping[str, object]) -> Iterator[str]:
    """The source files of modules; nothing is asked of a module that would be loaded by that."""
    for module in list(modules.values()):
        try:
            file = object.__getattribute__(module, "__dict__").get("__file__")
        except AttributeError:
            continue
        if isinstance(file, str):
            yield os.path.abspath(file)


def files_of(error: BaseException | None) -> Iterator[str]:
    """The files that a traceback leads through, and that of a syntax error; of what has caused it, too."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in walk_tb(error.__traceback__):
            yield frame.f_code.co_filename
        if isinstance(error, SyntaxError) and error.filename:
            yield os.path.abspath(error.filename)
        error = error.__cause__ or error.__context__


def signature(path: str) -> Signature:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def changed_since(path: str, moment_ns: int) -> bool:
    """A file was written or put there after a moment."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return max(found.st_mtime_ns, found.st_ctime_ns) >= moment_ns


class Tree:
    """The directories of the project, each read again only when something comes or goes in it."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = list(dict.fromkeys(map(os.path.abspath, roots)))
        # By directory: when it had changed before it was read, what counts in it, and the directories there.
        self._read: dict[str, tuple[int, list[str], list[str]]] = {}

    def files(self) -> Iterator[str]:
        """Python's and templates."""
        former, self._read = self._read, {}
        waiting = list(self._roots)
        while waiting and len(self._read) < MOST_DIRECTORIES:
            directory = waiting.pop()
            if directory in self._read:
                continue
            with suppress(OSError):
                written = os.stat(directory).st_mtime_ns
                known = former.get(directory)
                if known is None or known[0] != written:
                    # Its clock may be coarse: what comes next may have the same time.
                    is_settled = time.time_ns() - written > CLOCK_GRAIN_NS
                    known = (written if is_settled else 0, *self._look_into(directory))
                self._read[directory] = known
                yield from known[1]
                waiting += known[2]

    def directories(self) -> set[str]:
        """Those that were read."""
        return set(self._read)

    def _look_into(self, directory: str) -> tuple[list[str], list[str]]:
        files, directories = [], []
        has_templates = in_templates(os.path.join(directory, "one"))
        with os.scandir(directory) as entries:
            found = list(entries)
        if any(entry.name == "pyvenv.cfg" for entry in found) and directory not in self._roots:
            return [], []
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in FOREIGN_DIRECTORIES:
                    directories.append(entry.path)
            elif entry.name.endswith(".py") or (has_templates and not entry.name.endswith("~")):
                files.append(entry.path)
        return files, directories


def in_templates(path: str) -> bool:
    return not TEMPLATES.isdisjoint(path.split(os.sep)[:-1])


class Watch:
    """Which files are looked at, and how they were the last time."""

    def __init__(self, roots: Sequence[str], extra: Sequence[str] = (), ignored: Sequence[str] = ()) -> None:
        """roots: directories of the project; the first is what relative names of `extra` count from."""
        self.notices: list[str] = []  # for the log
        self._base = os.path.abspath(roots[0])
        self._tree = Tree(roots)
        self._extra = [os.path.join(self._base, name) for name in extra]
        self._ignored = [pattern.rstrip("/") for pattern in ignored]
        self._is_ignored: dict[str, bool] = {}
        self._loaded: set[str] = set()
        self._named: set[str] = set()
        self._known: dict[str, Signature] = {}
        self._has_failed = False
        self._began_ns = self._ended_ns = 0
        self._is_reported = True  # since the last change
        self._restless: dict[str, int] = {}
        self._heeded: dict[str, Signature] = {}  # of those that have changed; a clock may be ahead of ours
        self.scan()

    def take(self, report: Report) -> set[str]:
        """Watch what a worker has imported, too; returns what has changed since it was read."""
        new = {path for path in report.files if path not in self._loaded and not self.ignores(path)}
        self._loaded |= new
        self._known |= {path: signature(path) for path in new if path not in self._known}
        if report.has_failed:
            # What was missing may be there by now.
            new |= self._project()
        self._has_failed, self._is_reported = report.has_failed, True
        self._began_ns, self._ended_ns = report.began_ns, report.ended_ns
        return {
            path
            for path in new
            if changed_since(path, report.since_ns) and self._heeded.get(path) != signature(path)
        }

    def scan(self, *, is_whole: bool = True) -> set[str]:
        """What has changed since the last time; unless it `is_whole`, beneath the project alone."""
        if is_whole:
            self._named = set(self._find_named())
        project = self._project()
        watched = project | self._named | self._loaded
        gone = set(self._known) - watched
        if not is_whole:
            watched = {path for path in watched if path in project or path.startswith(self._base)}
        changed = set()
        for path in watched | gone:
            found = signature(path)
            if self._known.get(path) != found:
                changed.add(path)
            self._known[path] = found
        changed = {path for path in changed if self._counts(path)}
        for path in gone:
            del self._known[path]
        return changed

    def directories(self) -> list[str]:
        """Where all these files are, and would be."""
        places = {os.path.dirname(path) for path in (*self._known, *self._extra)}
        return sorted(place for place in places | self._tree.directories() if os.path.isdir(place))

    def concerns(self, path: str) -> bool:
        """It may be worth a look when this file or directory changes."""
        return path in self._known or path.endswith(".py") or in_templates(path) or os.path.isdir(path)

    def ignores(self, path: str) -> bool:
        known = self._is_ignored.get(path)
        if known is None:
            known = self._is_ignored[path] = any(
                fnmatchcase(path, end)
                for pattern in self._ignored
                for end in (pattern, f"*/{pattern}", f"*/{pattern}/*")
            )
        return known

    def _counts(self, path: str) -> bool:
        """It is one of the application, or may be what is missing."""
        return (
            self._has_failed or path in self._loaded or path in self._named or not path.endswith(".py")
        ) and not self.ignores(path)

    def _project(self) -> set[str]:
        return {path for path in self._tree.files() if not self.ignores(path)}

    def _find_named(self) -> Iterator[str]:
        """The files that --reload-extra-file names."""
        for name in self._extra:
            for path in glob(name, recursive=True, include_hidden=True) if has_magic(name) else [name]:
                if os.path.isdir(path):
                    for directory, _, files in os.walk(path):
                        yield from (os.path.join(directory, file) for file in files)
                else:
                    yield path

    def heed(self, changed: set[str]) -> set[str]:
        """The application will be imported anew, for those that are returned: not for those that an import
        writes itself, again and again.
        """
        for path in changed:
            self._heeded[path] = signature(path)
            if self._is_reported and not self._began_ns <= written_ns(path) <= self._ended_ns:
                self._restless.pop(path, None)
                continue
            self._restless[path] = self._restless.get(path, 0) + 1
            if self._restless[path] == RESTLESS:
                self._is_ignored[path] = True
                self.notices.append(
                    f"{self.show(path)} is written whenever the application is imported, and not watched any "
                    "more (--reload-ignore)"
                )
        self._is_reported = False
        return {path for path in changed if not self.ignores(path)}

    def show(self, path: str) -> str:
        """A path as the user would write it."""
        inside = os.path.relpath(path, self._base)
        return path if inside.startswith("..") else inside


def written_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def forget_bytecode(paths: Iterable[str]) -> None:
    """Remove what was compiled of files: it counts as theirs if they are as long and of the same second."""
    for path in paths:
        if path.endswith(".py"):
            with suppress(OSError, NotImplementedError):
                os.unlink(importlib.util.cache_from_source(path))


class Watcher(Helper):
    """The process that looks at files."""

    def __init__(self, settings: Settings, roots: Sequence[str], code: Code, notice_fd: int) -> None:
        super().__init__("watches files (--reload)")
        self._settings = settings
        self._roots = roots
        self._code = code
        self._notice_fd = notice_fd

    def is_wanted(self, view: View) -> bool:
        return not view.is_stopping

    def see_to(self, view: View) -> None:
        # It need not know how the server is.
        super().see_to(view if view.is_stopping else self._view or view)

    def work(self, view: View, life_fd: int) -> None:
        settings = self._settings
        with suppress(KeyboardInterrupt):  # TERM
            watch = Watch(self._roots, settings.reload_extra_file, settings.reload_ignore)
            version: tuple[int, int] | None = None
            for is_whole in rounds(settings.reload_engine, watch, life_fd):
                changed: set[str] = set()
                if self._code.version != version:
                    version = self._code.version
                    report = self._code.latest()
                    if report is not None:
                        changed = watch.take(report)
                if is_whole is not None:
                    changed |= watch.scan(is_whole=is_whole)
                if changed:
                    changed = watch.heed(changed | settle(watch))
                if changed:
                    forget_bytecode(changed)
                    self._tell(watch, changed)
                for notice in watch.notices:
                    LOG.warning("%s", notice)
                watch.notices.clear()

    def _tell(self, watch: Watch, changed: set[str]) -> None:
        """Tell the supervisor the name of one file, and of how many more."""
        first = min(changed, key=lambda path: (path.count(os.sep), path))
        name = quote(os.fsencode(watch.show(first)[-500:]))
        line = f"changed {len(changed) - 1} {name}\n".encode()
        while True:
            try:
                os.write(self._notice_fd, line)
                break
            except BlockingIOError:
                time.sleep(PAUSE)


def settle(watch: Watch) -> set[str]:
    """Wait until nothing changes any more; returns what has changed meanwhile."""
    changed: set[str] = set()
    end = time.monotonic() + LONGEST_SETTLING
    while time.monotonic() < end:
        time.sleep(SETTLED)
        more = watch.scan()
        if not more:
            break
        changed |= more
    return changed


def rounds(engine: str, watch: Watch, life_fd: int) -> Iterator[bool | None]:
    """When to look, until the supervisor is gone: at all files or not; None: at none."""
    if engine == "watchfiles" or (engine == "auto" and has_watchfiles()):
        try:
            yield from woken_rounds(watch, life_fd)
        except (OSError, ImportError, RuntimeError) as error:
            LOG.warning("watchfiles cannot watch (%s): going on as with --reload-engine poll", error)
        else:
            return
    end = poll()
    end.register(life_fd, 0)  # that it hangs up is told in any case
    number = 0
    while not end.poll(PAUSE * 1000):
        number += 1
        yield number % WHOLE_EACH == 0


def woken_rounds(watch: Watch, life_fd: int) -> Iterator[bool | None]:
    """The same, with a look when watchfiles says that something happens; it is not asked what."""
    from watchfiles import watch as changes

    number = 0
    while True:
        directories = watch.directories()
        for change in changes(
            *directories,
            watch_filter=lambda _, path: watch.concerns(path),
            debounce=50,
            step=10,
            rust_timeout=int(PAUSE * 1000),
            yield_on_timeout=True,
            recursive=False,
        ):
            if has_ended(life_fd):
                return
            number += 1
            # The first time: what has happened until it watched, it does not know.
            yield True if change or number % WATCHED_EACH == 1 else None
            if watch.directories() != directories:
                number = 0
                break


def has_watchfiles() -> bool:
    return importlib.util.find_spec("watchfiles") is not None


def check_engine(settings: Settings) -> None:
    """Raise ConfigError for an engine that is not there."""
    if settings.reload_engine == "watchfiles" and not has_watchfiles():
        raise ConfigError(
            "--reload-engine watchfiles: the package is not installed; pip install 'fastwsgi[reload]', or "
            "give --reload-engine poll"
        )

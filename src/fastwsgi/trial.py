"""An application, imported for a trial in a process of its own, which may not come back.

    report = examine(scene, patience=30.0)

What it prints is thrown away, and of its exceptions only what is no secret is told: their type and line.
"""

import faulthandler
import json
import os
import re
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fastwsgi import mounts, resources
from fastwsgi.appchecks import CHECKS, Imported
from fastwsgi.errors import AppLoadError, ConfigError
from fastwsgi.findings import ERROR, WARNING, Finding
from fastwsgi.forkguard import OURS, ForkGuard, is_of_python
from fastwsgi.process import nameless_file
from fastwsgi.scene import Scene

# What an import may take before somebody wonders: an orchestrator that waits for the first answer.
SLOW_IMPORT = 10.0

# A process that takes too long writes its stacks when it gets this signal, and has so long for them.
STACKS_SIGNAL = signal.SIGUSR2
STACKS_PATIENCE = 1.0
PAUSE = 0.01

# Exceptions whose text has names, and no values.
TELLING = (ImportError, NameError, AttributeError, SyntaxError)


@dataclass
class Report:
    """What became of the import."""

    findings: list[Finding] = field(default_factory=list)
    checks: int = 0
    each: int | None = None  # memory of the process afterwards


def examine(scene: Scene, patience: float) -> Report:
    """Import the application in a process that is killed after so many seconds, and look at it there."""
    shown = shown_name(scene.application)
    answer, stacks = nameless_file(), nameless_file()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or it would be written twice
        pid = os.fork()
        if pid == 0:
            look(scene, answer, stacks)
        code = wait(pid, patience, stacks)
        said = json.loads(content(answer) or "null")
        if said is not None and code == 0:
            found = [Finding(*one) for one in said["findings"]]
            return Report(found, said["checks"], said["each"])
        return Report([unreported(shown, code, patience, content(stacks))], 1)
    finally:
        os.close(answer)
        os.close(stacks)


def wait(pid: int, patience: float, stacks: int) -> int | None:
    """The exit code, negative for a signal; None if it took too long. Afterwards nothing of it runs any more.

    stacks: what it writes them to if it takes too long.
    """
    end, was_asked = time.monotonic() + patience, False
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return None if was_asked else os.waitstatus_to_exitcode(status)
            is_late = time.monotonic() > end
            if is_late and was_asked:
                return None
            if is_late:
                os.kill(pid, STACKS_SIGNAL)
                end, was_asked = time.monotonic() + STACKS_PATIENCE, True
            if was_asked and place_in(content(stacks)):
                return None
            time.sleep(PAUSE)
    finally:
        # Programs that the import has started are in its group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # it is gone
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def unreported(shown: str, code: int | None, patience: float, stacks: str) -> Finding:
    """What is known of a process that has said nothing."""
    place = place_in(stacks)
    where = f", at {place}" if place else ""
    if code is None:
        return Finding(
            "import-hangs",
            ERROR,
            f"importing {shown} takes longer than {patience:g} s{where}",
            "look at that line: a service that does not answer? --import-timeout TIME if it just takes long",
        )
    if code >= 0:
        return Finding(
            "import-ends",
            ERROR,
            f"importing {shown} ends the process with code {code}",
            f"find os._exit, or what calls it: fastwsgi --check-config {shown}",
        )
    reason = "was memory out?" if -code == signal.SIGKILL else "a fault of C code"
    return Finding(
        "import-ends",
        ERROR,
        f"importing {shown} ends the process by {signal.Signals(-code).name}{where}: {reason}",
        f"python -X faulthandler -m fastwsgi --check-config {shown}",
    )


def place_in(stacks: str) -> str:
    """The innermost line of the application in what faulthandler writes, which has that first."""
    own = re.split(r"^(?:Current t|T)hread .*$", stacks.partition("Current thread")[2], flags=re.MULTILINE)[0]
    lines = re.findall(r'^  File "(.*)", line ([0-9]+) in ', own, re.MULTILINE)
    theirs = [one for one in lines if not is_of_python(one[0]) and not one[0].startswith(OURS)]
    return ":".join((theirs or lines)[0]) if lines else ""


def shown_name(application: str) -> str:
    """The application without what a factory is called with."""
    name, bracket, rest = application.partition("(")
    return f"{name}(...)" if bracket and rest != ")" else application


def look(scene: Scene, answer: int, stacks: int) -> NoReturn:
    """In the process that imports: write what is found as JSON, and end."""
    code = 1
    try:
        # Nobody to ask, nobody to tell: what an import prints may be secret.
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        faulthandler.enable(stacks)
        faulthandler.register(STACKS_SIGNAL, stacks)
        report = found_in(scene)
        os.pwrite(answer, json.dumps(report).encode(), 0)
        code = 0
    finally:
        os._exit(code)


def found_in(scene: Scene) -> dict[str, Any]:
    """Import, and look at what is there."""
    from fastwsgi import greening, loader, logs, worker  # noqa: F401 - a worker has it in its memory, too

    settings, shown = scene.settings, shown_name(scene.application)
    findings: list[Finding] = []
    guard, each, checks = ForkGuard(), None, 1
    try:
        loader.prepare_environ(settings.env)
        loader.prepare_path(settings.chdir, settings.pythonpath)
        logs.configure(settings)
        if settings.gevent:
            greening.patch()
        before = time.monotonic()
        with guard:
            applications = loader.load_all(scene.application, mounts.targets(settings))
        took = time.monotonic() - before
    except ConfigError as problem:
        findings.append(Finding("configuration", ERROR, str(problem), "correct this setting"))
    except AppLoadError as problem:
        findings.append(failed_import(problem, scene.application, shown))
    else:
        each = resources.pss(os.getpid())
        if took > SLOW_IMPORT:
            findings.append(
                Finding(
                    "import-slow",
                    WARNING,
                    f"importing {shown} takes {took:.0f} s: so long each start, and each worker that is "
                    "replaced",
                    "python -X importtime shows what takes long; --preload does it once",
                )
            )
        imported = Imported(scene, applications, guard.ghosts())
        findings += CHECKS.findings(imported)
        checks += len(CHECKS)
    return {"findings": findings, "checks": checks, "each": each}


def failed_import(problem: AppLoadError, application: str, shown: str) -> Finding:
    """The application cannot be loaded."""
    text = str(problem).replace(application, shown)
    cause = problem.__cause__
    if cause is None:
        return Finding(
            "import-fails", ERROR, text, "name the module and the callable: fastwsgi doctor app:app"
        )
    if detail := safe_text(cause):
        text = f"{text}: {detail}"
    traceback = cause.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        if is_of_python(traceback.tb_next.tb_frame.f_code.co_filename):
            break
        traceback = traceback.tb_next
    if traceback is not None:
        text = f"{text}, at {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
    return Finding("import-fails", ERROR, text, f"fastwsgi --check-config {shown} shows the whole traceback")


def safe_text(cause: BaseException) -> str:
    """What an exception says, if it is sure to have names alone."""
    if isinstance(cause, TELLING):
        return " ".join(str(cause).split())[:300]
    if isinstance(cause, KeyError) and cause.args and re.fullmatch(r"[A-Za-z_]\w*", str(cause.args[0])):
        return str(cause.args[0])
    if isinstance(cause, OSError) and cause.strerror and isinstance(cause.filename, str):
        return f"{cause.strerror}: {cause.filename}"
    return ""

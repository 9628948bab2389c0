"""`fastwsgi doctor`: what will hurt, before it does, and what mends it.

run(["--format", "json", "app:app"])      # the exit code, and what to print
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module

from fastwsgi import __version__
from fastwsgi.arguments import parse
from fastwsgi.config import read_as
from fastwsgi.errors import ConfigError
from fastwsgi.findings import ERROR, SEVERITIES, Checks, Finding, by_severity
from fastwsgi.kinds import Kind, choice, duration
from fastwsgi.mounts import NO_APPLICATION, targets
from fastwsgi.process import Place, current_umask
from fastwsgi.scene import BALANCER_IDLE, Scene
from fastwsgi.sources import Configuration, gather, starting_directory

USAGE = (
    "doctor [--format text|json] [--import-timeout TIME] [--balancer-timeout TIME] [--ask-database] "
    "[OPTIONS] [MODULE:CALLABLE]"
)

HELP_TEXT = f"""\
Usage: fastwsgi {USAGE}

Looks at the application, the configuration, this machine or container, and says what will hurt. OPTIONS and
MODULE:CALLABLE are those of the server, and so are files and variables with settings.

  --format text|json            for people, or for programs [text]
  --import-timeout TIME         what the import of the application may take [30s]
  --balancer-timeout TIME       how long a balancer in front keeps idle connections [60s]
  --ask-database                connect to PostgreSQL and MySQL, and ask how many connections they take

Exit codes: 0 nothing serious, 1 errors were found, 2 the command line is wrong. What each id means is in
docs/doctor.md.
"""

NOTHING_SERIOUS, ERRORS, USAGE_ERROR = 0, 1, 2

IMPORT_PATIENCE = 30.0

COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m", "hint": "\x1b[36m"}
PLAIN = "\x1b[0m"


@dataclass(slots=True)
class Words:
    """What stands behind the command: its own options, and those of the server."""

    format: str = "text"
    import_timeout: float = IMPORT_PATIENCE
    balancer_timeout: float = BALANCER_IDLE
    ask_database: bool = False
    rest: list[str] = field(default_factory=list)


KINDS: dict[str, Kind] = {
    "--format": choice("text", "json"),
    "--import-timeout": duration(86400.0, 0.1),
    "--balancer-timeout": duration(86400.0),
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    application: str
    checks: int
    findings: list[Finding]

    @property
    def code(self) -> int:
        return ERRORS if any(finding.severity == ERROR for finding in self.findings) else NOTHING_SERIOUS


def run(words: Sequence[str]) -> tuple[int, str]:
    """The command: (exit code, what to print)."""
    try:
        given = read(words)
        arguments = parse(given.rest)
        if arguments.wants == "help":
            return NOTHING_SERIOUS, HELP_TEXT
        if arguments.wants is not None:
            raise ConfigError(f"doctor does not go with {arguments.wants}; give one of them")
    except ConfigError as problem:
        if sys.stderr is not None:
            print(f"fastwsgi: {problem}\nUsage: fastwsgi {USAGE}", file=sys.stderr)
        return USAGE_ERROR, ""
    diagnosis = diagnose(given)
    if given.format == "json":
        return diagnosis.code, as_json(diagnosis)
    return diagnosis.code, as_text(diagnosis, is_coloured=wants_colours())


def read(words: Sequence[str]) -> Words:
    """Take out its own options; raise ConfigError for a wrong one."""
    given, left = Words(), list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            given.rest += [word, *left]
            break
        name, equals, value = word.partition("=")
        if word == "--ask-database":
            given.ask_database = True
        elif name in KINDS:
            if not equals:
                if not left:
                    raise ConfigError(f"{name} needs a value: {name} {KINDS[name].metavar}")
                value = left.pop(0)
            setattr(given, name[2:].replace("-", "_"), read_as(KINDS[name], value, name))
        else:
            given.rest.append(word)
    return given


def diagnose(given: Words) -> Diagnosis:
    """Look at everything; what is wrong with the configuration is a finding, too."""
    findings: list[Finding] = []
    configuration = configured(given.rest, findings)
    if configuration is None:
        return Diagnosis("", 1, findings)
    settings, application = configuration.settings, configuration.application or NO_APPLICATION
    scene = Scene(
        settings,
        application,
        configuration.origins,
        configuration.notices,
        {**os.environ, **dict(one.split("=", 1) for one in settings.env)},
        balancer_idle=given.balancer_timeout,
        asks_database=given.ask_database,
    )
    checks = 0
    try:
        with Place(settings.chdir or starting_directory(), current_umask()).visited():
            if application or targets(settings):
                from fastwsgi.trial import examine

                report = examine(scene, given.import_timeout)
                findings += report.findings
                checks += report.checks
                scene = replace(scene, each=report.each)
            for kind in ("settingchecks", "hostchecks", *(["certchecks"] if settings.has_tls else [])):
                made: Checks[Scene] = import_module(f"fastwsgi.{kind}").CHECKS
                findings += made.findings(scene)
                checks += len(made)
    except ConfigError as problem:
        findings.append(Finding("configuration", ERROR, str(problem), "correct this setting"))
    return Diagnosis(application, checks, by_severity(findings))


def configured(words: Sequence[str], findings: list[Finding]) -> Configuration | None:
    """The settings, with the application as a start finds it; with none if that is all that is wrong."""
    environ, directory = dict(os.environ), starting_directory()
    # A gunicorn.conf.py may print.
    with redirect_stdout(sys.stderr):
        try:
            return gather(words, environ, directory)
        except ConfigError as error:
            problem = str(error)
        try:
            configuration = gather(words, environ, directory, application=NO_APPLICATION)
        except ConfigError:
            configuration = None
    if configuration is None:
        fix = "correct it; fastwsgi --print-config shows what is understood"
        findings.append(Finding("configuration", ERROR, problem, fix))
        return None
    findings.append(Finding("no-application", ERROR, problem, "name it: fastwsgi doctor app:app"))
    return configuration


def wants_colours() -> bool:
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def as_text(diagnosis: Diagnosis, *, is_coloured: bool = False) -> str:
    """A line on what will hurt, and one on what mends it; the worst first."""
    width = max((len(finding.severity) for finding in diagnosis.findings), default=0)
    lines = []
    for finding in diagnosis.findings:
        severity = finding.severity.ljust(width)
        if is_coloured:
            severity = f"{COLOURS[finding.severity]}{severity}{PLAIN}"
        lines.append(f"{severity}  {finding.id}: {plain(finding.what)}")
        lines.append(f"{' ' * width}  -> {plain(finding.fix)}")
    return "\n".join([*lines, *([""] if lines else []), summary(diagnosis), ""])


def summary(diagnosis: Diagnosis) -> str:
    """How many checks were made, and what came of them."""
    counts = [
        (severity, sum(finding.severity == severity for finding in diagnosis.findings))
        for severity in SEVERITIES
    ]
    found = ", ".join(plural(number, severity) for severity, number in counts if number) or "nothing found"
    return f"{plural(diagnosis.checks, 'check')}: {found}"


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Text as one line that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def as_json(diagnosis: Diagnosis) -> str:
    found = [finding._asdict() for finding in diagnosis.findings]
    told = {
        "version": __version__,
        "application": diagnosis.application.partition("(")[0],
        "checks": diagnosis.checks,
        "findings": found,
    }
    return json.dumps(told, indent=2) + "\n"

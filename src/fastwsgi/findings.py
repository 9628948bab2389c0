"""What checks find: a line on what will hurt, and a line on what mends it.

    CHECKS: Checks[Scene] = Checks()

    @CHECKS.add("backlog")
    def backlog(scene: Scene) -> Iterator[Said]:
        yield warning("what will hurt, with the values measured", "the command or option that mends it")

A check looks at one thing, yields nothing where all is well, and never prints a secret.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

# The worst first.
ERROR, WARNING, HINT = SEVERITIES = ("error", "warning", "hint")

# The id of what is said when a check itself goes wrong.
FAILED = "check-failed"


class Said(NamedTuple):
    """What a check says."""

    severity: str
    what: str
    fix: str


# What a check returns.
Found: TypeAlias = Iterator[Said]


class Finding(NamedTuple):
    """The same, with the id of the check."""

    id: str
    severity: str
    what: str
    fix: str


def error(what: str, fix: str) -> Said:
    """Requests fail, or what is secret is not."""
    return Said(ERROR, what, fix)


def warning(what: str, fix: str) -> Said:
    """It will hurt: under load, at a deploy, some day."""
    return Said(WARNING, what, fix)


def hint(what: str, fix: str) -> Said:
    return Said(HINT, what, fix)


Look: TypeAlias = Callable[[T], Iterable[Said]]


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    id: str
    look: Look[T]

    def findings(self, subject: T) -> list[Finding]:
        """All that it says of the subject; what it raises is a hint, and the others go on."""
        found: list[Finding] = []
        try:
            for said in self.look(subject):
                found.append(Finding(self.id, *said))
        except Exception as problem:
            # Its text may have anything in it.
            what = f"the check {self.id} could not be made: {type(problem).__name__}"
            found.append(Finding(FAILED, HINT, what, "look at that yourself (docs/doctor.md)"))
        return found


class Checks(list[Check[T]]):
    """Checks of one kind of subject, in the order in which they are made."""

    def add(self, id: str) -> Callable[[Look[T]], Look[T]]:
        def declare(look: Look[T]) -> Look[T]:
            self.append(Check(id, look))
            return look

        return declare

    def findings(self, subject: T) -> list[Finding]:
        return [finding for check in self for finding in check.findings(subject)]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; of the same severity in the order in which they were found, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity))

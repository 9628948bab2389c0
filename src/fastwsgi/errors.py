"""What a user may catch."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A setting is wrong; the message is one line: what, where, and what to do about it."""


class RequestTimeout(BaseException):
    """Raised in the application whose request made no progress for `--timeout`; its client has a 503 already.

    Not an Exception, so that code that catches all of these does not go on by mistake.
    """


class AppLoadError(Exception):
    """The application could not be loaded; the message is one line.

    When the application's own code raised, that exception is the cause (`__cause__`), its traceback
    beginning in the application's module.
    """


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of an error message: "; did you mean X?" for the known word nearest to this one, or nothing."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]}?" if nearest else ""

"""What a user may catch."""


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

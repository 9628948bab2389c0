"""Words of a command line to settings: ours, and those of gunicorn that fastwsgi has not got."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastwsgi.config import OPTIONS, Option
from fastwsgi.errors import ConfigError, did_you_mean
from fastwsgi.gunicorn import FLAGS as FOREIGN_FLAGS
from fastwsgi.gunicorn import Flag as ForeignFlag

FLAGS = {flag: option for option in OPTIONS.values() for flag in option.flags}
NEGATED = {
    flag.replace("--", "--no-"): option
    for flag, option in FLAGS.items()
    if flag.startswith("--") and option.kind.is_switch
}
HELP = ("-h", "--help")
VERSION = ("-v", "--version")
COMMANDS = {
    **dict.fromkeys(HELP, "help"),
    **dict.fromkeys(VERSION, "version"),
    "--check-config": "check",
    "--print-config": "print",
}
KNOWN = (*FLAGS, *NEGATED, *COMMANDS, *FOREIGN_FLAGS)


@dataclass(slots=True)
class Arguments:
    """What a command line says: an application, settings, and a command other than to serve.

    `flags` has the flag that gave each setting; `foreign` has settings of gunicorn by gunicorn's names.
    `source` is the variable that the words are from, empty for the command line itself.
    """

    application: str | None = None
    settings: dict[str, object] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, object] = field(default_factory=dict)
    wants: str | None = None
    source: str = ""


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments; raise ConfigError for one that is unknown, wrong or lacks its value."""
    arguments = Arguments()
    rest = deque(argv)
    while rest:
        word = rest.popleft()
        if word == "--":
            while rest:
                take_application(arguments, rest.popleft())
        elif word.startswith("-") and word != "-":
            flag, value = split_flag(word)
            if flag in COMMANDS:
                if value is not None:
                    raise ConfigError(f"{flag} takes no value")
                arguments.wants = COMMANDS[flag]
                if arguments.wants in ("help", "version"):
                    break
            elif flag in FLAGS or flag in NEGATED:
                take_option(arguments, flag, value, rest)
            elif flag in FOREIGN_FLAGS:
                take_foreign(arguments, FOREIGN_FLAGS[flag], flag, value, rest)
            else:
                raise ConfigError(f"unknown option {flag}{did_you_mean(flag, KNOWN)}")
        else:
            take_application(arguments, word)
    return arguments


def split_flag(word: str) -> tuple[str, str | None]:
    """Split `--name=value` and `-nvalue`; the value is None where it is the next word."""
    if word.startswith("--"):
        flag, equals, value = word.partition("=")
        return flag, value if equals else None
    return word[:2], word[2:].removeprefix("=") or None


def take_option(arguments: Arguments, flag: str, value: str | None, rest: deque[str]) -> None:
    if flag in NEGATED:
        if value is not None:
            raise ConfigError(f"{flag} takes no value")
        option, value = NEGATED[flag], "off"
    else:
        option = FLAGS[flag]
        if value is None:
            value = value_of(option, flag, rest)
    read = option.read(value, flag)
    former = arguments.settings.get(option.name)
    if option.repeatable and isinstance(former, tuple) and isinstance(read, tuple):
        read = former + read
    arguments.settings[option.name] = read
    arguments.flags[option.name] = flag


def value_of(option: Option, flag: str, rest: deque[str]) -> str:
    """What an option means without a value, or the next word."""
    alone = option.kind.alone
    if alone is not None and (option.kind.is_switch or not rest or not option.kind.takes(rest[0])):
        return alone
    return next_word(flag, option.kind.metavar, rest)


def next_word(flag: str, metavar: str, rest: deque[str]) -> str:
    if not rest or rest[0].split("=")[0] in KNOWN:
        raise ConfigError(f"{flag} needs a value: {flag} {metavar}")
    return rest.popleft()


def take_foreign(
    arguments: Arguments, foreign: ForeignFlag, flag: str, value: str | None, rest: deque[str]
) -> None:
    if not foreign.takes_value and value is not None:
        raise ConfigError(f"{flag} takes no value")
    if foreign.takes_value and value is None:
        value = next_word(flag, "VALUE", rest)
    arguments.foreign[foreign.name] = value if foreign.takes_value else foreign.value
    arguments.flags[foreign.name] = flag


def take_application(arguments: Arguments, word: str) -> None:
    if arguments.application is not None:
        raise ConfigError(f"one application is served, {arguments.application}; what is {word!r}?")
    arguments.application = word

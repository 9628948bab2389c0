"""What shells complete behind `fastwsgi`: a script for each, from the declarations of the options."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from fastwsgi import __version__
from fastwsgi.arguments import HELP, VERSION
from fastwsgi.config import OPTIONS
from fastwsgi.console import USAGE
from fastwsgi.doctor import USAGE as DOCTOR_USAGE
from fastwsgi.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
DIRECTORIES = ("DIRECTORY", "PATHS")


@dataclass(frozen=True, slots=True)
class Flag:
    """One option as shells see it: its spellings, what may follow, what it is for."""

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    is_switch: bool = False
    # The value may be left out.
    may_stand_alone: bool = False
    repeatable: bool = False

    @property
    def takes_value(self) -> bool:
        """Whether the next word is its value."""
        return bool(self.metavar) and not self.is_switch

    @property
    def is_file(self) -> bool:
        return "FILE" in self.metavar.split("|")

    @property
    def is_directory(self) -> bool:
        return self.metavar in DIRECTORIES

    @property
    def words(self) -> list[str]:
        """Values that are words of their own; in capitals is what stands for something."""
        return re.findall(r"(?<![A-Z])[a-z][a-z0-9]*", self.metavar)


def options() -> list[Flag]:
    """All that the server understands, but for gunicorn's names."""
    found = []
    for option in OPTIONS.values():
        kind = option.kind
        alone = kind.alone is not None
        found.append(Flag(option.flags, option.help, kind.metavar, kind.is_switch, alone, option.repeatable))
        if kind.is_switch:
            negated = tuple(flag.replace("--", "--no-") for flag in option.flags if flag.startswith("--"))
            found.append(Flag(negated, f"not {option.flags[-1]}"))
    return [
        *found,
        Flag(("--check-config",), "check the settings, import the application, and serve nothing"),
        Flag(("--print-config",), "print all settings and where they come from, as TOML"),
        Flag(VERSION, "print the version"),
        Flag(HELP, "print the help"),
    ]


def commands() -> dict[str, list[Flag]]:
    """What a first word may be, with the flags that go with it."""
    found = {}
    for command, usage in {**USAGE, "doctor": DOCTOR_USAGE}.items():
        flags = re.findall(r"(--[a-z-]+)(?: ([A-Za-z|]+))?", usage)
        found[command] = [Flag((flag,), "", metavar) for flag, metavar in flags]
    found["doctor"] += options()
    return found | {name: [] for name in ("completion", "dev", "pack", "passwd")}


def run(words: Sequence[str]) -> tuple[int, str]:
    """The exit code and what to print; ConfigError if no shell of ours is named."""
    if list(words) in ([one] for one in HELP):
        return 0, f"Usage: fastwsgi completion {'|'.join(SHELLS)}\n"
    if len(words) != 1 or words[0] not in SHELLS:
        raise ConfigError(f"completion for which shell? fastwsgi completion {'|'.join(SHELLS)}")
    return 0, {"bash": bash, "zsh": zsh, "fish": fish}[words[0]]()


# ---- bash ----

BASH = """\
# What bash completes behind fastwsgi {version}.
_fastwsgi() {{
    local IFS=$'\\n' word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    # --option=value comes as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    COMPREPLY=()
    case $before in
{values}
    esac
    case ${{COMP_WORDS[1]}} in
{commands}
        *)
            words={flags}
            if ((COMP_CWORD == 1)); then
                words+={first}
            fi
            ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _fastwsgi fastwsgi
"""


def bash() -> str:
    values = []
    for flag in [*options(), *(one for flags in commands().values() for one in flags)]:
        if flag.takes_value:
            line = f"        {'|'.join(flag.names)}) {bash_values(flag)}return ;;"
            if line not in values:
                values.append(line)
    own = []
    for command, flags in commands().items():
        words = SHELLS if command == "completion" else [name for flag in flags for name in flag.names]
        own.append(f"        {command}) words={bash_words(words)} ;;")
    return BASH.format(
        version=__version__,
        values="\n".join(values),
        commands="\n".join(own),
        flags=bash_words([name for flag in options() for name in flag.names if name.startswith("--")]),
        first=bash_words(["", *commands()]),
    )


def bash_values(flag: Flag) -> str:
    kinds = " -f" * flag.is_file + " -d" * flag.is_directory
    if flag.words:
        kinds += f" -W {bash_words(flag.words)}"
    return f'COMPREPLY=($(compgen{kinds} -- "$word")); ' if kinds else ""


def bash_words(words: Sequence[str]) -> str:
    """A list for `compgen -W`, divided as IFS has it."""
    return "$'" + "\\n".join(words) + "'"


# ---- zsh ----

ZSH = """\
#compdef fastwsgi
# What zsh completes behind fastwsgi {version}.
_fastwsgi() {{
    if ((CURRENT > 2)); then
        case $words[2] in
{commands}
        esac
    fi
    local -a first
    ((CURRENT == 2)) && first=({names})
    _arguments -s \\
{options} \\
        '*:application:($first)'
}}
# As a file in $fpath it is called at once, otherwise it has been sourced.
if [[ $funcstack[1] == _fastwsgi ]]; then
    _fastwsgi "$@"
else
    compdef _fastwsgi fastwsgi
fi
"""


def zsh() -> str:
    own = []
    for command, flags in commands().items():
        if command == "completion":
            specifications = ["1:", f"2:shell:({' '.join(SHELLS)})"]
        else:
            specifications = ["1:"] + [zsh_option(flag, name) for flag in flags for name in flag.names]
        listed = " ".join(map(shlex.quote, specifications))
        own.append(f"            {command}) _arguments {listed}; return ;;")
    lines = [f"        {shlex.quote(zsh_option(flag, name))}" for flag in options() for name in flag.names]
    return ZSH.format(
        version=__version__,
        commands="\n".join(own),
        names=" ".join(commands()),
        options=" \\\n".join(lines),
    )


def zsh_option(flag: Flag, name: str) -> str:
    """What `_arguments` wants to know of one spelling of an option."""
    others = "*" if flag.repeatable else f"({' '.join(flag.names)})"
    help = re.sub(r"([][:\\])", r"\\\1", flag.help)
    help = f"[{help}]" if help else ""
    if not flag.metavar:
        return f"{others}{name}{help}"
    if flag.is_switch:
        return f"{others}{name}=-{help}::word:({' '.join(flag.words)})"
    colons = "::" if flag.may_stand_alone else ":"
    sign = "=" if name.startswith("--") else "+"
    return f"{others}{name}{sign}{help}{colons}{flag.metavar}:{zsh_values(flag)}"


def zsh_values(flag: Flag) -> str:
    if flag.is_file:
        return "_files"
    if flag.is_directory:
        return "_files -/"
    return f"({' '.join(flag.words)})" if flag.words else " "


# ---- fish ----


def fish() -> str:
    known = " ".join(commands())
    lines = [
        f"# What fish completes behind fastwsgi {__version__}.",
        "complete -c fastwsgi -f",
        f"complete -c fastwsgi -n __fish_is_first_arg -a {fish_quote(known)}",
        f"complete -c fastwsgi -n '__fish_seen_subcommand_from completion' -a {fish_quote(' '.join(SHELLS))}",
    ]
    for flag in options():
        lines.append(f"complete -c fastwsgi -n 'not __fish_seen_subcommand_from {known}'{fish_option(flag)}")
    for command, flags in commands().items():
        for flag in flags:
            lines.append(
                f"complete -c fastwsgi -n '__fish_seen_subcommand_from {command}'{fish_option(flag)}"
            )
    return "\n".join([*lines, ""])


def fish_option(flag: Flag) -> str:
    line = ""
    for name in flag.names:
        line += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
    if flag.is_file:
        line += " -r -F"
    elif flag.is_directory:
        line += " -x -a '(__fish_complete_directories)'"
    elif flag.takes_value and not flag.may_stand_alone:
        line += " -x"
    if flag.words:
        line += f" -a {fish_quote(' '.join(flag.words))}"
    return f"{line} -d {fish_quote(flag.help)}" if flag.help else line


def fish_quote(text: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", text) + "'"

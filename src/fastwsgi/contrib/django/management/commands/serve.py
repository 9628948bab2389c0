"""`manage.py serve`: the project in production, with the settings of its dict FASTWSGI."""

import argparse
import os
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.management.base import BaseCommand, CommandError

from fastwsgi.arguments import NEGATED
from fastwsgi.config import OPTIONS, Option
from fastwsgi.contrib.command import become
from fastwsgi.contrib.django.reader import PREFIX

# Django has an option of this name itself, and FASTWSGI is in the place of a file.
NOT_HERE = ("pythonpath", "config")


class Words(argparse.Action):
    """Collects options as they were given: fastwsgi reads them."""

    def __call__(self, parser: object, namespace: object, value: object, flag: str | None = None) -> None:
        words = [*(getattr(namespace, self.dest) or ())]
        # None: without a value; [] as well, for those that take none.
        setattr(namespace, self.dest, [*words, f"{flag}={value}" if isinstance(value, str) else str(flag)])


class Command(BaseCommand):  # type: ignore[misc]
    """Django's checks, then the command `fastwsgi` in the same process."""

    help = (
        "Serves the project with fastwsgi, in production. Options not given here are those of "
        "FASTWSGI = {...} in the settings, by the same names (max_requests for --max-requests)."
    )

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> Any:
        """Django's; no option may be cut short, as fastwsgi's cannot be."""
        usage = f"{os.path.basename(prog_name)} {subcommand} [OPTIONS]"
        return super().create_parser(prog_name, subcommand, allow_abbrev=False, usage=usage, **options)

    def add_arguments(self, parser: Any) -> None:
        """All of fastwsgi's, but for those of Django's own."""
        groups: dict[str, Any] = {}
        for option in OPTIONS.values():
            if option.name not in NOT_HERE:
                if option.group not in groups:
                    groups[option.group] = parser.add_argument_group(option.group)
                add_option(groups[option.group], option)
        for flag in NEGATED:
            parser.add_argument(flag, action=Words, dest="words", nargs=0, help=argparse.SUPPRESS)
        for flag, text in (
            ("--check-config", "check the settings, import the application, and serve nothing"),
            ("--print-config", "print all settings and where they come from, as TOML"),
        ):
            parser.add_argument(flag, action=Words, dest="words", nargs=0, help=text)

    def handle(self, *_: object, **options: Any) -> None:
        """Go on as the command."""
        module = os.environ.get(ENVIRONMENT_VARIABLE)
        if not module:
            raise CommandError(
                "each worker reads the settings anew: serve needs a module that has them "
                f"(--settings, or {ENVIRONMENT_VARIABLE})"
            )
        if settings.DEBUG:
            self.stderr.write(
                self.style.WARNING(
                    "DEBUG is on: errors show settings and source code to everybody, and memory grows with "
                    "each query; set DEBUG = False"
                )
            )
        become(["--config", PREFIX + module, *(options["words"] or ())])


def add_option(group: Any, option: Option) -> None:
    """Declare one of fastwsgi's options for argparse."""
    text = f"{option.help} [{option.shown_default}]".replace("%", "%%")
    kind = option.kind
    metavar = kind.metavar.strip("[]=") or None
    nargs = None if kind.alone is None else "?" if metavar else 0
    group.add_argument(*option.flags, action=Words, dest="words", nargs=nargs, metavar=metavar, help=text)

"""Writes docs/options.md from the declarations of the options."""

from collections.abc import Iterator
from pathlib import Path

from fastwsgi.cli import help_text
from fastwsgi.commands import toml_value
from fastwsgi.config import OPTIONS, Option, Settings
from fastwsgi.gunicorn import FOREIGN, OURS, REFUSED
from fastwsgi.hooks import ARITY
from fastwsgi.mounts import KEYS, Key
from fastwsgi.sources import COMMAND_LINE, GUNICORN_COMMAND_LINE

PAGE = Path(__file__).parents[1] / "docs" / "options.md"

CROSS = "\N{MULTIPLICATION SIGN}"
PIPE = "\\|"

INTRODUCTION = f"""\
# Options

Written by `tools/options_page.py` (`make options`) from [config.py](../src/fastwsgi/config.py); what is
changed here by hand is lost.

Each option can be given in these ways; the first that has a value wins:

1. on the command line: `--threads 8` (or as an argument of `fastwsgi.run`);
2. in the variable `{COMMAND_LINE}`, which holds a piece of command line: `--threads 8 --preload`;
3. in a variable of its own, `FASTWSGI_` and its name: `FASTWSGI_THREADS=8`. Where several values are possible
   they are separated by blanks, and quoted as in a shell;
4. in `{GUNICORN_COMMAND_LINE}`, which is heeded with a notice;
5. in a `gunicorn.conf.py`, if `--config` names it;
6. in a variable that platforms set: `PORT` (every address, this port), `WEB_CONCURRENCY` (workers),
   `FORWARDED_ALLOW_IPS`;
7. in `FASTWSGI = {{...}}` of a Django project's settings, if `--config` names them (`django:shop.settings`;
   `manage.py serve` does so);
8. in `fastwsgi.toml`, or else in the table `[tool.fastwsgi]` of `pyproject.toml`, in the current directory or
   that of `--chdir`: `threads = 8`. `--config` names another file. Keys may have hyphens or underscores;
   `app` is the application, as in `app = "shop:app"` (and `FASTWSGI_APP`). Relative paths count from the
   directory in which the server is started.

A value that comes later in this list is replaced, not added to: `--bind` on the command line takes the place
of all addresses of the file. An unknown key, or an unknown variable that begins with `FASTWSGI_`, is an
error. An empty variable counts as not set, unless the option takes an empty value. HUP reads everything
again.

`fastwsgi --print-config` shows each value and where it comes from, as a file that can be kept as
`fastwsgi.toml`. `fastwsgi --check-config` checks all this, imports the application, and exits with 0, with 1
if a setting is wrong, or with 4 if the application cannot be loaded.

SIZE takes k, m, g and t, powers of 1024. TIME takes ms, s, m, h and d, and is in seconds without. An option
without a value is taken back by `--no-` and its name: `--no-daemon`.
"""

ROUTES = """
## Keys of routes

What `--route 'HOST/PATH KEY=VALUE...'` and tables `[[route]]` have; [which route a request has, and what it
inherits](routes.md). Those with a cross say what answers: a route has at most one of them. Those with a plus
may be there several times, in a table as a list.

| key | value | what it is |
|---|---|---|
"""

NO_APPLICATION = """
## Without an application

When nobody names the application, it is looked for in the current directory or that of `--chdir`, then in its
`src`: first what a Django `manage.py` leads to, then `app.py`, `wsgi.py` and `main.py` (or packages of these
names) with `application`, `app` or `create_app()`. Of these the one is taken that imports the others; if
there are several that do not, that is an error. Files are read for it, and not imported.
"""

GUNICORN = """
## gunicorn's settings

gunicorn's flags are accepted, `--config gunicorn.conf.py` executes its file (`python:MODULE` a module), and
its hooks are called: {hooks}. What `pre_request` changes in its request changes
nothing.

- `timeout` is that of a request; a worker that hangs is `--worker-timeout`'s.
- `worker_class = "sync"` without `threads` is one thread, since the application may count on it.
- `secure_scheme_headers` has to have `X-FORWARDED-PROTO`, which is always believed from peers that are
  trusted.
- Where 0 is no limit (`limit_request_line` and its like), the greatest limit is taken.
"""

HELP = f"""
## What help prints

```text
{help_text()}```
"""

OURS_TEXT = """
In its files these have other names than here; the rest of those with an option keep theirs:
"""

FOREIGN_TEXT = """
These are not honoured. One line of the log names those that are given with a value that asks for something;
those with a cross stop the start, since without them the server would do something else than was meant.
"""


def page() -> str:
    """The text of docs/options.md."""
    lines = [INTRODUCTION]
    for group in dict.fromkeys(option.group for option in OPTIONS.values()):
        lines += [f"## {group}\n", "| command line | file, with the default | what it is |", "|---|---|---|"]
        lines += [row(option) for option in OPTIONS.values() if option.group == group]
        lines.append("")
    lines[-1] = ROUTES
    return "\n".join(lines) + "".join(map(key_row, KEYS.values())) + NO_APPLICATION + gunicorn_part() + HELP


def row(option: Option) -> str:
    value = getattr(Settings(), option.name)
    key = option.name if value is None else f"{option.name} = {toml_value(option, value)}"
    help = f"{option.help} (`${option.variable.name}`)" if option.variable else option.help
    return " ".join(("|", code(option.usage), "|", code(key), "|", help.replace("|", "\\|"), "|"))


def key_row(key: Key) -> str:
    mark = f"{CROSS} " if key.is_action else "+ " if key.is_repeatable else ""
    return f"| {mark}{code(key.name)} | {code(key.kind.metavar or 'on')} | {key.help.replace('|', PIPE)} |\n"


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def gunicorn_part() -> str:
    return "\n".join(
        [
            GUNICORN.format(hooks=", ".join(map(code, ARITY))),
            OURS_TEXT,
            "| gunicorn | fastwsgi |",
            "|---|---|",
            *(f"| {code(theirs)} | {code(ours)} |" for theirs, ours in OURS.items() if theirs != ours),
            FOREIGN_TEXT,
            "| setting | flags | why |",
            "|---|---|---|",
            *foreign_rows(),
            "",
        ]
    )


def foreign_rows() -> Iterator[str]:
    for name, row in sorted(FOREIGN.items()):
        cross = f"{CROSS} " if name in REFUSED else ""
        yield f"| {cross}{code(name)} | {', '.join(map(code, row.flags))} | {REFUSED.get(name, row.why)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

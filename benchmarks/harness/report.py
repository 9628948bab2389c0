"""What a run prints and writes: tables as Markdown, everything as JSON, a chart for each case of CPU time."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import machine
from harness.cases import CASES, CPU_COLUMNS, Case
from harness.chart import Bar, bar_chart
from harness.results import Entry, Results, cell, ordered
from harness.servers import SERVERS
from harness.targets import judge


def table(rows: list[list[str]]) -> str:
    """A Markdown table that is also readable as text: first column left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: list[str]) -> str:
        cells = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        return "| " + " | ".join([row[0].ljust(widths[0]), *cells[1:]]) + " |"

    rule = [":" + "-" * (widths[0] - 1)] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(rows[0]), "| " + " | ".join(rule) + " |", *map(line, rows[1:])])


def publish(
    title: str,
    explanation: str,
    rows: list[list[str]],
    *,
    load: float,
    facts: Mapping[str, str] | None = None,
    problems: Sequence[str] = (),
    output: Path | None = None,
) -> None:
    """Print one table, with what it shows and where and when it was measured; write it to a file, too.

    load: the load average before. facts: what is told beside the machine's. problems: lines on what has no
    figures.
    """
    date = datetime.datetime.now(datetime.UTC).isoformat(" ", "minutes")
    known = {**machine.describe(), "commit": machine.commit(), "load average before": f"{load:.2f}"}
    listed = "\n".join(f"- {name}: {value}" for name, value in {**known, **(facts or {})}.items())
    parts = [f"# {title}, {date}", listed, explanation, table(rows)]
    if problems:
        parts.append("Without figures:\n\n" + "\n".join(problems))
    text = "\n\n".join(parts)
    print(text)
    if output:
        output.write_text(text + "\n", encoding="utf-8")


def case_table(case: Case, entries: dict[str, Entry]) -> str:
    rows = [["server", *(column.heading for column in case.columns)]]
    problems = []
    for name, entry in ordered(case, entries):
        problems += [f"- {name}: {problem}" for problem in dict.fromkeys(entry.problems)]
        if entry.rounds:
            rows.append([name, *(cell(entry, column) for column in case.columns)])
    parts = [f"## {case.name}\n\n{case.title}."]
    if len(rows) > 1:
        parts.append(table(rows))
    if problems:
        parts.append("Rounds without figures:\n\n" + "\n".join(problems))
    return "\n\n".join(parts)


def _servers_table(results: Results) -> str:
    rows = [["server", "version", "notes"]]
    for name, version in results.versions.items():
        server = SERVERS[name]
        missing = f"missing; comes with {server.install}"
        rows.append([name, (version or "missing").replace("|", "/"), server.note if version else missing])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| :-- | :-- | :-- |", *lines[1:]])


def targets_text(results: Results) -> str:
    judged, lines = judge(results), ["## Targets", ""]
    for target in judged:
        if target.reached is not None:
            verdict = "reached" if target.reached else "**NOT reached**"
            lines.append(f"- {verdict}: {target.text}: {target.figure}")
    unmeasured = [target.text for target in judged if target.reached is None]
    if unmeasured:
        lines.append(f"- not measured in this run: {'; '.join(unmeasured)}")
    return "\n".join(lines)


def overview(results: Results) -> str:
    """What was compared, where, and what disturbed it."""
    facts = {**results.machine, **{name: str(value) for name, value in results.settings.items()}}
    facts |= {name: f"{value:.2f}" for name, value in results.disturbance.items()}
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"## Machine and versions\n\n{lines}\n\n{_servers_table(results)}"


def as_markdown(results: Results) -> str:
    explanation = (
        "CPU time is what the kernel counted for all processes of a server, per request answered. "
        "Figures compare within this run only."
    )
    tables = []
    for name, entries in results.cases.items():
        tables.append(case_table(CASES[name], entries))
        if CASES[name].columns is CPU_COLUMNS:
            tables.append(f"![{CASES[name].title}]({name}.svg)")
    head = [f"# Benchmark of {results.date}", f"Commit {results.commit}.", explanation]
    return "\n\n".join([*head, overview(results), targets_text(results), *tables]) + "\n"


def _chart(case: Case, entries: dict[str, Entry]) -> str:
    bars = []
    for name, entry in ordered(case, entries):
        cpu_us = entry.figure("cpu_us")
        if cpu_us:
            per_second = 1e6 / cpu_us
            text = f"{per_second:,.0f}  ({cpu_us:,.1f} us)"
            bars.append(Bar(name, per_second, text, SERVERS[name].kind))
    return bar_chart(f"{case.name}: {case.title}", "requests per second of CPU time; longer is better", bars)


def write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.md").write_text(as_markdown(results), encoding="utf-8")
    (folder / "latest.json").write_text(json.dumps(results.as_json(), indent=1) + "\n", encoding="utf-8")
    for name, entries in results.cases.items():
        if CASES[name].columns is CPU_COLUMNS:
            (folder / f"{name}.svg").write_text(_chart(CASES[name], entries), encoding="utf-8")

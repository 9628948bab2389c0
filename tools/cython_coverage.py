"""Print, for each Cython and C file of ours, how many of its lines ran: what gcov has counted in the C."""

import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

# Cython names the line that it translates in a comment before the C, and says where a function's exit begins.
ORIGIN = re.compile(r'/\* "(src/[^"]+)":(\d+)')
EXIT = "/* function exit code */"


def main() -> None:
    # File, line, how often it ran.
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for notes in Path("build/cover").rglob("*.gcno"):
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", notes], stdout=subprocess.PIPE, check=True
        )
        for file in json.loads(done.stdout)["files"]:
            name = file["file"].removeprefix("./")
            origins = origins_of(Path(name)) if name.startswith("build/cover/src/") else None
            if origins is None and not name.startswith("src/"):
                continue
            for line in file["lines"]:
                number = line["line_number"]
                place = (name, number) if origins is None else origins.get(number)
                if place is not None:
                    lines = counts[place[0]]
                    lines[place[1]] = max(lines[place[1]], line["count"])
    print(f"{'Name':<36}{'Lines':>8}{'Missed':>8}{'Cover':>8}   Missing")
    for name, lines in sorted(counts.items()):
        missed = [number for number, count in sorted(lines.items()) if not count]
        share = 1 - len(missed) / len(lines)
        print(f"{name:<36}{len(lines):>8}{len(missed):>8}{share:>8.0%}   {ranges(missed)}")


def origins_of(c_file: Path) -> dict[int, tuple[str, int]]:
    """Map the line numbers of generated C to file and line of the Cython source."""
    origins: dict[int, tuple[str, int]] = {}
    place = None
    for number, line in enumerate(c_file.read_text().splitlines(), 1):
        if match := ORIGIN.search(line):
            place = (match[1], int(match[2]))
        elif EXIT in line or "Code section:" in line:
            place = None
        if place is not None:
            origins[number] = place
    return origins


def ranges(numbers: list[int]) -> str:
    """Write ascending numbers as "3-5, 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


if __name__ == "__main__":
    main()

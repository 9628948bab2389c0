"""Runs the scripts beside it: python tests/abuse [--long] [--compare] [--output FILE] [NAME ...]

The exit code is 1 when a promise was broken. --output keeps what was printed, and on which machine.
"""

import argparse
import datetime
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from harness import machine

HERE = Path(__file__).resolve().parent
SCRIPTS = ("resets", "floods", "idle", "giant", "disk", "memory", "handshakes", "files", "slow")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="the full numbers and times, some 20 minutes")
    parser.add_argument("--compare", action="store_true", help="other servers under the slow clients, too")
    parser.add_argument("--output", type=Path, help="write what is printed to this file")
    parser.add_argument("names", nargs="*", default=SCRIPTS, help=f"of: {', '.join(SCRIPTS)}")
    options = parser.parse_args()
    modes = [f"--{mode}" for mode in ("long", "compare") if getattr(options, mode)]
    load, stolen = os.getloadavg()[0], machine.stolen_seconds()
    begun = datetime.datetime.now(datetime.UTC)
    sections, failed = [], []
    for name in options.names:
        text, code = run([sys.executable, "-u", str(HERE / f"{name}.py"), *modes])
        sections.append(f"## {name}\n\n{text}")
        if code:
            failed.append(name)
    facts = {
        **machine.describe(),
        "date": begun.isoformat(" ", "minutes"),
        "commit": machine.commit(),
        "load average before": f"{load:.2f}",
        "load average after": f"{os.getloadavg()[0]:.2f}",
        "seconds stolen by the hypervisor": f"{machine.stolen_seconds() - stolen:.1f}",
    }
    if options.output:
        head = "# Abuse\n\n" + "".join(f"- {name}: {value}\n" for name, value in facts.items())
        options.output.write_text("\n".join([head, *sections]), encoding="utf-8")
    took = (datetime.datetime.now(datetime.UTC) - begun).total_seconds()
    print(f"broken: {', '.join(failed)}" if failed else f"every promise kept, in {took:.0f} s")
    return 1 if failed else 0


def run(command):
    """What it prints, which is passed on as it comes, as Markdown; and its exit code."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            # Tables are Markdown already, figures become so by four blanks, the rest are headings.
            if line.startswith(" "):
                lines.append(f"  {line}")
            else:
                lines.append(line if line.startswith("|") or line == "\n" else f"\n### {line}\n")
    return "".join(lines), process.returncode


if __name__ == "__main__":
    sys.exit(main())

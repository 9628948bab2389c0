"""What is released, made and tried out: package.py [--dist DIRECTORY] [PYTHON...]

The source archive, twice, to the same octets. From it, for each Python (or the one that runs this), a wheel,
built where there is nothing but that Python and a C compiler, installed where there is nothing but that
Python, served with, and taken away again. Last a list of what is in it (CycloneDX), where there is
`cyclonedx-py`.
"""

import argparse
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 3_000_000
# What the linker leaves out of a wheel: symbols that are for debuggers alone.
STRIP = "-Wl,-x" if sys.platform == "darwin" else "-Wl,--strip-all"
APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make what is released, and try it out.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("pythons", nargs="*", default=[sys.executable], metavar="PYTHON")
    given = parser.parse_args()
    os.environ.setdefault("SOURCE_DATE_EPOCH", committed())
    os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    given.dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-") as directory:
        workshop = Path(directory)
        archive = source_archive(workshop, given.dist)
        for number, python in enumerate(given.pythons):
            room = workshop / str(number)
            wheel = build(python, archive, room, given.dist)
            try_out(python, wheel, room)
        bill(python, wheel, room, given.dist)


def committed() -> str:
    """When what is here was committed; 0 where nobody knows."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return done.stdout.strip() or "0"


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """The output of a command; the end of everything if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}\nfailed with {done.returncode}")
    return done.stdout


def environment(python: str, directory: Path) -> Path:
    """A new virtual environment with nothing in it; its bin."""
    run(python, "-m", "venv", directory)
    return directory / "bin"


def source_archive(workshop: Path, dist: Path) -> Path:
    """The archive of this tree; what the archive makes of itself has to be the same."""
    first, second = workshop / "first", workshop / "second"
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", first)
    [archive] = first.iterdir()
    shutil.unpack_archive(archive, workshop / "unpacked", filter="data")
    [tree] = (workshop / "unpacked").iterdir()
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", second, cwd=tree)
    if not filecmp.cmp(archive, second / archive.name, shallow=False):
        sys.exit(f"{archive.name}: a second one differs")
    print(f"{archive.name}: {archive.stat().st_size:,} octets, twice the same")
    return Path(shutil.copy(archive, dist))


def build(python: str, archive: Path, room: Path, dist: Path) -> Path:
    """A wheel of the source archive; pip gets what is needed to build it, the machine has the C compiler."""
    bin = environment(python, room / "builder")
    linking = f"{os.environ.get('LDFLAGS', '')} {STRIP}".strip()
    run(
        bin / "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--wheel-dir",
        room / "built",
        archive,
        cwd=room,
        LDFLAGS=linking,
    )
    [wheel] = (room / "built").iterdir()
    if "linux" in wheel.name and shutil.which("auditwheel"):
        run("auditwheel", "repair", "--wheel-dir", room / "repaired", wheel)
        [wheel] = (room / "repaired").iterdir()
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size:,} octets")
    if size > LARGEST:
        sys.exit(f"more than {LARGEST:,}")
    return Path(shutil.copy(wheel, dist))


def try_out(python: str, wheel: Path, room: Path) -> None:
    """Install it as users do who have no compiler, serve, and take it away again."""
    bin = environment(python, room / "user")
    before = tree(bin.parent)
    run(bin / "pip", "install", "-q", "--no-index", "--only-binary", ":all:", wheel)
    for name in ("bin/fastwsgi", "share/man/man1/fastwsgi.1"):
        if not (bin.parent / name).exists():
            sys.exit(f"{wheel.name}: {name} was not installed")
    if shutil.which("readelf"):
        for module in bin.parent.rglob("fastwsgi/*.so"):
            if re.search(r"\.symtab|\.debug_", run("readelf", "-SW", module)):
                sys.exit(f"{module.name} is not stripped")
    serve(bin, room)
    run(bin / "pip", "uninstall", "-q", "-y", "fastwsgi")
    left = tree(bin.parent) - before
    if left:
        sys.exit(f"left behind: {', '.join(sorted(left))}")
    print(
        f"{wheel.name}: installed, served with {run(bin / 'python', '-V').strip()}, and gone without a trace"
    )


def tree(directory: Path) -> set[str]:
    """The files there, but for bytecode; pip leaves empty directories that others may use, too."""
    files = (path for path in directory.rglob("*") if not path.is_dir() and "__pycache__" not in path.parts)
    return {str(path.relative_to(directory)) for path in files}


def serve(bin: Path, room: Path) -> None:
    (room / "application.py").write_text(APPLICATION)
    command = [
        str(bin / "fastwsgi"),
        "--bind",
        "127.0.0.1:0",
        "--workers",
        "1",
        "--control-socket",
        "none",
        "application:app",
    ]
    with subprocess.Popen(command, cwd=room, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = ""
            for line in server.stderr or ():
                said += line
                if address := re.search(r"http://[0-9.:]+", line):
                    break
            else:
                sys.exit(f"it does not serve:\n{said}")
            with urllib.request.urlopen(address[0], timeout=30) as answer:
                if answer.read() != b"served":
                    sys.exit("it serves something else")
        finally:
            server.terminate()
        if server.wait(30):
            sys.exit(f"it ended with {server.returncode}")


def bill(python: str, wheel: Path, room: Path, dist: Path) -> None:
    """What an installation of the wheel consists of."""
    tool = shutil.which("cyclonedx-py")
    if not tool:
        print("no cyclonedx-py here: no bill of materials")
        return
    # With nothing but the wheel in it, not even pip.
    run(python, "-m", "venv", "--without-pip", room / "billed")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        room / "billed" / "bin" / "python",
        "install",
        "-q",
        "--no-index",
        wheel,
    )
    file = dist / "fastwsgi.cdx.json"
    run(tool, "environment", "--output-reproducible", "-o", file, room / "billed")
    print(f"{file.name}: what is in it")


if __name__ == "__main__":
    main()

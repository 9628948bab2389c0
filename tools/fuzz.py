"""Fuzz: build the targets of tests/fuzz/targets.pyx with clang, and run each for its share of the seconds.

    tools/fuzz.py --seconds 60                  every target, then a running server
    tools/fuzz.py --seconds 600 parser          one target
    tools/fuzz.py parser build/fuzz/parser-...  one input, once

What a target has learnt stays in build/fuzz/corpus, and its next run begins there. An input that breaks a
target is left in build/fuzz, and the exit code is 1; once that is mended, the input becomes a vector.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path("tests/fuzz")
BUILD = Path("build/fuzz")
PROGRAM = BUILD / "targets"
GENERATED = Path("build/plain/src")
LIVE = "live"

# Python calls functions through pointers of another type, which is not what we look for.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize=function -fno-sanitize-recover=all"
FLAGS = ["-g", "-O1", "-fno-omit-frame-pointer", *SANITIZERS.split()]
LARGEST_INPUT = 4096


def vectors() -> Iterable[bytes]:
    return (path.read_bytes() for path in Path("tests/vectors").rglob("*.http"))


def chunked_content() -> Iterable[bytes]:
    """What comes after the first head of the vectors that are about chunks."""
    heads = (octets.partition(b"\r\n\r\n") for octets in vectors())
    return (content for head, _, content in heads if b"chunked" in head.lower() and content)


def files(name: str) -> Callable[[], Iterable[bytes]]:
    return lambda: (path.read_bytes() for path in (HERE / "seeds" / name).iterdir())


# Target: what it begins with.
SEEDS: dict[str, Callable[[], Iterable[bytes]]] = {
    "parser": vectors,
    "chunked": chunked_content,
    "response": files("response"),
}


def modules_of(source: Path) -> list[str]:
    """The compiled modules that a Cython file needs, directly or not."""
    found: list[str] = []
    texts = [source.read_text()]
    while texts:
        for name in re.findall(r"^from fastwsgi\.(\w+) cimport", texts.pop(), re.MULTILINE):
            path = Path(f"src/{name}.pyx")
            if name not in found and path.exists():
                found.append(name)
                texts += [path.read_text(), Path(f"src/fastwsgi/{name}.pxd").read_text()]
    return found


def build() -> None:
    """One program out of the C that the plain build has made, the targets, and Python itself."""
    clang = os.environ.get("CLANG", "clang")
    if not shutil.which(clang):
        sys.exit("fuzz: there is no clang (apt-get install clang, or name one: CLANG=clang-18)")
    source = HERE / "targets.pyx"
    modules = modules_of(source)
    sources = [GENERATED / f"{name}.c" for name in modules]
    newest = max(path.stat().st_mtime for path in [source, Path(__file__), *sources])
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > newest:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    config = sysconfig.get_config_vars()
    compile_ = [clang, *FLAGS, f"-I{config['INCLUDEPY']}", "-Isrc", "-Isrc/platform"]
    python = [f"-L{config['LIBDIR']}", f"-L{config['LIBPL']}", f"-Wl,-rpath,{config['LIBDIR']}", "-rdynamic"]
    python += [f"-lpython{config['LDVERSION']}", *config["LIBS"].split(), *config["SYSLIBS"].split()]
    known = " ".join(f"X({name})" for name in modules)
    glue, glue_object = BUILD / "targets.c", BUILD / "targets.o"
    for command in (
        [sys.executable, "-m", "cython", "-I", "src", "-o", glue, source],
        # Without libFuzzer: what is tested counts as covered, not what tests it.
        [*compile_, f"-DMODULES={known}", "-c", glue, "-o", glue_object],
        [*compile_, "-fsanitize=fuzzer", *sources, glue_object, *python, "-o", PROGRAM],
    ):
        subprocess.run([str(word) for word in command], check=True)


def program(target: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "FUZZ_TARGET": target,
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": "src",
        "ASAN_OPTIONS": "quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [str(word) for word in (PROGRAM, *arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")


def dictionary() -> Path:
    """Words that mean something, as libFuzzer reads them: those that the live test puts in."""
    path = BUILD / "words"
    interesting = runpy.run_path(str(HERE / "mutations.py"))["INTERESTING"]
    words = ("".join(f"\\x{octet:02x}" for octet in word) for word in interesting if len(word) <= 64)
    path.write_text("".join(f'"{word}"\n' for word in words))
    return path


def run_target(target: str, seconds: float) -> bool:
    """Run it for so long; False if it found something."""
    seeds, corpus = BUILD / "seeds" / target, BUILD / "corpus" / target
    shutil.rmtree(seeds, ignore_errors=True)
    for folder in (seeds, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(SEEDS[target]()):
        (seeds / str(number)).write_bytes(octets)
    done = program(
        target,
        corpus,
        seeds,
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={LARGEST_INPUT}",
        f"-dict={dictionary()}",
        f"-artifact_prefix={BUILD}/{target}-",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    )
    log = BUILD / f"{target}.log"
    log.write_text(done.stderr)
    if done.returncode == 0:
        runs = re.findall(r"number_of_executed_units: *(\d+)", done.stderr)[-1]
        edges = re.findall(r"cov: (\d+)", done.stderr)[-1]
        print(f"fuzz: {target}: nothing found in {runs} runs; {edges} edges covered", flush=True)
        return True
    print(*done.stderr.splitlines()[-60:], sep="\n")
    inputs = re.findall(r"Test unit written to (\S+)", done.stderr)
    again = f"; again: make fuzz ARGS='{target} {inputs[-1]}'" if inputs else ""
    print(f"fuzz: {target}: FAILED, see above and {log}{again}", flush=True)
    return False


def run_live(seconds: float) -> bool:
    """The same to running servers: mutated vectors, and what is left after them."""
    environment = {**os.environ, "FUZZ_SECONDS": str(seconds)}
    command = [sys.executable, "-m", "pytest", "-q", "-s", str(HERE / "test_live_server.py"), "-k", "grows"]
    done = subprocess.run(command, env=environment)
    if done.returncode:
        print(f"fuzz: {LIVE}: FAILED, see above", flush=True)
    return done.returncode == 0


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("target", nargs="?", choices=[*SEEDS, LIVE])
    parser.add_argument("input", nargs="?", type=Path)
    given = parser.parse_args()
    targets = [given.target] if given.target else [*SEEDS, LIVE]
    if targets != [LIVE]:
        build()
    if given.input:
        done = program(given.target, given.input)
        print(done.stderr)
        return done.returncode
    share = given.seconds / len(targets)
    results = [run_live(share) if target == LIVE else run_target(target, share) for target in targets]
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())

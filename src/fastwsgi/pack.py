"""`fastwsgi pack`: writes files in other codings beside them, for the server to send as they are."""

import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastwsgi._types import content_type
from fastwsgi.errors import ConfigError
from fastwsgi.resources import show_size

USAGE = "fastwsgi pack DIRECTORY..."

# What is smaller fits one packet with its head, whatever becomes of it.
LEAST = 256

# What becomes smaller: text, and what is much like it. Most else is compressed already.
TYPES = {"application/json", "application/wasm", "application/toml", "application/yaml", "application/sql"}
TYPES |= {"application/rtf", "application/postscript", "application/x-sh", "application/vnd.ms-fontobject"}
TYPES |= {"font/ttf", "font/otf", "font/collection", "image/bmp", "image/vnd.microsoft.icon"}

Compress = Callable[[bytes], bytes]


@dataclass
class Count:
    """What was done."""

    written: int = 0
    current: int = 0
    octets: int = 0
    packed: int = 0


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """The command: (exit code, what to print)."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        raise ConfigError(f"usage: {USAGE}")
    for directory in arguments:
        if not os.path.isdir(directory):
            raise ConfigError(f"pack: {directory} is no directory")
    codings, missing = known_codings()
    counts = {ending: Count() for ending in codings}
    files = [path for directory in arguments for path in packable(Path(directory))]
    # The compressors let go of the GIL.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for path_counts in threads.map(lambda path: pack(path, codings), files):
            for ending, count in path_counts.items():
                for name in ("written", "current", "octets", "packed"):
                    setattr(counts[ending], name, getattr(counts[ending], name) + getattr(count, name))
    lines = [f"{len(files)} files to pack"]
    for ending, count in counts.items():
        lines.append(
            f"{ending[1:]}: {count.written} written, {count.current} as they were; "
            f"{show_size(count.octets)} become {show_size(count.packed)}"
        )
    lines += [f"no {ending[1:]}: pip install 'fastwsgi[{extra}]'" for ending, extra in missing.items()]
    return 0, "\n".join([*lines, ""])


def known_codings() -> tuple[dict[str, Compress], dict[str, str]]:
    """How each ending is made, as far as that is installed; and the extras that are not."""
    codings: dict[str, Compress] = {".gz": gzip}
    missing = {}
    try:
        import brotli

        codings[".br"] = lambda data: brotli.compress(data, quality=11)
    except ImportError:
        missing[".br"] = "brotli"
    try:
        codings[".zst"] = zstd()
    except ImportError:
        missing[".zst"] = "zstd"
    return codings, missing


def gzip(data: bytes) -> bytes:
    # Without a name or a time in it: the same file always becomes the same.
    maker = zlib.compressobj(9, wbits=31)
    return maker.compress(data) + maker.flush()


def zstd() -> Compress:
    try:
        from compression.zstd import compress
    except ImportError:
        from backports.zstd import compress

    return lambda data: bytes(compress(data, level=19))


def packable(directory: Path) -> Iterator[Path]:
    """Files beneath it that may become smaller; symbolic links are not followed."""
    for where, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(where, name)
            if is_compressible(name) and stat.S_ISREG(path.lstat().st_mode):
                yield path


def is_compressible(name: str) -> bool:
    kind = content_type(os.fsencode(name)).partition(";")[0]
    return kind.startswith("text/") or kind.endswith(("+xml", "+json")) or kind in TYPES


def pack(path: Path, codings: dict[str, Compress]) -> dict[str, Count]:
    """Write what is not there yet of a file, or older or newer than it."""
    counts = {ending: Count() for ending in codings}
    status = path.stat()
    data = None
    for ending, compress in codings.items():
        count, beside = counts[ending], path.with_name(path.name + ending)
        if is_current(beside, status):
            count.current = 1
        elif status.st_size >= LEAST:
            data = path.read_bytes() if data is None else data
            packed = compress(data)
            if len(packed) >= len(data):
                beside.unlink(missing_ok=True)
                continue
            write(beside, packed, status)
            count.written = 1
        else:
            continue
        count.octets, count.packed = status.st_size, beside.stat().st_size
    return counts


def is_current(beside: Path, status: os.stat_result) -> bool:
    try:
        return beside.stat().st_mtime_ns == status.st_mtime_ns
    except FileNotFoundError:
        return False


def write(beside: Path, packed: bytes, status: os.stat_result) -> None:
    """Write a file all at once, with the mode and the time of the one that it stands for."""
    made = beside.with_name(f".{beside.name}.{os.getpid()}")
    try:
        made.write_bytes(packed)
        made.chmod(stat.S_IMODE(status.st_mode))
        os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        made.replace(beside)
    finally:
        made.unlink(missing_ok=True)

"""What compresses: zlib, brotli and zstd with the same methods. All of them let go of the GIL meanwhile."""

import sys
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from fastwsgi.errors import ConfigError

# The most that a window may take of a client that wants to read a stream.
WINDOW_BITS = 18


class Stream(Protocol):
    """Content in a coding, a piece at a time."""

    @property
    def feed(self) -> Callable[[bytes], bytes]:
        """Take data; return what is ready, perhaps nothing."""

    @property
    def flush(self) -> Callable[[], bytes]:
        """Return the rest of what was fed: a client can read all of it then."""

    @property
    def end(self) -> Callable[[], bytes]:
        """Return the rest and the end of the content."""


# Makes the stream for content of this size, or of one that is not known yet.
Maker = Callable[[int | None], Stream]


def window_bits(size: int | None, least: int, most: int) -> int:
    """Of a window as large as the content: clearing memory is much of the time for short content."""
    return most if size is None else min(max(size.bit_length(), least), most)


class Gzip:
    def __init__(self, level: int, size: int | None) -> None:
        bits = window_bits(size, 9, 15)
        stream = zlib.compressobj(level, zlib.DEFLATED, 16 + bits, bits - 7)
        self.feed = stream.compress
        self.flush = partial(stream.flush, zlib.Z_SYNC_FLUSH)
        self.end = stream.flush


class Brotli:
    def __init__(self, module: ModuleType, level: int, size: int | None) -> None:
        stream = module.Compressor(quality=level, lgwin=window_bits(size, 10, WINDOW_BITS))
        self.feed = stream.process
        self.flush = stream.flush
        self.end = stream.finish


class Zstd:
    def __init__(self, module: ModuleType, level: int, size: int | None) -> None:
        options: dict[Any, int] = {
            module.CompressionParameter.compression_level: level,
            module.CompressionParameter.window_log: window_bits(size, 10, WINDOW_BITS),
        }
        stream = module.ZstdCompressor(options=options)
        self.feed = stream.compress
        self.flush = partial(stream.flush, stream.FLUSH_BLOCK)
        self.end = stream.flush


def makers(words: Iterable[str]) -> dict[str, Maker]:
    """What makes streams, by coding, in the order of the words; ConfigError if a package is missing.

    words: those of `--compress`, such as br:5.
    """
    return {name: maker(name, level) for name, _, level in (word.partition(":") for word in words)}


def maker(name: str, level: str) -> Maker:
    # For answers that are made while somebody waits: a higher level takes much longer for little.
    if name == "gzip":
        return partial(Gzip, int(level or 5))
    if name == "br":
        return partial(Brotli, load("brotli", name, "brotli"), int(level or 4))
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return partial(Zstd, load(module, name, "zstd"), int(level or 3))


def load(module: str, name: str, extra: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError:
        raise ConfigError(
            f"compress: {name} needs the module {module}, which this Python has not: install "
            f"fastwsgi[{extra}], or leave {name} out of --compress"
        ) from None

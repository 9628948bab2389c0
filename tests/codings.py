"""Decoders of the content codings, to read what the server has compressed."""

import gzip
import sys
import zlib
from importlib import import_module

import pytest

brotli = pytest.importorskip("brotli")
zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

DECODE = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": zstd.decompress}


def reader(coding):
    """A function that is given content piece by piece, and returns what can be read of it so far."""
    if coding == "gzip":
        return zlib.decompressobj(31).decompress
    if coding == "br":
        return brotli.Decompressor().process
    return zstd.ZstdDecompressor().decompress

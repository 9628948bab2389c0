"""`fastwsgi pack`: files in other codings beside them."""

import gzip
import os

import pytest
from backports import zstd

from fastwsgi import pack
from fastwsgi.cli import main
from fastwsgi.errors import ConfigError

brotli = pytest.importorskip("brotli")

TEXT = b"body { color: red }\n" * 100


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.css").write_bytes(TEXT)
    (tmp_path / "sub" / "b.svg").write_bytes(TEXT)
    (tmp_path / "small.css").write_bytes(b"x")
    (tmp_path / "photo.jpg").write_bytes(TEXT)
    (tmp_path / "random.js").write_bytes(os.urandom(4000))
    (tmp_path / "link.css").symlink_to("a.css")
    os.utime(tmp_path / "a.css", ns=(1, 784111777_123456789))
    (tmp_path / "a.css").chmod(0o640)
    return tmp_path


def names(tree):
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.suffix in (".gz", ".br", ".zst")}


def test_what_becomes_smaller_is_packed(tree, capsys):
    assert main(["pack", str(tree)]) == 0
    assert names(tree) == {
        f"{name}{ending}" for name in ("a.css", "sub/b.svg") for ending in (".gz", ".br", ".zst")
    }
    assert gzip.decompress((tree / "a.css.gz").read_bytes()) == TEXT
    assert brotli.decompress((tree / "a.css.br").read_bytes()) == TEXT
    assert zstd.decompress((tree / "a.css.zst").read_bytes()) == TEXT
    for ending in (".gz", ".br", ".zst"):
        status = (tree / f"a.css{ending}").stat()
        assert (status.st_mtime_ns, status.st_mode & 0o777) == (784111777_123456789, 0o640)
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "4 files to pack"
    assert "gz: 2 written, 0 as they were; " in said


def test_only_what_has_changed_is_packed_again(tree):
    pack.run([str(tree)])
    inodes = {name: (tree / name).stat().st_ino for name in names(tree)}
    assert "gz: 0 written, 2 as they were" in pack.run([str(tree)])[1]
    (tree / "a.css").write_bytes(TEXT * 2)
    assert "gz: 1 written, 1 as they were" in pack.run([str(tree)])[1]
    assert gzip.decompress((tree / "a.css.gz").read_bytes()) == TEXT * 2
    assert (tree / "sub/b.svg.gz").stat().st_ino == inodes["sub/b.svg.gz"]
    (tree / "a.css").write_bytes(os.urandom(3000))
    pack.run([str(tree)])
    assert not any(name.startswith("a.css") for name in names(tree))


def test_the_same_file_becomes_the_same(tree):
    pack.run([str(tree)])
    first = {name: (tree / name).read_bytes() for name in names(tree)}
    for name in first:
        (tree / name).unlink()
    pack.run([str(tree)])
    assert {name: (tree / name).read_bytes() for name in names(tree)} == first


def test_without_the_extras(tree, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    monkeypatch.setattr(pack, "zstd", lambda: __import__("no_such_module"))
    said = pack.run([str(tree)])[1]
    assert "no br: pip install 'fastwsgi[brotli]'" in said
    assert "no zst: pip install 'fastwsgi[zstd]'" in said
    assert names(tree) == {"a.css.gz", "sub/b.svg.gz"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["/nowhere"]])
def test_wrong_arguments(arguments):
    with pytest.raises(ConfigError, match=r"usage: fastwsgi pack DIRECTORY|/nowhere is no directory"):
        pack.run(arguments)

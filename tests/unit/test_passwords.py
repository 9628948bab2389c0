"""Password files: what a line may be, who is let in, and the command that writes them."""

import base64
import hashlib
import io
import logging
import os
import stat
import sys
import threading
import time

import bcrypt
import pytest
from django.conf import settings
from django.contrib.auth import hashers

from fastwsgi import passwords
from fastwsgi._rates import Rates
from fastwsgi.cli import main
from fastwsgi.errors import ConfigError
from fastwsgi.passwords import Doorkeeper, basic_credentials, new_hash, read_passwords, verifier

CLIENT = b"10.0.0.1"


def quick(password, salt="salt"):
    """A hash that takes no time."""
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10)
    return f"pbkdf2_sha256$10${salt}${base64.b64encode(digest).decode()}"


def field(user, password):
    token = base64.b64encode(user.encode() + b":" + password.encode())
    return f"Basic {token.decode()}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "passwords"
    path.write_text(f"# who may come in\n\nann:{quick('sesame')}\nzoë:{quick('ключ')}\n")
    return path


@pytest.fixture
def keeper(file, monkeypatch):
    monkeypatch.setattr(passwords, "LOOK_PAUSE", 0.0)
    return Doorkeeper(str(file), Rates())


# Hashes


@pytest.mark.parametrize("password", ["sesame", "a b:c", "ключ", "x" * 100])
@pytest.mark.parametrize(
    "make",
    [
        quick,
        lambda password: bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode(),
        lambda password: (
            bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode().replace("$2b", "$2y")
        ),
    ],
    ids=["pbkdf2", "bcrypt", "as htpasswd -B"],
)
def test_a_hash_knows_its_password(make, password):
    verify = verifier(make(password))
    assert verify(password.encode())
    assert not verify(b"")
    assert not verify(password.encode()[:-1] + b"?") or len(password) > 72
    assert not verify(b"\0" + password.encode())


@pytest.mark.parametrize("hasher", [hashers.PBKDF2PasswordHasher, hashers.ScryptPasswordHasher])
def test_hashes_of_django(hasher, monkeypatch):
    if not settings.configured:
        settings.configure()
    monkeypatch.setattr(hashers.PBKDF2PasswordHasher, "iterations", 10)
    monkeypatch.setattr(hashers.ScryptPasswordHasher, "work_factor", 16)
    verify = verifier(hasher().encode("sesame", "somesalt"))
    assert verify(b"sesame")
    assert not verify(b"other")


def test_the_hash_that_is_made():
    verify = verifier(new_hash(b"sesame"))
    assert verify(b"sesame")
    assert not verify(b"sesame ")


@pytest.mark.parametrize(
    ("hashed", "why"),
    [
        ("{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", "SHA-1"),
        ("$apr1$7EFaPqdE$R7GEJnPLLUxvJnMJXnuMt0", "MD5"),
        ("rqXexS6ZhobKA", "DES"),
        ("{PLAIN}sesame", "no hash at all"),
        ("sesame", "no hash that is known"),
        ("", "no hash that is known"),
        ("pbkdf2_sha256$0$salt$AAAA", "not pbkdf2_sha256"),
        ("pbkdf2_sha256$99999999$salt$AAAA", "not pbkdf2_sha256"),
        ("pbkdf2_sha256$10$salt$AAAA", "not a digest"),
        ("scrypt$16$salt$8$AAAA", "not scrypt"),
        (f"scrypt$15$salt$8$1${'A' * 44}", "power of two"),
        (f"scrypt$8388608$salt$8$1${'A' * 44}", "256 MiB"),
        ("$2b$31$" + "a" * 53, "cost of at most"),
        ("$2b$10$short", "not a bcrypt hash"),
    ],
)
def test_what_is_no_hash_to_use(hashed, why, tmp_path):
    (tmp_path / "passwords").write_text(f"# one\nann:{hashed}\n")
    with pytest.raises(ConfigError, match=why) as error:
        read_passwords(str(tmp_path / "passwords"))
    assert "passwords, line 2: ann has" in str(error.value)
    assert "fastwsgi passwd" in str(error.value)


def test_bcrypt_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(ValueError, match=r"pip install 'fastwsgi\[bcrypt\]'"):
        verifier("$2b$10$" + "a" * 53)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"ann\n", "line 1: not USER:HASH"),
        (b":x\n", "line 1: not USER:HASH"),
        (f"ann:{quick('a')}\nann:{quick('b')}\n".encode(), "line 2: ann is there a second time"),
        (b"ann:\xff\n", "not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_file_of_passwords(content, why, tmp_path):
    if content is not None:
        (tmp_path / "passwords").write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        Doorkeeper(str(tmp_path / "passwords"), Rates())


# Credentials


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (field("ann", "sesame"), ("ann", b"sesame")),
        (field("ann", "a:b"), ("ann", b"a:b")),
        (field("ann", ""), ("ann", b"")),
        (field("", ""), ("", b"")),
        (field("ann", "x").replace("Basic", "bASIC"), ("ann", b"x")),
        (field("ann", "x").replace(" ", "   "), ("ann", b"x")),
        ("Basic", None),
        ("Basic ====", None),
        ("Basic YW5u", None),
        ("Basic /zpw", None),
        ("Bearer YW5uOng=", None),
        ("Basic YW5uOng= , Basic YW5uOng=", None),
        ("", None),
    ],
)
def test_what_a_field_says(value, found):
    assert basic_credentials(value) == found


def test_who_is_let_in(keeper):
    assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann"
    assert keeper.judge(field("zoë", "ключ"), CLIENT).user == "zoë"
    for wrong in (field("ann", "ключ"), field("bob", "sesame"), field("", ""), "Bearer x", None):
        judgement = keeper.judge(wrong, CLIENT)
        assert (judgement.user, judgement.status) == (None, 401)


def test_right_credentials_are_verified_once(keeper, monkeypatch):
    calls = []
    monkeypatch.setattr(
        passwords.Doorkeeper, "_verify", counted(passwords.Doorkeeper._verify, calls), raising=True
    )
    for _ in range(5):
        assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann"
    assert len(calls) == 1
    monkeypatch.setattr(passwords, "REMEMBERED", -1.0)
    keeper.judge(field("zoë", "ключ"), CLIENT)
    keeper.judge(field("zoë", "ключ"), CLIENT)
    assert len(calls) == 3, "after a while they are verified again"


def counted(function, calls):
    def counting(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return counting


def test_what_is_remembered_is_bounded(keeper, monkeypatch):
    monkeypatch.setattr(passwords, "REMEMBERED_MOST", 1)
    for user, password in (("ann", "sesame"), ("zoë", "ключ")) * 2:
        assert keeper.judge(field(user, password), CLIENT).user == user
    assert len(keeper._known) == 1


def test_guessing_is_slowed_down(keeper):
    assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann"
    statuses = [keeper.judge(field("ann", str(number)), CLIENT).status for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    refused = keeper.judge(field("zoë", "ключ"), CLIENT)
    assert refused.status == 429
    assert 1 < refused.retry_after <= passwords.WRONG_INTERVAL
    assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann", "who is known comes in"
    assert keeper.judge(field("zoë", "ключ"), b"10.0.0.2").user == "zoë", "and who comes from elsewhere"
    assert keeper.judge(field("zoë", "x"), b"").status == 401


def test_a_few_are_verified_at_a_time(keeper, monkeypatch):
    inside, most, gate = [], [], threading.Event()

    def slow(password):
        inside.append(password)
        most.append(len(inside))
        gate.wait(10)
        inside.remove(password)
        return True

    monkeypatch.setattr(passwords, "PATIENCE", 0.05)
    keeper._users = {f"user{number}": slow for number in range(8)}
    judgements = []
    threads = [
        threading.Thread(
            target=lambda number=number: judgements.append(keeper.judge(field(f"user{number}", "x"), CLIENT))
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(judgements) < 8 - passwords.AT_ONCE and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert max(most) <= passwords.AT_ONCE
    busy = [judgement for judgement in judgements if judgement.status == 503]
    assert len(busy) >= 8 - passwords.AT_ONCE
    assert all(judgement.retry_after for judgement in busy)


def test_a_file_that_changes_is_read_again(keeper, file, caplog):
    caplog.set_level(logging.INFO, "fastwsgi")
    assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann"
    file.write_text(f"ann:{quick('other')}\n")
    assert keeper.judge(field("ann", "sesame"), CLIENT).status == 401, "what was known is forgotten"
    assert keeper.judge(field("ann", "other"), CLIENT).user == "ann"
    assert "has changed and was read again" in caplog.text


@pytest.mark.parametrize("content", ["nonsense\n", None])
def test_a_file_that_becomes_no_good_changes_nothing(keeper, file, caplog, content):
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    for _ in range(3):
        assert keeper.judge(field("ann", "sesame"), CLIENT).user == "ann"
    assert caplog.text.count("what it had before goes on to count") == 1


# The command


@pytest.fixture
def typed(monkeypatch):
    """typed(TEXT): have it on the standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_the_command_adds_and_replaces(tmp_path, typed, capsys):
    path = tmp_path / "passwords"
    typed("sesame\n")
    assert main(["passwd", str(path), "ann"]) == 0
    assert capsys.readouterr().out == f"{path}: with ann\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    path.write_text(f"# kept\nzoë:{quick('ключ')}\n{path.read_text()}")
    typed("other\n")
    assert main(["passwd", str(path), "ann"]) == 0
    assert capsys.readouterr().out == f"{path}: another password for ann\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text().startswith("# kept\nzoë:")
    users = read_passwords(str(path))
    assert users["ann"](b"other")
    assert not users["ann"](b"sesame")
    assert sorted(users) == ["ann", "zoë"]
    assert os.listdir(tmp_path) == ["passwords"]


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (["passwords"], "x\n", "usage: fastwsgi passwd FILE USER"),
        (["--help", "x"], "x\n", "usage: fastwsgi passwd FILE USER"),
        (["passwords", "a:b"], "x\n", "cannot be a user"),
        (["passwords", ""], "x\n", "cannot be a user"),
        (["passwords", "ann"], "\n", "no password was given"),
        (["nowhere/passwords", "ann"], "x\n", "cannot be written"),
        ([".", "ann"], "x\n", "cannot be read"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, text, said, tmp_path, typed, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed(text)
    assert main(["passwd", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert os.listdir(tmp_path) == []

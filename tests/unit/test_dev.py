"""`fastwsgi dev`: what it stands for, and its certificate."""

import os
import ssl
import subprocess
import sys
import termios

import pytest

from certificates import AUTHORITY, Meeting
from fastwsgi.arguments import parse
from fastwsgi.cli import main
from fastwsgi.config import Settings
from fastwsgi.dev import Terminal, certificate_file, command_line, describe
from fastwsgi.errors import ConfigError
from fastwsgi.reloader import Report
from fastwsgi.tls import Policy, Tls


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FLASK_DEBUG", "1")  # or it would be set for the tests that follow
    return tmp_path / "cache/fastwsgi/localhost.pem"


def test_what_it_stands_for():
    arguments = parse(command_line(["app:app", "--workers", "2"]))
    assert arguments.application == "app:app"
    assert arguments.settings == {
        "workers": 2,
        "preload": "off",
        "reuse_port": False,
        "daemon": False,
        "reload": True,
        "lint": True,
        "tracebacks": True,
        "access_logfile": "-",
        "access_logformat": "short",
        "timeout": 0,
        "log_slow": 0,
    }


def test_what_does_not_go_with_reload():
    with pytest.raises(ConfigError, match=r"reload and preload: .* give --no-preload"):
        Settings(reload=True, preload=True)
    with pytest.raises(ConfigError, match=r"reload and reuse_port: .* give --no-reuse-port"):
        Settings(reload=True, reuse_port=True)


def test_flask_is_told(monkeypatch):
    monkeypatch.delenv("FLASK_DEBUG", raising=False)
    command_line([])
    assert os.environ["FLASK_DEBUG"] == "1"
    monkeypatch.setenv("FLASK_DEBUG", "0")
    command_line([])
    assert os.environ["FLASK_DEBUG"] == "0"


def test_what_is_not_for_production(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = Report(0, 0, 0, False, [], str(tmp_path / "shop/app.py"), ["DEBUG of Django"])
    settings = Settings(reload=True, lint=True, tracebacks=True, certfile=str(cache))
    python = "Python {}.{}.{}".format(*sys.version_info)
    assert describe(settings, report) == (
        f"{python}, shop/app.py; not for production: --reload, --lint, --tracebacks, "
        "a self-signed certificate, DEBUG of Django"
    )
    report.entry = "/srv/elsewhere.py"
    assert describe(Settings(reload=True), report).startswith(f"{python}, /srv/elsewhere.py; ")
    assert describe(Settings(lint=True), None) == f"{python}; not for production: --lint"


def test_the_terminal_gets_its_settings_back():
    controller, terminal = os.openpty()
    try:
        kept = Terminal(terminal)
        before = termios.tcgetattr(terminal)
        kept.restore()
        assert termios.tcgetattr(terminal) == before
        changed = termios.tcgetattr(terminal)
        changed[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(terminal, termios.TCSANOW, changed)
        kept.restore()
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(controller)
        os.close(terminal)
    with open(os.devnull) as nothing:
        Terminal(nothing.fileno()).restore()


def test_with_tls(cache, capsys):
    pytest.importorskip("cryptography")
    arguments = parse(command_line(["--tls", "app:app"]))
    assert arguments.settings["certfile"] == str(cache)
    assert cache.stat().st_mode & 0o777 == 0o600
    assert f"--cacert {cache}" in capsys.readouterr().err
    policy = Policy.of(Settings(certfile=str(cache)))
    tls = Tls(policy, policy.read())
    client = ssl.create_default_context(cafile=cache)
    for name in ("localhost", "127.0.0.1", "::1"):
        assert Meeting(tls.context, client, name).client.version() == "TLSv1.3"
    # The same the next time.
    before = cache.read_bytes()
    assert certificate_file().read_bytes() == before
    assert capsys.readouterr().err == ""


def test_a_certificate_is_replaced_before_it_ends(cache):
    pytest.importorskip("cryptography")
    certificate_file()
    cache.write_text("".join(AUTHORITY.issue("localhost", days=6.5)))
    assert certificate_file().read_text().count("BEGIN") == 2
    assert "localhost" in Policy.of(Settings(certfile=str(cache))).read().certificates[0].names
    assert Policy.of(Settings(certfile=str(cache))).read().certificates[0].days_left() > 80
    assert [path.name for path in cache.parent.iterdir()] == ["localhost.pem"]


def test_without_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["dev", "--tls", "app:app"]) == 1
    assert capsys.readouterr().err == (
        "fastwsgi: --tls makes a certificate with the package cryptography: pip install 'fastwsgi[tls]', "
        "or give one (--certfile)\n"
    )


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"--tls: cannot write .*localhost.pem: Not a directory"):
        certificate_file()


def test_an_application_called_dev_needs_its_name():
    pytest.importorskip("cryptography")
    said = subprocess.run(
        [sys.executable, "-m", "fastwsgi", "dev", "--print-config", "--tls", "shop:app"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'app = "shop:app"' in said.stdout
    assert 'access_logfile = "-"' in said.stdout

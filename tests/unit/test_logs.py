"""The two logs: where they go, rotation, and that nothing is printed twice."""

import logging
import logging.config
import os
import re

import pytest

from fastwsgi.config import Settings
from fastwsgi.errors import ConfigError
from fastwsgi.logs import LOG, AccessLog, OutletHandler, set_up_error_log


@pytest.fixture(autouse=True)
def restore_logger():
    handlers, level, propagate = LOG.handlers[:], LOG.level, LOG.propagate
    yield
    for handler in LOG.handlers[:]:
        LOG.removeHandler(handler)
        if isinstance(handler, OutletHandler):
            handler.give_up()
    LOG.handlers[:], LOG.propagate = handlers, propagate
    LOG.setLevel(level)


def set_up(**options):
    set_up_error_log(Settings(**options))


def test_lines_on_standard_error(capfd):
    set_up()
    LOG.info("hello %s", "there")
    LOG.debug("not this")
    line = capfd.readouterr().err
    assert re.fullmatch(
        rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\] \[{os.getpid()}\] \[INFO\] hello there\n", line
    )


def test_what_clients_say_cannot_forge_records(tmp_path):
    file = tmp_path / "error.log"
    set_up(error_logfile=str(file))
    said = "\x1b[2J\x9b1m\x00\x7f\r\n[2026-01-01 00:00:00 +0000] [1] [ERROR] forged\u2028\u202f\ttab"
    try:
        raise ValueError(said)
    except ValueError:
        LOG.exception("said: %s", said)
    written = file.read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]", written)
    first, *rest = written.splitlines()
    assert r"said: \x1b[2J\x9b1m\x00\x7f\r" in first
    assert all(line.startswith("  ") for line in rest)
    assert "  Traceback (most recent call last):" in rest
    assert written.count("\ttab") == 2


def test_nothing_twice(capfd):
    root = logging.StreamHandler()
    logging.getLogger().addHandler(root)
    try:
        set_up()
        set_up()
        LOG.warning("once")
    finally:
        logging.getLogger().removeHandler(root)
    assert capfd.readouterr().err.count("once") == 1


def test_rotated_error_log(tmp_path):
    file = tmp_path / "error.log"
    set_up(error_logfile=str(file), log_level="debug")
    LOG.debug("before \udcff")
    file.rename(tmp_path / "old")
    LOG.debug("after")
    assert "before \\udcff" in (tmp_path / "old").read_text()
    assert "after" in file.read_text()


def test_rotated_access_log_keeps_its_descriptor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = AccessLog("access.log")
    os.write(log.fd, b"before\n")
    (tmp_path / "access.log").rename(tmp_path / "old")
    monkeypatch.chdir("/")
    fd = log.fd
    log.reopen()
    assert log.fd == fd
    assert not os.get_inheritable(fd)
    os.write(fd, b"after\n")
    log.close()
    assert (tmp_path / "old").read_text() == "before\n"
    assert (tmp_path / "access.log").read_text() == "after\n"


def test_access_log_appends(tmp_path):
    (tmp_path / "access.log").write_text("there\n")
    log = AccessLog(str(tmp_path / "access.log"))
    os.write(log.fd, b"more\n")
    log.close()
    assert (tmp_path / "access.log").read_text() == "there\nmore\n"


def test_no_access_log():
    log = AccessLog(None)
    assert log.fd == -1
    log.reopen()
    log.close()


def test_access_log_on_standard_output(capfd):
    log = AccessLog("-")
    os.write(log.fd, b"line\n")
    log.reopen()
    os.write(log.fd, b"another\n")
    log.close()
    assert capfd.readouterr().out == "line\nanother\n"


def test_files_that_cannot_be_opened(tmp_path):
    missing = tmp_path / "missing" / "log"
    with pytest.raises(ConfigError, match=r"^--access-logfile .*/missing/log: No such file or directory$"):
        AccessLog(str(missing))
    with pytest.raises(ConfigError, match=r"^--error-logfile .*/missing/log: No such file or directory$"):
        set_up(error_logfile=str(missing))


def test_an_application_that_configures_logging_anew(tmp_path):
    """It has `logging` close all handlers that there are."""
    set_up(error_logfile=str(tmp_path / "log"))
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    LOG.warning("still here")
    assert (tmp_path / "log").read_text().endswith("[WARNING] still here\n")

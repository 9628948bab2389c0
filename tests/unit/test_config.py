"""Settings: conversion, ranges, merging; a wrong value is one line that says where and what is expected."""

import dataclasses

import pytest

from fastwsgi.config import OPTIONS, Settings, did_you_mean, merge
from fastwsgi.errors import ConfigError


def test_defaults():
    settings = Settings()
    assert settings.bind == ("127.0.0.1:8000",)
    assert settings.threads == 4
    assert settings.backlog == 2048
    assert settings.keep_alive == 75.0
    assert settings.graceful_timeout == 25.0
    assert settings.request_buffer == 512 * 1024
    assert settings.response_buffer == 1024**2
    assert settings.response_spool == 1024**3
    assert settings.access_logfile is None


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().threads = 5


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("64k", 65536),
        ("64K", 65536),
        ("1m", 1 << 20),
        ("2g", 2 << 30),
        ("1MiB", 1 << 20),
        (99, 99),
    ],
)
def test_sizes(text, size):
    assert Settings(response_buffer=text).response_buffer == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5m", "1x", "1 000", "9999999t", -1, 1.5, True, None])
def test_wrong_sizes(text):
    with pytest.raises(ConfigError, match=r"^response_buffer: .* is not a size such as 64k, 100m or 1g"):
        Settings(response_buffer=text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("30", 30),
        ("30s", 30),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("2h", 7200),
        ("1d", 86400),
        (5, 5),
        (0.5, 0.5),
    ],
)
def test_times(text, seconds):
    assert Settings(keep_alive=text).keep_alive == pytest.approx(seconds)
    assert isinstance(Settings(keep_alive=text).keep_alive, float)


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "inf", "nan", "1e3", "5 x", "2d", float("nan"), float("inf"), True, None]
)
def test_wrong_times(text):
    with pytest.raises(ConfigError, match=r"^keep_alive: .* is not a time such as 250ms, 30s or 2h"):
        Settings(keep_alive=text)


@pytest.mark.parametrize(
    "value", [0, 1025, -1, "0", "four", "4.0", "", 4.0, True, None, "\N{SUPERSCRIPT TWO}"]
)
def test_wrong_counts(value):
    with pytest.raises(ConfigError, match=r"^threads: .* is not a whole number from 1 to 1024$"):
        Settings(threads=value)


def test_choices_in_any_case():
    assert Settings(log_level="WARNING").log_level == "warning"
    with pytest.raises(ConfigError, match=r"^poller: 'kqueue' is not one of auto, epoll, poll$"):
        Settings(poller="kqueue")


@pytest.mark.parametrize("value", [(), 8000, [""], [8000], "", None])
def test_wrong_bind(value):
    with pytest.raises(ConfigError, match=r"^bind: "):
        Settings(bind=value)


def test_one_address_or_several():
    assert Settings(bind=":80").bind == (":80",)
    assert Settings(bind=[":80", "unix:/x"]).bind == (":80", "unix:/x")


def test_later_layers_win():
    settings = merge({"threads": 2, "backlog": 5}, {"threads": "3"})
    assert (settings.threads, settings.backlog, settings.keep_alive) == (3, 5, 75.0)


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match=r"^unknown setting thread; did you mean threads\?$"):
        merge({"thread": 3})
    assert did_you_mean("entirely-different", OPTIONS) == ""


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_what_is_shown_as_default_is_read_as_default(option):
    if option.default is not None:
        default = getattr(Settings(), option.name)
        assert option.read(option.shown_default, "default") == default
    assert option.help
    assert f"--{option.name.replace('_', '-')}" in option.flags

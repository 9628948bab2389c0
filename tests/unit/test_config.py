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


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        ("off", ()),
        (False, ()),
        ((), ()),
        ("on", ("gzip",)),
        ("gzip", ("gzip",)),
        (" BR:5 , gzip", ("br:5", "gzip")),
        (["zstd:19", "br:0"], ("zstd:19", "br:0")),
    ],
)
def test_codings(value, codings):
    settings = Settings(compress=value)
    assert settings.compress == codings
    assert Settings(compress=OPTIONS["compress"].kind.show(codings)).compress == codings


@pytest.mark.parametrize(
    "value",
    ["", "deflate", "gzip,", "gzip,gzip:3", "gzip:0", "gzip:10", "br:12", "zstd:20", "br:", "br:x", 6, [1]],
)
def test_wrong_codings(value):
    with pytest.raises(ConfigError, match=r"^compress: .* is not off or a list of gzip, br, zstd"):
        Settings(compress=value)


def test_media_types():
    settings = Settings(compress_types="Text/* , *+json,application/json")
    assert settings.compress_types == ("text/*", "*+json", "application/json")
    assert settings == Settings(compress_types=OPTIONS["compress_types"].kind.show(settings.compress_types))


@pytest.mark.parametrize(
    "value", ["text/html; charset=utf-8", "text/ html", "*/*", "html", "t\xe9xt/html", 5, ["x" * 128]]
)
def test_wrong_media_types(value):
    with pytest.raises(ConfigError, match=r"^compress_types: .* is not a list of media types"):
        Settings(compress_types=value)


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


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        (" 10.0.0.0/8, ::1 ,", ("10.0.0.0/8", "::1")),
        (["10.0.0.0/8", "2001:db8::/32"], ("10.0.0.0/8", "2001:db8::/32")),
        ("*", ("*",)),
        ("*,192.0.2.1", ("*", "192.0.2.1")),
        ("unix", ("unix",)),
        ("none", ("none",)),
        ("", ("unix",)),
    ],
)
def test_whom_to_trust(value, networks):
    settings = Settings(forwarded_allow_ips=value, proxy_allow_from=value)
    assert settings.forwarded_allow_ips == settings.proxy_allow_from == networks


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.1/8", "10.0.0.1/8 has bits beyond its prefix, 10.0.0.0/8 has not"),
        ("127.0.0.1, localhost", "what is localhost?"),
        ("10.0.0.0/33", "what is 10.0.0.0/33?"),
        ("fe80::1%eth0", "fe80::1%eth0 has a zone"),
        ("10.0.0.1 10.0.0.2", "what is 10.0.0.1 10.0.0.2?"),
        ("none,127.0.0.1", "none stands alone"),
        (5, "a list of addresses"),
        ([5], "a list of addresses"),
    ],
)
def test_whom_nobody_can_trust(value, message):
    with pytest.raises(ConfigError) as caught:
        Settings(forwarded_allow_ips=value)
    assert message in str(caught.value)
    assert str(caught.value).startswith("forwarded_allow_ips: ")


def test_forwarder_headers():
    assert Settings(forwarder_headers="script_name, Remote_User").forwarder_headers == (
        "SCRIPT_NAME",
        "REMOTE_USER",
    )
    assert Settings(forwarder_headers="").forwarder_headers == ()
    for wrong in ("*", "A B", "A\rB", 5, [5]):
        with pytest.raises(ConfigError, match="field names"):
            Settings(forwarder_headers=wrong)


@pytest.mark.parametrize(
    ("value", "mode"), [("0", 0), ("022", 0o22), ("27", 0o27), ("0o777", 0o777), (0o7, 7)]
)
def test_umask(value, mode):
    assert Settings(umask=value).umask == mode


@pytest.mark.parametrize("value", ["8", "0x7", "1000", "", "rwx", -1, 0o1000, True, "00022"])
def test_wrong_umask(value):
    with pytest.raises(ConfigError, match=r"umask: .* is not an octal number from 0 to 777"):
        Settings(umask=value)


def test_users_and_groups():
    assert Settings(user=33, group="www-data").user == "33"
    for wrong in ("", True, -1, 1.5):
        with pytest.raises(ConfigError, match="a valid user"):
            Settings(user=wrong)


@pytest.mark.parametrize(
    ("value", "is_on"),
    [("on", True), ("TRUE", True), ("1", True), (True, True), ("no", False), (False, False)],
)
def test_switches(value, is_on):
    assert Settings(reuse_port=value).reuse_port is is_on
    assert Settings(preload=value).preload == ("on" if is_on else "off")


def test_a_time_that_may_be_on_or_off():
    for value, seconds in (
        (True, 730 * 86400),
        ("on", 730 * 86400),
        ("30d", 30 * 86400),
        (False, 0),
        ("off", 0),
    ):
        assert Settings(certfile="c", hsts=value).hsts == seconds
    with pytest.raises(ConfigError, match=r"^hsts: 'x' is not on, off or a time such as"):
        Settings(hsts="x")


def test_wrong_switches():
    assert Settings(preload="Strict").preload == "strict"
    for wrong in ("", "strict", 1, None):
        with pytest.raises(ConfigError, match=r"^daemon: .* is not on or off, true or false$"):
            Settings(daemon=wrong)
    with pytest.raises(ConfigError, match=r"^preload: 'hard' is not one of on, off, strict$"):
        Settings(preload="hard")


def test_workers():
    assert Settings().workers == "auto"
    assert Settings(workers="Auto").workers == "auto"
    assert Settings(workers="3").workers == 3
    assert Settings(workers=0).workers == 0
    with pytest.raises(ConfigError, match=r"^workers: -1 is not auto or a whole number from 0 to 1024$"):
        Settings(workers=-1)


@pytest.mark.parametrize(
    ("value", "memory"),
    [("80%", "80%"), (" 5 %", "5%"), ("512m", 512 << 20), (1 << 30, 1 << 30), (None, None)],
)
def test_memory_of_a_worker(value, memory):
    assert Settings(max_worker_memory=value).max_worker_memory == memory


@pytest.mark.parametrize("value", ["0%", "101%", "-1%", "%", "1k", 0, 0.8, True])
def test_wrong_memory_of_a_worker(value):
    with pytest.raises(ConfigError, match=r"^max_worker_memory: .* is not a size .* or a share such as 80%$"):
        Settings(max_worker_memory=value)


def test_pressure():
    assert Settings().memory_pressure == "90%"
    assert Settings(memory_pressure="OFF").memory_pressure == "off"
    assert Settings(memory_pressure=" 75 %").memory_pressure == "75%"
    for wrong in ("", "512m", "0%", "101%", 0.9, 90, None, False):
        with pytest.raises(ConfigError, match=r"^memory_pressure: .* is not off or a share such as 80%$"):
            Settings(memory_pressure=wrong)


def test_paths():
    assert Settings(health="/healthz", ready="/").ready == "/"
    for wrong in ("", "healthz", "/a b", "/a?b", "/a#b", "/\n", "/\N{LATIN SMALL LETTER E WITH ACUTE}", 1):
        with pytest.raises(ConfigError, match=r"^health: .* is not a path such as /healthz \(no query\)$"):
            Settings(health=wrong)
    with pytest.raises(ConfigError, match=r"^health and ready are both /x; each needs a path of its own$"):
        Settings(health="/x", ready="/x")


@pytest.mark.parametrize(
    ("value", "variables"),
    [
        ("A=b", ("A=b",)),
        (["A=b", "C=d=e"], ("A=b", "C=d=e")),
        ({"A": "b", "N": 1}, ("A=b", "N=1")),
        ("A=", ("A=",)),
        ("none", ()),
        ([], ()),
    ],
)
def test_variables_of_the_application(value, variables):
    assert Settings(env=value).env == variables


@pytest.mark.parametrize("value", ["A", "=b", "", ["A"], [1], 1, "A=\0", {"": "b"}])
def test_wrong_variables_of_the_application(value):
    with pytest.raises(ConfigError, match=r"^env: .* is not "):
        Settings(env=value)

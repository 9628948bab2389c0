"""What of a request head is believed, and from whom."""

import pytest

from fastwsgi._trust import Trust
from fastwsgi.config import Settings

NETWORKS = "10.0.0.0/8"


def head(*fields, target="/app/x"):
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *fields, "", ""]).encode("latin-1")


def judge(*fields, trusted=True, target="/app/x", **settings):
    trust = Trust(Settings(forwarded_allow_ips=NETWORKS, **settings))
    return trust.judge(head(*fields, target=target), trusted)


def believed(*fields, **options):
    return judge(*fields, **options)[0]


FORWARDING = [
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Forwarded-Ssl",
    "X-Real-IP",
    "X-Forwarded-User",
    "x-forwarded-anything",
    "X-Forwarded-",
]


def test_nothing_is_said():
    assert judge("X-Forward: 1", "Forwarder: 2") == ({}, ["Host", "X-Forward", "Forwarder"], "")


@pytest.mark.parametrize("name", FORWARDING)
def test_from_others_they_are_left_out(name):
    said, names, remark = judge("A: b", f"{name}: 1.2.3.4", "C: d", trusted=False)
    assert (said, names) == ({}, ["Host", "A", "C"])
    assert name in remark
    assert "--forwarded-allow-ips" in remark


def test_that_is_said_once():
    trust = Trust(Settings())
    remarks = [trust.judge(head(f"{name}: 1"), False)[2] for name in FORWARDING]
    assert [bool(remark) for remark in remarks] == [True] + [False] * (len(FORWARDING) - 1)


@pytest.mark.parametrize("name", FORWARDING)
def test_from_a_trusted_peer_they_stay(name):
    assert judge(f"{name}:")[1:] == (["Host", name], "")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["X-Forwarded-For: 192.0.2.1"], {"client": "192.0.2.1"}),
        (["X-Forwarded-For: 192.0.2.1:99"], {"client": "192.0.2.1", "client_port": 99}),
        (["X-Forwarded-For: unknown"], {"client": ""}),
        # Several lines are one list.
        (["X-Forwarded-For: 1.1.1.1, 192.0.2.1", "X-Forwarded-For: 10.0.0.1"], {"client": "192.0.2.1"}),
        (["X-Forwarded-For: garbage", "X-Forwarded-For: 192.0.2.1"], {"client": "192.0.2.1"}),
        (
            ["X-Forwarded-For: 10.0.0.2", "X-Forwarded-For:", "X-Forwarded-For: 10.0.0.1"],
            {"client": "10.0.0.2"},
        ),
        (["X-Forwarded-Proto: https"], {"scheme": "https"}),
        (["X-Forwarded-Proto: HTTP"], {"scheme": "http"}),
        (["X-Forwarded-Proto: wss"], {"scheme": "https"}),
        (["X-Forwarded-Ssl: on"], {"scheme": "https"}),
        (["X-Forwarded-Ssl: off", "X-Forwarded-Proto: http"], {"scheme": "http"}),
        # Only the last element is the peer's own.
        (["X-Forwarded-Proto: https, http"], {"scheme": "http"}),
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: http,"], {"scheme": "http"}),
        (["X-Forwarded-Host: evil.example, a.example:8443"], {"host": "a.example:8443"}),
        (["X-Forwarded-Host: [2001:db8::1]:80"], {"host": "[2001:db8::1]:80"}),
        (["X-Forwarded-Port: 8443"], {"port": 8443}),
        (["X-Forwarded-Port: 1, 443"], {"port": 443}),
        (
            ["Forwarded: for=192.0.2.1;proto=https;host=a.example", "X-Forwarded-Port: 444"],
            {"client": "192.0.2.1", "scheme": "https", "host": "a.example", "port": 444},
        ),
        (["Forwarded: for=192.0.2.1", "Forwarded: for=10.0.0.1;proto=https"], {"client": "192.0.2.1"}),
        # Both say the same, or one says what the other does not.
        (
            [
                "Forwarded: for=192.0.2.1;proto=https;host=A.example",
                "X-Forwarded-For: 192.0.2.1:7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: a.example",
            ],
            {"client": "192.0.2.1", "client_port": 7, "scheme": "https", "host": "a.example"},
        ),
        (
            ["Forwarded: for=192.0.2.1", "X-Forwarded-Proto: https"],
            {"client": "192.0.2.1", "scheme": "https"},
        ),
    ],
    ids=str,
)
def test_what_a_trusted_peer_says(fields, said):
    assert believed(*fields) == said


@pytest.mark.parametrize(
    "fields",
    [
        ["X-Forwarded-For: garbage"],
        ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 1.1.1.1.1, 10.0.0.1"],
        ["Forwarded: for"],
        ["X-Forwarded-Proto: gopher"],
        ["X-Forwarded-Proto: http s"],
        ["X-Forwarded-Ssl: yes"],
        ["X-Forwarded-Host: a/b"],
        ["X-Forwarded-Host: user@a"],
        ["X-Forwarded-Host: " + "a" * 300],
        ["X-Forwarded-Port: 0"],
        ["X-Forwarded-Port: 443x"],
        ["X-Forwarded-Port: 70000"],
    ],
    ids=str,
)
def test_malformed(fields):
    assert judge(*fields) == "REFUSAL_BAD_FORWARDED"
    assert judge(*fields, trusted=False)[0] == {}


@pytest.mark.parametrize(
    "fields",
    [
        ["Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.2"],
        ["Forwarded: for=unknown", "X-Forwarded-For: 192.0.2.2"],
        ["Forwarded: proto=https", "X-Forwarded-For: 192.0.2.2"],
        ["Forwarded: for=192.0.2.1;proto=http", "X-Forwarded-Proto: https"],
        ["Forwarded: for=192.0.2.1;host=a", "X-Forwarded-Host: b"],
        ["X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"],
    ],
    ids=str,
)
def test_contradictions(fields):
    assert judge(*fields) == "REFUSAL_FORWARDED_CONFLICT"
    assert judge(*fields, trusted=False)[0] == {}


def test_names_with_an_underscore_are_dropped_with_one_remark_each():
    trust = Trust(Settings())
    _, names, remark = trust.judge(head("X_A: 1", "X-A: 2"), True)
    assert names == ["Host", "X-A"]
    assert "X_A" in remark
    assert "--header-map" in remark
    assert trust.judge(head("x_a: 1"), True)[2] == ""
    # Several in one head are said one after the other.
    assert "X_C" in trust.judge(head("X_A: 1", "X_C: 1", "X_D: 1"), True)[2]
    assert "X_D" in trust.judge(head("X_A: 1", "X_C: 1", "X_D: 1"), True)[2]
    assert "X_B" in trust.judge(head("X_B: 1"), False)[2]


def test_the_remarks_come_to_an_end():
    trust = Trust(Settings())
    remarks = [trust.judge(head(f"X_{number}: 1"), True)[2] for number in range(1000)]
    assert sum(map(bool, remarks)) == 64


def test_refused_underscores():
    assert judge("X_A: 1", header_map="refuse") == "REFUSAL_UNDERSCORE"
    assert judge("SCRIPT_NAME: /app", trusted=False, header_map="refuse") == "REFUSAL_UNDERSCORE"
    assert judge("SCRIPT_NAME: /app", header_map="refuse")[0] == {"script": "/app"}


def test_dangerous_underscores():
    assert judge("X_A: 1", "X-A: 2", header_map="dangerous") == ({}, ["Host", "X_A", "X-A"], "")


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x_real_ip", "X-Forwarded_For", "X_FORWARDED_USER"])
def test_danger_has_its_end_at_forwarding_fields(name):
    assert judge(f"{name}: 1.2.3.4", trusted=False, header_map="dangerous")[1] == ["Host"]


@pytest.mark.parametrize(
    ("target", "value", "script"),
    [
        ("/app/x", "/app", "/app"),
        ("/app/x", "/app/", "/app"),
        ("/app", "/app", "/app"),
        ("/app/x/y", "/app/x", "/app/x"),
        ("/a%2fb/x", "/a%2fb", "/a%2fb"),
        ("/app/x", "", None),
        ("/app/x", "/", None),
        ("http://h/app/x", "/app", "/app"),
    ],
)
def test_script_name(target, value, script):
    assert believed(f"SCRIPT_NAME: {value}", target=target) == ({"script": script} if script else {})


@pytest.mark.parametrize(
    ("target", "value"), [("/app/x", "/other"), ("/apple", "/app"), ("/app", "/app/x"), ("/app", "app")]
)
def test_a_script_name_that_is_no_beginning_of_the_path(target, value):
    assert judge(f"SCRIPT_NAME: {value}", target=target) == "REFUSAL_SCRIPT_NAME"
    assert judge(f"SCRIPT_NAME: {value}", target=target, trusted=False)[0] == {}


def test_forwarder_headers():
    assert judge("REMOTE_USER: ada", "Remote-User: eve", forwarder_headers="remote_user")[1] == [
        "Host",
        "REMOTE_USER",
    ]
    assert judge("Remote-User: eve", "REMOTE_USER: ada", forwarder_headers="remote_user")[1] == [
        "Host",
        "REMOTE_USER",
    ]
    assert judge("REMOTE_USER: ada", forwarder_headers="")[1] == ["Host"]
    assert judge("REMOTE_USER: ada", trusted=False, forwarder_headers="REMOTE_USER")[1] == ["Host"]
    two = judge("REMOTE_USER: ada", "Remote_User: eve", forwarder_headers="REMOTE_USER")
    assert two == "REFUSAL_FORWARDED_CONFLICT"

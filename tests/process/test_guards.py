"""What stands before routes, with several workers: what they share, and what a reload brings."""

import base64
import collections
import hashlib

import pytest

from process.family import stop, workers_of
from process.operators import fastwsgi
from support import wait_until


def password_line(user, password):
    digest = base64.b64encode(hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 10)).decode()
    return f"{user}:pbkdf2_sha256$10$salt${digest}\n"


def basic(user, password):
    return [("Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}")]


@pytest.mark.parametrize("preload", ["off", "on"])
def test_all_workers_count_together(configured, preload):
    server = configured.start(route=["/ rate=20/h"], preload=preload)
    server.wait_started()
    clients = [server.connect() for _ in range(6)]
    statuses = collections.Counter(client.ask().status for client in clients * 5)
    assert statuses == {200: 20, 429: 10}
    stop(server)


def test_what_a_reload_brings(configured, tmp_path):
    page, passwords = tmp_path / "sorry.html", tmp_path / "passwords"
    page.write_text("first")
    passwords.write_text(password_line("ann", "sesame"))
    route = f"/ error-page=401={page} auth={passwords}"
    server = configured.start(route=[route])
    server.wait_started()
    assert (server.ask().status, server.ask().text) == (401, "first")
    assert server.ask(fields=basic("ann", "sesame")).status == 200
    page.write_text("second")
    configured.change()
    assert server.ask().text == "second"
    passwords.write_text("ann:{SHA}x\n")
    configured.refuse(f"route /: auth: {passwords}, line 1: ann has a hash that is too easily undone")
    passwords.write_text(password_line("ann", "other"))
    # The workers that are there have seen the other password.
    wait_until(lambda: server.ask(fields=basic("ann", "other")).status == 200, "the other password")
    assert server.ask(fields=basic("ann", "sesame")).status == 401
    stop(server)


def test_maintenance_of_all_workers(configured, tmp_path):
    page = tmp_path / "closed.html"
    server = configured.start(route=[f"/ maintenance={page}"], health="/healthz")
    server.wait_started()
    before = workers_of(server)
    clients = [server.connect() for _ in range(6)]
    for is_closed, status in ((True, 503), (False, 200)):
        if is_closed:
            page.write_text("closed")
        else:
            page.unlink()
        for client in clients:
            wait_until(lambda client=client, status=status: client.ask().status == status, str(status))
            assert client.ask("/healthz").status == 200
    assert workers_of(server) == before
    server.wait_said("is gone, its routes are served again")
    stop(server)


def test_what_is_wrong_is_said_before_anything_is_served(tmp_path):
    for route, how, said in (
        ("/x auth=nowhere", ("--check-config",), "route /x: auth: "),
        ("/x auth=nowhere", ("--workers", "0"), "route /x: auth: "),
        ("/x alow=10.0.0.1", ("--workers", "1"), "unknown key alow; did you mean allow?"),
    ):
        done = fastwsgi("--route", route, *how, "--bind", "127.0.0.1:0", "apps:hello")
        assert done.returncode == 1, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr

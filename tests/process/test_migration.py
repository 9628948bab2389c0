"""What users of gunicorn try first, by its number in their list, and the test that tries it.

Where several do, the nearest is named. A test without a file is here; what is not listed is not built yet.

 1  any way to name the application
        test_start.py::test_served
 2  the flags of gunicorn
        test_the_usual_flags
 3  PORT
        test_start.py::test_the_port_of_a_platform_is_served_at_every_address
    WEB_CONCURRENCY
        test_start.py::test_the_number_of_workers_of_a_platform
    FORWARDED_ALLOW_IPS
        test_start.py::test_whom_to_trust_from_the_environment
    GUNICORN_CMD_ARGS
        test_configuration.py::test_gunicorns_command_line_is_read_with_a_notice
 4  gunicorn.conf.py
        test_configuration.py::test_gunicorns_file
    its hooks
        test_hooks.py::test_from_start_to_end
    settings that are not known
        ../unit/test_gunicorn.py::test_what_is_not_honoured_is_told
 5  an import error, exit code 4
        test_supervisor.py::test_an_application_that_cannot_be_imported_ends_the_start
    a worker that does not boot, 3
        test_a_worker_that_does_not_boot_ends_the_start
 6  Ctrl-C at rest
        test_stop.py::test_an_idle_server_ends_at_once
    TERM to process 1
        test_supervisor.py::test_as_process_1_it_serves_reloads_and_stops
 7  a long request and TERM
        test_supervisor.py::test_a_long_request_is_finished_when_it_is_terminated
    the backlog and TERM
        test_supervisor.py::test_what_waits_in_the_backlog_is_answered_when_it_is_terminated
 8  HUP under load
        test_reload.py::test_ten_reloads_fail_nobody
    broken code
        test_reload.py::test_broken_code_changes_nothing
 9  a view that does not come back
        ../functional/test_timeout.py::test_an_exchange_without_progress_is_answered_with_503
10  kill -9 of a worker
        test_supervisor.py::test_a_killed_worker_fails_only_what_it_had_and_is_back_within_a_second
11  TTIN, TTOU
        test_supervisor.py::test_more_and_fewer_workers_fail_nobody
    USR1
        test_logs.py::test_reopened_after_a_rotation
    USR2
        test_reload.py::test_an_upgrade_fails_nobody
    WINCH
        test_supervisor.py::test_without_workers_clients_wait_for_one
12  behind nginx
        test_proxies.py::test_nginx
13  mode and owner of a unix socket
        test_privileges.py::test_files_have_the_owner_and_mode
    a stale one
        test_stop.py::test_killed_and_started_again
14  keep-alive of a balancer
        ../functional/test_connection.py::test_an_idle_connection_is_closed_after_keep_alive
15  blocks arrive one by one
        ../functional/test_crew.py::test_each_block_of_a_slow_generator_leaves_at_once
    for longer than the timeout
        ../functional/test_timeout.py::test_each_block_is_progress
16  files by sendfile
        test_calls.py::test_a_file_leaves_by_sendfile
    ranges
        ../frameworks/test_flask.py::test_ranges
17  uploads
        ../frameworks/test_django.py::test_upload
    chunked ones
        ../frameworks/test_flask.py::test_chunked_upload
    Expect: 100-continue
        ../functional/test_content.py::test_continue_is_sent_before_the_content
    413
        ../functional/test_limits.py::test_content_over_the_limit_is_refused_before_it_comes
18  HEAD, 204, 304
        ../functional/test_framing.py::test_head_has_no_content
    OPTIONS *
        ../functional/test_environ.py::test_options_asterisk_has_no_path
    absolute-form
        ../functional/test_environ.py::test_absolute_form_without_path
19  repeated fields
        ../functional/test_environ.py::test_repeated_field_lines_are_joined
    cookies in two lines
        ../functional/test_environ.py::test_cookie_lines_are_joined_with_a_semicolon
    underscores
        ../functional/test_environ.py::test_names_with_underscores_are_dropped
20  the access log
        test_logs.py::test_atoms
21  output of the application
        test_logs.py::test_output_of_the_application
23  Django
        ../frameworks/test_django.py::test_orm
24  ProxyFix
        ../frameworks/test_flask.py::test_behind_a_proxy
25  thread-locals
        ../functional/test_crew.py::test_thread_locals_are_kept
26  --preload
        test_preloaded_workers_share_memory_and_no_secrets
27  systemd: notify, reload, watchdog
        test_systemd.py::test_reloads
    socket activation
        test_activation.py::test_what_is_handed_over_is_served_in_place_of_bind
28  probes while threads are busy
        ../functional/test_probes.py::test_while_every_thread_is_busy
    rolling updates
        test_supervisor.py::test_it_goes_on_accepting_until_the_delay_is_over
29  at rest
        test_neighbours.py::test_an_idle_server_uses_no_cpu
"""

import re
from pathlib import Path

import pytest

from process.family import expect_nobody_left, memory_of, stop, wait_for_workers
from process.load import load
from support import wait_until


def test_every_test_of_the_list_is_there():
    here = Path(__file__).parent
    named = re.findall(r" (?:(\S+\.py)::)?(test_\w+)$", __doc__, re.MULTILINE)
    assert len(named) == len(re.findall(r"^(?:\d\d| \d|  )  \S", __doc__, re.MULTILINE))
    for file, name in named:
        text = (here / file if file else Path(__file__)).read_text()
        assert f"\ndef {name}(" in text, f"{file}::{name}"


def test_the_usual_flags(start_site):
    server = start_site(
        *("--threads", "4", "-t", "30", "--graceful-timeout", "30", "--keep-alive", "75", "--preload"),
        *("--max-requests", "1000", "--max-requests-jitter", "100", "--access-logfile", "-", "-n", "shop"),
        workers=4,
    )
    assert "with 4 workers of 4 threads" in server.stderr
    with load(server.address) as running:
        running.wait_answers()
    running.report.check()
    stop(server)


def test_a_worker_that_does_not_boot_ends_the_start(start_site, tmp_path):
    (tmp_path / "gunicorn.conf.py").write_text("def post_worker_init(worker):\n    raise ValueError('no')\n")
    server = start_site("-c", "gunicorn.conf.py", "--bind", "127.0.0.1:0", started=False)
    assert server.wait() == 3, server.stderr
    assert server.stderr.count("ValueError: no") == 1
    expect_nobody_left(server)


SECRETS = """
import os
import random

ballast = [bytes(100) for _ in range(300_000)]

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Worker", str(os.getpid()))])
    return [str(random.random()).encode()]
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells what is shared")
def test_preloaded_workers_share_memory_and_no_secrets(start, tmp_path):
    (tmp_path / "secrets_app.py").write_text(SECRETS)
    took = {}
    for options, processes in (((), 4), (("--preload",), 5)):
        server = start("--workers", "4", *options, "secrets_app:app")
        wait_for_workers(server, processes)
        first = {}

        def all_have_answered(server=server, first=first):
            clients = [server.connect() for _ in range(16)]
            for client in clients:
                answer = client.ask("/")
                first.setdefault(answer["Worker"], answer.text)
            for client in clients:
                client.close()
            return len(first) == 4

        wait_until(all_have_answered, "answers of all four")
        assert len(set(first.values())) == 4, first
        took[options] = memory_of(server)
        stop(server)
    assert took["--preload",] < took[()] / 2, took

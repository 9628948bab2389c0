"""A server without a supervisor, in this process: `fastwsgi.run`, and the command with --workers 0.

What a supervisor else does for the whole server is done here: the PID file, the daemon, what systemd hears.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastwsgi import __version__, greening, loader, mounts, systemd
from fastwsgi.config import Settings
from fastwsgi.errors import AppLoadError, ConfigError
from fastwsgi.guards import Guards
from fastwsgi.hooks import NO_HOOKS
from fastwsgi.listener import Listener, open_listeners
from fastwsgi.logs import LOG, AccessLog
from fastwsgi.privileges import Identity
from fastwsgi.process import Launch, daemonize, set_title
from fastwsgi.sources import Configuration, gather, starting_directory
from fastwsgi.worker import (
    SUPERVISED,
    Ending,
    Worker,
    close_all,
    hand_over,
    heeding,
    in_main_thread,
    leave_if_lost,
    leave_terminal,
    name_of,
    open_pid_file,
    prepare,
    runners,
    warn_of_lost_messages,
    watched_certificates,
    with_activated,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from fastwsgi.renewal import Renewal

FAILED = 1
WORKER_FAILED = 3
APPLICATION_FAILED = 4

NOT_FOR_RUN = {
    **dict.fromkeys(SUPERVISED, "several processes are for the command, fastwsgi"),
    "shutdown_delay": "that is for the command, fastwsgi",
    **dict.fromkeys(("pid", "daemon", "name"), "the process is yours"),
}


def run(app: "WSGIApplication | str", **options: Any) -> None:
    """Serve an application (or "module:name") until TERM or Ctrl-C, in this process alone.

    `options` are those of `Settings` but for what is of a supervisor: `bind="0.0.0.0:8000"`, `threads=8`,
    `graceful_timeout="10s"`. They win over variables and files, which count as they do for the command, but
    for what `options` may not have. Sockets that systemd hands to this process are served, and it is told of
    the start and the end. Raises ConfigError or AppLoadError when it cannot start. If a request is still
    running at the end of the grace, the process ends here.
    """
    for name, why in NOT_FOR_RUN.items():
        if name in options:
            raise ConfigError(f"run does not take {name}: {why}")
    configuration = gather([], os.environ, starting_directory(), options, name_of(app))
    for notice in configuration.notices:
        LOG.warning(notice)
    serve(app, replace(configuration.settings, pid=None, daemon=False))


def serve_alone(configuration: Configuration) -> None:
    """What the command does with --workers 0; raises what `run` does."""
    settings = configuration.settings
    with launched() if settings.daemon else nullcontext() as launch:
        set_title("worker", settings.name)
        serve(str(configuration.application), settings, launch, configuration)


def without_effect(configuration: Configuration) -> Iterator[str]:
    """What is set, and is a supervisor's to heed."""
    for name in (*SUPERVISED, "shutdown_delay"):
        if name != "workers" and configuration.origins[name] != "default":
            yield "--" + name.replace("_", "-")
    if configuration.hooks is not NO_HOOKS:
        yield f"the hooks of {configuration.settings.config}"


@contextmanager
def launched() -> Iterator[Launch]:
    """In a daemon; whoever gave the command is told how it ends, if not before that it is ready."""
    launch, code = daemonize(), WORKER_FAILED
    try:
        yield launch
    except (ConfigError, AppLoadError) as error:
        code = FAILED if isinstance(error, ConfigError) else APPLICATION_FAILED
        raise
    finally:
        launch.tell(code)


def serve(
    app: "WSGIApplication | str",
    settings: Settings,
    launch: Launch | None = None,
    command: Configuration | None = None,
) -> None:
    """Load, bind, announce, serve, drain.

    launch: who waits for the start of a daemon. command: what the command was given; None: the process is
    that of a program.
    """
    identity = Identity.find(settings.user, settings.group)
    manager, watchdog = systemd.Manager.of(os.environ), systemd.watchdog_interval(os.environ, os.getpid())
    settings = with_activated(settings)
    loader.prepare_environ(settings.env)
    loader.prepare_path(settings.chdir, settings.pythonpath)
    prepare(settings)
    if command is not None:
        for name in systemd.VARIABLES:
            os.environ.pop(name, None)  # they are for the server alone
        if names := ", ".join(without_effect(command)):
            LOG.warning("Without a supervisor (--workers 0) there is no effect of %s", names)
    in_main = in_main_thread()
    listeners: list[Listener] = []
    with ExitStack() as closing:
        if settings.pid is not None:
            closing.callback(open_pid_file(settings.pid, identity).close)
        access_log = AccessLog.of(settings)
        closing.callback(access_log.close)
        closing.callback(lambda: close_all(listeners))
        # As root, if that is what this process is.
        renewal = watched_certificates(settings)
        if renewal is not None:
            closing.callback(renewal.close)
        listeners = open_listeners(settings.bind, settings.backlog)
        guards = Guards(mounts.plan(settings, bool(app)).routes)
        if identity is not None:
            # The application is not even imported with more rights than it shall have.
            hand_over(identity, listeners, access_log)
            if renewal is not None:
                renewal.give_up_rights()
        # Until the worker heeds it, TERM does what Ctrl-C does: process 1 would not be ended by it at all.
        ending = Ending()
        with heeding({signal.SIGTERM: ending}) if in_main else nullcontext():
            if settings.gevent and command is not None:
                greening.patch()
            application, *mounted = loader.load_all(app, mounts.targets(settings))
            # The application's logging.config may have disabled every logger that it found.
            LOG.disabled = False
            ending.check()
            worker = Worker(
                application,
                listeners,
                settings,
                access_log,
                manager=manager,
                watchdog=watchdog,
                mounted=mounted,
                guards=guards,
                renewal=renewal,
            )

            def has_started() -> None:
                announce(app, listeners, settings, worker.loops, renewal)
                manager.ready()
                if launch is not None:
                    warn_of_lost_messages(settings)
                    leave_terminal(settings, access_log)
                    launch.tell()

            with worker.signals() if in_main else nullcontext():
                worker.run(has_started)
    LOG.info(worker.summary())
    leave_if_lost(worker)


def announce(
    app: "WSGIApplication | str",
    listeners: Sequence[Listener],
    settings: Settings,
    loops: int,
    renewal: "Renewal | None",
) -> None:
    LOG.info(
        "fastwsgi %s serves %s with %s", __version__, name_of(app), runners(settings, settings.threads, loops)
    )
    for listener in listeners:
        LOG.info("Listening at %s", listener.url)
    for text in renewal.descriptions() if renewal is not None else ():
        LOG.info("%s", text)
    LOG.info("Process %d; Ctrl-C or TERM stops it", os.getpid())

"""What the doctor looks at: a configuration, and the machine that is to run it."""

import ipaddress
import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fastwsgi import mounts, resources
from fastwsgi.config import OPTIONS, Settings
from fastwsgi.errors import ConfigError
from fastwsgi.listener import Address, kernel_number, parse_address
from fastwsgi.privileges import Identity

# What balancers keep an idle connection for, unless told otherwise: AWS's ALB, and nginx with `keepalive`.
BALANCER_IDLE = 60.0


@dataclass(frozen=True)
class Scene:
    """Files of the kernel are looked for beneath `root`, as in `resources`."""

    settings: Settings = field(default_factory=Settings)
    application: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    root: Path = resources.ROOT
    open_files: tuple[int, int] = field(
        default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)  # soft and hard
    )
    each: int | None = None  # memory of a process that has imported the application
    balancer_idle: float = BALANCER_IDLE
    asks_database: bool = False

    @cached_property
    def cpus(self) -> resources.Cpus:
        return resources.find_cpus(self.root)

    @cached_property
    def memory(self) -> resources.Memory:
        return resources.find_memory(self.root)

    @cached_property
    def workers(self) -> int:
        """So many processes import the application."""
        return max(1, resources.count_workers(self.settings.workers, self.cpus)[0])

    @cached_property
    def threads(self) -> int:
        """Of all workers together."""
        return self.workers * self.settings.threads

    @cached_property
    def addresses(self) -> list[Address]:
        found = []
        for text in self.settings.bind:
            with suppress(ConfigError):  # told by the check of the configuration
                found.append(parse_address(text))
        return found

    @cached_property
    def public(self) -> list[Address]:
        """Addresses that other machines reach."""
        return [one for one in self.addresses if one.unix is None and one.fd is None and not is_local(one)]

    @property
    def trusts_others(self) -> bool:
        """Proxies on other machines are believed."""
        return any(not is_of_this_machine(word) for word in self.settings.forwarded_allow_ips)

    @property
    def is_kubernetes(self) -> bool:
        return "KUBERNETES_SERVICE_HOST" in self.environ

    @property
    def is_container(self) -> bool:
        marks = (".dockerenv", "run/.containerenv")
        return self.is_kubernetes or any((self.root / mark).exists() for mark in marks)

    @cached_property
    def identity(self) -> Identity | None:
        """Whom workers become; None: they stay who we are."""
        try:
            return Identity.find(self.settings.user, self.settings.group)
        except ConfigError:  # told by the check of the configuration
            return None

    @cached_property
    def directory(self) -> str:
        return self.settings.chdir or os.getcwd()

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @cached_property
    def plan(self) -> mounts.Plan:
        return mounts.plan(self.settings, bool(self.application))

    def shown(self, name: str) -> str:
        """An option as it stands: `--keep-alive 5s`."""
        value = getattr(self.settings, name)
        return f"--{name.replace('_', '-')} {OPTIONS[name].kind.show(value)}"

    def is_given(self, name: str) -> bool:
        return self.origins.get(name, "default") != "default"

    def number(self, file: str, otherwise: int) -> int:
        return kernel_number(self.root / file, otherwise)


def is_local(address: Address) -> bool:
    """Nobody but this machine reaches it."""
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
    except ValueError:  # empty, or a name
        return False


def is_of_this_machine(word: str) -> bool:
    """One of --forwarded-allow-ips that stands for nobody on another machine."""
    if word in ("unix", "none"):
        return True
    return word != "*" and ipaddress.ip_network(word).is_loopback

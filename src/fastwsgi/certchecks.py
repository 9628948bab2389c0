"""What will hurt by what certificates and their keys say; imported only with certificates."""

import os
import re
import stat
import time
from functools import lru_cache

from fastwsgi.errors import ConfigError
from fastwsgi.findings import Checks, Found, error, hint, warning
from fastwsgi.scene import Scene
from fastwsgi.tls import Certificate, Material, Policy, day

DAY = 86400.0

# Days that are left, at the most: long enough to find out why nothing was renewed. Of certificates that are
# good for less than three months, shares of that.
ERROR_DAYS, ERROR_SHARE = 14.0, 1 / 6
WARNING_DAYS, WARNING_SHARE = 30.0, 1 / 3

CHECKS: Checks[Scene] = Checks()


@lru_cache(maxsize=1)
def read(policy: Policy) -> Material | str:
    """All certificates, or what is wrong with one."""
    try:
        return policy.read()
    except ConfigError as problem:
        return str(problem)


def certificates(scene: Scene) -> tuple[Certificate, ...]:
    material = read(Policy.of(scene.settings))
    return () if isinstance(material, str) else material.certificates


@CHECKS.add("certificate")
def certificate(scene: Scene) -> Found:
    """What cannot be read, or does not fit."""
    material = read(Policy.of(scene.settings))
    if isinstance(material, str):
        yield error(
            material, "the certificate (fullchain.pem) and its own key, readable for who starts the server"
        )


@CHECKS.add("certificate-ends")
def ends(scene: Scene) -> Found:
    fix = "renew it, and see why nobody has (certbot renew --dry-run); new files are taken as they come"
    for one in certificates(scene):
        lifetime, left = (one.ends - one.begins) / DAY, (one.ends - time.time()) / DAY
        if left <= 0:
            yield error(f"{one.out_of_date()}: no client takes it", fix)
        elif left < min(ERROR_DAYS, lifetime * ERROR_SHARE):
            yield error(f"the certificate in {one.certfile} ends in {left:.1f} days ({day(one.ends)})", fix)
        elif left < min(WARNING_DAYS, lifetime * WARNING_SHARE):
            yield warning(f"the certificate in {one.certfile} ends in {left:.0f} days ({day(one.ends)})", fix)


@CHECKS.add("certificate-begins")
def begins(scene: Scene) -> Found:
    for one in certificates(scene):
        if time.time() < one.begins:
            yield error(
                f"{one.out_of_date()}, and this machine has {day(time.time())}",
                "look at the clock (timedatectl); or wait",
            )


@CHECKS.add("certificate-names")
def names(scene: Scene) -> Found:
    """Hosts of routes that no certificate is for."""
    known = {name for one in certificates(scene) for name in one.names}
    if not known:
        return
    hosts = {route.host for route in scene.plan.routes if re.search("[a-z]", route.host.partition("[")[0])}
    missing = sorted(
        host for host in hosts if host not in known and f"*.{host.partition('.')[2]}" not in known
    )
    if missing:
        yield error(
            f"routes are for {', '.join(missing)}, certificates for {', '.join(sorted(known))}: browsers "
            "refuse",
            "a certificate with these names, or --tls-cert CERT,KEY with one more",
        )


@CHECKS.add("certificate-chain")
def chain(scene: Scene) -> Found:
    for one in certificates(scene):
        if one.chain.count("BEGIN CERTIFICATE") == 1 and re.search(r"/cert\.pem$", one.certfile):
            yield hint(
                f"{one.certfile} has one certificate, and none of those above it: some clients refuse it",
                "fullchain.pem, which lies beside it",
            )


@CHECKS.add("key-readable")
def key_readable(scene: Scene) -> Found:
    for one in certificates(scene):
        if os.stat(one.keyfile).st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield error(
                f"every user of this machine may read or write the key in {one.keyfile}",
                f"chmod 600 {one.keyfile}",
            )

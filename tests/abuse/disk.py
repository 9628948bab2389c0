"""A full disk where the spool files are."""

import contextlib
import os
import resource
import subprocess
import time

from scene import MIB, Normal, figure, play, promise, victim

from support import Client, request, wait_until

DISK = 8 * MIB
TOO_MUCH = 12 * MIB
FITS = 2 * MIB
UPLOADS = 5
OPTIONS = ("--request-buffer", "128k", "--response-buffer", "64k")


def unshared(folder):
    """A command that gives a server a small disk of its own at folder; None where that is not allowed."""
    mount = f'mount -t tmpfs -o size={DISK} spool {folder} && exec "$@"'
    spaces = ["--mount"] if os.getuid() == 0 else ["--mount", "--map-root-user"]
    command = ["unshare", *spaces, "sh", "-c", mount, "sh"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False)
    except OSError:
        return None
    return command if tried.returncode == 0 else None


def full_disk(is_long):
    """A spool directory of 8 MiB (ENOSPC)"""
    with contextlib.ExitStack() as stack:
        folder = "/mnt"
        wrapper = unshared(folder)
        if wrapper is None:
            figure("left out", "mounting a disk in a name space of its own is not allowed here")
            return
        server = stack.enter_context(victim(*OPTIONS, wrapper=wrapper, TMPDIR=folder))
        figure("one upload that fits", upload(server, FITS).status)
        abuse(server, TOO_MUCH)


def large_file(is_long):
    """Files of 8 MiB at most (RLIMIT_FSIZE: EFBIG)"""
    with victim(*OPTIONS) as server:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (DISK, DISK))
        abuse(server, TOO_MUCH)


def upload(server, size):
    with contextlib.closing(Client(server.address)) as client:
        client.send(request("/content", "POST", fields=[("Content-Length", size)]))
        # The answer may come before all is sent: then the rest is taken and thrown away.
        client.send(b"x" * size)
        response = client.read_response("POST")
        if response.closes:
            client.expect_end()
        return response


def abuse(server, size):
    with Normal(server.address) as normal:
        statuses = [upload(server, size).status for _ in range(UPLOADS)]
        figure(f"{UPLOADS} uploads of {size // MIB} MiB", statuses)
        promise(statuses == [500] * UPLOADS, "each is refused with 500")
        wait_until(lambda: server.said("refused with 500") == UPLOADS, f"the log: {server.stderr}")
        fits = upload(server, FITS)
        promise(fits.status == 200 and fits.text.startswith(f"{FITS} "), "what fits is taken again")
        with contextlib.ExitStack() as stack:
            # One less than there are threads: where the spool is full, the application waits for its client.
            slow = [
                stack.enter_context(contextlib.closing(Client(server.address, receive_buffer=4096)))
                for _ in range(3)
            ]
            for client in slow:
                client.send(request(f"/big?size={size}&how=generator"))
            time.sleep(1)
            figure("exchanges that wait for their client", server.counters()["exchanges"] - 1)
            whole = 0
            for client in slow:
                client.read_head()
                whole += len(client.take(size)) == size
            figure(f"{len(slow)} slow downloads of {size // MIB} MiB", f"{whole} whole")
    normal.report()
    fits = upload(server, FITS)
    promise(fits.status == 200, "what fits is taken at the end")
    server.leave()


if __name__ == "__main__":
    play(full_disk, large_file)

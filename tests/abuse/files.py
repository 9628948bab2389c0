"""Static files: ranges that ask for the same octets a thousand times, and paths that lead out of the root."""

import contextlib
import tempfile
import time
from pathlib import Path

from scene import MIB, Normal, crowd, figure, play, promise, victim

from support import Client, request

LARGE = 64 * MIB
SECRET = b"root of the machine"

# What a path must not reach, in the ways that have been tried on other servers.
OUTSIDE = (
    *("../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "%2e%2e%2fsecret.txt", "..%5csecret.txt"),
    *(
        "....//secret.txt",
        "..;/secret.txt",
        ".%00./secret.txt",
        "%252e%252e/secret.txt",
        "..%c0%afsecret.txt",
    ),
    *(
        "%c0%ae%c0%ae/secret.txt",
        "sub/../../secret.txt",
        "sub/%2e%2e/%2e%2e/secret.txt",
        "..%u2215secret.txt",
    ),
    *("../" * 40 + "etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "link.txt", "linked/secret.txt"),
    *("secret.txt%00.txt", "../secret.txt%00.css", "..\\secret.txt", "../secret.txt/", ".%2e/secret.txt"),
)


@contextlib.contextmanager
def serving(*arguments):
    with tempfile.TemporaryDirectory(prefix="abuse-files-") as directory:
        root = Path(directory, "root")
        (root / "sub").mkdir(parents=True)
        (root / "large.bin").touch()
        with open(root / "large.bin", "r+b") as file:
            file.truncate(LARGE)
        Path(directory, "secret.txt").write_bytes(SECRET)
        (root / "link.txt").symlink_to("../secret.txt")
        (root / "linked").symlink_to("..")
        with victim("--static", f"/s={root}", *arguments) as server:
            yield server


def range_bombs(is_long):
    """300 clients that ask for overlapping ranges of 64 MiB, again and again, and read 512 octets a second"""
    with serving() as server:
        # It stays open for who asks next.
        promise(server.ask("/s/large.bin", fields=[("Range", "bytes=0-4")]).status == 206, "a part is sent")
        server.before = server.descriptors()
        before = server.memory()
        server.forget_peak()
        with Normal(server.address) as normal, crowd(server.ports[0], bomb=300) as counted:
            time.sleep(10 if is_long else 2)
            grown = server.peak() - before
        normal.report()
        figure("300 clients", counted)
        figure("memory grew by", f"{grown / MIB:.1f} MiB")
        promise(grown <= 16 * MIB, "files are sent from where they are")
        server.leave()


def ways_out(is_long):
    """Paths that lead out of the root, plain and encoded, once and twice"""
    with serving() as server:
        answers = {}
        with Normal(server.address) as normal:
            for path in OUTSIDE:
                with Client(server.address) as client:
                    client.send(request(f"/s/{path}"))
                    response = client.read_response()
                answers[response.status] = answers.get(response.status, 0) + 1
                time.sleep(0.05)
                is_kept = response.status >= 400 and SECRET not in response.content
                promise(
                    is_kept and b"root:" not in response.content, f"{path} is not answered: {response.status}"
                )
        normal.report()
        figure(f"{len(OUTSIDE)} paths", {f"answered {status}": count for status, count in answers.items()})
        server.leave()


if __name__ == "__main__":
    play(range_bombs, ways_out)

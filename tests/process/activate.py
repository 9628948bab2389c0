"""Opens sockets and becomes a command that is handed them, as systemd does: activate.py ADDRESS... -- COMMAND

An address is a port of 127.0.0.1, the path of a unix socket, or fd:NUMBER for one that it was handed itself.
"""

import fcntl
import os
import socket
import sys

FIRST = 3


def main():
    end = sys.argv.index("--")
    addresses, command = sys.argv[1:end], sys.argv[end + 1 :]
    found = []
    for address in addresses:
        if address.startswith("fd:"):
            sock = socket.socket(fileno=int(address.removeprefix("fd:")))
            sock.set_inheritable(False)
        elif address.isdecimal():
            sock = socket.create_server(("127.0.0.1", int(address)))
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(address)
            sock.listen(5)
        # Out of the way of the numbers that they will have.
        found.append(fcntl.fcntl(sock.detach(), fcntl.F_DUPFD_CLOEXEC, FIRST + len(addresses)))
    for i, fd in enumerate(found):
        os.dup2(fd, FIRST + i)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = str(len(found))
    os.environ["LISTEN_FDNAMES"] = ":".join(f"socket-{i}" for i in range(len(found)))
    os.execvp(command[0], command)


main()

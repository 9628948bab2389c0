"""Asks for one thing again and again, pipelined, until its standard input ends; a process, for speed.

python hammer.py PORT TARGET CONTENT DEPTH prints how many requests were answered, all with that content.
"""

import select
import socket
import sys


def hammer(port, target, content, depth):
    asked = 0
    request = f"GET {target} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode() * depth
    size = 0
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        while not select.select([sys.stdin], [], [], 0)[0]:
            client.sendall(request)
            received = b""
            while received.count(content) < depth or len(received) < size:
                data = client.recv(262144)
                assert data, f"the connection ended after {received}"
                received += data
            size = size or len(received)
            assert len(received) == size, received
            asked += depth
    return asked


if __name__ == "__main__":
    print(hammer(int(sys.argv[1]), sys.argv[2], b"\r\n\r\n" + sys.argv[3].encode(), int(sys.argv[4])))

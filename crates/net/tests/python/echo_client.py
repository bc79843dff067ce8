"""A client with plain sockets: sends three lines, the second in pieces, and prints what comes back.

echo_client.py ENDPOINT [OWN PATH]     the own path for unixgram:, which needs a way back
"""

import socket
import sys

endpoint, *own = sys.argv[1:]
scheme, _, where = endpoint.partition(":")
if scheme in ("tcp", "udp"):
    host, _, port = where.rpartition(":")
    where = (host, int(port))
LINES = [b"first\n", b"second, in pieces\n", b"third\n"]

if scheme in ("tcp", "unix"):
    if scheme == "tcp":
        connection = socket.create_connection(where)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(where)
    with connection, connection.makefile("rb") as answers:
        for line in LINES:
            for begin in range(0, len(line), 4):
                connection.sendall(line[begin : begin + 4])
            print(answers.readline().decode(), end="")
        connection.shutdown(socket.SHUT_WR)
        assert answers.read() == b"", "the server ends once the client has"
else:
    family = socket.AF_INET if scheme == "udp" else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        if own:
            client.bind(own[0])
        for line in LINES:
            client.sendto(line, where)
            print(client.recv(1024).decode(), end="")

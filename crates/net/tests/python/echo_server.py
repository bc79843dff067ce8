"""Servers as the documentation of Python's socketserver writes them: what comes is sent back in capitals.

echo_server.py KIND [PATH]     KIND: tcp, forking, unix, udp, unixgram
"""

import socketserver
import sys


class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


class Datagrams(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


class Forking(socketserver.ForkingTCPServer):
    request_queue_size = 128


class Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


kind, *path = sys.argv[1:]
make, scheme, handler = {
    "tcp": (Tcp, "tcp", Lines),
    "forking": (Forking, "tcp", Lines),
    "unix": (Unix, "unix", Lines),
    "udp": (socketserver.UDPServer, "udp", Datagrams),
    "unixgram": (socketserver.ThreadingUnixDatagramServer, "unixgram", Datagrams),
}[kind]
with make(path[0] if path else ("127.0.0.1", 0), handler) as server:
    where = path[0] if path else "%s:%d" % server.server_address
    print(f"listening on {scheme}:{where}", flush=True)
    server.serve_forever()

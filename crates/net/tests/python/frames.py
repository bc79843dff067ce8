"""The frames of wharf-net: two bytes for the length of a header, the header in JSON, and what it announces.

frames.py command ENDPOINT COMMAND         a client of the example command_server
frames.py upload ENDPOINT NAME SIZE        a client of the example upload_server
frames.py serve                            a server for the example command_client, which says what it was sent
"""

import hashlib
import json
import socket
import socketserver
import struct
import sys


def send(file, kind, body, encoding="utf-8"):
    header = json.dumps({"type": kind, "encoding": encoding, "length": len(body)}).encode()
    file.write(struct.pack("!H", len(header)) + header + body)
    file.flush()


def receive(file):
    (length,) = struct.unpack("!H", file.read(2))
    header = json.loads(file.read(length))
    return header["type"], file.read(header["length"])


def connect(endpoint):
    host, _, port = endpoint.removeprefix("tcp:").rpartition(":")
    return socket.create_connection((host, int(port))).makefile("rwb")


def command(endpoint, text):
    with connect(endpoint) as server:
        send(server, "command", text.encode())
        kind, size = receive(server)
        assert kind == "size", kind
        send(server, "ready", b"")
        result = b""
        while len(result) < int(size):
            result += receive(server)[1]
        sys.stdout.write(result.decode())


def upload(endpoint, name, size):
    content = bytes(number % 251 for number in range(int(size)))
    with connect(endpoint) as server:
        request = {"action": "put", "filename": name, "filesize": len(content)}
        send(server, "json", json.dumps(request).encode())
        status = json.loads(receive(server)[1])["status"]
        if status != 200:
            print(f"refused: {status}")
            return
        server.write(content)
        server.flush()
        digest = json.loads(receive(server)[1])["sha256"]
        assert digest == hashlib.sha256(content).hexdigest(), digest
        print("digests agree")


class Repeat(socketserver.StreamRequestHandler):
    def handle(self):
        kind, text = receive(self.rfile)
        result = f"{kind}: {text.decode()}\n".encode()
        send(self.wfile, "size", str(len(result)).encode())
        assert receive(self.rfile) == ("ready", b"")
        for begin in range(0, len(result), 5):
            send(self.wfile, "result", result[begin : begin + 5], None)


def serve():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Repeat) as server:
        print("listening on tcp:%s:%d" % server.server_address, flush=True)
        server.serve_forever()


verb, *words = sys.argv[1:]
{"command": command, "upload": upload, "serve": serve}[verb](*words)

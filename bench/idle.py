#!/usr/bin/env python3
"""idle.py PORT HOST h1|h2|ws N: opens N visitor connections over TLS that stay, for `bench/run`.

Each makes one request for /1k, or shakes hands for a WebSocket at /ws and has one message echoed. Prints `open N`, waits
for a line on standard input, prints how many still answer, and ends.
"""

import select
import socket
import ssl
import struct
import sys
import threading

PORT, HOST, KIND, COUNT = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

GET = f"GET /1k HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
UPGRADE = (
    f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
MESSAGE = b"\x81\x82\0\0\0\0hi"

# HTTP/2: frame types and flags (RFC 9113).
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field without indexing (RFC 7541 section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


REQUEST = b"\x82\x87" + literal(b":path", b"/1k") + literal(b":authority", HOST.encode())

context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["h2" if KIND == "h2" else "http/1.1"])


class Connection:
    def __init__(self):
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", PORT), 10), server_hostname=HOST)
        self.socket.settimeout(10)
        self.bytes = b""
        self.stream = -1
        if KIND == "h2":
            self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        if KIND == "ws":
            self.socket.sendall(UPGRADE)
            head = self.until(b"\r\n\r\n")
            if b" 101" not in head[:16]:
                raise OSError(f"no WebSocket: {head[:40]}")
        self.ask()

    def ask(self):
        """One request, or one message."""
        if KIND == "h1":
            self.socket.sendall(GET)
            head = self.until(b"\r\n\r\n")
            if b" 200" not in head[:16]:
                raise OSError(f"no answer: {head[:40]}")
            while len(self.bytes) < 1024:
                self.read()
            self.bytes = self.bytes[1024:]
        elif KIND == "ws":
            self.socket.sendall(MESSAGE)
            self.until(b"hi")
        else:
            self.stream += 2
            self.socket.sendall(frame(HEADERS, END_STREAM | END_HEADERS, self.stream, REQUEST))
            size = 0
            while True:
                kind, flags, stream, payload = self.next_frame()
                self.acknowledge(kind, flags, payload)
                if stream == self.stream:
                    size += len(payload) if kind == DATA else 0
                    if kind in (DATA, HEADERS) and flags & END_STREAM:
                        break
            if size != 1024:
                raise OSError(f"{size} bytes of an answer")

    def next_frame(self):
        while len(self.bytes) < 9 or len(self.bytes) < 9 + int.from_bytes(self.bytes[:3]):
            self.read()
        length = int.from_bytes(self.bytes[:3])
        kind, flags, stream = struct.unpack(">BBI", self.bytes[3:9])
        payload, self.bytes = self.bytes[9 : 9 + length], self.bytes[9 + length :]
        return kind, flags, stream, payload

    def acknowledge(self, kind, flags, payload):
        if kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))

    def wait_upon(self):
        """Answers what came while nothing was asked; false: it is over."""
        try:
            self.read()
            while len(self.bytes) >= 9 and len(self.bytes) >= 9 + int.from_bytes(self.bytes[:3]):
                kind, flags, _, payload = self.next_frame()
                self.acknowledge(kind, flags, payload)
            return True
        except OSError:
            return False

    def until(self, end):
        while end not in self.bytes:
            self.read()
        found, self.bytes = self.bytes.split(end, 1)
        return found

    def read(self):
        read = self.socket.recv(65536)
        if not read:
            raise OSError("closed")
        self.bytes += read


connections = {}
poll = select.epoll()
stopping, stopped = threading.Event(), threading.Event()


def keep_alive():
    """Whoever speaks HTTP/2 is asked from time to time whether it is still there."""
    while not stopping.is_set():
        for number, _ in poll.poll(0.2):
            if not connections[number].wait_upon():
                poll.unregister(number)
    stopped.set()


failed = []
for _ in range(COUNT):
    try:
        connection = Connection()
    except OSError as error:
        failed.append(error)
        if len(failed) > 5:
            break
        continue
    connections[connection.socket.fileno()] = connection
    if KIND == "h2":
        if len(connections) == 1:
            threading.Thread(target=keep_alive, daemon=True).start()
        poll.register(connection.socket.fileno(), select.EPOLLIN)
print("open", len(connections), *failed[:1], flush=True)

sys.stdin.readline()
if KIND == "h2":
    stopping.set()
    stopped.wait()
alive = 0
sample = list(connections.values())[:: max(1, COUNT // 200)]
for connection in sample:
    try:
        connection.ask()
        alive += 1
    except OSError:
        pass
print("alive", alive, "of", len(sample), flush=True)

"""What h2load cannot do, for train.sh: visits over HTTP/3, WebSockets, and an origin for these. One that fails ends it with an error.

    visits.py http3 PORT HOST PATH VISITORS REQUESTS [BYTES]   so many requests of each, with a body of so many bytes
    visits.py websocket PORT HOST PATH VISITORS MESSAGES BYTES  so many messages of each, which come back
    visits.py echo PORT                                         an origin that sends messages back, until it is stopped

PORT is one of 127.0.0.1, and HOST whom to ask for there; nobody's certificate is looked at.
"""

import asyncio
import signal
import ssl
import sys

import websockets
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

ADDRESS = "127.0.0.1"

# Requests of one visitor over HTTP/3 at once, as h2load is told for HTTP/2.
AT_ONCE = 5

# Seconds for all visits; they take a few.
LIMIT = 120


class Visitor(QuicConnectionProtocol):
    """A visitor over HTTP/3."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.waiting = {}

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for answer in self.waiting.values():
                answer.set_exception(ConnectionError(f"the edge has ended the connection: {event.reason_phrase}"))
            self.waiting.clear()
            return
        if isinstance(event, StreamReset) and (answer := self.waiting.pop(event.stream_id, None)):
            answer.set_exception(ConnectionError(f"the edge has ended the request: {event.error_code}"))
        for heard in self.http.handle_event(event):
            if isinstance(heard, HeadersReceived):
                status = dict(heard.headers)[b":status"]
                if not status.startswith(b"2"):
                    self.waiting.pop(heard.stream_id).set_exception(ValueError(f"status {status.decode()}"))
            if isinstance(heard, (HeadersReceived, DataReceived)) and heard.stream_ended:
                if answer := self.waiting.pop(heard.stream_id, None):
                    answer.set_result(None)

    async def ask(self, host, path, body):
        """Returns when the answer has come whole."""
        stream = self._quic.get_next_available_stream_id()
        method = "POST" if body else "GET"
        fields = {":method": method, ":scheme": "https", ":authority": host, ":path": path, "user-agent": "visits"}
        self.waiting[stream] = answer = asyncio.get_running_loop().create_future()
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        self.http.send_headers(stream, headers, end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        await answer


async def http3(port, host, path, visitors, requests, body):
    settings = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=host, verify_mode=ssl.CERT_NONE)

    async def visit():
        async with connect(ADDRESS, port, configuration=settings, create_protocol=Visitor) as visitor:
            left = iter(range(requests))

            async def ask():
                for _ in left:
                    await visitor.ask(host, path, body)

            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

    await asyncio.gather(*(visit() for _ in range(visitors)))


async def websocket(port, host, path, visitors, messages, message):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE

    async def visit():
        to = websockets.connect(f"wss://{host}{path}", host=ADDRESS, port=port, ssl=tls, proxy=None, compression=None)
        async with to as socket:
            for _ in range(messages):
                await socket.send(message)
                if await socket.recv() != message:
                    raise ValueError("a message has come back as another one")

    await asyncio.gather(*(visit() for _ in range(visitors)))


async def echo(port):
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    async def answer(socket):
        async for message in socket:
            await socket.send(message)

    async with websockets.serve(answer, ADDRESS, port, compression=None):
        await stopped.wait()


def main():
    match sys.argv[1:]:
        case ["http3", port, host, path, visitors, requests, *size]:
            body = bytes(int(size[0])) if size else b""
            visits = asyncio.wait_for(http3(int(port), host, path, int(visitors), int(requests), body), LIMIT)
        case ["websocket", port, host, path, visitors, messages, size]:
            message = bytes(int(size))
            visits = asyncio.wait_for(websocket(int(port), host, path, int(visitors), int(messages), message), LIMIT)
        case ["echo", port]:
            visits = echo(int(port))
        case _:
            sys.exit(__doc__)
    asyncio.run(visits)


main()

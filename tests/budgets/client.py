"""WebSocket sessions that subscribe and stay: what a memory measurement needs of a client, and no more.

They speak the JSON form of the client protocol and keep no object per message. They do not answer pings: a measurement
is over before the first one is due.
"""

import socket
import struct
import time
from collections.abc import Iterable

DEADLINE = 30.0
"""Seconds for one batch of sessions to be connected and subscribed."""

BATCH = 100
"""Sessions that are set up at the same time."""

UPGRADE = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class ClientError(Exception):
    """A session was not served; the message says what came in place of the replies."""


def frame(text: bytes) -> bytes:
    """A masked text frame (RFC 6455, section 5.2). The mask is zero, which leaves the payload as it is."""
    length = len(text)
    if length < 126:
        head = struct.pack("!BB", 0x81, 0x80 | length)
    elif length < 65536:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, length)
    return head + bytes(4) + text


class Sessions:
    """Open sessions of one node; a context manager that closes them."""

    def __init__(self, port: int):
        self.port = port
        self.sockets: list[socket.socket] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets:
            each.close()

    def open(self, channels: Iterable[list[str]]) -> None:
        """Opens a session for each list of channels and subscribes it to them; returns when all are confirmed.

        Raises ClientError where the node refuses one, or does not answer within the deadline.
        """
        waiting: list[tuple[socket.socket, int]] = []
        for names in channels:
            waiting.append((self.connect(names), 1 + len(names)))
            if len(waiting) == BATCH:
                await_replies(waiting)
                waiting.clear()
        await_replies(waiting)

    def connect(self, channels: list[str]) -> socket.socket:
        """A session that has asked for everything and read nothing yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        self.sockets.append(connection)
        commands = [b'{"id":1,"connect":{}}']
        commands += [
            b'{"id":%d,"subscribe":{"channel":"%s"}}' % (number, name.encode())
            for number, name in enumerate(channels, 2)
        ]
        connection.sendall(UPGRADE + frame(b"\n".join(commands)))
        return connection


def await_replies(waiting: list[tuple[socket.socket, int]]) -> None:
    """Reads from each session until so many commands are answered."""
    end = time.monotonic() + DEADLINE
    for connection, replies in waiting:
        received = bytearray()
        while received.count(b'"id":') < replies:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                more = connection.recv(65536)
            except TimeoutError:
                raise ClientError(f"not answered within {DEADLINE:.0f} s; so far: {received[-300:]!r}") from None
            received += more
            if not more or b'"error":' in received:
                raise ClientError(f"refused: {received[-300:]!r}")

"""A client of the PostgreSQL protocol that is as small as can be: connections that idle, results that stream."""

import socket
import ssl
import struct
import time

PATIENCE = 120
SSL_REQUEST = struct.pack("!II", 8, 80877103)
PROTOCOL = 196608
# How a result ends: ReadyForQuery, outside a transaction.
END = b"Z\0\0\0\x05I"
READ = 1 << 20


class Refused(Exception):
    """The server answered with an ErrorResponse."""


def connect(port, user, database, password, tls=False):
    """A socket that is logged in."""
    stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        stream.sendall(SSL_REQUEST)
        if stream.recv(1) != b"S":
            raise Refused("no TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The certificate was made for this run; what is measured is the server's side.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stream = context.wrap_socket(stream)
    body = struct.pack("!I", PROTOCOL) + b"user\0%s\0database\0%s\0\0" % (user.encode(), database.encode())
    stream.sendall(struct.pack("!I", len(body) + 4) + body)
    while True:
        kind, body = message(stream)
        if kind == b"R" and body[:4] == struct.pack("!I", 3):
            stream.sendall(frame(b"p", password.encode() + b"\0"))
        elif kind == b"E":
            raise Refused(body.replace(b"\0", b" ").decode(errors="replace"))
        elif kind == b"Z":
            return stream


def frame(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def exactly(stream, length):
    data = bytearray()
    while len(data) < length:
        piece = stream.recv(length - len(data))
        if not piece:
            raise Refused("the stream ended")
        data += piece
    return bytes(data)


def message(stream):
    head = exactly(stream, 5)
    return head[:1], exactly(stream, struct.unpack("!I", head[1:])[0] - 4)


def query(stream, text):
    """Runs one query and throws its result away. Returns how many bytes came and how long it took."""
    started = time.perf_counter()
    stream.sendall(frame(b"Q", text.encode() + b"\0"))
    buffer = memoryview(bytearray(READ))
    tail = b""
    received = 0
    while tail != END:
        length = stream.recv_into(buffer)
        if length == 0:
            raise Refused("the stream ended")
        received += length
        tail = (tail + bytes(buffer[max(0, length - len(END)):length]))[-len(END):]
    return received, time.perf_counter() - started

"""Bytes that are nearly an HTTP request, for the fuzz: what no HTTP library would send."""

import re
import socket
from collections.abc import Iterator
from random import Random

# What is odd; `_mostly` sends what is right more often than all of it together.
_METHODS = (b"GET", b"post", b"PRI", b"CONNECT", b"OPTIONS", b"HEAD", b"P\xd6ST")
_TARGETS = (
    b"/",
    b"*",
    b"http://127.0.0.1/cds-services",
    b"//x",
    b"/" + b"a" * 70_000,
    b"\xff",
    b"",
)
_VERSIONS = (b" HTTP/1.0", b" HTTP/2.0", b" HTTP/0.9", b" http/1.1", b"")
_HOSTS = ((), (b"Host: a", b"Host: b"), (b"Host:",), (b"Host: 127.0.0.1 ",))
_LENGTHS = (b"-1", b"0", b"5", b"10000000", b"1" * 21, b"x", b"", b"1, 1", b"+5", b"0x10")
_CODINGS = (b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b"")
_SIZES = (b"", b"-1", b"f" * 17, b"0x5", b"zz", b"5;x=" + b"y" * 5000, b" 5", b"0" * 300 + b"5")
_ENDS = (b"0\r\nX-T: y\r\n\r\n", b"0\r\n", b"")
_MORE = (
    *(b"Expect: 100-continue", b"Expect: x", b"Connection: close", b"TE: trailers", b"Trailer: X"),
    b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    *(
        b"Connection: Upgrade\r\nUpgrade: websocket",
        b"X: " + b"y" * 100_000,
        b" folded",
        b"no colon",
    ),
    *(b"X\0: y", b": y", b"X-Forwarded-For: " + b"1," * 1000, b"Content-Encoding: gzip"),
)
_OTHER_PROTOCOLS = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"\0", b"\r\n" * 500)


def wire(random: Random, body: bytes) -> bytes:
    """A call of the service with some of it odd, cut off, said twice, or in no HTTP at all."""
    if random.random() < 0.02:
        return random.choice(_OTHER_PROTOCOLS) + random.randbytes(random.choice((0, 9, 200)))
    start = _mostly(random, b"POST", _METHODS) + b" "
    start += _mostly(random, b"/cds-services/alp-review", _TARGETS)
    start += _mostly(random, b" HTTP/1.1", _VERSIONS)
    lines, sent = _framed(random, body)
    whole = b"\r\n".join((start, *lines, b"", b"")) + sent
    chance = random.random()
    if chance < 0.10:
        return whole[: random.randrange(len(whole))]
    if chance < 0.15:
        at = random.randrange(len(whole))
        return whole[:at] + random.randbytes(random.choice((1, 2, 20))) + whole[at + 1 :]
    return whole * 2 if chance < 0.20 else whole


def _framed(random: Random, body: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a head and the body as they frame it."""
    hosts = random.choice(_HOSTS) if random.random() < 0.05 else (b"Host: 127.0.0.1",)
    lines = [*hosts, b"Content-Type: application/json"]
    lines += random.sample(_MORE, random.choice((0, 0, 0, 1, 2)))
    chance = random.random()
    length = b"Content-Length: %d" % len(body)
    if chance < 0.4:
        odd = b"Content-Length: " + random.choice(_LENGTHS)
        lines += random.choice(([length], [length], [length], [odd], [odd], [length, odd]))
    elif chance < 0.9:
        lines.append(b"Transfer-Encoding: " + _mostly(random, b"chunked", _CODINGS))
        lines += [length] if random.random() < 0.1 else []
        body = b"".join(_chunks(random, body))
    return lines, body


def _chunks(random: Random, body: bytes) -> Iterator[bytes]:
    size, odd = random.choice((7, 100, 1000, 100_000)), random.random() < 0.3
    for at in range(0, len(body), size):
        part = body[at : at + size]
        said = b"%x" % len(part)
        if odd and random.random() < 0.3:
            said = random.choice(_SIZES)
        yield said + b"\r\n" + part + (b"" if odd and random.random() < 0.05 else b"\r\n")
    yield _mostly(random, b"0\r\n\r\n", _ENDS)


def _mostly(random: Random, right: bytes, others: tuple[bytes, ...]) -> bytes:
    return right if random.random() < 0.85 else random.choice(others)


def sent_raw(port: int, sent: bytes, seconds: float) -> bytes:
    """All that comes back until the server closes the connection, whose sending half is closed once
    all is sent; raises TimeoutError when it does not close it.
    """
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                got += part
        except TimeoutError:
            raise
        except OSError:
            pass  # it does not want to hear the rest
    return got


def wrong_on_the_wire(got: bytes) -> list[str]:
    """What is wrong with what came back: nothing, when it is errors of the client or less."""
    statuses = [int(x) for x in re.findall(rb"HTTP/1\.[01] (\d{3})", got)]
    wrong = [f"answered {x}" for x in statuses if x >= 500]
    return [*wrong, "HTML"] if b"<html" in got.lower() else wrong

"""What lies below the application: many callers, some of whom do not send on, and what the WSGI
server answers by itself (docs/protocol.md says which).
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests

from tests.exchanges import FIRES, SERVICE, as_bytes, request
from tests.invariants import cards_of
from tests.loopback import Running, running

TYPED = b"Host: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as process:
        yield process


# -- many callers, and such as do not send on ---------------------------------------------


def test_callers_that_never_send_the_rest_of_a_body_do_not_stop_the_server(
    server: Running,
) -> None:
    post = f"POST {SERVICE} HTTP/1.1\r\n".encode()
    with ExitStack() as open_ones:
        for _ in range(40):
            sock = open_ones.enter_context(server.connect())
            sock.sendall(post + TYPED + b'Content-Length: 1000\r\n\r\n{"hook": "')
        for _ in range(3):
            headers = {"Content-Type": "application/json"}
            found = requests.post(
                server.url + SERVICE, data=as_bytes(request()), headers=headers, timeout=10
            )
            assert cards_of(found.json()) == FIRES
            assert requests.get(f"{server.url}/livez", timeout=10).status_code == 200


# -- what the WSGI server answers by itself ----------------------------------------------------


def line(path: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    head = (b"%b %b HTTP/1.1" % (method, path), b"Host: localhost", b"Connection: close", *headers)
    return b"\r\n".join((*head, b"", b""))


BY_ITSELF = {
    "a length that is no number": (400, line(b"/livez", b"Content-Length: abc")),
    "a length below zero": (400, line(b"/livez", b"Content-Length: -1")),
    "two lengths": (400, line(b"/livez", b"Content-Length: 1", b"Content-Length: 2")),
    "a coding of the transfer other than chunked": (
        400,
        line(b"/livez", b"Transfer-Encoding: gzip"),
    ),
    "a header whose name is none": (400, line(b"/livez", b"a b: c")),
    "a control character in a header": (400, line(b"/livez", b"a: b\x01c")),
    "a path with a blank": (400, line(b"/li vez")),
    "a method that is no word": (400, line(b"/livez", method=b"GE(T")),
    "no HTTP at all": (400, b"hello\r\n\r\n"),
    "a path of 66,000 bytes": (414, line(b"/" + b"a" * 66_000)),
    "101 headers": (431, line(b"/livez", *(b"a%d: b" % n for n in range(99)))),
}


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_is_not_http_is_refused_without_a_word(server: Running, name: str) -> None:
    status, message = BY_ITSELF[name]
    with server.connect() as sock:
        sock.sendall(message)
        answer = sock.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")

    assert int(head.split()[1]) == status
    assert body == b"" and b"x-request-id" not in head.lower()

"""The FHIR client against real sockets: what it brings, what it refuses, and when it ends."""

import gc
import gzip
import json
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cds_service.addresses import EVERYWHERE
from cds_service.clients import ANYBODY, Caller, FhirServer
from cds_service.errors import Overloaded
from cds_service.fhir_client import Fetched, FhirClient, open_servers
from cds_service.resources import MOST_OBJECTS
from tests.loopback import certificate_for, proxying

requirement = pytest.mark.requirement
TOKEN = "s3cret.t0ken-AbC"
PATIENT = b'{"resourceType":"Patient","id":"p1"}'
OUTCOME = b'{"resourceType":"OperationOutcome","issue":[]}'

Answer = tuple[int, Mapping[str, str], bytes]
Script = Callable[[socket.socket], None]


def page(*ids: int, next_url: str | None = None) -> bytes:
    links = [{"relation": "self", "url": "urn:self"}]
    if next_url is not None:
        links.append({"relation": "next", "url": next_url})
    entry = [{"resource": {"resourceType": "Observation", "id": str(n)}} for n in ids]
    return json.dumps({"resourceType": "Bundle", "link": links, "entry": entry}).encode()


@dataclass
class Stub:
    """A FHIR server that answers by path and keeps what it was asked."""

    base: str
    answers: dict[str, Answer | bytes] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.seen.append((self.path, dict(self.headers.items())))
            answer = stub.answers.get(self.path, (404, {}, b""))
            status, headers, body = (200, {}, answer) if isinstance(answer, bytes) else answer
            head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            start = f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n"
            self.wfile.write(start.encode() + body)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    made = Stub(f"http://127.0.0.1:{server.server_address[1]}/fhir")
    server.RequestHandlerClass = _handler(made)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(stub: Stub) -> Iterator[FhirClient]:
    made = reading([stub.base])
    yield made
    made.close()


@contextmanager
def listening(
    script: Script = lambda sock: None, certificate: Path | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """A port of this machine and who connected, complete on exit; `script` answers a request."""
    got: list[Any] = []
    with ExitStack() as opened, socket.create_server(("127.0.0.1", 0)) as server:
        last = opened.enter_context(socket.socket())
        last.bind(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                sock, peer = server.accept()
                opened.enter_context(sock)
                if peer == last.getsockname():
                    return
                got.append(peer)
                name = f"speaking at {sock.getsockname()[1]}."
                told = (script, sock, certificate)
                threading.Thread(target=speak, args=told, name=name, daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server.getsockname()[1], got
        finally:
            last.connect(server.getsockname())
            accepting.join()


def speak(script: Script, sock: socket.socket, certificate: Path | None) -> None:
    try:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            sock = context.wrap_socket(sock, server_side=True)
        with sock:
            while sock.recv(65_536):
                script(sock)
    except OSError:
        pass


def http(body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *headers))
    return head.encode() + b"\r\n" + body


def answer(sock: socket.socket, body: bytes = PATIENT) -> None:
    sock.sendall(http(body, f"Content-Length: {len(body)}"))


def drip(opening: bytes, piece: bytes) -> Script:
    """Send the opening at once, then one piece every 20 ms for ten seconds at most."""

    def script(sock: socket.socket) -> None:
        sock.sendall(opening)
        for _ in range(500):
            time.sleep(0.02)
            sock.sendall(piece)

    return script


def reading(bases: Sequence[str], **options: Any) -> FhirClient:
    """The client of the open server."""
    return FhirClient({"": open_servers(bases)}, **options)


def one(base: str, query: str = "Patient/p1", seconds: float = 5, **options: Any) -> Fetched:
    client = reading([base], **options)
    try:
        return client.fetch(base, {"q": query}, token=TOKEN, seconds=seconds)["q"]
    finally:
        client.close()


def ids(fetched: Fetched) -> list[str]:
    pages = [json.loads(body) for body in fetched.pages]
    return [entry["resource"]["id"] for bundle in pages for entry in bundle["entry"]]


@requirement("FHR-08")
def test_reads_and_searches_are_answered_with_the_bytes_received(
    stub: Stub, client: FhirClient
) -> None:
    stub.answers = {"/fhir/Patient/p1": PATIENT, "/fhir/Observation?code=a%7Cb": page(1, 2)}
    queries = {"patient": "Patient/p1", "results": "Observation?code=a%7Cb"}
    assert client.fetch(stub.base, queries, token=TOKEN, seconds=5) == {
        "patient": Fetched("answered", (PATIENT,), ""),
        "results": Fetched("answered", (page(1, 2),), ""),
    }
    assert {headers["Accept"] for _, headers in stub.seen} == {"application/fhir+json"}


@requirement("FHR-07")
@pytest.mark.parametrize("allowed", ["", "/"])
@pytest.mark.parametrize("asked", ["", "/"])
@pytest.mark.parametrize("query", ["Patient/p1", "/Patient/p1"])
def test_base_and_query_are_joined_by_one_slash(
    stub: Stub, allowed: str, asked: str, query: str
) -> None:
    stub.answers = {"/fhir/Patient/p1": PATIENT}
    client = reading([stub.base + allowed])
    got = client.fetch(stub.base + asked, {"q": query}, token=None, seconds=5)["q"]
    assert (got.state, stub.paths) == ("answered", ["/fhir/Patient/p1"])


@requirement("FHR-02", "PFD-09")
@pytest.mark.parametrize("start", ["{base}/Observation", "Observation", "/fhir/Observation"])
def test_all_pages_are_read_and_each_request_carries_the_token(stub: Stub, start: str) -> None:
    url = start.format(base=stub.base)
    stub.answers = {
        "/fhir/Observation?p=1": page(1, 2, next_url=f"{url}?p=2"),
        "/fhir/Observation?p=2": page(3, 4, next_url=f"{url}?p=3"),
        "/fhir/Observation?p=3": page(5, 6, next_url=f"{url}?p=4"),
        "/fhir/Observation?p=4": page(7),
    }
    got = one(stub.base, "Observation?p=1")
    assert (got.state, ids(got)) == ("answered", list("1234567"))
    assert [headers.get("Authorization") for _, headers in stub.seen] == [f"Bearer {TOKEN}"] * 4


def test_a_next_link_may_be_the_base_itself_with_a_query(stub: Stub) -> None:
    stub.answers = {
        "/fhir/Observation": page(1, next_url=f"{stub.base}?_getpages=a"),
        "/fhir?_getpages=a": page(2),
    }
    got = one(stub.base, "Observation")
    assert (got.state, ids(got)) == ("answered", ["1", "2"])


def test_without_a_token_no_authorization_is_sent(stub: Stub, client: FhirClient) -> None:
    stub.answers = {"/fhir/Patient/p1": PATIENT}
    client.fetch(stub.base, {"q": "Patient/p1"}, token=None, seconds=5)
    assert ["Authorization" in headers for _, headers in stub.seen] == [False]


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "schl\u00fcssel", "\u4e00", "a\x00"])
def test_a_token_that_fits_no_header_is_never_sent(
    stub: Stub, client: FhirClient, token: str
) -> None:
    got = client.fetch(stub.base, {"q": "Patient/p1"}, token=token, seconds=5)
    assert got == {"q": Fetched("failed", (), "unusable token")}
    assert stub.seen == []


@requirement("FHR-06")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_its_target_sees_nothing(stub: Stub, status: int) -> None:
    with listening() as (port, got):
        location = {"Location": f"http://127.0.0.1:{port}/fhir/Patient/p1"}
        stub.answers = {"/fhir/Patient/p1": (status, location, b"")}
        fetched = one(stub.base)
    assert (fetched, got) == (Fetched("failed", (), "redirect not followed"), [])
    assert stub.paths == ["/fhir/Patient/p1"]


def test_the_body_of_a_redirect_is_not_read() -> None:
    opening = b"HTTP/1.1 302 Found\r\nLocation: /fhir/x\r\nContent-Length: 9999\r\n\r\n"
    with listening(drip(opening, b" ")) as (port, _):
        assert one(f"http://127.0.0.1:{port}/fhir").why == "redirect not followed"


@requirement("FHR-06")
@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:{other}/fhir/Observation?p=2",
        "//127.0.0.1:{other}/fhir/Observation?p=2",
        "http://localhost:{other}/fhir/Observation?p=2",
        "http://127.0.0.1:{own}@127.0.0.1:{other}/fhir/Observation",
        "http://127.0.0.1:{other}\\@127.0.0.1:{own}/fhir/Observation",
        "http://user:pw@127.0.0.1:{own}/fhir/Observation?p=2",
        "https://127.0.0.1:{own}/fhir/Observation?p=2",
        "http://localhost:{own}/fhir/Observation?p=2",
        "http://127.0.0.1:{own}/fhirother/Observation?p=2",
        "http://127.0.0.1:{own}/admin",
        "http://127.0.0.1:{own}/fhir/../admin",
        "http://127.0.0.1:{own}/fhir/%2e%2e/admin",
        "http://127.0.0.1:{own}/fhir/..%2fadmin",
        "http://127.0.0.1:{own}/fhir/..\\admin",
        "../admin",
        "ftp://127.0.0.1:{own}/fhir/Observation",
        "file:///etc/passwd",
        "http://[/fhir/x",
        "http://127.0.0.1:99999/fhir/x",
    ],
)
def test_a_link_away_from_the_base_is_never_followed(stub: Stub, link: str) -> None:
    own = stub.base.removesuffix("/fhir").rpartition(":")[2]
    with listening() as (other, got):
        stub.answers["/fhir/Observation"] = page(1, 2, next_url=link.format(own=own, other=other))
        fetched = one(stub.base, "Observation")
    assert (fetched.state, ids(fetched)) == ("incomplete", ["1", "2"])
    assert fetched.why in ("next page at another origin", "unreadable page links")
    assert (stub.paths, got) == (["/fhir/Observation"], [])


def test_the_name_of_another_origin_is_not_even_looked_up(stub: Stub) -> None:
    asked: list[object] = []

    def noted(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return socket.getaddrinfo(host, *args, **kwargs)

    stub.answers["/fhir/Observation"] = page(1, next_url="http://elsewhere.invalid/fhir/x")
    assert one(stub.base, "Observation", resolve=noted).state == "incomplete"
    assert set(asked) == {"127.0.0.1"}


@requirement("FHR-06", "FHR-09")
@pytest.mark.parametrize("query", ["../admin", "Patient/../../admin", "Patient/..%2F..%2Fadmin"])
def test_a_query_cannot_leave_the_base(stub: Stub, query: str) -> None:
    got = one(stub.base, query)
    assert (got, stub.seen) == (Fetched("failed", (), "outside the base URL"), [])


DEEP = b'{"resourceType":"Bundle","x":' + b"[" * 400_000 + b"]" * 400_000 + b"}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, {}, b""), "HTTP 500"),
        ((403, {}, OUTCOME), "HTTP 403"),
        ((404, {}, b""), "HTTP 404"),
        ((204, {}, b""), "HTTP 204"),
        ((503, {"Retry-After": "1"}, b""), "HTTP 503"),
        ((200, {"Content-Encoding": "gzip, gzip"}, b"x"), "unknown content encoding"),
        ((200, {"Content-Encoding": "gzip"}, b"not gzip"), "connection failed"),
        (b'{"resourceType":"Patient"', "not JSON"),
        (b"<html><body>Sign in</body></html>", "not JSON"),
        (b'{"resourceType":"Pat\xffient"}', "not JSON"),
        (b"[]", "not JSON"),
        (b"{}", "not JSON"),
        (b"", "not JSON"),
        (DEEP, "not JSON"),
        (OUTCOME, "OperationOutcome"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_first_page_that_is_no_answer_is_a_failure(
    stub: Stub, client: FhirClient, answer: Answer | bytes, why: str
) -> None:
    stub.answers = {"/fhir/Patient/bad": answer, "/fhir/Patient/p1": PATIENT}
    queries = {"bad": "Patient/bad", "good": "Patient/p1"}
    got = client.fetch(stub.base, queries, token=TOKEN, seconds=5)
    assert got["bad"] == Fetched("failed", (), why)
    assert got["good"] == Fetched("answered", (PATIENT,), "")
    assert stub.paths.count("/fhir/Patient/bad") == 1


@pytest.mark.parametrize(
    ("second", "why"),
    [((500, {}, b""), "HTTP 500"), (b"<html>", "not JSON"), (OUTCOME, "OperationOutcome")],
)
def test_a_later_page_that_fails_leaves_the_pages_before_it(
    stub: Stub, second: Answer | bytes, why: str
) -> None:
    first = page(1, 2, next_url="Observation?p=2")
    stub.answers = {"/fhir/Observation": first, "/fhir/Observation?p=2": second}
    got = one(stub.base, "Observation")
    assert got == Fetched("incomplete", (first,), why)


@pytest.mark.parametrize(
    "links", ["7", '{"relation":"next"}', '[{"relation":"next"}]', '[{"relation":"next","url":7}]']
)
def test_unreadable_links_leave_the_search_incomplete(stub: Stub, links: str) -> None:
    body = b'{"resourceType":"Bundle","link":%b}' % links.encode()
    stub.answers = {"/fhir/Observation": body}
    got = one(stub.base, "Observation")
    assert got == Fetched("incomplete", (body,), "unreadable page links")


def test_only_a_bundle_has_pages(stub: Stub) -> None:
    body = b'{"resourceType":"Patient","link":[{"relation":"next","url":"Patient/p2"}]}'
    stub.answers = {"/fhir/Patient/p1": body}
    assert one(stub.base) == Fetched("answered", (body,), "")
    assert stub.paths == ["/fhir/Patient/p1"]


def test_endless_pages_end_at_the_limit(stub: Stub) -> None:
    for n in range(9):
        stub.answers[f"/fhir/Observation?p={n}"] = page(n, next_url=f"Observation?p={n + 1}")
    got = one(stub.base, "Observation?p=0", max_pages=5)
    assert (got.state, got.why, ids(got)) == ("incomplete", "too many pages", list("01234"))


def test_pages_in_a_loop_are_read_once(stub: Stub) -> None:
    stub.answers = {
        "/fhir/Observation?p=1": page(1, next_url="Observation?p=2"),
        "/fhir/Observation?p=2": page(2, next_url=f"{stub.base}/Observation?p=1"),
    }
    got = one(stub.base, "Observation?p=1")
    assert (got.state, got.why, ids(got)) == ("incomplete", "too many pages", ["1", "2"])


def test_a_body_that_unpacks_to_a_gigabyte_costs_no_memory(stub: Stub) -> None:
    bomb = gzip.compress(b" " * 10_000_000) * 100
    stub.answers = {"/fhir/Patient/p1": (200, {"Content-Encoding": "gzip"}, bomb)}
    tracemalloc.start()
    got = one(stub.base, max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == Fetched("failed", (), "too large")
    assert peak < 8_000_000


def test_a_page_of_more_objects_than_any_chart_has_is_too_large(stub: Stub) -> None:
    entries = b",".join([b"{}"] * MOST_OBJECTS)
    stub.answers = {"/fhir/Patient/p1": b'{"resourceType":"Bundle","entry":[%b]}' % entries}
    assert one(stub.base) == Fetched("failed", (), "too large")


def test_a_compressed_body_arrives_unpacked(stub: Stub) -> None:
    packed = {"Content-Encoding": "gzip"}
    stub.answers = {"/fhir/Patient/p1": (200, packed, gzip.compress(PATIENT))}
    got = one(stub.base)
    assert got.pages == (PATIENT,)


def test_the_byte_limit_counts_all_queries_and_pages_of_one_fetch(stub: Stub) -> None:
    first = page(1, next_url="Observation?p=2")
    stub.answers = {"/fhir/Observation": first, "/fhir/Observation?p=2": page(2)}
    assert one(stub.base, "Observation", max_bytes=len(first)).why == "too large"
    client = reading([stub.base], max_bytes=len(first) + len(page(2)))
    for _ in range(2):
        got = client.fetch(stub.base, {"q": "Observation"}, token=TOKEN, seconds=5)["q"]
        assert got.state == "answered"
    queries = {"a": "Observation", "b": "Observation"}
    both = client.fetch(stub.base, queries, token=TOKEN, seconds=5)
    assert "too large" in {got.why for got in both.values()}


SLOW: dict[str, Script] = {
    "hang after accept": lambda sock: None,
    "drip in the status line": drip(b"HTTP/1.1 200 ", b"O"),
    "drip in a header": drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless headers 100": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drip in the body": drip(http(b"", "Content-Length: 9999"), b" "),
    "drip in a body without length": drip(http(b"", "Connection: close"), b" "),
    "drip in a chunk": drip(http(b"270f\r\n", "Transfer-Encoding: chunked"), b" "),
    "drip of chunks": drip(http(b"", "Transfer-Encoding: chunked"), b"1\r\n \r\n"),
}


@requirement("FHR-08", "PRF-02")
@pytest.mark.parametrize("script", SLOW.values(), ids=SLOW.keys())
def test_a_slow_server_is_left_at_the_deadline(script: Script) -> None:
    with listening(script) as (port, got):
        started = time.monotonic()
        fetched = one(f"http://127.0.0.1:{port}/fhir", seconds=0.3)
        assert time.monotonic() - started < 3
        assert fetched == Fetched("failed", (), "timed out")
        wait_until_no_thread_is_left()
    assert len(got) == 1


def wait_until_no_thread_is_left(name: str = "fhir-client") -> None:
    give_up = time.monotonic() + 3
    while any(thread.name.startswith(name) for thread in threading.enumerate()):
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("full", [False, True], ids=["never accepted", "never connected"])
def test_a_server_that_never_accepts_is_left_at_the_deadline(full: bool) -> None:
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3 if full else 0):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        started = time.monotonic()
        got = one(f"http://127.0.0.1:{server.getsockname()[1]}/fhir", seconds=0.3)
    assert got == Fetched("failed", (), "timed out")
    assert time.monotonic() - started < 3


def test_a_name_lookup_that_hangs_is_left_and_nobody_is_called_after_it() -> None:
    found = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        found.wait(5)
        return socket.getaddrinfo(*args, **kwargs)

    with listening() as (port, got):
        base = f"http://127.0.0.1:{port}/fhir"
        started = time.monotonic()
        assert one(base, seconds=0.3, resolve=slow) == Fetched("failed", (), "timed out")
        assert time.monotonic() - started < 3
        found.set()
        wait_until_no_thread_is_left()
    assert got == []


def test_a_server_that_is_not_there_is_a_failure_at_the_first_try() -> None:
    looked_up: list[object] = []

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return socket.getaddrinfo(host, *args, **kwargs)

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    got = one(f"http://127.0.0.1:{port}/fhir", resolve=resolve)
    assert (got, looked_up) == (Fetched("failed", (), "connection failed"), ["127.0.0.1"])


def test_what_came_before_the_deadline_is_kept() -> None:
    first = page(1, next_url="Observation?p=2")

    def script(sock: socket.socket) -> None:
        answer(sock, first)
        sock.recv(65_536)
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"x")(sock)

    with listening(script) as (port, _):
        got = one(f"http://127.0.0.1:{port}/fhir", "Observation", seconds=0.3)
    assert got == Fetched("incomplete", (first,), "timed out")


def test_queries_wait_for_a_thread_no_longer_than_the_deadline() -> None:
    with listening(SLOW["hang after accept"]) as (port, got):
        base = f"http://127.0.0.1:{port}/fhir"
        client = reading([base], parallel=2)
        queries = {str(n): f"Patient/{n}" for n in range(5)}
        fetched = client.fetch(base, queries, token=TOKEN, seconds=0.3)
    assert [result.why for result in fetched.values()] == ["timed out"] * 5
    assert len(got) == 2


def test_the_places_at_a_server_are_for_all_who_read_it() -> None:
    one, other = "https://one.example/fhir", "https://one.example/other"
    a, b = Caller("a"), Caller("b")
    servers = {"a": [FhirServer(one), FhirServer(other)], "b": [FhirServer(f"{one}/")]}
    client = FhirClient(servers, at_once=1)
    with client.place(one, a, 0):
        with pytest.raises(Overloaded), client.place(one, b, 0.01):
            pytest.fail("there is one place")
        with client.place(other, a, 0):
            pass
    with client.place(one, b, 0):
        pass
    with pytest.raises(ValueError, match="not allowed"):
        client.place(other, b, 0)


@pytest.mark.parametrize("seconds", [0, -1])
def test_with_no_time_left_nothing_is_contacted(stub: Stub, seconds: float) -> None:
    looked_up: list[object] = []

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        looked_up.append(host)
        return socket.getaddrinfo(host, *args, **kwargs)

    got = one(stub.base, seconds=seconds, resolve=resolve)
    assert got == Fetched("failed", (), "timed out")
    wait_until_no_thread_is_left()
    assert (looked_up, stub.seen) == ([], [])


def test_two_fetches_at_once_each_have_their_own_deadline() -> None:
    def script(sock: socket.socket) -> None:
        time.sleep(0.8)
        answer(sock)

    with listening(script) as (port, _):
        base = f"http://127.0.0.1:{port}/fhir"
        client = reading([base])
        got: dict[float, Fetched] = {}

        def fetch(seconds: float) -> None:
            got[seconds] = client.fetch(base, {"q": "x"}, token=TOKEN, seconds=seconds)["q"]

        threads = [threading.Thread(target=fetch, args=(seconds,)) for seconds in (0.3, 8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {
        0.3: Fetched("failed", (), "timed out"),
        8: Fetched("answered", (PATIENT,), ""),
    }


def test_a_kept_connection_is_used_again_and_replaced_when_it_is_closed() -> None:
    turn = iter(range(9))

    def script(sock: socket.socket) -> None:
        if next(turn) == 2:
            sock.shutdown(socket.SHUT_RDWR)
        else:
            answer(sock)

    with listening(script) as (port, got):
        base = f"http://127.0.0.1:{port}/fhir"
        client = reading([base])
        for connections in (1, 1, 2):
            fetched = client.fetch(base, {"q": "Patient/p1"}, token=TOKEN, seconds=5)["q"]
            assert (fetched.state, len(got)) == ("answered", connections)


def test_a_kept_connection_is_watched_too() -> None:
    turn = iter(range(9))

    def script(sock: socket.socket) -> None:
        if next(turn) == 0:
            answer(sock)
        else:
            drip(http(b"", "Content-Length: 9999"), b" ")(sock)

    with listening(script) as (port, got):
        base = f"http://127.0.0.1:{port}/fhir"
        client = reading([base])
        first, second = (
            client.fetch(base, {"q": "x"}, token=None, seconds=seconds)["q"] for seconds in (5, 0.3)
        )
        assert (first.state, second.why, len(got)) == ("answered", "timed out", 1)
        wait_until_no_thread_is_left()


def test_close_closes_the_kept_connections() -> None:
    turn = iter(range(9))
    gc.disable()
    try:
        with listening(lambda sock: answer(sock) if next(turn) else None) as (port, _):
            base = f"http://127.0.0.1:{port}/fhir"
            client = reading([base])
            for seconds in (0.1, 5):
                got = client.fetch(base, {"q": "x"}, token=None, seconds=seconds)["q"]
            assert got.state == "answered"
            client.close()
            wait_until_no_thread_is_left(f"speaking at {port}.")
    finally:
        gc.enable()


@requirement("REQ-17")
def test_cookies_are_not_sent_back(stub: Stub, client: FhirClient) -> None:
    stub.answers = {"/fhir/Patient/p1": (200, {"Set-Cookie": "sid=1; Path=/"}, PATIENT)}
    for _ in range(2):
        client.fetch(stub.base, {"q": "Patient/p1"}, token=TOKEN, seconds=5)
    assert ["Cookie" in headers for _, headers in stub.seen] == [False, False]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_are_ignored(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stub.answers = {"/fhir/Patient/p1": PATIENT}
    with listening() as (port, got):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert one(stub.base, seconds=2).state == "answered"
    assert got == []


@requirement("FHR-06")
@pytest.mark.parametrize(
    ("base", "allowed"),
    [
        ("https://ehr.example/fhir", True),
        ("https://ehr.example/fhir/", True),
        ("HTTPS://EHR.example/fhir", True),
        ("https://ehr.example:443/fhir", True),
        ("http://ehr.example/fhir", False),
        ("https://ehr.example:8443/fhir", False),
        ("https://ehr.example/FHIR", False),
        ("https://ehr.example/fhir/r4", False),
        ("https://ehr.example/", False),
        ("https://ehr.example/fhir?x=1", False),
        ("https://ehr.example/fhir#x", False),
        ("https://ehr.example/fhir/../fhir2", False),
        ("https://user@ehr.example/fhir", False),
        ("https://ehr.example@evil.example/fhir", False),
        ("https://ehr.example.evil.example/fhir", False),
        ("ehr.example/fhir", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_only_a_listed_base_is_allowed_however_it_is_spelled(base: str, allowed: bool) -> None:
    assert reading(["https://ehr.example/fhir"]).allows(base) is allowed
    assert reading(["https://ehr.example:443/fhir/"]).allows(base) is allowed


@requirement("FHR-06")
def test_each_issuer_has_its_own_servers() -> None:
    client = FhirClient(
        {
            "": open_servers(["http://127.0.0.1:8000/fhir"]),
            "https://a.example": [FhirServer("https://fhir.a.example/r4")],
            "https://b.example": [FhirServer("https://fhir.b.example/r4", subject="cds")],
        }
    )
    allowed = {
        (issuer, base)
        for issuer in ("", "https://a.example", "https://b.example", "https://c.example")
        for base in (
            "http://127.0.0.1:8000/fhir",
            "https://fhir.a.example/r4",
            "https://fhir.b.example/r4",
        )
        if client.allows(base, Caller(issuer, "any tenant"))
    }
    assert allowed == {
        ("", "http://127.0.0.1:8000/fhir"),
        ("https://a.example", "https://fhir.a.example/r4"),
        ("https://b.example", "https://fhir.b.example/r4"),
    }


A, B = Caller("https://a.example"), Caller("https://b.example")


@requirement("FHR-01", "FHR-06", "FHR-12")
@pytest.mark.parametrize(
    ("caller", "base", "subject", "why"),
    [
        (ANYBODY, "http://127.0.0.1:8000/fhir", None, ""),
        (ANYBODY, "http://127.0.0.1:8000/fhir", "any", ""),
        (ANYBODY, "https://fhir.a.example/r4", "any", "the FHIR server is not listed"),
        (A, "https://fhir.a.example/r4", "any", ""),
        (A, "https://fhir.a.example/r4", None, "no fhirAuthorization for the FHIR server"),
        (A, "https://fhir.b.example/r4", "cds", "the FHIR server is not listed"),
        (A, "http://127.0.0.1:8000/fhir", "any", "the FHIR server is not listed"),
        (B, "https://fhir.b.example/r4", "cds", ""),
        (B, "https://fhir.b.example/r4", "any", "registered under another subject"),
        (B, "https://fhir.b.example/r4", None, "no fhirAuthorization for the FHIR server"),
        (B, "https://fhir.b.example/r4/..", "cds", "the FHIR server is not listed"),
    ],
)
def test_a_server_that_is_not_called_has_a_reason(
    caller: Caller, base: str, subject: str | None, why: str
) -> None:
    client = FhirClient(
        {
            "": open_servers(["http://127.0.0.1:8000/fhir"]),
            A.issuer: [FhirServer("https://fhir.a.example/r4")],
            B.issuer: [FhirServer("https://fhir.b.example/r4", subject="cds")],
        }
    )
    assert client.refusal(base, caller, subject) == why


@requirement("FHR-06")
def test_a_kept_connection_serves_no_issuer_that_may_not_call_its_address(
    certificate: Path,
) -> None:
    with listening(answer, certificate) as (port, got):
        base = f"https://127.0.0.1:{port}/fhir"
        servers = {A.issuer: [FhirServer(base, EVERYWHERE)], B.issuer: [FhirServer(base)]}
        client = FhirClient(servers, ca_file=certificate)
        found = [
            client.fetch(base, {"q": "x"}, token=TOKEN, seconds=5, caller=caller)["q"].why
            for caller in (A, A, B, A)
        ]
        client.close()
    assert (found, len(got)) == (["", "", "address not allowed", ""], 1)


def test_a_proxy_that_hangs_is_left_at_the_deadline() -> None:
    with listening() as (port, got):
        proxy = f"http://127.0.0.1:{port}"
        fetched = one("https://ehr.example/fhir", seconds=0.3, https_proxy=proxy)
        assert fetched == Fetched("failed", (), "timed out")
        wait_until_no_thread_is_left()
    assert len(got) == 1


def test_connections_through_a_proxy_are_kept_and_closed_in_the_end(certificate: Path) -> None:
    turn = iter(range(9))

    def script(sock: socket.socket) -> None:
        if next(turn):
            answer(sock)

    gc.disable()
    try:
        with listening(script, certificate) as (port, got), proxying(port) as (proxy, asked):
            base = f"https://127.0.0.1:{port}/fhir"
            client = reading([base], ca_file=certificate, https_proxy=proxy)
            for seconds in (0.3, 5, 5, 5):  # the first is not answered
                found = client.fetch(base, {"q": "x"}, token=TOKEN, seconds=seconds)["q"]
            assert (found.state, len(got), len(asked)) == ("answered", 2, 2)
            client.close()
            wait_until_no_thread_is_left(f"speaking at {port}.")
    finally:
        gc.enable()


@pytest.mark.parametrize("url", ["", "ehr.example", "ftp://ehr.example/", "https://h/fhir?x=1"])
def test_a_list_with_something_else_than_base_urls_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        reading(["https://ehr.example/fhir", url])


def test_a_server_that_is_not_allowed_is_not_contacted() -> None:
    with listening() as (port, got):
        client = reading(["http://127.0.0.1:1/fhir"])
        with pytest.raises(ValueError) as refused:
            client.fetch(f"http://127.0.0.1:{port}/fhir", {"q": "x"}, token=TOKEN, seconds=5)
    assert got == []
    assert TOKEN not in repr(refused.value)


@requirement("FHR-03", "FHR-04")
def test_logs_hold_neither_token_nor_url(
    stub: Stub, client: FhirClient, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "urllib3", "urllib3.connectionpool", "urllib3.util.retry"):
        caplog.set_level(logging.DEBUG, logger=name or None)
    first = page(1, next_url="Observation?p=2")
    stub.answers = {"/fhir/Observation?patient=p1": first, "/fhir/Observation?p=2": (500, {}, b"")}
    client.fetch(stub.base, {"q": "Observation?patient=p1"}, token=TOKEN, seconds=5)
    with listening(lambda sock: sock.shutdown(socket.SHUT_RDWR)) as (port, got):
        one(f"http://127.0.0.1:{port}/fhir")
    assert len(got) == 2
    assert caplog.text == ""
    logging.getLogger("urllib3.connectionpool").debug("from elsewhere")
    assert "from elsewhere" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key, in one file."""
    return certificate_for(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


def test_a_certificate_nobody_trusts_is_refused_and_the_token_kept(certificate: Path) -> None:
    heard: list[bytes] = []
    with listening(lambda sock: heard.append(b"a request"), certificate) as (port, got):
        fetched = one(f"https://127.0.0.1:{port}/fhir")
    assert fetched == Fetched("failed", (), "connection failed")
    assert (len(got), heard) == (1, [])


def test_a_certificate_of_the_given_authority_is_trusted(certificate: Path) -> None:
    with listening(answer, certificate) as (port, _):
        fetched = one(f"https://127.0.0.1:{port}/fhir", ca_file=certificate)
    assert fetched == Fetched("answered", (PATIENT,), "")


@pytest.mark.parametrize("how", ["hang after accept", "drip in a header", "drip in the body"])
def test_a_slow_server_is_left_at_the_deadline_over_tls(how: str, certificate: Path) -> None:
    with listening(SLOW[how], certificate) as (port, got):
        base = f"https://127.0.0.1:{port}/fhir"
        fetched = one(base, seconds=0.3, ca_file=certificate)
        assert fetched == Fetched("failed", (), "timed out")
        wait_until_no_thread_is_left()
    assert len(got) == 1


def test_a_tls_handshake_that_never_ends_is_left_at_the_deadline() -> None:
    with listening() as (port, _):
        got = one(f"https://127.0.0.1:{port}/fhir", seconds=0.3)
        assert got == Fetched("failed", (), "timed out")
        wait_until_no_thread_is_left()

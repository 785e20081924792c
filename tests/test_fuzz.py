"""The short run of `make fuzz`: a seed's first requests and the whole corpus at real servers, and
that a server which fails would be noticed.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from socket import create_server
from threading import Event, Thread

import msgspec
import pytest
from flask.testing import FlaskClient

from tests.exchanges import EXPLAIN, EXPLAIN_SIGN, GRANT, SERVER, Json, request, send
from tests.fuzzed_tokens import LOUD, QUIET, Given
from tests.fuzzed_wire import sent_raw, wire, wrong_on_the_wire
from tests.fuzzing import (
    Attempt,
    Connection,
    Fuzzing,
    Run,
    Served,
    Tally,
    corpus,
    ordering,
    read_attempt,
    served,
)
from tests.loopback import wait_until
from tests.mutations import KINDS, ODD, changed_value, mutated, with_value

requirement = pytest.mark.requirement
SEED = 20261124
REQUESTS = 2000
PATIENCE = 120.0  # for a machine that does much else; what hangs, hangs for ever
DAY = date(2026, 11, 24)


@pytest.fixture(scope="module")
def servers() -> Iterator[Served]:
    with served() as started:
        yield started


@cache
def fuzzing() -> Fuzzing:
    return Fuzzing(SEED, DAY)


def run(servers: Served, most: int) -> Tally:
    return Run(fuzzing(), servers, lambda number: number >= most, PATIENCE).run()


# -- the runs --------------------------------------------------------------------------------------


@requirement("ERR-08", "ERR-02", "ERR-01", "JSN-06", "JSN-07", "FVR-03", "FVR-04", "PFD-16")
@requirement("REQ-02", "REQ-06", "REQ-09", "HOK-01", "HOK-05", "HOK-06")
def test_no_request_of_a_seed_is_answered_wrongly(servers: Served) -> None:
    tally = run(servers, REQUESTS)

    assert tally.faults == [], "\n".join(tally.lines())
    assert tally.requests >= REQUESTS
    assert {200, 204, 400, 401, 403, 404, 405, 412, 415, 422} <= set(tally.statuses)
    assert tally.kinds["token"] > REQUESTS / 8
    assert tally.kinds["wire"] == REQUESTS / 10
    assert tally.statuses[200] > REQUESTS / 4  # most odd charts are read all the same


@requirement("ERR-08", "ERR-02")
def test_no_request_of_the_corpus_is_answered_wrongly(servers: Served) -> None:
    connection, kept = Connection(servers.server.port, PATIENCE), corpus()
    wrong = {name: connection.send(x)[1].wrong for name, x in kept.items()}
    connection.close()

    assert len(kept) > 50
    assert {name: why for name, why in wrong.items() if why} == {}


RESULT = ("prefetch", "results", "entry", 0)
PLACES: dict[str, Sequence[Sequence[str | int]]] = {
    EXPLAIN: (
        *(("hook",), ("hookInstance",), ("context",), ("context", "patientId"), ("fhirServer",)),
        *(("fhirAuthorization", "expires_in"), ("extension",), ("prefetch",)),
        *(("prefetch", "patient"), ("prefetch", "patient", "birthDate"), ("prefetch", "results")),
        *(("prefetch", "results", "link"), ("prefetch", "results", "entry"), RESULT),
        *((*RESULT, "fullUrl"), (*RESULT, "resource"), (*RESULT, "resource", "resourceType")),
        *((*RESULT, "resource", x) for x in ("id", "subject", "effectiveDateTime", "contained")),
        (*RESULT, "resource", "valueQuantity", "value"),
        (*RESULT, "resource", "code", "coding", 0, "code"),
    ),
    EXPLAIN_SIGN: (
        *(("context", "draftOrders"), ("context", "draftOrders", "entry")),
        *(
            ("context", "draftOrders", "entry", 0),
            ("context", "draftOrders", "entry", 0, "resource"),
        ),
        ("context", "draftOrders", "entry", 1, "resource", "dosageInstruction", 0, "timing"),
    ),
}


@requirement("ERR-08", "ERR-02", "JSN-07", "FVR-03")
@pytest.mark.parametrize(
    ("path", "way"), [(path, way) for path, ways in PLACES.items() for way in ways], ids=str
)
def test_each_odd_value_in_each_place_is_answered(
    client: FlaskClient, path: str, way: Sequence[str | int]
) -> None:
    good = {**request((28.0,), 1, 1), "fhirServer": SERVER, "fhirAuthorization": GRANT}
    body = ordering("order-sign") if path == EXPLAIN_SIGN else good
    for odd in ODD:
        written = msgspec.json.encode(with_value(body, way, odd))
        assert send(client, written, path).status_code in (200, 400, 422), bytes(odd)[:30]


# -- what is sent ----------------------------------------------------------------------------------


def test_the_same_seed_and_number_make_the_same_request() -> None:
    again = Fuzzing(SEED, DAY)
    first = [fuzzing().attempt(n, "http://fhir.example") for n in range(60)]

    assert [again.attempt(n, "http://fhir.example") for n in range(60)] == first
    assert len({x.written() for _, x in first}) == 60
    assert Fuzzing(SEED + 1, DAY).attempt(0) != fuzzing().attempt(0)


def test_every_service_and_every_route_is_called() -> None:
    paths = Counter(fuzzing().attempt(n)[1].path.partition("?")[0] for n in range(600))
    services = ("alp-review", "antiresorptive-safety-select", "antiresorptive-safety-sign")

    for service in services:
        assert paths[f"/cds-services/{service}"] and paths[f"/explain/{service}"]
        assert paths[f"/cds-services/{service}/feedback"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_change_changes_and_leaves_the_original_alone(kind: str) -> None:
    body = request()
    before = json.dumps(body)
    changed = [changed_value(Random(n), body, kind) for n in range(40)]

    assert json.dumps(body) == before
    assert sum(x != body for x in changed) > 20


def parsed(written: bytes) -> Json | None:
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def test_some_bodies_are_json_and_some_are_not() -> None:
    written = [mutated(Random(n), request(), ("prefetch",)) for n in range(500)]
    readable = [x for x in map(parsed, written) if x is not None]

    assert 200 < len(readable) < 480
    assert all("hook" in x or "prefetch" in x for x in readable)
    for odd in (b"1e400", b"NaN", b"\xff", b"[" * 3000):
        assert any(odd in x for x in written), odd


def test_an_attempt_is_read_as_it_was_written() -> None:
    headers = (("X-Odd", "\xff: \xe9"), ("Content-Type", ""))
    for attempt in (
        Attempt("POST", "/x?y=z", headers, b"\n\n\xff{}\r\n"),
        Attempt("GET", "/", ()),
        fuzzing().attempt(3)[1],
    ):
        assert read_attempt(attempt.written()) == attempt


# -- that a fault would be noticed -----------------------------------------------------------------

_GOOD = b'{"cards":[]}'


class _Failing(BaseHTTPRequestHandler):
    """Fails as the path says."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        how = self.path.rpartition("/")[2]
        if how == "hangs":
            self.server.hanging.wait(30)  # type: ignore[attr-defined]
        if how in ("hangs", "dies"):
            return
        status, kind, body = {
            "well": (200, "application/json", _GOOD),
            "crash": (500, "application/json", b'{"resourceType":"OperationOutcome"}'),
            "page": (404, "text/html", b"<h1>Not Found</h1>"),
            "odd": (200, "application/json", b'{"cards":[{"summary":""}]}'),
        }[how]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Request-ID", "x")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def failing() -> Iterator[int]:
    """The port of a server that fails on demand."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
    server.hanging = Event()  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.hanging.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("crash", "answered 500"),
        ("page", "text/html"),
        ("odd", "CAR-01"),
        ("hangs", "no answer in time"),
        ("dies", "no answer: RemoteDisconnected"),
    ],
)
def test_a_wrong_answer_is_noticed(failing: int, how: str, why: str) -> None:
    connection = Connection(failing, 1.0)
    wrong = connection.send(Attempt("POST", f"/cds-services/{how}", body=b"{}"))[1].wrong
    connection.close()

    assert why in " ".join(wrong)


def test_a_good_answer_is_none(failing: int) -> None:
    connection = Connection(failing, PATIENCE)
    answer = connection.send(Attempt("POST", "/cds-services/well", body=b"{}"))[1]
    connection.close()

    assert (answer.status, answer.wrong) == (200, ())


CALL, ASKED = "/cds-services/alp-review", "/explain/alp-review"


@pytest.mark.parametrize(
    ("given", "path", "status", "wrong"),
    [
        (Given("x", LOUD, True), CALL, 401, ["a good token is refused"]),
        (Given("x", LOUD, True), CALL, 422, []),
        (Given("x", LOUD, False), CALL, 422, ["a spoilt token is taken"]),
        (Given("x", LOUD, False), CALL, 401, []),
        (Given("x", LOUD, None), CALL, 401, []),
        (Given("x", LOUD, None), CALL, 200, []),
        (Given("x", QUIET, True), CALL, 422, ["a quiet client is sent an error"]),
        (Given("x", QUIET, True), CALL, 404, []),
        (Given("x", QUIET, True), ASKED, 422, []),
        (Given("x", QUIET, True), f"{CALL}/feedback", 422, []),
    ],
)
def test_what_becomes_of_a_token_is_noticed(
    given: Given, path: str, status: int, wrong: list[str]
) -> None:
    assert given.wrong(path, status) == wrong


@pytest.mark.parametrize(
    ("got", "wrong"),
    [
        (b"", []),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nHTTP/1.0 200 OK\r\n\r\n{}", []),
        (b"HTTP/1.1 200 OK\r\n\r\n{}HTTP/1.1 502 Oh\r\n\r\n", ["answered 502"]),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<HTML>", ["HTML"]),
    ],
)
def test_a_wrong_answer_to_bytes_is_noticed(got: bytes, wrong: list[str]) -> None:
    assert wrong_on_the_wire(got) == wrong


def test_a_connection_that_is_never_closed_is_noticed() -> None:
    with create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        sent_raw(silent.getsockname()[1], b"POST", 0.2)


def test_bytes_for_the_wire_are_those_of_their_seed_and_mostly_odd() -> None:
    good = json.dumps(request()).encode()
    made = [wire(Random(n), good) for n in range(400)]

    assert [wire(Random(n), good) for n in range(400)] == made
    assert len(set(made)) > 300
    for odd in (b"PRI * HTTP/2.0", b"chunked, chunked", b"Content-Length: -1", b"\xff HTTP"):
        assert any(odd in x for x in made), odd


@pytest.mark.parametrize("which", [0, -1], ids=["of the open server", "of the other"])
def test_a_worker_that_dies_under_way_is_noticed(servers: Served, which: int) -> None:
    before = servers.children()
    os.kill(before[which], signal.SIGKILL)
    wait_until(lambda: servers.children() != before, "the worker is still there")
    wait_until(lambda: len(servers.children()) == len(before), "no other was started")
    later = Run(fuzzing(), servers, lambda number: number >= 20, PATIENCE, workers=before)

    assert ("a worker died",) in [x.why for x in later.run().faults]

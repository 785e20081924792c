"""Many odd requests at real servers, each made from a seed and its number alone. Every few of them
go to a server that trusts clients too, with a token.

`make fuzz ARGS="--minutes 20 --seed 1"` sends them over kept-alive connections, counts the answers
by status, and keeps every input whose answer breaks a rule under tests/data/corpus.
"""

import argparse
import gzip
import hashlib
import http.client
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

from requests.structures import CaseInsensitiveDict
from urllib3 import encode_multipart_formdata

from cds_service.fhir_endpoint import FhirEndpoint, moved
from tests.broken_requests import BROKEN
from tests.charts import (
    Chart,
    exchange_charts,
    fixture_charts,
    foreign_charts,
    vignette_charts,
)
from tests.exchanges import (
    EXCHANGES,
    GRANT,
    SERVICES,
    TODAY,
    Json,
    ago,
    draft,
    problem,
    request,
    selecting,
    signing,
)
from tests.fuzzed_tokens import Given, Tokens
from tests.fuzzed_wire import sent_raw, wire, wrong_on_the_wire
from tests.invariants import faults
from tests.loopback import ROOT, FhirServer, Running, running, serving
from tests.mutations import mutated
from tests.trust import trusting

CORPUS = ROOT / "tests" / "data" / "corpus"
ANSWER_SECONDS = 10.0  # the default of CDS_ANSWER_SECONDS
CONNECTIONS = 4
WITH_TOKEN = 5  # every so many of the calls go to the server that asks for a token as well
ON_THE_WIRE = 10  # after every so many requests one that is hardly HTTP is sent
JSON = ("Content-Type", "application/json")
_CARD = "00000000-0000-4000-8000-00000000ca4d"  # stands for a card that was answered
_EVERY = 12  # of the vignettes
_MOST_ENTRIES = 40
_MOST_KEPT = 50
_LONGEST_KEPT = 8_000


@dataclass(frozen=True)
class Attempt:
    """One HTTP request."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = (JSON,)
    body: bytes = b""

    def written(self) -> bytes:
        """The file of the corpus: request line, headers, an empty line, the body as it is."""
        head = [f"{self.method} {self.path}", *(f"{name}: {x}" for name, x in self.headers)]
        return "\n".join(head).encode("latin-1") + b"\n\n" + self.body


_ENDLESS = Attempt("POST", "/", body=b" " * (_LONGEST_KEPT + 1))


def read_attempt(written: bytes) -> Attempt:
    """The attempt of a file of the corpus."""
    head, _, body = written.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, _, path = first.partition(" ")
    headers = tuple((name, x) for name, _, x in (line.partition(": ") for line in lines))
    return Attempt(method, path, headers, body)


def corpus() -> dict[str, Attempt]:
    """The inputs that are kept, by name."""
    paths = sorted(CORPUS.glob("*.http"))
    return {x.stem: read_attempt(x.read_bytes()) for x in paths}


# -- what is changed -------------------------------------------------------------------------------

DRUG = {"coding": [{"system": "http://www.whocc.no/atc", "code": "M05BA04"}], "text": "alendronate"}


def ordering(hook: str) -> Json:
    """A call whose draft orders use all that is read of them."""
    contained = {"resourceType": "Medication", "id": "m", "code": DRUG}
    dosage = {
        "text": "70 mg weekly",
        "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "wk"}},
        "route": {"text": "oral"},
        "doseAndRate": [{"doseQuantity": {"value": 70, "unit": "mg"}}],
    }
    reasons = {
        "reasonCode": [{"text": "Osteoporosis"}],
        "reasonReference": [{"reference": "Condition/c7"}, {"display": "Osteoporosis"}],
    }
    said = {"authoredOn": ago(1), "doNotPerform": False, "dosageInstruction": [dosage]}
    orders: list[Json] = [
        draft(),
        draft(2) | said | reasons,
        draft(3) | {"contained": [contained], "medicationReference": {"reference": "#m"}},
        draft(4) | {"medicationReference": {"reference": "Medication/m4"}},
        {"resourceType": "Medication", "id": "m4", "code": DRUG},
        problem(7, "64859006", "Osteoporosis"),
        {
            "resourceType": "ServiceRequest",
            "id": "s1",
            "status": "draft",
            "intent": "plan",
            "code": {"coding": [{"system": "http://loinc.org", "code": "6768-6"}]},
            "subject": {"reference": "Patient/p1"},
        },
    ]
    for order in orders[2:4]:
        del order["medicationCodeableConcept"]
    server = "https://ehr.example.org/fhir"
    selected = ["MedicationRequest/d1", "d2", f"{server}/MedicationRequest/d3", "ServiceRequest/s1"]
    return selecting(*orders, selections=selected) if hook == "order-select" else signing(*orders)


def _feedback() -> Json:
    at = "2026-11-24T12:00:00Z"
    reason = {"code": "later", "system": "https://x.example/reasons", "display": "Later"}
    return {
        "feedback": [
            {
                "card": _CARD,
                "outcome": "accepted",
                "acceptedSuggestions": [{"id": _CARD}],
                "outcomeTimestamp": at,
            },
            {
                "card": _CARD,
                "outcome": "overridden",
                "overrideReason": {"reason": reason, "userComment": "not today"},
                "outcomeTimestamp": at,
            },
        ]
    }


@dataclass(frozen=True)
class Original:
    """A body that is sent changed, to the service it is for."""

    service: str
    body: Json


def _shown(chart: Chart, today: date) -> Original:
    return Original(chart.service, moved(chart.body, (today - chart.day).days))


@cache
def originals(today: date) -> tuple[Original, ...]:
    """Every kind of call there is, as of a day; long charts are cut when they are sent."""
    select, sign = SERVICES[1:]
    full = {**request(), "fhirServer": "https://ehr.example.org/fhir", "fhirAuthorization": GRANT}
    days = (today - TODAY).days
    own = [
        *(("alp-review", x.body) for x in EXCHANGES if isinstance(x.body, dict)),
        *(("alp-review", x.body) for x in BROKEN[::5]),
        *((select, ordering("order-select")), (sign, ordering("order-sign"))) * 5,
        *(("alp-review", full),) * 5,
    ]
    charts = (*fixture_charts(), *exchange_charts(), *foreign_charts(), *vignette_charts(_EVERY))
    return (
        *(Original(service, moved(body, days)) for service, body in own),
        *(_shown(x, today) for x in charts),
    )


def _cut(random: Random, value: Any) -> Any:
    """A prefetch value with at most so many entries."""
    entries = value.get("entry") if isinstance(value, dict) else None
    if not isinstance(entries, list) or len(entries) <= _MOST_ENTRIES:
        return value
    kept = sorted(random.sample(range(len(entries)), _MOST_ENTRIES))
    return {**value, "entry": [entries[n] for n in kept]}


# -- the attempts ----------------------------------------------------------------------------------

_METHODS = ("GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO")
_PATHS = (
    *("/", "/cds-services", "/cds-services/", "//cds-services//alp-review", "/cds-services/nope"),
    *("/cds-services/alp-review", "/cds-services/alp-review/feedback/", "/cds-services/../livez"),
    *("/cds-services/%2e%2e/x", "/cds-services/%00", "/cds-services/alp%2Dreview", "/explain"),
    *("/explain/alp-review%00", "/explain/nope", "/explain/alp-review/feedback", "/topics"),
    *("/topics/%ff", "/topics/lowAlpPersistent", "/topics/lowAlpPersistent?format=json"),
    *("/topics?format=%ff", "/topics/nope", "/static/topics.css", "/static/../app.py", "/static"),
    *("/livez", "/readyz", "/version", "/openapi.json", "/fhir/Patient", "/nope?x=1e400", "/%"),
    *("/what-if?limits.adult_age=1e400", "/what-if.toml?limits.adult_age=%ff", "/docs?x=%00"),
    *(
        "/%c3%bc",
        "/%ed%a0%80",
        "/;x",
        "/cds-services/feedback",
        "/cds-services/a/b/c",
        "/favicon.ico",
    ),
    *("/" + "x" * 3000, "/cds-services?" + "x=1&" * 500, "/cds-services/alp-review?patient=../x"),
)
_HEADERS: Sequence[tuple[str, Sequence[str]]] = (
    ("Content-Type", ("text/plain", "application/json; charset=utf-16", "application/fhir+json")),
    ("Content-Type", ("", ";", "application/json;;;x", "multipart/form-data; boundary=x", "\xff")),
    ("Content-Type", ("application/x-www-form-urlencoded", "application/JSON", "*/*", "x" * 2000)),
    ("Content-Encoding", ("gzip", "identity", "br", "", "gzip, gzip", "\xe9" * 40)),
    ("X-Request-ID", ("x" * 64, "x" * 65, "a b", "\xff", "", "${jndi:ldap://x}", "<script>")),
    ("Origin", ("null", "https://sandbox.example", "", "\xe9", "*", "https://" + "x" * 2000)),
    ("Accept", ("text/html", "*/*;q=0", "application/json;q=x", "", "\xff", "text/html," * 300)),
    ("Authorization", ("Bearer x", "Bearer", "Basic eDp4", "", "Bearer " + "x" * 6000, "\xff")),
    ("Host", ("ehr.example.org", "localhost", "localhost:x", "[::1]", "127.0.0.1:1", "\xe9")),
    ("X-Forwarded-For", ("10.0.0.1", "", "\xff")),
    ("Accept-Language", ("de", "x" * 500)),
    ("Cookie", ("a=b; " * 100, "\xff")),
    ("Access-Control-Request-Method", ("POST", "", "\xff")),
    ("Access-Control-Request-Private-Network", ("true", "x")),
)
# How often of a hundred each kind is sent.
_WEIGHTS = {"call": 63, "explain": 14, "feedback": 8, "fetch": 4, "head": 5, "path": 5, "page": 1}
_OF_CLIENTS = ("call", "explain", "feedback", "head")
# They name a server that is gone by tomorrow, or a token that has expired.
_NOT_KEPT = ("fetch", "canary", "token")
_OWNER = "low-alp-persistent"
_PRESSED: Sequence[Mapping[str, str]] = (
    *({}, {}, {"save": "1"}, {"forget": "1"}),
    {"accept": f"{_CARD} {_CARD} lowAlpPersistent"},
    {"override": f"{_CARD} lowAlpPersistent", f"reason-{_CARD}": "later", f"comment-{_CARD}": "x"},
    {"override": f"{_CARD} lowAlpPersistent"},
)


class Fuzzing:
    """The attempts of a seed on a day."""

    def __init__(self, seed: int, today: date) -> None:
        self._seed = seed
        self._today = today
        self._originals = originals(today)
        self._reported = _feedback()

    def random(self, *names: object) -> Random:
        """What is drawn under these names is the same whenever it is drawn."""
        return Random("/".join(map(str, (self._seed, *names))))

    def attempt(self, number: int, fhir_server: str = "") -> tuple[str, Attempt]:
        """The kind of an attempt, and the attempt; the same for the same number."""
        random = self.random(number)
        [kind] = random.choices([*_WEIGHTS], [*_WEIGHTS.values()])
        original = self._originals[number % len(self._originals)]
        if kind == "feedback":
            path = f"/cds-services/{random.choice(SERVICES)}/feedback"
            return kind, Attempt("POST", path, body=mutated(random, self._reported))
        if kind == "fetch":
            body = self._without_prefetch(number, random, fhir_server)
            return kind, Attempt("POST", "/cds-services/alp-review", body=body)
        if kind == "page":
            return kind, _form(random, original, self._cut(random, original.body), self._today)
        if kind == "path":
            headers = tuple(_some_headers(random)) if random.random() < 0.3 else ()
            return kind, Attempt(random.choice(_METHODS), random.choice(_PATHS), headers)
        whole = self._cut(random, original.body)
        body = mutated(random, whole, _below(random, whole))
        place = "explain" if kind == "explain" else "cds-services"
        service = random.choice(SERVICES) if random.random() < 0.03 else original.service
        if kind == "head":
            headers = (JSON, *_some_headers(random))
            if ("Content-Encoding", "gzip") in headers and random.random() < 0.5:
                body = gzip.compress(body)
            return kind, Attempt("POST", f"/{place}/{service}", headers, body)
        return kind, Attempt("POST", f"/{place}/{service}", body=body)

    def _cut(self, random: Random, body: Json) -> Json:
        prefetch = body.get("prefetch")
        if not isinstance(prefetch, dict) or random.random() < 0.05:
            return body
        return {**body, "prefetch": {key: _cut(random, x) for key, x in prefetch.items()}}

    def _without_prefetch(self, number: int, random: Random, fhir_server: str) -> bytes:
        """A call for which everything is read from the FHIR server, which answers oddly."""
        context = {"userId": "Practitioner/1", "patientId": f"s{number}"}
        body = {"hook": "patient-view", "hookInstance": "x", "context": context}
        body |= {"fhirServer": fhir_server, "fhirAuthorization": GRANT}
        return json.dumps(body).encode() if random.random() < 0.8 else mutated(random, body)


def _form(random: Random, original: Original, body: Json, today: date) -> Attempt:
    """A form of the playground with an odd request, or with an odd Bundle or fixture of its chart,
    pasted or in a file, and some button pressed.
    """
    chart = {"resourceType": "Bundle", "type": "collection", "entry": _entries(body)}
    fixture = {"asOf": f"{today}", "story": "x", "expect": [], "bundle": chart}
    written = mutated(random, random.choice((body, chart, fixture)))
    chosen = {
        "service": random.choice(("", original.service, *SERVICES, "nope")),
        "patient": random.choice(("", "", _OWNER, "nope")),
        **random.choice(_PRESSED),
    }
    if random.random() < 0.3:
        given, kind = encode_multipart_formdata({**chosen, "file": ("x.json", written)})
    else:
        name = random.choice(("pasted", "pasted", "request"))
        given = urlencode({**chosen, name: written}).encode()
        kind = "application/x-www-form-urlencoded"
    return Attempt("POST", "/", (("Content-Type", kind),), given)


def _entries(body: Json) -> list[Any]:
    """The entries of all that is sent of a chart."""
    prefetch = body.get("prefetch")
    values = prefetch.values() if isinstance(prefetch, dict) else ()
    found: list[Any] = []
    for value in values:
        entries = value.get("entry") if isinstance(value, dict) else None
        found += entries if isinstance(entries, list) else [{"resource": value}]
    return found


def _below(random: Random, body: Json) -> tuple[str, ...]:
    """Mostly the chart or the orders of a call: a broken envelope is refused, whatever it holds."""
    places: list[tuple[str, ...]] = [(x,) for x in ("prefetch",) if isinstance(body.get(x), dict)]
    if isinstance(body.get("context"), dict) and "draftOrders" in body["context"]:
        places += [("context", "draftOrders"), ("context",)]
    return random.choice(places) if places and random.random() < 0.7 else ()


def _some_headers(random: Random) -> Iterator[tuple[str, str]]:
    for name, values in random.sample(_HEADERS, random.randint(1, 3)):
        yield name, random.choice(values)


class OddEndpoint(FhirEndpoint):
    """A FHIR server whose every patient is one and the same, and whose answers are spoilt as the
    number in the patient's id says.
    """

    def answer(
        self, method: str, path: str, query: str, body: bytes = b"", prefer: str = ""
    ) -> tuple[int, bytes]:
        """What a good server answers, or a few changes to it."""
        named = re.search(r"\bs(\d+)\b", f"{path}?{query}")
        if named is None:
            return 404, b"<h1>not found</h1>"
        path, query = (x.replace(named[0], _OWNER) for x in (path, query))
        status, found = super().answer(method, path, query, body, prefer)
        found = found.replace(_OWNER.encode(), named[0].encode())
        random = Random(f"{named[1]}/{path}?{query}")
        chance = random.random()
        if chance < 0.5:
            return status, found
        if chance < 0.6:
            return random.choice((200, 401, 404, 429, 500)), random.choice((b"", b"<h1>", b"null"))
        return status, mutated(random, json.loads(found))


def odd_endpoint(base_url: str) -> OddEndpoint:
    """The fixture patient behind a FHIR server that answers oddly."""
    [chart] = [x for x in fixture_charts(_today()) if x.name == _OWNER]
    resources: dict[tuple[str, str], Json] = {}
    for value in chart.body["prefetch"].values():
        for x in [y["resource"] for y in value.get("entry", [])] or [value]:
            if x["resourceType"] != "Bundle":
                resources[x["resourceType"], x["id"]] = x
    bundle = {"entry": [{"resource": x} for x in resources.values()]}
    return OddEndpoint([bundle], base_url, page_size=3)


def _today() -> date:
    return datetime.now(UTC).date()


# -- sending ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What is wrong with the answer to an attempt."""

    number: int
    attempt: Attempt
    why: tuple[str, ...]


@dataclass
class Tally:
    """What came of a run; `shortest` is an input for everything that was said."""

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0
    longest: float = 0.0
    shortest: dict[str, Attempt] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    def lines(self) -> Iterator[str]:
        """The figures, for a reader."""
        yield f"{self.requests} requests in {self.seconds:.0f} s, the slowest {self.longest:.2f} s"
        yield "by kind: " + ", ".join(f"{x} {n}" for x, n in sorted(self.kinds.items()))
        yield "by status: " + ", ".join(f"{x}: {n}" for x, n in sorted(self.statuses.items()))
        yield f"faults: {len(self.faults)}"
        for one in self.faults[:20]:
            yield f"  number {one.number}: {one.attempt.method} {one.attempt.path[:80]}: {one.why}"


def found_wrong(attempt: Attempt, status: int, head: Mapping[str, str], body: bytes) -> list[str]:
    """Each rule that the answer to an attempt breaks."""
    path = attempt.path.partition("?")[0]
    wrong = faults(attempt.method, path, status, head, body)
    return [f"answered {status}", *wrong] if status >= 500 else wrong


@dataclass(frozen=True)
class Answer:
    """What came back: 0 and why where nothing did; `says` is alike where two answers are alike."""

    status: int
    wrong: tuple[str, ...]
    says: str = ""


def _says(status: int, body: bytes) -> str:
    """What an answer says, in so few words that many inputs share them."""
    if not body.startswith(b"{"):
        return f"{status}"
    found = json.loads(body)
    if "issue" in found:
        issue = found["issue"][0]
        return f"{status} {_plain(issue['details']['text'] + ' ' + issue.get('diagnostics', ''))}"
    if "data" in found:
        why = {x["why"] for key in found["data"] for x in key["skipped"]}
        return f"{status} {sorted(map(_plain, why))}"
    return f"{status} {sorted(found)}"


def _plain(text: str) -> str:
    return re.sub(r"`[^`]*`|\d+", "#", text)


class Connection:
    """One connection that is kept alive, and the card that was last seen on it."""

    def __init__(self, port: int, seconds: float = ANSWER_SECONDS) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        self._card = _CARD.encode()

    def send(self, attempt: Attempt) -> tuple[Attempt, Answer]:
        """The attempt as sent, about a card that was seen, and its answer."""
        body = attempt.body.replace(_CARD.encode(), self._card)
        sent = Attempt(attempt.method, attempt.path, attempt.headers, body)
        for is_last in (False, True):
            try:
                return sent, self._answer(sent)
            except TimeoutError:
                self._http.close()
                return sent, Answer(0, ("no answer in time",))
            except (ConnectionError, http.client.HTTPException) as error:
                self._http.close()  # it may have been closed before this attempt came
                if is_last:
                    return sent, Answer(0, (f"no answer: {type(error).__name__}",))
        raise AssertionError

    def _answer(self, attempt: Attempt) -> Answer:
        self._http.putrequest(
            attempt.method,
            attempt.path,
            skip_host="Host" in dict(attempt.headers),
            skip_accept_encoding=True,
        )
        for name, value in attempt.headers:
            self._http.putheader(name, value.encode("latin-1"))
        if attempt.body or attempt.method == "POST":
            self._http.putheader("Content-Length", str(len(attempt.body)))
        with suppress(BrokenPipeError):  # it is refused before all of it is sent: read why
            self._http.endheaders(attempt.body)
        response = self._http.getresponse()
        status, body = response.status, response.read()
        if b'"uuid":"' in body:
            self._card = body.partition(b'"uuid":"')[2][:36]
        head = CaseInsensitiveDict(response.getheaders())
        wrong = tuple(found_wrong(attempt, status, head, body))
        return Answer(status, wrong, "" if wrong else _says(status, body))

    def close(self) -> None:
        self._http.close()


def canary(today: date) -> Attempt:
    """A good call: it gets its card whatever was sent before."""
    body = moved(request(), (today - TODAY).days)
    return Attempt("POST", "/cds-services/alp-review", body=json.dumps(body).encode())


@dataclass(frozen=True)
class Served:
    """The open server, the FHIR server that it may read, and one that trusts clients."""

    server: Running
    fhir: FhirServer
    trusting: Running
    tokens: Tokens

    def children(self) -> list[int]:
        """The workers of both."""
        return [*self.server.children(), *self.trusting.children()]


@dataclass
class Run:
    """Attempts at these servers, from so many threads, until it is enough."""

    fuzzing: Fuzzing
    served: Served
    is_enough: Callable[[int], bool]
    seconds: float = ANSWER_SECONDS
    tally: Tally = field(default_factory=Tally)
    workers: Sequence[int] = ()
    _numbers: Iterator[int] = field(default_factory=count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> Tally:
        """What came of it, the state of the workers included."""
        began, workers = time.monotonic(), [*self.workers] or self.served.children()
        threads = [threading.Thread(target=self._send) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.tally.seconds = time.monotonic() - began
        nothing = Attempt("GET", "/")
        if self.served.children() != workers:
            self.tally.faults.append(Fault(-1, nothing, ("a worker died",)))
        for server in (self.served.server, self.served.trusting):
            if said := [x for x in server.output.splitlines() if '"level":"error"' in x]:
                self.tally.faults.append(Fault(-1, nothing, ("said by the server", *said[:3])))
        return self.tally

    def _send(self) -> None:
        served = self.served
        connection = Connection(served.server.port, self.seconds)
        trusted = Connection(served.trusting.port, self.seconds)
        tokens, good = served.tokens.for_another(), canary(_today())
        while not self.is_enough(number := next(self._numbers)):
            kind, attempt = self.fuzzing.attempt(number, served.fhir.base)
            self._sent(connection, number, kind, attempt)
            if number % WITH_TOKEN == 0 and kind in _OF_CLIENTS:
                given = tokens.give(self.fuzzing.random("token", number), attempt.path)
                self._sent(trusted, number, "token", _with_token(attempt, given), given)
            if number % ON_THE_WIRE == 0:
                self._sent_raw(number, wire(self.fuzzing.random("wire", number), good.body))
            if number % 500 == 0:
                self._sent(connection, number, "canary", good)
                served.fhir.asked.clear()
        connection.close()
        trusted.close()

    def _sent_raw(self, number: int, raw: bytes) -> None:
        """Sends what no connection would; not kept: seed and number make it anew."""
        try:
            wrong = wrong_on_the_wire(sent_raw(self.served.server.port, raw, self.seconds))
        except TimeoutError:
            wrong = ["no answer in time"]
        with self._lock:
            self.tally.kinds["wire"] += 1
            if wrong:
                here = Attempt("WIRE", f"wire/{number}")
                self.tally.faults.append(Fault(-1, here, tuple(wrong)))

    def _sent(
        self,
        connection: Connection,
        number: int,
        kind: str,
        attempt: Attempt,
        given: Given | None = None,
    ) -> None:
        began = time.monotonic()
        sent, answer = connection.send(attempt)
        wrong = answer.wrong
        if given is not None and answer.status:
            wrong = (*wrong, *given.wrong(attempt.path, answer.status))
        if kind == "canary" and answer.status != 200:
            wrong = (*wrong, "a good call is refused")
        with self._lock:
            self.tally.statuses[answer.status] += 1
            self.tally.kinds[kind] += 1
            self.tally.longest = max(self.tally.longest, time.monotonic() - began)
            if wrong:
                self.tally.faults.append(Fault(number, sent, wrong))
            elif kind not in _NOT_KEPT:
                shortest = self.tally.shortest.setdefault(answer.says, attempt)
                if len(attempt.body) < len(shortest.body):
                    self.tally.shortest[answer.says] = attempt


def _with_token(attempt: Attempt, given: Given) -> Attempt:
    headers = [x for x in attempt.headers if x[0] != "Authorization"]
    said = ("Authorization", f"Bearer {given.token}")
    return Attempt(attempt.method, attempt.path, (*headers, said), attempt.body)


@contextmanager
def served() -> Iterator[Served]:
    """Two servers with two workers each: the open one, which may read a FHIR server, and one that
    trusts clients.
    """
    tokens = Tokens()
    with (
        tempfile.TemporaryDirectory() as name,
        serving(odd_endpoint) as fhir,
        running("--workers", "2", CDS_FHIR_SERVERS=fhir.base, CDS_LOG_LEVEL="error") as server,
        _trusting(Path(name), tokens) as asking,
    ):
        yield Served(server, fhir, asking, tokens)


def _trusting(folder: Path, tokens: Tokens) -> AbstractContextManager[Running]:
    settings = {"CDS_AUDIT_FILE": str(folder / "audit.ndjson"), "CDS_LOG_LEVEL": "error"}
    return trusting(folder, tokens.rows(folder), "--workers", "2", **settings)


def keep(found: Sequence[Fault]) -> list[Path]:
    """Writes the inputs that were answered wrongly into the corpus."""
    return [_kept("found", x.attempt, x.attempt.written()) for x in found[:_MOST_KEPT]]


def collect(shortest: Mapping[str, Attempt]) -> list[Path]:
    """Writes an input for each thing that was said, unless one as short is in the corpus."""
    known = corpus()
    return [
        _kept("says", attempt, says.encode())
        for says, attempt in sorted(shortest.items())
        if len(attempt.body) <= _LONGEST_KEPT
        and len(attempt.body) < len(known.get(_name("says", says.encode()), _ENDLESS).body)
    ]


def _kept(kind: str, attempt: Attempt, of: bytes) -> Path:
    CORPUS.mkdir(exist_ok=True)
    path = CORPUS / f"{_name(kind, of)}.http"
    path.write_bytes(attempt.written())
    return path


def _name(kind: str, of: bytes) -> str:
    return f"{kind}-{hashlib.sha256(of).hexdigest()[:12]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs for some minutes and prints the figures; 1 when there was a fault."""
    asked = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    asked.add_argument("--minutes", type=float, default=20)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--collect", action="store_true", help="add to the corpus what is new")
    given = asked.parse_args(arguments)
    fuzzing = Fuzzing(given.seed, _today())
    with served() as servers:
        ends = time.monotonic() + 60 * given.minutes
        tally = Run(fuzzing, servers, lambda _: time.monotonic() > ends).run()
    print(f"seed {given.seed}, charts as of {_today()}")
    print(*tally.lines(), sep="\n")
    kept = keep([x for x in tally.faults if x.number >= 0])
    kept += collect(tally.shortest) if given.collect else []
    for path in kept:
        print(f"kept {path.relative_to(ROOT)}")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())

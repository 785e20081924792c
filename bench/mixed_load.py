"""Calls of every kind, without end, from clients that know what each is owed."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import count, cycle
from typing import Any

import requests

from bench.payloads import PATIENT, Payload, payloads, to_fetch
from tests.exchanges import EXPLAIN, GRANT, SERVICE
from tests.trust import Key, claims, token

Json = dict[str, Any]
ISSUER = "https://ehr.example"
CALLERS = 4
PAUSE = 0.02  # between the calls of one caller
CUT_OFF = "cut off"  # no answer, or not all of it


@dataclass(frozen=True)
class Call:
    """What is sent, where to, and what comes of it unless something is wrong."""

    kind: str
    path: str
    body: bytes
    owed: str
    reads: Callable[[Json], str] = lambda answer: ""


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a call, and when it was begun and answered, in seconds of the monotonic
    clock; `why` is what an error said.
    """

    kind: str
    owed: str
    got: str
    began: float
    ended: float
    why: str = ""

    @property
    def is_owed(self) -> bool:
        return self.got == self.owed


def calls(today: date, fhir: str) -> Iterator[Call]:
    """The calls of one round."""
    found = [x for x in payloads(today) if not x.name.startswith("xl")]
    fetched = to_fetch(fhir)
    granted = json.dumps({**json.loads(fetched.body), "fhirAuthorization": GRANT}).encode()
    for payload in found:
        kind = "firing" if payload.fires else "quiet"
        yield Call(kind, SERVICE, payload.body, _owed(payload), _cards)
        yield Call("fetched", SERVICE, granted, _owed(fetched), _cards)
        yield Call("explained", EXPLAIN, payload.body, _owed(payload), _verdicts)
        yield Call("feedback", f"{SERVICE}/feedback", b"", "200")
        yield Call("broken", SERVICE, payload.body[: len(payload.body) // 2], "400")


def _owed(payload: Payload) -> str:
    return f"200 {' '.join(payload.cards)}".strip()


def _cards(answer: Json) -> str:
    return " ".join(x["source"]["topic"]["code"] for x in answer["cards"])


def _verdicts(answer: Json) -> str:
    return " ".join(x["topic"] for x in answer["verdicts"] if x["verdict"] == "fired")


@dataclass
class MixedLoad:
    """Callers of one server, who sign with one key."""

    url: str
    fhir: str
    key: Key
    became: list[Became] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _finished: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Calls until the end of the block, and until all are answered."""
        threads = [threading.Thread(target=self._call, args=(n,)) for n in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._finished.set()
            for thread in threads:
                thread.join(60)

    def _call(self, offset: int) -> None:
        round_of = list(calls(date.today(), self.fhir))
        ahead = len(round_of) * offset // CALLERS
        with requests.Session() as session:
            for call in cycle(round_of[ahead:] + round_of[:ahead]):
                if self._finished.is_set():
                    return
                began = time.monotonic()
                got, why = self._sent(session, call, next(self._numbers))
                ended = time.monotonic()
                self.became.append(Became(call.kind, call.owed, got, began, ended, why))
                self._finished.wait(PAUSE)

    def _sent(self, session: requests.Session, call: Call, number: int) -> tuple[str, str]:
        """What a call got, and what it was told when that is an error."""
        body = call.body or _feedback(number)
        # Another patient each time: a card that was shown is held back for days.
        body = body.replace(f'{PATIENT}"'.encode(), f'p1x{number}"'.encode())
        signed = token(self.key, claims(ISSUER, call.path))
        headers = {"Authorization": f"Bearer {signed}", "Content-Type": "application/json"}
        try:
            answer = session.post(self.url + call.path, body, headers=headers, timeout=30)
            said, why = (call.reads(answer.json()), "") if answer.ok else ("", _told(answer))
        except requests.RequestException as error:
            return CUT_OFF, type(error).__name__
        return f"{answer.status_code} {said}".strip(), why


def _told(answer: requests.Response) -> str:
    """What an OperationOutcome says, "" for another answer."""
    try:
        issue = answer.json()["issue"][0]
        return str(issue.get("diagnostics") or issue["details"]["text"])
    except (ValueError, LookupError, TypeError):
        return ""


def _feedback(number: int) -> bytes:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    item = {"card": f"card {number}", "outcome": "overridden", "outcomeTimestamp": at}
    return json.dumps({"feedback": [item]}).encode()

"""Nothing of a patient, a user or a token in a log line, a metric or an error, at any level: a
server is asked in every way with marked data, and the marks are in its audit only.
"""

import ast
import json
import logging
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.logs import FIELDS, JsonLines
from tests.exchanges import EXPLAIN, SERVICE, Json, request
from tests.loopback import FhirServer, Running, certificate_for, refuses, serving
from tests.trust import Key, claims, client_row, key_set, publishing, token, trusting

requirement = pytest.mark.requirement
ENGINE = Path(__file__).resolve().parents[1] / "cds_service"
EHR, OTHER = "https://ehr.example", "https://other.example"
MARK = "Zyx"
FEEDBACK = f"{SERVICE}/feedback"
COMMENT = "Zyxcomment: she is better now"
# Where the answer to a call may hold what its caller has sent: drafts of orders name the patient.
ECHOES = (200,)


def marked(fhir: str = "") -> Json:
    """A request in which everything that a client chooses is marked, and its data is too."""
    text = json.dumps(request()).replace("p1", "Zyxpatient")
    body: Json = json.loads(text)
    body["hookInstance"] = "Zyxhookinstance"
    body["context"] |= {"userId": "Practitioner/Zyxuser", "encounterId": "Zyxencounter"}
    body["prefetch"]["Zyxkey"] = {"resourceType": "Bundle", "type": "Zyxtype"}
    patient = body["prefetch"]["patient"]
    patient["name"] = [{"family": "Zyxfamily", "given": ["Zyxgiven"]}]
    patient["identifier"] = [{"value": "Zyxmrn"}]
    body["extension"] = {"com.example.Zyx": "Zyxextension"}
    if fhir:
        body["fhirServer"] = fhir
        body["fhirAuthorization"] = {
            "access_token": "Zyxaccess",
            "token_type": "Bearer",
            "expires_in": 300,
            "scope": "patient/*.read Zyxscope",
            "subject": "Zyxsubject",
        }
    return body


def broken() -> list[bytes]:
    """Bodies that are refused, each with a mark where it is wrong or near it."""
    good = marked()
    context = good["context"]
    found: list[object] = [
        {**good, "hook": "Zyxhook"},
        {**good, "hookInstance": {"Zyx": 1}},
        {**good, "context": {**context, "patientId": ["Zyx"]}},
        {**good, "context": {**context, "patientId": "Zyx/../1"}},
        {**good, "context": {**context, "userId": "Zyx Zyx"}},
        {**good, "prefetch": {}},
        {**good, "prefetch": {"Zyxkey": None, "alp": {"resourceType": "Zyx"}}},
        {**good, "prefetch": {"patient": {"resourceType": "Patient", "id": "Zyxother"}}},
        {**good, "fhirAuthorization": {"access_token": "Zyxaccess"}},
        ["Zyx"],
        "Zyx",
    ]
    texts = [json.dumps(x).encode() for x in found]
    return [
        *texts,
        b'{"Zyx": ',
        b'{"hook": "Zyx", "hook": "Zyx"}',
        b"\xff Zyx",
        b"[" * 5000 + b'"Zyx"',
        b"Zyx",
    ]


@dataclass
class Asking:
    """Asks a server and keeps what it says to somebody who sent something wrong."""

    server: Running
    key: Key
    refusals: list[bytes] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def post(self, path: str, body: bytes | Json, given: str | None = None, **head: str) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        if given is None:
            given = token(self.key, claims(EHR, path, tenant="Zyxtenant", sub="Zyxsub"))
        self.tokens += [x for x in given.split(".") if len(x) > 20]
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {given}", **head}
        self.note(requests.post(self.server.url + path, text, headers=head, timeout=30))

    def note(self, answer: requests.Response) -> None:
        self.statuses.append(answer.status_code)
        if answer.status_code not in ECHOES:
            self.refusals.append(answer.content + str(answer.headers).encode())


@requirement("SEC-07", "SEC-09")
def test_no_mark_leaves_the_audit_however_the_server_is_asked(
    tmp_path: Path,
) -> None:
    key, audit = Key(), tmp_path / "audit.ndjson"
    (tmp_path / "keys.json").write_bytes(key_set(key))
    certificate = certificate_for(tmp_path, "DNS:localhost")
    with publishing() as keys, _marked_chart(certificate) as fhir:
        fhir.faults["Condition"] = refuses(500)
        served = f'[[client.fhir_server]]\nurl = "{fhir.base}"\nnetworks = ["127.0.0.0/8"]\n'
        rows = [
            client_row(EHR, keys="keys.json") + served,
            client_row(OTHER, jku=keys.publish("/k", Key()), insecure_jku=True),
        ]
        settings = {
            "CDS_LOG_LEVEL": "debug",
            "CDS_AUDIT_FILE": str(audit),
            "CDS_CA_BUNDLE": str(certificate),
        }
        with trusting(tmp_path, rows, "--workers", "2", **settings) as server:
            ask = Asking(server, key)
            _ask_in_every_way(ask, fhir.base)
            metrics = requests.get(f"{server.url}/metrics", timeout=20).text
            said = server.output
    assert {200, 400, 401, 404, 405, 412, 413, 415, 422} <= set(ask.statuses)
    assert max(ask.statuses) < 500
    assert "said by a library" in said and "token refused" in said  # it was listened to
    assert MARK not in said
    assert MARK not in metrics
    assert not [x for x in ask.refusals if MARK.encode() in x]
    kept = audit.read_text("utf-8")
    assert "Zyxpatient" in kept and "Zyxuser" in kept and "Zyxhookinstance" in kept
    for secret in ("Zyxaccess", "Zyxcomment", "Zyxfamily", "Zyxmrn", "Zyxsub"):
        assert secret not in kept, secret
    assert not [x for x in ask.tokens if x in kept + said]


@contextmanager
def _marked_chart(certificate: Path) -> Iterator[FhirServer]:
    """A FHIR server over TLS that has what the marked request has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    given = marked()["prefetch"].values()
    entries = [x for one in given for x in one.get("entry", [{"resource": one}])]
    entries = [x for x in entries if "id" in x["resource"]]
    chart = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    with serving(lambda base: FhirEndpoint([chart], base), "localhost", context) as server:
        yield server


def _ask_in_every_way(ask: Asking, fhir: str) -> None:
    for path in (SERVICE, EXPLAIN):
        for body in (marked(), marked(fhir), {**marked(fhir), "prefetch": {}}):
            ask.post(path, body)
        for text in broken():
            ask.post(path, text)
    url = ask.server.url
    own = {"card": "Zyxcard", "outcome": "overridden", "outcomeTimestamp": "2026-05-04T09:31:07Z"}
    why = {"reason": {"code": "Zyxcode", "system": "Zyxsystem"}, "userComment": COMMENT}
    wrong: tuple[Json, ...] = ({**own, "outcome": "Zyx"}, {**own, "card": "Zyx\0"})
    for item in ({**own, "overrideReason": why}, *wrong):
        ask.post(FEEDBACK, {"feedback": [item]})
    ask.post("/cds-services/Zyxservice", marked())
    ask.post(SERVICE, marked(), **{"Content-Type": "text/Zyx"})
    ask.post(SERVICE, marked(), **{"Content-Encoding": "zyx", "X-Zyx": "Zyx"})
    ask.post(SERVICE, b"Zyx" * 8_000_000)
    others = (token(Key(kid="Zyx"), claims(x)) for x in ("https://Zyx.example", OTHER))
    for given in ("Zyx.Zyx.Zyx", "Zyx", *others):
        ask.post(SERVICE, marked(), given)
    for path in ("/Zyx", "/topics/Zyx", "/cds-services?Zyx=Zyx", "/explain/Zyx"):
        ask.note(requests.get(url + path, headers={"X-Request-ID": "Zyx Zyx"}, timeout=20))
    ask.note(requests.request("ZYX", f"{url}/Zyx", timeout=20))
    ask.note(requests.delete(f"{url}/topics/Zyx", data="Zyx", timeout=20))


# -- the lines -----------------------------------------------------------------------------------


def _log_calls() -> list[Any]:
    return [
        pytest.param(node, id=f"{path.stem}:{node.lineno}")
        for path in sorted(ENGINE.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical", "log")
        and "log" in ast.unparse(node.func.value).lower()
    ]


@requirement("SEC-07")
@pytest.mark.parametrize("call", _log_calls())
def test_an_event_is_a_constant_and_its_fields_are_of_the_list(call: ast.Call) -> None:
    [event] = call.args
    assert isinstance(event, ast.Constant)
    assert {x.arg for x in call.keywords} <= {"extra"}


def test_there_are_log_calls_to_look_at() -> None:
    assert len(_log_calls()) >= 8


def line(name: str, event: str, *arguments: str, trace: Any = None, **more: str) -> Json:
    record = logging.LogRecord(name, logging.WARNING, "/a/place.py", 7, event, arguments, trace)
    vars(record).update(more)
    found: Json = json.loads(JsonLines().format(record))
    return found


def test_a_field_that_is_not_of_the_list_is_left_out() -> None:
    found = line("cds_service", "an event", reason="why", patient="Zyx", body="Zyx")
    assert found.pop("at").endswith("Z")
    assert found == {"level": "warning", "event": "an event", "reason": "why"}
    assert not {"patient", "user", "body", "token", "path", "query"} & set(FIELDS)


def test_of_a_library_only_the_place_is_told() -> None:
    try:
        raise ValueError("Zyx")
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
    found = line("urllib3.connectionpool", "GET %s", "Zyx", trace=trace)
    assert found["event"] == "said by a library" and "Zyx" not in json.dumps(found)
    assert found["error"] == "ValueError"
    assert "test_of_a_library" in found["places"][0]


def test_what_nobody_catches_is_a_line_too_and_without_its_words(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        "import threading, warnings\n"
        "from cds_service.logs import write_logs\n"
        "write_logs('info')\n"
        "warnings.warn('Zyx warning')\n"
        "class Odd:\n"
        "    def __del__(self): raise ValueError('Zyx')\n"
        "Odd()\n"
        "def fail(): raise KeyError('Zyx')\n"
        "thread = threading.Thread(target=fail)\n"
        "thread.start()\n"
        "thread.join()\n"
        "raise RuntimeError('Zyx')\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "Zyx" not in result.stderr + result.stdout
    found = [json.loads(x) for x in result.stderr.splitlines()]
    assert [x["event"] for x in found] == ["said by a library", *["uncaught"] * 3]
    assert [x.get("error") for x in found] == [None, "ValueError", "KeyError", "RuntimeError"]

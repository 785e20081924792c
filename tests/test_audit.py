"""The audit: a FHIR AuditEvent for each call, whole whatever happens, in its file and nowhere else;
and what a past call can be told from it.
"""

import gzip
import json
import os
import re
import resource
import shutil
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
import requests
from fhir.resources.R4B.auditevent import AuditEvent

from cds_service.app import create_app
from cds_service.audit import STDOUT, AuditFile, event_of
from cds_service.call_record import CallRecord
from cds_service.config import Settings
from tests.exchanges import EXPLAIN, SERVICE, Json, as_bytes, request, send
from tests.loopback import (
    ROOT,
    Running,
    clean_environment,
    command,
    counting,
    ended,
    free_port,
    running,
    wait_until,
)
from tests.trust import Key, claims, client_row, key_set, token, trusting

requirement = pytest.mark.requirement
EHR = "https://ehr.example"


def records(file: Path) -> list[Json]:
    return [json.loads(x) for x in file.read_text("utf-8").splitlines()]


def listed(event: Json, name: str) -> dict[str, str]:
    """What an event lists under a name."""
    return {
        x["type"]: x["valueString"]
        for entity in event["entity"]
        if entity.get("name") == name
        for x in entity["detail"]
    }


def post(server: Running, path: str = SERVICE, body: bytes = b"", **headers: str) -> int:
    head = {"Content-Type": "application/json", **headers}
    return requests.post(server.url + path, body, headers=head, timeout=30).status_code


# -- what a record says --------------------------------------------------------------------------


@requirement("SEC-09")
def test_every_call_leaves_one_record_of_who_asked_about_whom_and_what_was_answered(
    tmp_path: Path,
) -> None:
    file, key = tmp_path / "audit.ndjson", Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    rows = [client_row(EHR, keys="keys.json")]
    with trusting(tmp_path, rows, CDS_AUDIT_FILE=str(file)) as server:
        ask = _Asking(server, key)
        silent = request((71.0, 68.0, 66.0, 70.0))
        statuses = [
            ask(SERVICE, request(), "fired"),
            ask(SERVICE, silent, "silent"),
            ask(SERVICE, {**silent, "prefetch": {}}, "unsettled"),
            ask(SERVICE, {"hook": "patient-view"}, "broken"),
            ask(EXPLAIN, request(), "explained"),
            ask(f"{SERVICE}/feedback", {"feedback": [_set_aside("card-1")]}, "feedback"),
            post(server, SERVICE, as_bytes(request()), **{"X-Request-ID": "stranger"}),
        ]
        for path in ("/cds-services", "/livez", "/readyz", "/version", "/metrics", "/topics"):
            assert requests.get(server.url + path, timeout=20).ok
    found = {_request_id(x): x for x in records(file)}
    assert statuses == [200, 200, 412, 422, 200, 200, 401]
    assert [*found] == [
        *("fired", "silent", "unsettled", "broken", "explained", "feedback", "stranger")
    ]
    assert len(records(file)) == 7
    assert [x["outcome"] for x in found.values()] == ["0", "0", "4", "4", "0", "0", "4"]
    for event in found.values():
        AuditEvent.model_validate(event)
    _says_who_asked_about_whom(found)
    _says_what_was_answered(found)


def _says_who_asked_about_whom(found: dict[str, Json]) -> None:
    for name in ("fired", "silent", "unsettled", "explained"):
        client, _, user = found[name]["agent"]
        assert client["who"] == {"identifier": {"value": EHR}, "display": "ehr.example"}
        assert client["network"]["address"] == "127.0.0.1"
        assert user["who"]["reference"] == request()["context"]["userId"] and user["requestor"]
        [patient] = [x["what"]["reference"] for x in found[name]["entity"] if "role" in x]
        assert patient == "Patient/p1"
        assert listed(found[name], "call")["tenant"] == "north"
        assert listed(found[name], "call")["hook-instance"] == request()["hookInstance"]
    assert found["stranger"]["agent"][0]["who"] == {"display": "somebody unknown"}
    assert found["stranger"]["outcomeDesc"] == "401 no-token"


def _says_what_was_answered(found: dict[str, Json]) -> None:
    fired, unsettled = found["fired"], found["unsettled"]
    [(topic, said)] = listed(fired, "cards").items()
    assert topic == "lowAlpPersistent" and said.endswith(" info")
    assert listed(fired, "verdicts")[topic].startswith("fired fired ")
    assert listed(fired, "verdicts")["extremeAlp"].startswith("not-met latest-is-extreme ")
    assert len(listed(fired, "verdicts")) == len(listed(found["silent"], "verdicts")) == 21
    assert listed(found["silent"], "cards") == {}
    assert listed(fired, "data")["alp"].startswith("answered inferred 4")
    assert re.fullmatch(r"2026\.\d+\.\d+ [0-9a-f]{64}", listed(fired, "call")["content"])
    assert {x.split()[0] for x in listed(unsettled, "verdicts").values()} == {"data-missing"}
    assert listed(unsettled, "data")["alp"] == "absent - 0"
    assert "hookInstance" in listed(found["broken"], "call")["why"]
    assert listed(found["feedback"], "feedback") == {"overridden": "card-1"}


def test_what_a_quiet_client_is_not_told_is_audited_and_counted(tmp_path: Path) -> None:
    file, key = tmp_path / "audit.ndjson", Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    rows = [client_row(EHR, keys="keys.json", failures="quiet")]
    with trusting(tmp_path, rows, CDS_AUDIT_FILE=str(file)) as server:
        ask = _Asking(server, key)
        assert ask(SERVICE, {**request(), "prefetch": {}}, "lacking") == 200
        assert ask(SERVICE, {"hook": "patient-view"}, "broken") == 200
        lost = r'cds_not_evaluated_total{client="ehr.example",reason="%s",service="alp-review"}'
        for reason in ("incomplete", "invalid"):
            assert _count(server, re.escape(lost % reason)) == 1
        made = 'client="ehr.example",outcome="not-evaluated",service="alp-review"'
        assert _count(server, rf"cds_hook_requests_total\{{{made}\}}") == 2
    said = [(_request_id(x), x["outcome"], x["outcomeDesc"]) for x in records(file)]
    assert said == [("lacking", "4", "200 incomplete"), ("broken", "4", "200 invalid")]
    assert {x.split()[0] for x in listed(records(file)[0], "verdicts").values()} == {"data-missing"}


class _Asking:
    def __init__(self, server: Running, key: Key) -> None:
        self.server, self.key = server, key

    def __call__(self, path: str, body: Json, name: str) -> int:
        given = token(self.key, claims(EHR, path, tenant="north"))
        head = {"Authorization": f"Bearer {given}", "X-Request-ID": name}
        return post(self.server, path, json.dumps(body).encode(), **head)


def _set_aside(card: str) -> Json:
    at = "2026-05-04T09:31:07Z"
    return {"card": card, "outcome": "overridden", "outcomeTimestamp": at}


def _request_id(event: Json) -> str:
    [found] = [
        x["what"]["identifier"]["value"]
        for x in event["entity"]
        if x["type"]["code"] == "XrequestId"
    ]
    return str(found)


@requirement("SEC-09", "ERR-07")
def test_the_id_of_an_answer_is_that_of_its_record_and_of_its_line_in_the_log(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.ndjson"
    with running(CDS_AUDIT_FILE=str(file)) as server:
        head = {"Content-Type": "application/json"}
        answer = requests.post(server.url + SERVICE, as_bytes(request()), headers=head, timeout=30)
        given = answer.headers["X-Request-ID"]
        lines = [json.loads(x) for x in server.output.splitlines() if x.startswith("{")]
    assert [_request_id(x) for x in records(file)] == [given]
    [line] = [x for x in lines if x.get("request_id") == given]
    assert (line["event"], line["route"], line["outcome"]) == ("answered", "service", "cards")
    assert (line["service"], line["status"], line["level"]) == ("alp-review", 200, "info")


# -- the file ------------------------------------------------------------------------------------


def test_workers_that_write_at_once_write_each_record_whole_and_for_the_owner_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.ndjson"
    ids = [str(uuid4()) for _ in range(120)]
    with running("--workers", "3", CDS_AUDIT_FILE=str(file)) as server:

        def ask(name: str) -> int:
            return post(server, SERVICE, as_bytes(request()), **{"X-Request-ID": name})

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(ask, ids)) == {200}
    assert Counter(map(_request_id, records(file))) == Counter(ids)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_version_that_is_installed_meanwhile_is_not_that_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ran = tmp_path / "audit.ndjson", version("cds-service")
    client = create_app(Settings(open=True, audit_file=str(file))).test_client()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2099.1.0")
    assert send(client, as_bytes(request())).status_code == 200
    [event] = records(file)
    assert event["source"]["observer"]["display"] == f"cds-service {ran}"


def test_who_renames_the_file_finds_the_next_record_in_a_new_one(tmp_path: Path) -> None:
    file, old = tmp_path / "audit.ndjson", tmp_path / "audit.ndjson.1"
    with running("--workers", "2", CDS_AUDIT_FILE=str(file)) as server:
        post(server, SERVICE, as_bytes(request()), **{"X-Request-ID": "before"})
        file.rename(old)
        post(server, SERVICE, as_bytes(request()), **{"X-Request-ID": "after"})
    assert [*map(_request_id, records(old))] == ["before"]
    assert [*map(_request_id, records(file))] == ["after"]


@requirement("SEC-09")
def test_a_full_disk_costs_no_card_but_a_count_and_leaves_whole_records_and_ends_by_itself(
    tmp_path: Path,
) -> None:
    file = tmp_path / "audit.ndjson"
    with running(CDS_AUDIT_FILE=str(file)) as server:
        ask = as_bytes(request())
        assert post(server, SERVICE, ask) == 200
        size = file.stat().st_size
        with _no_file_beyond(size + size // 2, server):
            assert [post(server, SERVICE, ask) for _ in range(3)] == [200] * 3
            assert _count(server, "cds_audit_failures_total") == 3
            assert '"event":"audit record lost"' in server.output
        assert file.stat().st_size == size
        assert post(server, SERVICE, ask, **{"X-Request-ID": "again"}) == 200
        assert _count(server, "cds_audit_failures_total") == 3
    assert [*map(_request_id, records(file))][1:] == ["again"]


@contextmanager
def _no_file_beyond(size: int, server: Running) -> Iterator[None]:
    """What a full disk does, for the workers of a server only."""
    before = {x: resource.prlimit(x, resource.RLIMIT_FSIZE) for x in server.children()}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _count(server: Running, name: str) -> float:
    text = requests.get(f"{server.url}/metrics", timeout=20).text
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


def test_a_record_that_is_taken_only_in_part_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = tmp_path / "audit.ndjson", os.write
    audit = AuditFile(str(file))
    audit.write(event_of(CallRecord("first"), "s", "c", ""))
    monkeypatch.setattr(os, "write", lambda to, line: write(to, line[: len(line) // 2]))
    with pytest.raises(OSError, match="only a part"):
        audit.write(event_of(CallRecord("half"), "s", "c", ""))
    monkeypatch.undo()
    audit.write(event_of(CallRecord("second"), "s", "c", ""))
    assert [*map(_request_id, records(file))] == ["first", "second"]


@pytest.mark.parametrize("name", ["nowhere/audit.ndjson", "."])
def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    result = ended("serve", "--open", CDS_AUDIT_FILE=str(tmp_path / name))
    assert result.returncode == 2
    assert re.fullmatch(r"cds-service: .*CDS_AUDIT_FILE.*\n", result.stderr), result.stderr


def test_the_standard_output_holds_records_only_where_it_is_the_audit() -> None:
    port = free_port()
    process = subprocess.Popen(
        command("serve", "--open", "--port", str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(CDS_AUDIT_FILE=STDOUT),
    )
    try:
        server = Running(f"http://127.0.0.1:{port}", port, process, Path())  # type: ignore[arg-type]
        wait_until(lambda: _is_live(server), "it does not answer")
        post(server, SERVICE, as_bytes(request()), **{"X-Request-ID": "said"})
    finally:
        process.terminate()
        stdout, stderr = process.communicate(timeout=20)
    assert [_request_id(json.loads(x)) for x in stdout.splitlines()] == ["said"]
    assert "audit in the standard output" in stderr and "AuditEvent" not in stderr


def _is_live(server: Running) -> bool:
    try:
        return requests.get(f"{server.url}/livez", timeout=5).ok
    except requests.ConnectionError:
        return False


# -- explaining a past call ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a fired, a repeated, an unsettled and a broken call."""
    file = tmp_path_factory.mktemp("audit") / "audit.ndjson"
    with running(CDS_AUDIT_FILE=str(file)) as server, counting() as (fhir, _):
        for name, body in (
            ("fired", request()),
            ("twice", request()),
            ("twice", {**request(), "prefetch": {}, "fhirServer": fhir}),
            ("broken", {"hook": "patient-view"}),
        ):
            post(server, SERVICE, json.dumps(body).encode(), **{"X-Request-ID": name})
        heard = json.dumps({"feedback": [_set_aside("card-1")]}).encode()
        post(server, f"{SERVICE}/feedback", heard, **{"X-Request-ID": "heard"})
    return file


def explained(audit: Path, *arguments: str) -> str:
    result = ended("explain", *arguments, CDS_AUDIT_FILE=str(audit), COLUMNS="80")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_past_call_is_explained_without_its_data(audit: Path) -> None:
    said = explained(audit, "--request", "fired")
    assert "somebody unknown asked alp-review about Patient/p1" in said.replace("\n", " ")
    assert "1 card: lowAlpPersistent (info)" in said
    assert "fired: lowAlpPersistent" in said and "not met: extremeAlp" in said
    assert "Is the latest ALP extreme, and at most two weeks old? no" in said
    assert re.search(r"^alp +answered +inferred +4", said, re.MULTILINE)
    assert "28" not in re.sub(r"\d{4}-\S+|\([0-9a-f]{12}\)", "", said)  # no value of the chart


def test_every_call_of_an_id_is_explained_and_each_says_why(audit: Path) -> None:
    said = explained(audit, "--request", "twice")
    assert said.count(" asked alp-review ") == 2
    assert "412, required data missing" in said and "the FHIR server is not listed" in said
    said = explained(audit, "--request", "broken")
    assert "was answered 422 invalid" in said and "hookInstance" in said
    said = explained(audit, "--request", "heard").replace("\n", " ")
    assert "somebody unknown sent feedback to alp-review and was answered 200" in said
    assert said.strip().endswith("; overridden card-1")
    events = explained(audit, "--request", "fired", "--json")
    AuditEvent.model_validate_json(events)


def test_old_files_and_spoilt_lines_are_read_for_what_they_hold(
    audit: Path, tmp_path: Path
) -> None:
    old = tmp_path / "audit.ndjson.1.gz"
    with gzip.open(old, "wb") as file:
        file.write(
            b'{"resourceType": "AuditEvent", "fired": \n\xff"fired"\n["fired"]\n{"fired": 1}\n'
        )
        file.write(audit.read_bytes())
    empty = tmp_path / "audit.ndjson"
    shutil.copy(os.devnull, empty)
    said = explained(empty, "--request", "fired", "--audit", str(empty), "--audit", str(old))
    assert "1 card: lowAlpPersistent (info)" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--request", "nobody"], "nobody is not in "),
        (["--request", "x", "REQUEST.json"], "REQUEST.json"),
        ([], "Give either REQUEST.json or --request ID"),
    ],
)
def test_what_is_not_there_is_said(audit: Path, arguments: list[str], why: str) -> None:
    result = ended("explain", *arguments, CDS_AUDIT_FILE=str(audit))
    assert result.returncode != 0 and result.stdout == ""
    assert why in result.stderr and "Traceback" not in result.stderr


def test_without_an_audit_there_is_nothing_to_look_in() -> None:
    result = ended("explain", "--request", "x")
    assert result.returncode == 2 and "CDS_AUDIT_FILE" in result.stderr

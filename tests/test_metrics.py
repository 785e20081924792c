"""Metrics: what is counted of calls, over all workers, and that each fault shows."""

import json
import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from socket import create_server

import pytest
import requests
from prometheus_client import Counter
from sqlalchemy import select

from cds_service.config import migrations_dir
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient
from cds_service.metrics import Metrics
from cds_service.observing import SECONDS_BETWEEN_WRITES, Readiness
from cds_service.store import TOKEN_USED, Store
from tests.exchanges import LOW, NORMAL, SERVICE, Json, as_bytes, request
from tests.loopback import (
    ROOT,
    FhirServer,
    Running,
    ended,
    free_port,
    hangs,
    has_ended,
    refuses,
    running,
    serving,
    wait_until,
)
from tests.trust import Key, claims, client_row, key_set, token, trusting

EHR = "https://ehr.example"
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(url: str) -> Samples:
    """Every sample of a page of metrics."""
    answer = requests.get(f"{url}/metrics", timeout=20)
    assert answer.ok and answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))): float(value)
        for name, labels, value in _SAMPLE.findall(answer.text)
    }


def count(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples of a name that bear these labels."""
    wanted = set(labels.items())
    return sum(x for (found, has), x in samples.items() if found == name and wanted <= has)


def post(url: str, body: Json | bytes, path: str = SERVICE, **headers: str) -> requests.Response:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"Content-Type": "application/json", **headers}
    return requests.post(url + path, text, headers=head, timeout=30)


@pytest.mark.parametrize("apart", [False, True], ids=["with the services", "at its own address"])
def test_what_every_worker_has_answered_is_one_sum(apart: bool) -> None:
    port = free_port()
    own = f"127.0.0.1:{port}" if apart else ""
    with running("--workers", "3", CDS_METRICS_ADDRESS=own) as server:
        at = f"http://127.0.0.1:{port}" if apart else server.url
        bodies = [as_bytes(request(x)) for x in (LOW, NORMAL)] * 15
        with ThreadPoolExecutor(6) as pool:
            assert {x.status_code for x in pool.map(lambda x: post(server.url, x), bodies)} == {200}
        for body in (b"{", b"{}", as_bytes({**request(), "prefetch": {}})):
            post(server.url, body)
        found = scraped(at)
        if apart:
            assert requests.get(f"{server.url}/metrics", timeout=20).status_code == 404
    of = {"service": "alp-review", "client": "open"}
    for outcome, times in (("cards", 15), ("none", 15), ("400", 1), ("422", 1), ("412", 1)):
        assert count(found, "cds_hook_requests_total", outcome=outcome, **of) == times
    assert count(found, "cds_cards_total", rule="lowAlpPersistent", indicator="info") == 15
    assert count(found, "cds_prefetch_keys_total", key="alp", state="inferred", **of) == 30
    assert count(found, "cds_prefetch_keys_total", key="alp", state="absent", **of) == 1
    assert count(found, "cds_suppressed_total") == 0  # topics that are off are not looked at
    required = {"rule": "extremeAlp", "reason": "required"}
    assert count(found, "cds_not_evaluable_total", **required) == 1
    assert count(found, "cds_hook_seconds_count", phase="total") == 33
    assert count(found, "cds_hook_seconds_count", phase="rules") == 30
    assert count(found, "cds_content_info") == 1


def test_a_topic_whose_conditions_hold_and_that_is_kept_back_is_counted_by_what_kept_it() -> None:
    with running("--topic-mode", "lowAlpPersistent=shadow") as server:
        for _ in range(3):
            assert post(server.url, as_bytes(request())).json()["cards"] == []
        found = scraped(server.url)
    kept = {"rule": "lowAlpPersistent", "reason": "shadow"}
    assert count(found, "cds_suppressed_total", **kept) == 3


def test_the_phases_of_a_call_are_all_of_it() -> None:
    with running() as server:
        for _ in range(5):
            post(server.url, as_bytes(request()))
        found = scraped(server.url)
    phases = ("decode", "facts", "rules", "cards")
    parts = [count(found, "cds_hook_seconds_sum", phase=x) for x in phases]
    whole = count(found, "cds_hook_seconds_sum", phase="total")
    assert all(x > 0 for x in parts) and whole / 2 < sum(parts) < whole


def test_reading_a_fhir_server_is_timed_and_what_it_does_not_answer_is_counted(
    fhir: FhirServer,
) -> None:
    fhir.faults["Condition"] = refuses(503)
    fhir.faults["Procedure"] = hangs
    with running(CDS_FHIR_SERVERS=fhir.base, CDS_FETCH_SECONDS="1") as server:
        asked = {**request(), "prefetch": {}, "fhirServer": fhir.base}
        asked["context"] = {**asked["context"], "patientId": "low-alp-persistent"}
        assert post(server.url, asked).status_code == 200
        found = scraped(server.url)
    assert count(found, "cds_fhir_fetch_seconds_count") == 1
    assert 0.9 < count(found, "cds_fhir_fetch_seconds_sum") < 10
    assert count(found, "cds_hook_seconds_sum", phase="fetch") > 0.9
    assert count(found, "cds_hook_seconds_sum", phase="decode") < 0.9
    assert count(found, "cds_fhir_fetch_failures_total", reason="HTTP 503") == 1
    assert count(found, "cds_fhir_fetch_failures_total", reason="timed out") == 1
    assert count(found, "cds_prefetch_keys_total", key="alp", state="fetched") == 1
    assert count(found, "cds_prefetch_keys_total", key="conditions", state="failed") == 1


def test_a_fhir_server_that_was_down_is_read_again_once_it_is_there(
    patients: dict[str, FixturePatient],
) -> None:
    bundles = [x.bundle for x in patients.values()]
    port = free_port()
    base = f"http://127.0.0.1:{port}/fhir"
    asked = {**request(), "prefetch": {}, "fhirServer": base}
    asked["context"] = {**asked["context"], "patientId": "low-alp-persistent"}
    with running(CDS_FHIR_SERVERS=base) as server:
        for times in (1, 2):
            assert post(server.url, asked).status_code == 412
            failed = {"reason": "connection failed"}
            lost = count(scraped(server.url), "cds_fhir_fetch_failures_total", **failed)
            assert lost >= times
        with serving(lambda base: FhirEndpoint(bundles, base), port=port):
            assert post(server.url, asked).json()["cards"]
        assert count(scraped(server.url), "cds_fhir_fetch_failures_total", **failed) == lost


def test_clients_tokens_and_feedback_are_counted_by_names_of_ours(tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.json").write_bytes(key_set(key))
    rows = [client_row(EHR, keys="keys.json", name="north-ehr")]
    with trusting(tmp_path, rows) as server:

        def ask(body: Json, path: str = SERVICE, **said: object) -> requests.Response:
            given = token(key, claims(EHR, path, **said))
            return post(server.url, body, path, Authorization=f"Bearer {given}")

        card = ask(request()).json()["cards"][0]["uuid"]
        assert ask(request(), exp=1).status_code == 401
        assert ask(request(), "/cds-services/nobodys").status_code == 404
        items = [_item(card, {"reason": {"code": x}}) for x in ("later", "of-my-own", "Zyxmark")]
        items.append(
            {**_item(card, {}), "outcome": "accepted", "acceptedSuggestions": [{"id": "s"}]}
        )
        path = f"{SERVICE}/feedback"
        assert ask({"feedback": items}, path).status_code == 200
        found = scraped(server.url)
        text = requests.get(f"{server.url}/metrics", timeout=20).text
    of = {"client": "north-ehr", "service": "alp-review"}
    assert count(found, "cds_hook_requests_total", outcome="cards", **of) == 1
    assert count(found, "cds_hook_requests_total", outcome="401", client="") == 1
    assert count(found, "cds_hook_requests_total", outcome="404", service="") == 1
    assert count(found, "cds_jwt_rejected_total", reason="expired") == 1
    feedback = {"service": "alp-review", "outcome": "overridden"}
    assert count(found, "cds_feedback_total", reason="later", **feedback) == 1
    assert count(found, "cds_feedback_total", reason="other", **feedback) == 2
    assert count(found, "cds_feedback_total", outcome="accepted") == 1
    assert not any(x in text for x in ("nobodys", "Zyxmark", "of-my-own", card))


def _item(card: str, why: Json) -> Json:
    at = "2026-05-04T09:31:07Z"
    item = {"card": card, "outcome": "overridden", "outcomeTimestamp": at}
    return {**item, "overrideReason": why} if why else item


def test_a_locked_store_is_not_ready_shows_and_recovers_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    with running(CDS_STORE=f"sqlite:///{file}") as server:
        assert requests.get(f"{server.url}/readyz", timeout=20).json() == {"status": "ok"}
        assert count(scraped(server.url), "cds_store_writable") == 1
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("begin immediate")
            assert post(server.url, as_bytes(request())).status_code == 200
            time.sleep(SECONDS_BETWEEN_WRITES)  # it is not tried again before
            answer = requests.get(f"{server.url}/readyz", timeout=30)
            assert answer.status_code == 503
            assert answer.json()["issue"][0]["code"] == "transient"
            found = scraped(server.url)
            assert count(found, "cds_store_writable") == 0
            assert count(found, "cds_store_failures_total", operation="ready") == 1
            assert requests.get(f"{server.url}/livez", timeout=20).ok
            feedback = {"feedback": [_item("c", {})]}
            assert post(server.url, feedback, f"{SERVICE}/feedback").status_code == 503
            assert count(scraped(server.url), "cds_store_failures_total", operation="feedback") == 1
            other.execute("rollback")

        def is_well() -> bool:
            well = requests.get(f"{server.url}/readyz", timeout=30).ok
            return well and count(scraped(server.url), "cds_store_writable") == 1

        wait_until(is_well, "it does not recover")


def test_an_address_that_somebody_has_is_refused_in_a_sentence() -> None:
    with create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        result = ended(
            *("serve", "--open", "--port", str(free_port())), CDS_METRICS_ADDRESS=address
        )
    assert result.returncode == 2
    assert re.fullmatch(r"cds-service: CDS_METRICS_ADDRESS: 127\S+ port \d+: .*\n", result.stderr)


def test_a_worker_that_is_started_anew_takes_nothing_from_the_sum() -> None:
    with running("--workers", "1") as server:
        post(server.url, as_bytes(request()))
        _kill_a_worker(server)
        assert post(server.url, as_bytes(request())).status_code == 200
        assert count(scraped(server.url), "cds_hook_requests_total", outcome="cards") == 2


def _kill_a_worker(server: Running) -> None:
    [before] = server.children()
    os.kill(before, signal.SIGKILL)
    wait_until(
        lambda: [x for x in server.children() if not has_ended(x)] not in ([], [before]),
        "no worker is started anew",
    )

    def answers() -> bool:
        try:
            return requests.get(f"{server.url}/livez", timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_until(answers, "the new worker does not answer")


def test_the_page_names_every_metric_there_is_with_its_labels() -> None:
    page = (ROOT / "docs" / "audit.md").read_text("utf-8")
    said = {
        name: frozenset(re.findall(r"`(\w+)`", labels))
        for name, labels in re.findall(r"^\| `(cds_\w+)` \|([^|]*)\|", page, re.MULTILINE)
    }
    named = [x for x in vars(Metrics()).values() if hasattr(x, "_labelnames")]
    made = {x._name + "_total" * isinstance(x, Counter): frozenset(x._labelnames) for x in named}
    assert said == made


def test_however_often_readiness_is_asked_the_store_is_written_to_once_a_second(
    tmp_path: Path,
) -> None:
    store = Store(f"sqlite:///{tmp_path}/store.sqlite")
    store.migrate(migrations_dir())
    readiness = Readiness(store, Metrics())
    began = time.monotonic()
    for _ in range(500):
        readiness.check()
    most = 1 + int((time.monotonic() - began) / SECONDS_BETWEEN_WRITES)
    with store.reading() as connection:
        times = connection.execute(select(TOKEN_USED.c.until)).scalar_one() + 1
    store.close()
    assert times <= most < 500

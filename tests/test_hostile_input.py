"""Requests, resources and sequences that Hypothesis writes: no 5xx, no card that breaks a rule, and
what was kept once stays kept. `test_fuzz` sends what no JSON writer would write.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import requests as http
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from cds_service.fhir_endpoint import moved
from tests.exchanges import (
    EXPLAIN,
    EXPLAIN_SELECT,
    EXPLAIN_SIGN,
    FIRES,
    SELECT,
    SERVICE,
    SIGN,
    TODAY,
    Json,
    request,
    send,
)
from tests.fuzzing import ordering
from tests.invariants import cards_of, faults, strict_json
from tests.loopback import running
from tests.strategies import JSON, feedback_items, requests, resources

requirement = pytest.mark.requirement
WRITTEN = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
OF_HOOK = {SELECT: "order-select", SIGN: "order-sign"}
OF_HOOK |= {EXPLAIN_SELECT: "order-select", EXPLAIN_SIGN: "order-sign"}
ORDERING = st.sampled_from([*OF_HOOK])
CURRENT: Json = moved(request(), (datetime.now(UTC).date() - TODAY).days)
OWED = {200, 400, 412, 422}  # `client` holds each answer against all other rules


@pytest.mark.parametrize("path", [*OF_HOOK])
def test_the_orders_that_are_spoilt_below_and_in_the_fuzzing_are_what_the_card_is_about(
    client: FlaskClient, path: str
) -> None:
    [card] = send(client, ordering(OF_HOOK[path]), path).get_json()["cards"]
    references = card["extension"]["davinci-associated-resource"]
    chosen = 3 if OF_HOOK[path] == "order-select" else 4

    assert references == [f"MedicationRequest/d{n}" for n in range(1, chosen + 1)]


@requirement("ERR-08", "ERR-02", "FVR-03", "FVR-04", "PFD-16")
@WRITTEN
@given(st.sampled_from([SERVICE, EXPLAIN]), requests("patient-view", request((28.0, 29.0), 1, 1)))
def test_any_chart_is_answered(client: FlaskClient, path: str, body: Json) -> None:
    assert send(client, body, path).status_code in OWED


@requirement("ERR-08", "FVR-03")
@WRITTEN
@given(resources("Observation", "Condition", "MedicationRequest", "DiagnosticReport"))
def test_an_odd_resource_of_the_patient_is_no_reason_for_silence(
    client: FlaskClient, resource: Json
) -> None:
    """It may speak against a card; the rest of the chart is read all the same."""
    body = request()
    body["prefetch"]["odd"] = {"resourceType": "Bundle", "entry": [{"resource": resource}]}
    explained = send(client, body, EXPLAIN).get_json()

    assert explained["status"] == 200
    [series] = [x for x in explained["series"] if x["measure"] == "alp"]
    assert {f"Observation/o{n}" for n in range(4)} <= {x["reference"] for x in series["points"]}


@requirement("ERR-08", "ERR-02", "HOK-01", "HOK-05", "HOK-06", "FVR-03")
@WRITTEN
@given(st.data(), ORDERING)
def test_any_draft_orders_are_answered(client: FlaskClient, data: Any, path: str) -> None:
    body = data.draw(requests(OF_HOOK[path], ordering(OF_HOOK[path])))

    assert send(client, body, path).status_code in OWED


@requirement("ERR-08", "ERR-02", "HOK-01", "HOK-05", "HOK-06")
@WRITTEN
@given(ORDERING, st.sampled_from(["draftOrders", "entry", "resource", "selections"]), JSON)
def test_any_json_in_place_of_draft_orders_is_answered(
    client: FlaskClient, path: str, where: str, new: Any
) -> None:
    body = ordering(OF_HOOK[path])
    context = body["context"]
    if where == "entry":
        context["draftOrders"]["entry"] = new
    elif where == "resource":
        context["draftOrders"]["entry"][0]["resource"] = new
    else:
        context[where] = new

    assert send(client, body, path).status_code in OWED


# -- one thing after another -------------------------------------------------------------------


class Client(RuleBasedStateMachine):
    """A client that calls, reports on cards it was given and on others, sends the same again, and
    sends what is refused.
    """

    cards: Bundle[str] = Bundle("cards")
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self._stored: set[tuple[str, str, str, str]] = set()
        self._before: list[Json] = []

    def _send(self, path: str, body: Json) -> tuple[int, Any]:
        answer = http.post(self.url + path, json=body, timeout=60)
        found = faults("POST", path, answer.status_code, answer.headers, answer.content)
        assert found == []
        return answer.status_code, strict_json(answer.content)

    def _report(self, items: list[Json]) -> None:
        new = 0
        for item in items:
            keys = {
                (item["card"], x["id"], item["outcome"], item["outcomeTimestamp"])
                for x in item.get("acceptedSuggestions", [{"id": ""}])
            }
            new += not keys <= self._stored
            self._stored |= keys
        status, counted = self._send(f"{SERVICE}/feedback", {"feedback": items})
        assert status == 200
        assert counted == {"stored": new, "repeated": len(items) - new}

    @rule(target=cards)
    def call(self) -> str:
        """A call for a patient of a record system of its own, in which nothing was set aside."""
        server = f"https://ehr.example/{uuid4()}"
        status, answer = self._send(SERVICE, {**CURRENT, "fhirServer": server})
        assert (status, cards_of(answer)) == (200, FIRES)
        return str(answer["cards"][0]["uuid"])

    @rule(target=cards)
    def remember(self) -> str:
        return f"card {uuid4()}"

    @rule(data=st.data(), card=cards, other=cards)
    def report(self, data: Any, card: str, other: str) -> None:
        named = st.sampled_from([card, other])
        self._before = data.draw(st.lists(feedback_items(named), max_size=3))
        self._report(self._before)

    @rule()
    def report_again(self) -> None:
        self._report(self._before)

    @rule(
        data=st.data(), card=cards, spoilt=st.sampled_from(["card", "outcome", "outcomeTimestamp"])
    )
    def report_badly(self, data: Any, card: str, spoilt: str) -> None:
        good = data.draw(feedback_items(st.just(card)))
        bad = {**good, spoilt: data.draw(st.sampled_from(["", None, 5, "\0"]))}
        assert self._send(f"{SERVICE}/feedback", {"feedback": [good, bad]})[0] == 422

    @rule(body=requests("patient-view", request((28.0,), 1, 1)))
    def call_oddly(self, body: Json) -> None:
        assert self._send(SERVICE, body)[0] in OWED


@requirement("ERR-08", "FBK-07", "FBK-08")
def test_whatever_comes_before_a_call_is_answered_and_a_report_is_kept_once() -> None:
    with running() as server:
        Client.url = server.url
        run_state_machine_as_test(
            Client, settings=settings(max_examples=12, stateful_step_count=12, deadline=None)
        )

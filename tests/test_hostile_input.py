"""No body, however odd, gets a 5xx, an answer that is not JSON, or a card that breaks a rule."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.exchanges import (
    EXPLAIN,
    EXPLAIN_SELECT,
    EXPLAIN_SIGN,
    GRANT,
    SELECT,
    SERVER,
    SERVICE,
    SIGN,
    Json,
    ago,
    draft,
    problem,
    request,
    selecting,
    send,
    signing,
)
from tests.invariants import strict_json, violations

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
FUZZED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Stand-ins for what json.dumps cannot write.
RAW = {
    '"@digits"': "9" * 6000,
    '"@fraction"': "0." + "3" * 6000,
    '"@exponent"': "1e999999999",
    '"@negative"': "-1e-400",
    '"@NaN"': "NaN",
    '"@deep"': "[" * 3000 + "]" * 3000,
    '"@objects"': '{"a":' * 3000 + "1" + "}" * 3000,
    '"@half"': '"\\ud83d"',
    '"@escape"': '"\\x"',
    '"@long"': '"' + "x" * 100_000 + '"',
}
DATES = ["0001-01-01", "9999-12-31", "0000", "2026-02-30", "2026-11-24T25:00:00+99:99", "2027"]
WORDS = ["Bundle", "Patient", "Observation", "OperationOutcome", "final", "<", "U/L", "p1", "../x"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from([*DATES, *WORDS]),
    st.sampled_from([x.strip('"') for x in RAW]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["resource", "code", "value", "entry"]), inner),
    ),
    max_leaves=5,
)
HOW = ("replace", "replace", "drop", "repeat", "list", "object", "rename", "swap", "text")
CHANGES = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(HOW), VALUES), min_size=1, max_size=4
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or position) below a JSON value."""
    pairs: Any = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value) if isinstance(value, list) else pairs
    for step, item in pairs:
        yield value, step
        yield from places(item)


def spoil(body: Any, where: int, how: str, new: Any) -> None:
    """Changes one place of a JSON value."""
    found = list(places(body))
    if not found:
        return
    container, step = found[where % len(found)]
    old = container[step]
    other, there = found[(where * 7) % len(found)]
    if how == "drop":
        del container[step]
    elif how == "repeat" and isinstance(container, list):
        container.extend([deepcopy(old)] * 3)
    elif how == "rename" and isinstance(container, dict):
        container[str(new)[:20]] = container.pop(step)
    else:
        swapped = deepcopy(other[there])
        container[step] = {
            "list": [old],
            "object": {"x": old},
            "swap": swapped,
            "text": json.dumps(old)[:500],
        }.get(how, new)


def written(body: Any) -> bytes:
    text = json.dumps(body)
    for stand_in, raw in RAW.items():
        text = text.replace(stand_in, raw)
    return text.encode()


def check(client: FlaskClient, body: bytes, path: str) -> None:
    answer = send(client, body, path)

    assert answer.status_code in {200, 400, 412, 413, 415, 422}, answer.get_data(as_text=True)
    assert answer.mimetype == "application/json"
    found = strict_json(answer.data)
    if answer.status_code != 200:
        assert found["resourceType"] == "OperationOutcome"
    elif path.startswith("/cds-services/"):
        assert violations(found) == []
    else:
        assert violations({"cards": found["cards"]}) == []


@requirement("ERR-08", "ERR-02", "JSN-06", "FVR-04", "PFD-16")
@FUZZED
@given(st.sampled_from(["low-alp-persistent", "lytic-lesion-raised-alp"]), CHANGES)
def test_a_spoilt_chart_is_no_defect(
    client: FlaskClient, whole: Whole, name: str, changes: list[tuple[int, str, Any]]
) -> None:
    body = whole(name)
    for change in changes:
        spoil(body["prefetch"], *change)

    check(client, written(body), SERVICE)


@requirement("ERR-08", "ERR-02", "REQ-02", "REQ-06", "REQ-09")
@FUZZED
@given(CHANGES)
def test_a_spoilt_request_is_no_defect(
    client: FlaskClient, changes: list[tuple[int, str, Any]]
) -> None:
    body = {**request((28.0, 29.0), 1, 1), "fhirServer": SERVER, "fhirAuthorization": dict(GRANT)}
    for change in changes:
        spoil(body, *change)

    check(client, written(body), EXPLAIN)


@requirement("ERR-08", "JSN-07")
@FUZZED
@given(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 40))
def test_a_damaged_body_is_no_defect(
    client: FlaskClient, where: int, more: bytes, fewer: int
) -> None:
    body = written(request((28.0, 29.0), 1, 1))
    at = where % len(body)

    check(client, body[:at] + more + body[at + fewer :], SERVICE)


@requirement("ERR-08", "JSN-07")
@FUZZED
@given(st.integers(0, 10**6), st.sampled_from(["null", "1", '"x"', "{}", "[]"]))
def test_a_name_twice_anywhere_is_no_defect(client: FlaskClient, where: int, value: str) -> None:
    parts = json.dumps(request((28.0, 29.0), 1, 1)).split('": ')
    at = 1 + where % (len(parts) - 1)
    name = parts[at - 1].rpartition('"')[2]
    body = '": '.join([*parts[:at], f'{value}, "{name}": {parts[at]}', *parts[at + 1 :]])

    check(client, body.encode(), SERVICE)


# -- draft orders ------------------------------------------------------------------------------

ORDERING = st.sampled_from([SELECT, SIGN, EXPLAIN_SELECT, EXPLAIN_SIGN])
DRUG = {"coding": [{"system": "http://www.whocc.no/atc", "code": "M05BA04"}], "text": "alendronate"}


def ordering(path: str) -> Json:
    """A call whose draft orders use all that is read of them."""
    contained = {"resourceType": "Medication", "id": "m", "code": DRUG}
    orders: list[Json] = [
        draft(),
        draft(2)
        | {
            "authoredOn": ago(1),
            "doNotPerform": False,
            "dosageInstruction": [
                {
                    "text": "70 mg weekly",
                    "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "wk"}},
                    "route": {"text": "oral"},
                    "doseAndRate": [{"doseQuantity": {"value": 70, "unit": "mg"}}],
                }
            ],
            "reasonCode": [{"text": "Osteoporosis"}],
            "reasonReference": [{"reference": "Condition/c7"}, {"display": "Osteoporosis"}],
        },
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
    selected = ["MedicationRequest/d1", "d2", f"{SERVER}/MedicationRequest/d3", "ServiceRequest/s1"]
    is_selecting = path in (SELECT, EXPLAIN_SELECT)
    return selecting(*orders, selections=selected) if is_selecting else signing(*orders)


@pytest.mark.parametrize("path", [SELECT, SIGN, EXPLAIN_SELECT, EXPLAIN_SIGN])
def test_the_call_that_is_spoilt_below_is_about_its_orders(client: FlaskClient, path: str) -> None:
    [card] = send(client, ordering(path), path).get_json()["cards"]
    references = card["extension"]["davinci-associated-resource"]
    chosen = 3 if path in (SELECT, EXPLAIN_SELECT) else 4

    assert references == [f"MedicationRequest/d{n}" for n in range(1, chosen + 1)]


@requirement("ERR-08", "ERR-02", "HOK-01", "HOK-05", "HOK-06", "FVR-03")
@FUZZED
@given(ORDERING, CHANGES)
def test_spoilt_draft_orders_are_no_defect(
    client: FlaskClient, path: str, changes: list[tuple[int, str, Any]]
) -> None:
    body = ordering(path)
    for change in changes:
        spoil(body["context"], *change)

    check(client, written(body), path)


ELEMENTS = (
    *("id", "status", "intent", "subject", "doNotPerform", "medicationCodeableConcept"),
    *("medicationReference", "contained", "reasonCode", "reasonReference", "authoredOn"),
    *("dosageInstruction", "dispenseRequest", "resourceType"),
)


@requirement("ERR-08", "ERR-02", "FVR-03")
@FUZZED
@given(ORDERING, st.integers(0, 3), st.dictionaries(st.sampled_from(ELEMENTS), VALUES, min_size=1))
def test_any_json_in_a_draft_is_no_defect(
    client: FlaskClient, path: str, number: int, new: dict[str, Any]
) -> None:
    body = ordering(path)
    body["context"]["draftOrders"]["entry"][number]["resource"].update(new)

    check(client, written(body), path)


@requirement("ERR-08", "ERR-02", "HOK-01", "HOK-05", "HOK-06")
@FUZZED
@given(ORDERING, st.sampled_from(["draftOrders", "entry", "resource", "selections"]), VALUES)
def test_any_json_in_place_of_draft_orders_is_no_defect(
    client: FlaskClient, path: str, where: str, new: Any
) -> None:
    body = ordering(path)
    context = body["context"]
    if where == "entry":
        context["draftOrders"]["entry"] = new
    elif where == "resource":
        context["draftOrders"]["entry"][0]["resource"] = new
    else:
        context[where] = new

    check(client, written(body), path)

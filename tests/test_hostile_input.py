"""No body, however odd, gets a 5xx, an answer that is not JSON, or a card that breaks a rule."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.exchanges import EXPLAIN, GRANT, SERVER, SERVICE, Json, request, send
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
    elif path == SERVICE:
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

"""/openapi.json says what is read and written: every body of these tests is held against it."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from tests.broken_requests import BROKEN, Broken
from tests.exchanges import (
    EXCHANGES,
    EXPLAIN,
    GRANT,
    SERVER,
    SERVICE,
    Exchange,
    Json,
    changed,
    put,
    request,
    send,
)

Whole = Callable[[str], Json]
EVERY = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda x: x.name)


@pytest.fixture(scope="module")
def document(open_app: Any) -> Json:
    found: Json = open_app.test_client().get("/openapi.json").get_json()
    return found


def holds(document: Json, schema: Json, value: object) -> list[str]:
    """What a schema of the document has against a value."""
    whole = {**schema, "components": document["components"]}
    return [x.message for x in Draft202012Validator(whole).iter_errors(value)]


def of_request(document: Json, path: str = SERVICE) -> Json:
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"] is True
    found: Json = body["content"]["application/json"]["schema"]
    return found


def of_answer(document: Json, path: str, status: int, method: str = "post") -> Json:
    responses = document["paths"][path][method]["responses"]
    found: Json = responses[str(status)]["content"]["application/json"]["schema"]
    return found


def members(value: Any, name: str) -> Iterator[Any]:
    """Every member of a name, anywhere."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == name:
                yield item
            yield from members(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from members(item, name)


def test_the_document_is_openapi_of_json_schemas_that_hold_together(document: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] and document["info"]["version"]
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = set(members(document, "$ref"))
    assert references
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


def test_every_route_of_a_client_is_described(client: FlaskClient, document: Json) -> None:
    services = client.get("/cds-services").get_json()["services"]
    paths = {f"/{place}/{x['id']}" for x in services for place in ("cds-services", "explain")}

    assert set(document["paths"]) >= paths | {"/cds-services", "/livez", "/readyz", "/version"}
    for path, methods in document["paths"].items():
        for method in methods:
            assert client.open(path, method=method.upper()).status_code not in (404, 405)


@EVERY
def test_every_exchange_is_as_described(
    client: FlaskClient, document: Json, exchange: Exchange
) -> None:
    sent = exchange.body if isinstance(exchange.body, dict) else None
    if sent is not None and exchange.status in (200, 412):
        assert holds(document, of_request(document), sent) == []
        assert holds(document, of_request(document, EXPLAIN), sent) == []
    for path in (SERVICE, EXPLAIN):
        answer = send(client, exchange.body, path)
        schema = of_answer(document, path, answer.status_code)
        assert holds(document, schema, answer.get_json()) == []


def test_every_fixture_patient_is_as_described(
    client: FlaskClient, document: Json, whole: Whole, patients: dict[str, Any]
) -> None:
    for name in patients:
        body = whole(name)
        assert holds(document, of_request(document), body) == []
        for path in (SERVICE, EXPLAIN):
            answer = send(client, body, path).get_json()
            assert holds(document, of_answer(document, path, 200), answer) == [], name


@pytest.mark.parametrize("broken", BROKEN, ids=lambda x: x.name)
def test_what_breaks_cds_hooks_by_its_shape_breaks_the_schema(
    document: Json, broken: Broken
) -> None:
    if broken.in_schema:
        assert holds(document, of_request(document), broken.body)


@pytest.mark.parametrize("broken", [BROKEN[0], BROKEN[-1]], ids=lambda x: x.name)
def test_an_error_is_as_described(client: FlaskClient, document: Json, broken: Broken) -> None:
    for path in (SERVICE, EXPLAIN):
        answer = send(client, broken.body, path)
        assert holds(document, of_answer(document, path, 422), answer.get_json()) == []


def test_what_a_client_may_send_besides_is_allowed(document: Json) -> None:
    body = changed(
        put("fhirServer", SERVER),
        put("fhirAuthorization", {**GRANT, "patient": "p1", "more": [1]}),
        put("extension", {"a": 1}),
        put("context.more", None),
    )

    assert holds(document, of_request(document), body) == []


def test_discovery_and_the_pages_are_as_described(client: FlaskClient, document: Json) -> None:
    for path in ("/cds-services", "/livez", "/readyz", "/version", "/openapi.json"):
        answer = client.get(path).get_json()
        assert holds(document, of_answer(document, path, 200, "get"), answer) == []


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, "", {}),
        (403, request(), {"Host": "ehr.example.org"}),
        (412, {**request(), "prefetch": {}}, {}),
        (415, request(), {"Content-Type": "text/plain"}),
        (422, {**request(), "hook": "order-sign"}, {}),
    ],
)
def test_every_status_of_an_error_is_described(
    client: FlaskClient, document: Json, status: int, body: Json | str, headers: dict[str, str]
) -> None:
    answer = send(client, body, **headers)

    assert answer.status_code == status
    assert holds(document, of_answer(document, SERVICE, status), answer.get_json()) == []


SPOILT: dict[str, Callable[[Json], object]] = {
    "no cards": lambda x: x.pop("cards"),
    "cards that are no list": lambda x: x.update(cards={}),
    "no summary": lambda x: x["cards"][0].pop("summary"),
    "no indicator": lambda x: x["cards"][0].pop("indicator"),
    "another indicator": lambda x: x["cards"][0].update(indicator="hard-stop"),
    "no source": lambda x: x["cards"][0].pop("source"),
    "no label": lambda x: x["cards"][0]["source"].pop("label"),
    "a list of topics": lambda x: x["cards"][0]["source"].update(topic=[]),
    "a number for a label": lambda x: x["cards"][0]["suggestions"][0].update(label=5),
    "a resource in a text": lambda x: x["cards"][0]["suggestions"][0]["actions"][0].update(
        resource="{}"
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_the_schema_of_the_answer_refuses_what_is_no_answer(
    client: FlaskClient, document: Json, how: str
) -> None:
    answer = send(client, request()).get_json()
    schema = of_answer(document, SERVICE, 200)
    assert holds(document, schema, answer) == []
    SPOILT[how](answer)

    assert holds(document, schema, answer)


def test_the_schema_of_an_explanation_refuses_an_unknown_verdict(
    client: FlaskClient, document: Json
) -> None:
    found = json.loads(send(client, request(), EXPLAIN).data)
    found["verdicts"][0]["verdict"] = "maybe"

    assert holds(document, of_answer(document, EXPLAIN, 200), found)

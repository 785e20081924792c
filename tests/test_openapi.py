"""/openapi.json says what is read and written: every exchange of these tests is held against it."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.loading import load_content
from tests.broken_requests import BROKEN, Broken
from tests.exchanges import (
    EXCHANGES,
    EXPLAIN,
    GRANT,
    LOW,
    NORMAL,
    OUTCOME,
    SERVER,
    SERVICE,
    Change,
    Exchange,
    Json,
    changed,
    drop,
    now,
    put,
    request,
    send,
)

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
EVERY = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda x: x.name)
BOTH = pytest.mark.parametrize("path", [SERVICE, EXPLAIN])
FHIR_JSON = "application/fhir+json"


@pytest.fixture(scope="module")
def document(open_app: Any) -> Json:
    found: Json = open_app.test_client().get("/openapi.json").get_json()
    return found


# -- holding values against the document -------------------------------------------------------


def _matches(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    """A pattern as ECMA-262 has it, where `$` is the end: for Python it is also before a last
    line break.
    """
    python = pattern.replace("$", r"\Z")
    yield from Draft202012Validator.VALIDATORS["pattern"](validator, python, value, schema)


Validator = extend(Draft202012Validator, {"pattern": _matches})  # type: ignore[no-untyped-call]


def holds(document: Json, schema: Json, value: object) -> list[str]:
    """What a schema of the document has against a value."""
    whole = {**schema, "components": document["components"]}
    checker = Draft202012Validator.FORMAT_CHECKER
    return [x.message for x in Validator(whole, format_checker=checker).iter_errors(value)]


def resolved(document: Json, found: Json) -> Json:
    """What a reference of the document stands for."""
    if "$ref" not in found:
        return found
    here: Any = document
    for step in found["$ref"].removeprefix("#/").split("/"):
        here = here[step]
    target: Json = here
    return target


def of_request(document: Json, path: str = SERVICE, media_type: str = "application/json") -> Json:
    body = document["paths"][path]["post"]["requestBody"]
    assert body["required"] is True
    found: Json = body["content"][media_type]["schema"]
    return found


def check(document: Json, answer: TestResponse, path: str, method: str = "post") -> Any:
    """The JSON of an answer that is as its path describes it: status, headers and body."""
    described = document["paths"][path][method]["responses"][str(answer.status_code)]
    for name, header in described["headers"].items():
        schema = resolved(document, header)["schema"]
        assert holds(document, schema, answer.headers.get(name)) == [], name
    found = answer.get_json()
    assert holds(document, described["content"][answer.mimetype]["schema"], found) == []
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


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


# -- the document ------------------------------------------------------------------------------


@requirement("DSC-22")
def test_the_document_is_openapi_of_json_schemas_that_hold_together(document: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"]["title"] and document["info"]["version"]
    for schema in [*document["components"]["schemas"].values(), *members(document, "schema")]:
        Draft202012Validator.check_schema(schema)
    defined = {
        f"#/components/{kind}/{name}"
        for kind, found in document["components"].items()
        for name in found
    }
    assert set(members(document, "$ref")) == defined  # none dangles, and none is never meant


def test_every_operation_has_a_name_of_its_own_and_its_answers(document: Json) -> None:
    found = list(operations(document))
    names = [operation["operationId"] for _, _, operation in found]

    assert len(set(names)) == len(names)
    for path, method, operation in found:
        assert method in ("get", "post") and operation["summary"]
        assert ("requestBody" in operation) == (method == "post")
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status) and answer["description"]
            assert "X-Request-ID" in answer["headers"]
            assert all(set(x) == {"schema"} for x in answer["content"].values())
        in_path = [x["name"] for x in operation.get("parameters", []) if x["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", path)


@requirement("JSN-02", "JSN-03")
def test_nothing_that_leaves_has_a_default(document: Json) -> None:
    read = ["HookRequest", "FhirAuthorization", "PatientViewContext"]
    read += ["FeedbackItem", "OverrideReason", "ReasonCoding"]
    schemas = document["components"]["schemas"]

    assert [x for x in schemas if x not in read and list(members(schemas[x], "default"))] == []


def test_every_route_of_a_client_is_described(client: FlaskClient, document: Json) -> None:
    services = client.get("/cds-services").get_json()["services"]
    paths = {f"/{place}/{x['id']}" for x in services for place in ("cds-services", "explain")}

    assert set(document["paths"]) >= paths | {"/cds-services", "/livez", "/readyz", "/version"}
    for path, method, operation in operations(document):
        codes = [x["schema"]["enum"] for x in operation.get("parameters", []) if x["in"] == "path"]
        for code in codes[0] if codes else [""]:
            answer = client.open(path.replace("{code}", code), method=method.upper())
            assert answer.status_code not in (404, 405)


# -- answers -----------------------------------------------------------------------------------


@EVERY
def test_every_exchange_is_as_described(
    client: FlaskClient, document: Json, exchange: Exchange
) -> None:
    sent = exchange.body if isinstance(exchange.body, dict) else None
    if sent is not None and exchange.status in (200, 412):
        assert holds(document, of_request(document), sent) == []
        assert holds(document, of_request(document, EXPLAIN), sent) == []
    for path in (SERVICE, EXPLAIN):
        check(document, send(client, exchange.body, path), path)


def test_every_fixture_patient_is_as_described(
    client: FlaskClient, document: Json, whole: Whole, patients: dict[str, Any]
) -> None:
    for name in patients:
        body = whole(name)
        assert holds(document, of_request(document), body) == []
        for path in (SERVICE, EXPLAIN):
            assert "cards" in check(document, send(client, body, path), path), name


def test_an_explanation_of_missing_data_is_as_described(
    client: FlaskClient, document: Json
) -> None:
    body = changed(put("prefetch", {"ours": {"resourceType": "Bundle"}}))
    found = check(document, send(client, body, EXPLAIN), EXPLAIN)

    assert (found["status"], found["cards"]) == (412, []) and found["hint"]


def test_a_server_that_knows_its_address_names_the_page_of_a_topic_as_described(
    document: Json,
) -> None:
    settings = Settings(open=True, public_urls=("https://cds.example.org",))
    client = create_app(settings, now=now).test_client()
    found = check(document, send(client, request()), SERVICE)

    page = "https://cds.example.org/topics/lowAlpPersistent"
    assert found["cards"][0]["source"]["url"] == page


def test_a_card_without_suggestions_is_as_described(document: Json, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    names = sorted(load_content(Settings().hooks_dir).orders)
    site.write_text("[orders]\n" + "".join(f"{name} = false\n" for name in names), "utf-8")
    client = create_app(Settings(open=True, site_file=site), now=now).test_client()
    found = check(document, send(client, request()), SERVICE)

    assert not {"suggestions", "selectionBehavior"} & set(found["cards"][0])


def test_discovery_and_the_pages_are_as_described(client: FlaskClient, document: Json) -> None:
    for path, method, operation in operations(document):
        if method == "get" and "parameters" not in operation:
            check(document, client.get(path), path, "get")


def test_the_topics_are_as_described_in_both_forms(client: FlaskClient, document: Json) -> None:
    described = document["paths"]["/topics/{code}"]["get"]
    codes = described["parameters"][0]["schema"]["enum"]
    listed = check(document, client.get("/topics?format=json"), "/topics", "get")

    assert {x["code"] for x in listed["topics"]} == set(codes)
    assert client.get("/topics").mimetype == "text/html"
    assert set(described["responses"]["200"]["content"]) == {"text/html", "application/json"}
    for code in codes:
        accepting = {"Accept": "application/json"}
        answer = client.get(f"/topics/{code}", headers=accepting)
        assert check(document, answer, "/topics/{code}", "get")["code"] == code
    check(document, client.get("/topics/nope"), "/topics/{code}", "get")


# -- errors ------------------------------------------------------------------------------------


def _fails() -> datetime:
    raise ValueError


@pytest.fixture(scope="module")
def small() -> FlaskClient:
    """A client of a server that takes little and has no clock."""
    return create_app(Settings(open=True, max_body_bytes=30_000), now=_fails).test_client()


ERRORS: list[tuple[int, Json | str, dict[str, str]]] = [
    (400, "", {}),
    (403, request(), {"Host": "ehr.example.org"}),
    (412, changed(put("prefetch", {})), {}),
    (413, json.dumps(request()) + " " * 30_000, {}),
    (415, request(), {"Content-Type": "text/plain"}),
    (422, changed(put("hook", "order-sign")), {}),
    (500, request(), {}),
]


@BOTH
@pytest.mark.parametrize(("status", "body", "headers"), ERRORS, ids=lambda x: str(x)[:3])
def test_every_status_of_an_error_is_as_described(
    small: FlaskClient,
    document: Json,
    path: str,
    status: int,
    body: Json | str,
    headers: dict[str, str],
) -> None:
    if (path, status) == (EXPLAIN, 412):
        assert "412" not in document["paths"][EXPLAIN]["post"]["responses"]
        return
    answer = send(small, body, path, **headers)

    assert answer.status_code == status
    assert check(document, answer, path)["resourceType"] == "OperationOutcome"


@BOTH
def test_what_is_not_there_and_another_method_are_as_described(
    client: FlaskClient, document: Json, path: str
) -> None:
    check(document, client.post(path.replace("alp-review", "nope")), path)
    check(document, client.put(path), path)

    assert "Allow" in document["paths"][path]["post"]["responses"]["405"]["headers"]


def test_a_call_without_a_token_is_refused_as_described(document: Json) -> None:
    trusting = create_app(Settings(protect_discovery=True), now=now).test_client()
    for path, method in ((SERVICE, "post"), (EXPLAIN, "post"), ("/cds-services", "get")):
        answer = trusting.open(path, method=method)
        assert answer.status_code == 401
        check(document, answer, path, method)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_stranger_is_refused_on_every_path_as_described(
    client: FlaskClient, document: Json
) -> None:
    for path, method, _ in operations(document):
        answer = client.open(path, method=method.upper(), headers={"Host": "ehr.example.org"})
        assert answer.status_code == 403
        check(document, answer, path, method)


# -- requests ----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("broken", BROKEN, ids=lambda x: x.name)
def test_what_breaks_cds_hooks_breaks_the_schema_where_a_schema_can_tell(
    document: Json, broken: Broken, path: str
) -> None:
    assert bool(holds(document, of_request(document, path), broken.body)) is broken.in_schema


@pytest.mark.parametrize("value", [None, "", "x", 5, True, [], [1], {}, {"a": None}, OUTCOME])
def test_any_value_of_the_prefetch_is_allowed_and_taken(
    client: FlaskClient, document: Json, value: object
) -> None:
    body = changed(put("prefetch.more", value))

    assert holds(document, of_request(document), body) == []
    assert send(client, body).status_code == 200


def test_what_a_client_may_send_besides_is_allowed(document: Json) -> None:
    body = changed(
        put("fhirServer", SERVER),
        put("fhirAuthorization", {**GRANT, "patient": "p1", "more": [1]}),
        put("extension", {"a": 1}),
        put("context.more", None),
    )

    assert holds(document, of_request(document), body) == []


@requirement("JSN-08")
def test_both_media_types_of_a_request_are_described_and_taken(
    client: FlaskClient, document: Json
) -> None:
    for media_type in ("application/json", FHIR_JSON):
        assert of_request(document, SERVICE, media_type) == of_request(document)
        answer = send(client, request(NORMAL), Content_Type=media_type)
        assert check(document, answer, SERVICE) == {"cards": []}


PLACES = (
    *("hook", "hookInstance", "context", "fhirServer", "fhirAuthorization", "prefetch", "more"),
    *("context.userId", "context.patientId", "context.encounterId", "context.more"),
    *(f"fhirAuthorization.{x}" for x in (*GRANT, "patient", "more")),
    *("prefetch.patient", "prefetch.results", "prefetch.more"),
)
TEXTS = (
    *("", " ", "\n", "p1", "p1\n", " p1", "Patient/p1", "Patient/", "Patient", "p1/x", ".", ".."),
    *("...", "p1?", "p1#", "patient-view", "Patient-View", "Practitioner/dr1", "Practitioner/a/b"),
    *("Practitioner/dr1\n", "practitioner/1", "P/1", "Bearer", "bearer", "Bearer ", SERVER),
    *("Encounter/e1", "Encounter/", "\u00e9", "\ufffd", "\U0001f44d"),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(TEXTS),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.sampled_from([None, True, 5, -1, 300.5, 2**70, [], ["x"], {}, {"a": []}, GRANT]),
)
CHANGES = st.lists(st.tuples(st.sampled_from(PLACES), st.booleans(), VALUES), max_size=3)


def _changes(changes: list[tuple[str, bool, Any]]) -> Iterator[Change]:
    for place, is_put, value in changes:
        yield put(place, value) if is_put else drop(place)


@settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.booleans(), CHANGES)
def test_the_schema_takes_exactly_what_the_server_takes(
    client: FlaskClient, document: Json, granted: bool, changes: list[tuple[str, bool, Any]]
) -> None:
    body = request(LOW[:2], 0, 0)
    if granted:
        body |= {"fhirServer": SERVER, "fhirAuthorization": dict(GRANT)}
    for change in _changes(changes):
        with suppress(KeyError, TypeError, AttributeError):  # a place that is no more
            change(body)
    answer = send(client, body)
    assume("fhirAuthorization.patient must be" not in answer.get_data(as_text=True))

    assert answer.status_code in (200, 412, 422)
    against = holds(document, of_request(document), body)
    assert (answer.status_code == 422) is bool(against), (answer.data, against)


# -- what the schemas refuse -------------------------------------------------------------------

Spoils = Callable[[Json], object]
SPOILT: dict[str, Spoils] = {
    "no cards": lambda x: x.pop("cards"),
    "cards that are no list": lambda x: x.update(cards={}),
    "more cards than the limit": lambda x: x.update(cards=[x["cards"][0]] * 4),
    "no suggestions, but a list of them": put("cards.0.suggestions", []),
    "a suggestion too many": lambda x: x["cards"][0].update(
        suggestions=[x["cards"][0]["suggestions"][0]] * 6
    ),
    "suggestions without their behaviour": drop("cards.0.selectionBehavior"),
    "the behaviour of no suggestions": drop("cards.0.suggestions"),
    "no behaviour, but a text of it": put("cards.0.selectionBehavior", ""),
    "no reasons, but a list of them": put("cards.0.overrideReasons", []),
    "a reason without words": put("cards.0.overrideReasons.0.display", ""),
    "a uuid that is none": put("cards.0.uuid", "x"),
    "a suggestion of no uuid": drop("cards.0.suggestions.0.uuid"),
    "no summary": drop("cards.0.summary"),
    "a summary of nothing": put("cards.0.summary", ""),
    "a summary of 140 characters": put("cards.0.summary", "x" * 140),
    "a detail that is null": put("cards.0.detail", None),
    "no indicator": drop("cards.0.indicator"),
    "another indicator": put("cards.0.indicator", "hard-stop"),
    "no source": drop("cards.0.source"),
    "no label": drop("cards.0.source.label"),
    "a label of nothing": put("cards.0.source.label", ""),
    "an address of nothing": put("cards.0.source.url", ""),
    "a list of topics": put("cards.0.source.topic", []),
    "a number for a label": put("cards.0.suggestions.0.label", 5),
    "two orders in one suggestion": lambda x: x["cards"][0]["suggestions"][0].update(
        actions=x["cards"][0]["suggestions"][0]["actions"] * 2
    ),
    "a resource in a text": put("cards.0.suggestions.0.actions.0.resource", "{}"),
    "an order that is no draft": put("cards.0.suggestions.0.actions.0.resource.status", "active"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_the_schema_of_the_answer_refuses_what_is_no_answer(
    client: FlaskClient, document: Json, how: str
) -> None:
    for path in (SERVICE, EXPLAIN):
        answer = send(client, request(), path)
        found = deepcopy(check(document, answer, path))
        SPOILT[how](found)
        described = document["paths"][path]["post"]["responses"]["200"]["content"]

        assert holds(document, described["application/json"]["schema"], found)


WRONG: dict[str, Change] = {
    "an unknown verdict": put("verdicts.0.verdict", "maybe"),
    "no reason": drop("verdicts.0.reason"),
    "a reason without its code": drop("verdicts.0.reason.code"),
    "a question that was not answered": drop("verdicts.0.evidence.0.answer"),
    "an entry without its place": put("verdicts.0.evidence.0.used", [{"value": "1"}]),
    "an unknown state": put("data.0.state", "lost"),
    "an unknown way": put("data.0.by", "guessed"),
    "a place without a reason": put("data.0.skipped", [{"where": "x"}]),
    "a value in words": put("series.0.points.0.value", "28 U/L"),
    "a day that is none": put("asOf", "2026-02-30"),
    "another status": put("status", 500),
    "no hash": drop("content.hash"),
}


@pytest.mark.parametrize("how", WRONG)
def test_the_schema_of_an_explanation_refuses_what_is_none(
    client: FlaskClient, document: Json, how: str
) -> None:
    found = check(document, send(client, request(), EXPLAIN), EXPLAIN)
    WRONG[how](found)
    described = document["paths"][EXPLAIN]["post"]["responses"]["200"]["content"]

    assert holds(document, described["application/json"]["schema"], found)

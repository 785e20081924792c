"""What a CDS client may rely on, call by call: statuses, error bodies, headers, CORS."""

import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from gzip import compress
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from fhir.resources.R4B.operationoutcome import OperationOutcome
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient
from cds_service.logs import JsonLines
from tests.broken_requests import BROKEN, Broken
from tests.exchanges import (
    EXPLAIN,
    FIRES,
    GRANT,
    NORMAL,
    OUTCOME,
    RESULTS,
    SERVER,
    SERVICE,
    Change,
    Json,
    add,
    bundle,
    changed,
    drop,
    now,
    problem,
    put,
    request,
    send,
)
from tests.invariants import cards_of, strict_json, violations, without_uuids
from tests.loopback import FhirServer

requirement = pytest.mark.requirement
BOTH = pytest.mark.parametrize("path", [SERVICE, EXPLAIN])


def outcome(answer: TestResponse) -> tuple[int, str]:
    """Status and diagnostics of an error, once its body is a valid OperationOutcome in JSON."""
    assert answer.mimetype == "application/json"
    found = strict_json(answer.data)
    assert set(found) == {"resourceType", "issue"}
    OperationOutcome.model_validate(found)
    issue = found["issue"][0]
    assert issue["severity"] == "error" and issue["details"]["text"]
    return answer.status_code, issue.get("diagnostics", "")


# -- the request -------------------------------------------------------------------------------


def test_the_good_request_is_one_that_a_strict_client_sends() -> None:
    body = changed(put("fhirServer", SERVER), put("fhirAuthorization", GRANT))
    assert set(body) == {
        *("hook", "hookInstance", "fhirServer", "fhirAuthorization", "context", "prefetch")
    }
    assert str(UUID(body["hookInstance"])) == body["hookInstance"]
    assert set(body["context"]) == {"userId", "patientId", "encounterId"}
    assert re.fullmatch(r"Practitioner/[A-Za-z0-9.-]{1,64}", body["context"]["userId"])
    assert not any("/" in body["context"][x] for x in ("patientId", "encounterId"))
    assert body["fhirServer"].startswith("https://")


@requirement("REQ-15", "ERR-02")
@BOTH
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate"])
def test_an_encoded_body_is_415_and_names_the_encoding(
    client: FlaskClient, path: str, encoding: str
) -> None:
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    answer = client.post(path, data=compress(json.dumps(request()).encode()), headers=headers)

    assert outcome(answer)[0] == 415
    assert encoding.lower() in answer.get_json()["issue"][0]["details"]["text"]


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_a_body_that_is_said_not_to_be_encoded_is_read(client: FlaskClient, encoding: str) -> None:
    assert send(client, request(), Content_Encoding=encoding).status_code == 200


def test_an_encoding_that_is_no_name_is_not_repeated(client: FlaskClient) -> None:
    answer = send(client, request(), Content_Encoding="gzip, <b>x</b>")

    assert answer.status_code == 415 and b"<b>" not in answer.data


@requirement("REQ-01", "RSP-01", "JSN-01", "JSN-06", "ERR-06")
def test_a_good_request_gets_its_cards(client: FlaskClient) -> None:
    answer = send(client, request())

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert cards_of(strict_json(answer.data)) == FIRES
    assert violations(answer.get_json()) == []


@requirement("RSP-01", "RSP-02", "RSP-03", "JSN-02")
def test_silence_is_an_empty_list_of_cards_and_nothing_else(client: FlaskClient) -> None:
    answer = send(client, request(NORMAL))

    assert (answer.status_code, answer.data) == (200, b'{"cards":[]}')


@BOTH
@pytest.mark.parametrize(
    "broken",
    [pytest.param(x, id=x.name, marks=requirement(*x.requirements)) for x in BROKEN],
)
def test_a_request_that_breaks_cds_hooks_is_422_naming_the_member(
    client: FlaskClient, broken: Broken, path: str
) -> None:
    status, diagnostics = outcome(send(client, broken.body, path))

    assert status == 422
    assert broken.names in diagnostics


ANYTHING = [True, 5, "text", [], [{}], {"com.example.a": {"b": [None]}}]
TOLERATED = {
    "members we do not know": [put("futureField", {"a": 1}), put("context.foo", [1])],
    "the user of before 1.0": [put("user", "Practitioner/1")],
    "an instance that is no UUID": [put("hookInstance", "x")],
    "an instance in capitals": [put("hookInstance", "0D5C1B8E-9F55-4C6E-8F0C-6A5A3F3F2B10")],
    "no encounter": [drop("context.encounterId")],
    "a null encounter": [put("context.encounterId", None)],
    "a typed patient id": [put("context.patientId", "Patient/p1")],
    "a user who is the patient": [put("context.userId", "Patient/p1")],
    "a token for the patient by reference": [
        put("fhirServer", SERVER),
        put("fhirAuthorization", {**GRANT, "patient": "Patient/p1"}),
    ],
    "a user of a type the hook does not list": [put("context.userId", "Device/1")],
    "a long id": [put("context.userId", f"Practitioner/{'a' * 194}")],
    "a null fhirServer": [put("fhirServer", None)],
    "a FHIR server over plain http": [put("fhirServer", "http://ehr.example.org/fhir")],
    "a grant for this patient": [
        put("fhirServer", SERVER),
        put("fhirAuthorization", {**GRANT, "patient": "p1", "more": 1}),
    ],
    "an unknown prefetch key": [put("prefetch.more", {"resourceType": "Basic", "id": "x"})],
}
EXTENDED = {
    f"extension {value!r} in {place or 'the request'}": [
        put("fhirServer", SERVER),
        put("fhirAuthorization", GRANT),
        put(f"{place}extension", value),
    ]
    for value in ANYTHING
    for place in ("", "context.", "fhirAuthorization.")
}


@requirement("JSN-10", "REQ-04", "REQ-10", "REQ-11", "REQ-12", "REQ-14", "EXT-03")
@requirement("HOK-02", "HOK-03", "HOK-04", "HOK-10")
@pytest.mark.parametrize("name", [*TOLERATED, *EXTENDED])
def test_what_a_client_may_send_besides_changes_nothing(client: FlaskClient, name: str) -> None:
    changes = (TOLERATED | EXTENDED)[name]
    answer = send(client, changed(*changes))

    assert (answer.status_code, cards_of(answer.get_json())) == (200, FIRES)
    assert violations(answer.get_json()) == []


@requirement("HOK-03", "ACT-06", "FVR-04")
@pytest.mark.parametrize("given", ["e1", "Encounter/e1", "e1 e2", "a/b", "..", "e1\n"])
def test_an_encounter_is_referenced_by_its_bare_id_or_refused(
    client: FlaskClient, given: str
) -> None:
    answer = send(client, changed(put("context.encounterId", given)))

    if answer.status_code == 422:
        assert given != "e1" and "encounterId" in outcome(answer)[1]
        return
    for suggestion in answer.get_json()["cards"][0]["suggestions"]:
        draft = suggestion["actions"][0]["resource"]
        assert draft["encounter"] == {"reference": "Encounter/e1"}


@requirement("HOK-04")
def test_without_an_encounter_no_draft_names_one(client: FlaskClient) -> None:
    answer = send(client, changed(drop("context.encounterId"))).get_json()

    drafts = [x["actions"][0]["resource"] for x in answer["cards"][0]["suggestions"]]
    assert drafts and all("encounter" not in x for x in drafts)


@requirement("REQ-08")
@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("grant", [True, False])
@pytest.mark.parametrize("prefetch", [True, False])
def test_each_way_to_have_data_may_be_missing(
    client: FlaskClient, server: bool, grant: bool, prefetch: bool
) -> None:
    changes: list[Change] = [] if prefetch else [drop("prefetch")]
    changes += [put("fhirServer", SERVER)] if server else []
    changes += [put("fhirAuthorization", GRANT)] if grant else []
    answer = send(client, changed(*changes))

    expected = 422 if grant and not server else 200 if prefetch else 412
    assert answer.status_code == expected


@requirement("REQ-05", "CAR-07", "OVR-02")
def test_the_same_request_again_gets_the_same_cards_under_new_uuids(client: FlaskClient) -> None:
    first, second = (send(client, request()).get_json() for _ in range(2))

    assert without_uuids(first) == without_uuids(second)
    assert first["cards"][0]["uuid"] != second["cards"][0]["uuid"]


@requirement("REQ-17")
def test_patients_in_parallel_do_not_meet(
    open_app: Flask, whole: Callable[[str], Json], patients: dict[str, FixturePatient]
) -> None:
    names = ("low-alp-persistent", "raised-alp-jaundice")
    bodies = {name: whole(name) for name in names}
    alone = {x: without_uuids(send(open_app.test_client(), bodies[x]).get_json()) for x in names}
    assert {x: cards_of(found) for x, found in alone.items()} == {
        x: patients[x].expect for x in names
    }

    def call(name: str) -> bool:
        found = without_uuids(send(open_app.test_client(), bodies[name]).get_json())
        return bool(found == alone[name])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(call, names * 50))


@requirement("REQ-16")
@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_options_and_head_do_not_run_the_service(
    fetching: FlaskClient, fhir: FhirServer, method: str
) -> None:
    body = {**changed(drop("prefetch")), "fhirServer": fhir.base}
    body["context"]["patientId"] = "low-alp-persistent"
    answer = fetching.open(SERVICE, method=method, json=body)

    assert (answer.status_code, answer.data) == ({"OPTIONS": 204, "HEAD": 405}[method], b"")
    assert fhir.asked == []
    assert send(fetching, body).status_code == 200 and fhir.asked  # the call itself does read


# -- bodies that are not JSON ------------------------------------------------------------------

GOOD = json.dumps(request())
TWICE = '"hook":"patient-view","hook":"patient-view"'


def inside(where: str, more: str) -> str:
    """The good body with more members at the start of an object."""
    return (
        GOOD.replace(f'"{where}": {{', f'"{where}": {{{more},', 1)
        if where
        else "{" + (more + "," + GOOD[1:])
    )


def granted(more: str) -> str:
    body = changed(put("fhirServer", SERVER), put("fhirAuthorization", GRANT))
    return json.dumps(body).replace('"fhirAuthorization": {', f'"fhirAuthorization": {{{more},', 1)


NESTED = "[" * 400_000 + "]" * 400_000
NOT_JSON: dict[str, str | bytes] = {
    "nothing": "",
    "white space": " \n",
    "half an object": "{",
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "a text": '"x"',
    "two objects": GOOD + GOOD,
    "a comma too many": GOOD[:-1] + ",}",
    "a comment": inside("", '/* */"x":1'),
    "single quotes": "{'hook': 'patient-view'}",
    **{x: inside("prefetch", f'"n":{x}') for x in ("NaN", "Infinity", "-Infinity")},
    "NaN in the request": inside("", '"n":NaN'),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "bytes that are no UTF-8": GOOD.replace("Gout", "Gout\xe9").encode("latin-1"),
    "bytes that are no UTF-8, in the context": inside("context", '"x":"\xe9"').encode("latin-1"),
    "a control character": inside("context", '"x":"\n"'),
    "half a surrogate pair in the context": GOOD.replace('"p1"', '"\\ud83d"', 1),
    "a name twice": '{"hook":1,"hook":2}',
    "a name twice in the request": inside("", '"hook":"patient-view"'),
    "a name twice in the context": inside("context", '"patientId":"p2"'),
    "a name twice in fhirAuthorization": granted('"access_token":"another"'),
    "prefetch twice": inside("", '"prefetch":{}'),
    **{
        f"deep nesting in {x or 'the request'}": inside(x, f'"n":{NESTED}')
        for x in ("", "context", "prefetch", "patient", "valueQuantity")
    },
    "deep nesting in fhirAuthorization": granted(f'"n":{NESTED}'),
}


@requirement("JSN-07", "ERR-01", "ERR-02", "ERR-06", "ERR-08", "ERR-09")
@BOTH
@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_that_is_not_one_json_object_of_one_meaning_is_400(
    client: FlaskClient, name: str, path: str
) -> None:
    assert outcome(send(client, NOT_JSON[name], path))[0] == 400


HARMLESS = {
    "a name twice in a resource": inside("patient", '"gender":"male"'),
    "a key twice in the prefetch": inside("prefetch", f'"patient":{json.dumps(OUTCOME)}'),
    "a name twice in an extension": inside("", '"extension":{"a":1,"a":2}'),
    **{
        f"6,000 digits in {x or 'the request'}": inside(x, f'"n":{"1" * 6000}')
        for x in ("", "context", "prefetch", "patient", "valueQuantity")
    },
    "6,000 digits for another value": GOOD.replace("9.4", "9" * 6000, 1),
    "an exponent without end": GOOD.replace("9.4", "9e999999999", 1),
    "nesting of 200": inside("patient", f'"n":{"[" * 200}{"]" * 200}'),
    "a text that is also a name": inside("", f'"{"x" * 80}":1').replace(
        '"prefetch": {', f'"prefetch": {{"n":"{"x" * 80}",', 1
    ),
    "a number that is part of another": inside("", f'"n":{"1" * 90}').replace(
        '"prefetch": {', f'"prefetch": {{"n":{"1" * 80},', 1
    ),
    "half a surrogate pair in a name of the patient": GOOD.replace('"Pat"', '"\\ud83d"', 1),
    "half a surrogate pair in a unit": GOOD.replace('"mg/dL"', '"mg/dL\\ud83d"', 1),
    "half a surrogate pair in a member that we do not know": inside("", '"n":"\\ud83d"'),
    "the sign for an unknown character in an extension": inside("", '"extension":{"a":"\\ufffd"}'),
    "a backslash before its name": inside("", '"extension":{"a":"\\\\ufffd"}'),
    "that sign in a short value": inside("prefetch", '"n":{"t":"\\ufffd"}'),
    "characters that few fonts have": GOOD.replace('"Pat"', '"\\ud83d\\udc4d \\u202e \\u0000"', 1),
}


@requirement("JSN-07", "ERR-08", "FVR-03")
@pytest.mark.parametrize("name", HARMLESS)
def test_odd_json_costs_the_element_and_not_the_chart(client: FlaskClient, name: str) -> None:
    answer = send(client, HARMLESS[name])

    assert (answer.status_code, cards_of(answer.get_json())) == (200, FIRES)


@requirement("ERR-08", "REQ-09")
def test_a_number_of_6000_digits_for_seconds_is_422(client: FlaskClient) -> None:
    body = granted('"x":1').replace('"expires_in": 300', f'"expires_in": {"3" * 6000}')

    assert outcome(send(client, body))[0] == 422


# -- media types and size ----------------------------------------------------------------------


@requirement("JSN-08")
@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ("application/fhir+json", 200),
        ("text/plain", 415),
        ("application/json+fhir", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
def test_the_media_type_must_be_json(client: FlaskClient, media_type: str, status: int) -> None:
    answer = send(client, request(), Content_Type=media_type)

    assert answer.status_code == status
    if status == 415:
        outcome(answer)


@requirement("JSN-08")
@pytest.mark.parametrize("accept", ["text/html", "application/fhir+xml", "image/*;q=0"])
def test_accept_is_not_listened_to(client: FlaskClient, accept: str) -> None:
    answer = send(client, request(), Accept=accept)

    assert (answer.status_code, answer.mimetype) == (200, "application/json")


def send_in_chunks(client: FlaskClient, body: bytes, path: str) -> TestResponse:
    return client.post(
        path,
        input_stream=BytesIO(body),
        headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )


@pytest.fixture(scope="module")
def small(open_app: Flask) -> FlaskClient:
    """A client of a server that takes 30,000 bytes."""
    return create_app(Settings(open=True, max_body_bytes=30_000), now=now).test_client()


def of_size(size: int) -> bytes:
    body = json.dumps(request())
    return (body[:-1] + " " * (size - len(body)) + "}").encode()


@requirement("REQ-15", "ERR-01")
@BOTH
@pytest.mark.parametrize("way", [send, send_in_chunks])
@pytest.mark.parametrize(("size", "status"), [(30_000, 200), (30_001, 413), (90_000, 413)])
def test_a_body_over_the_limit_is_413_however_it_is_sent(
    small: FlaskClient,
    way: Callable[[FlaskClient, bytes, str], TestResponse],
    size: int,
    status: int,
    path: str,
) -> None:
    answer = way(small, of_size(size), path)

    assert answer.status_code == status
    if status == 413:
        outcome(answer)


# -- paths and methods -------------------------------------------------------------------------


@requirement("REQ-15", "ERR-01", "ERR-02", "FBK-01")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nope"),
        ("GET", "/index.html"),
        ("GET", "/static/x"),
        ("GET", "/cds-services/alp-review/more"),
        ("POST", "/cds-services/nope"),
        ("POST", "/cds-services/ALP-review"),
        ("POST", "/cds-services/%00"),
        ("POST", "/explain/nope"),
        ("POST", "/cds-services/nope/feedback"),
        ("POST", "/cds-services/alp-review/feedback/more"),
        ("GET", "/fhir/Patient"),
    ],
)
def test_what_is_not_there_is_404_in_json(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method, json=request() if method == "POST" else None)

    assert outcome(answer)[0] == 404


def test_the_bare_address_lists_what_there_is(client: FlaskClient) -> None:
    answer = client.get("/")

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert "fhir" not in answer.get_json()
    for name, path in answer.get_json().items():
        posted = ("service", "feedback", "explanation")
        expected = 405 if name.startswith(posted) else 200
        assert client.get(path).status_code == expected


PAGES = "https://cds.example/alp"


@pytest.fixture
def with_fhir(patients: dict[str, FixturePatient]) -> FlaskClient:
    """The open server with the fixture patients behind its own FHIR endpoint."""
    endpoint = FhirEndpoint([x.bundle for x in patients.values()], f"{PAGES}/fhir")
    return create_app(
        Settings(open=True, public_urls=(PAGES,)), now=now, demo=endpoint
    ).test_client()


def test_the_list_has_whole_urls_and_the_demo_s_endpoint(with_fhir: FlaskClient) -> None:
    listed = with_fhir.get("/").get_json()

    assert listed["discovery"] == f"{PAGES}/cds-services"
    assert listed["fhir"] == f"{PAGES}/fhir"
    assert all(url.startswith(f"{PAGES}/") for url in listed.values())


@pytest.mark.parametrize("path", ["/fhir", "/fhir/", "/fhir/metadata"])
def test_the_base_of_the_fhir_endpoint_says_what_it_can_do(
    with_fhir: FlaskClient, path: str
) -> None:
    answer = with_fhir.get(path)

    assert (answer.status_code, answer.mimetype) == (200, "application/fhir+json")
    assert answer.get_json()["resourceType"] == "CapabilityStatement"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/fhir/Patient"), ("POST", "/fhir"), ("PUT", "/fhir/Patient/x"), ("DELETE", "/fhir")],
)
def test_the_fhir_endpoint_says_what_it_allows(
    with_fhir: FlaskClient, method: str, path: str
) -> None:
    answer = with_fhir.open(path, method=method)

    assert answer.status_code == 405
    assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["Allow"].replace(",", " ").split())
    assert answer.get_json()["resourceType"] == "OperationOutcome"


def test_the_fhir_endpoint_hears_what_a_client_prefers(with_fhir: FlaskClient) -> None:
    path = "/fhir/Patient?name=Nobody"

    assert with_fhir.get(path).status_code == 400
    assert with_fhir.get(path, headers={"Prefer": "handling=lenient"}).status_code == 200


@requirement("REQ-01", "REQ-15", "ERR-02")
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, SERVICE, "POST") for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE")),
        *((method, EXPLAIN, "POST") for method in ("GET", "PUT")),
        *((method, "/cds-services", "GET") for method in ("POST", "PUT", "DELETE")),
        ("POST", "/livez", "GET"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    client: FlaskClient, method: str, path: str, allowed: str
) -> None:
    answer = client.open(path, method=method)

    assert outcome(answer)[0] == 405
    assert allowed in answer.headers["Allow"].replace(",", " ").split()


def raw(path: str) -> Json:
    """The path as a server hands it on: the test client would read `//` as a host."""
    return {"path": "/", "environ_overrides": {"PATH_INFO": path}}


@requirement("DSC-01")
@pytest.mark.parametrize("path", ["/cds-services/", "//cds-services", "//cds-services//"])
def test_discovery_needs_no_exact_slashes_and_no_redirect(client: FlaskClient, path: str) -> None:
    assert client.get(**raw(path)).data == client.get("/cds-services").data


@requirement("REQ-01", "COR-02")
@pytest.mark.parametrize(
    "path", ["/cds-services//alp-review", f"{SERVICE}/", f"/{SERVICE}", "//explain///alp-review//"]
)
def test_a_service_needs_no_exact_slashes_and_no_redirect(client: FlaskClient, path: str) -> None:
    answer = client.post(**raw(path), json=request())

    assert (answer.status_code, cards_of(answer.get_json())) == (200, FIRES)
    assert client.options(**raw(path)).status_code == 204


def test_head_of_discovery_is_its_get_without_a_body(client: FlaskClient) -> None:
    answer = client.head("/cds-services")

    assert (answer.status_code, answer.mimetype, answer.data) == (200, "application/json", b"")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/openapi.json"])
def test_every_other_page_is_json(client: FlaskClient, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert strict_json(answer.data)


@requirement("DSC-22")
def test_a_page_for_people_says_what_every_topic_does(client: FlaskClient) -> None:
    people = {"Accept": "text/html"}
    listing = client.get("/topics", headers=people)
    topics = client.get("/topics?format=json").get_json()["topics"]

    assert (listing.status_code, listing.mimetype) == (200, "text/html")
    assert topics
    for topic in topics:
        page = client.get(topic["path"], headers=people)
        assert (page.status_code, page.mimetype) == (200, "text/html")
        for text in (listing.get_data(as_text=True), page.get_data(as_text=True)):
            assert f">{topic['row']}<" in text and topic["title"] in text


def test_the_token_of_a_client_is_let_be_by_the_open_server(client: FlaskClient) -> None:
    # The CDS Hooks Sandbox signs every call with a key that is public.
    assert send(client, request(), Authorization="Bearer e.y.J").status_code == 200
    assert client.get("/cds-services", headers={"Authorization": "x"}).status_code == 200


# -- headers -----------------------------------------------------------------------------------


@requirement("ERR-07")
@pytest.mark.parametrize("given", ["a", "7f3c-1.B_2", "x" * 64])
def test_a_request_id_is_given_back(client: FlaskClient, given: str) -> None:
    for answer in (
        send(client, request(), X_Request_ID=given),
        send(client, "", X_Request_ID=given),
        client.get("/nope", headers={"X-Request-ID": given}),
    ):
        assert answer.headers.getlist("X-Request-ID") == [given]


@requirement("ERR-07")
@pytest.mark.parametrize("given", [None, "", " ", "a b", "<x>", "x" * 65, "a,b", "\xe9"])
def test_no_request_id_or_one_that_is_not_plain_gets_a_new_one(
    client: FlaskClient, given: str | None
) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    ids = [client.get("/livez", headers=headers).headers["X-Request-ID"] for _ in range(2)]

    assert len(set(ids)) == 2
    assert all(len(x) == 36 for x in ids)


@requirement("RSP-05")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        (request(), SERVICE),
        (request(), EXPLAIN),
        (changed(drop("prefetch")), SERVICE),
        ("", SERVICE),
    ],
)
def test_no_answer_to_a_call_is_stored(client: FlaskClient, body: Json | str, path: str) -> None:
    assert send(client, body, path).headers["Cache-Control"] == "no-store"


# -- CORS --------------------------------------------------------------------------------------

LISTED, STRANGE = "https://sandbox.cds-hooks.org", "https://evil.example"
ALLOW = "Access-Control-Allow-"


@pytest.fixture(scope="module")
def narrow() -> FlaskClient:
    """A client of a server that lets the scripts of two origins read its answers."""
    origins = (LISTED, "http://localhost:3000")
    return create_app(Settings(open=True, cors_origins=origins), now=now).test_client()


def answers(client: FlaskClient, origin: str | None) -> list[TestResponse]:
    """An answer of every kind: good ones, errors and preflights."""
    headers = {} if origin is None else {"Origin": origin}
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/cds-services", None),
        ("POST", SERVICE, request()),
        ("POST", SERVICE, changed(drop("prefetch"))),
        ("POST", SERVICE, changed(drop("hook"))),
        ("POST", SERVICE, []),
        ("POST", EXPLAIN, request()),
        ("GET", "/nope", None),
        ("PUT", SERVICE, None),
        ("OPTIONS", "/cds-services", None),
        ("OPTIONS", SERVICE, None),
        ("OPTIONS", f"{SERVICE}/feedback", None),
    ]
    return [client.open(path, method=x, json=body, headers=headers) for x, path, body in calls]


@requirement("COR-01", "COR-03", "COR-04")
def test_by_default_a_script_of_any_origin_may_read_every_answer(client: FlaskClient) -> None:
    for answer in [*answers(client, STRANGE), *answers(client, None)]:
        assert answer.headers[f"{ALLOW}Origin"] == "*"
        assert answer.headers["Access-Control-Expose-Headers"] == "X-Request-ID, Retry-After"
        assert f"{ALLOW}Credentials" not in answer.headers


@requirement("COR-01", "COR-03", "COR-04")
def test_a_listed_origin_is_echoed_on_every_answer(narrow: FlaskClient) -> None:
    for answer in answers(narrow, LISTED):
        assert answer.headers[f"{ALLOW}Origin"] == LISTED
        assert answer.headers["Access-Control-Expose-Headers"] == "X-Request-ID, Retry-After"
        assert "Origin" in answer.headers["Vary"]
        assert f"{ALLOW}Credentials" not in answer.headers


@requirement("COR-04")
@pytest.mark.parametrize(
    "origin", [STRANGE, "null", LISTED.upper(), f"{LISTED}.evil.example", None]
)
def test_another_origin_is_answered_without_leave_to_read(
    narrow: FlaskClient, origin: str | None
) -> None:
    for answer in answers(narrow, origin):
        assert not [x for x, _ in answer.headers if x.startswith("Access-Control-")]
        assert "Origin" in answer.headers["Vary"]
    assert send(narrow, request(), **({"Origin": origin} if origin else {})).status_code == 200


@requirement("COR-02")
@pytest.mark.parametrize("path", ["/cds-services", SERVICE, f"{SERVICE}/feedback", EXPLAIN])
def test_a_preflight_without_a_token_is_answered_with_what_may_be_sent(
    client: FlaskClient, narrow: FlaskClient, path: str
) -> None:
    asked = {
        "Origin": LISTED,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    for answer in (client.options(path, headers=asked), narrow.options(path, headers=asked)):
        assert (answer.status_code, answer.data) == (204, b"")
        methods = answer.headers[f"{ALLOW}Methods"].replace(",", " ").split()
        headers = answer.headers[f"{ALLOW}Headers"].lower().replace(",", " ").split()
        assert set(methods) >= {"GET", "POST", "OPTIONS"}
        assert set(headers) >= {"authorization", "content-type"}  # "*" does not mean the first
        assert int(answer.headers["Access-Control-Max-Age"]) > 0
        assert "Content-Type" not in answer.headers  # there is nothing to have a type


@requirement("COR-02")
def test_a_page_of_the_internet_may_call_the_open_server_only(client: FlaskClient) -> None:
    asked = {"Origin": LISTED, "Access-Control-Request-Private-Network": "true"}
    closed = create_app(Settings(), now=now).test_client()

    answer = client.options(SERVICE, headers=asked)
    assert answer.headers[f"{ALLOW}Private-Network"] == "true"
    for other in (
        client.options(SERVICE, headers={"Origin": LISTED}),
        client.get("/cds-services", headers=asked),
        closed.options(SERVICE, headers=asked),
    ):
        assert f"{ALLOW}Private-Network" not in other.headers


# -- defects -----------------------------------------------------------------------------------


class Failed(Exception):
    """An error that cannot be made without knowing what failed, like many of the library."""

    def __init__(self, what: str, where: int) -> None:
        super().__init__(f"{what} at {where}")


@requirement("ERR-01", "ERR-02", "ERR-04")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("Zyxmark"),
        KeyError("Zyxmark"),
        UnicodeDecodeError("utf-8", b"Zyxmark", 0, 1, "Zyxmark"),
        json.JSONDecodeError("Zyxmark", "Zyxmark", 0),
        Failed("Zyxmark", 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_defect_is_500_and_neither_answer_nor_log_says_what_the_data_was(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def broken_clock() -> datetime:
        raise error

    client = create_app(Settings(open=True), now=broken_clock).test_client()
    with caplog.at_level(logging.DEBUG):
        answer = send(client, request())

    assert outcome(answer)[0] == 500
    assert answer.get_json()["issue"][0]["code"] == "exception"
    assert "Zyxmark" not in answer.get_data(as_text=True)
    said = "\n".join(JsonLines().format(x) for x in caplog.records)
    assert type(error).__name__ in said and "broken_clock" in said
    assert "Zyxmark" not in said + caplog.text


# -- odd records -------------------------------------------------------------------------------

DSTU2 = [
    put("prefetch.patient.name", [{"family": ["Test"], "given": ["Pat"]}]),
    put("prefetch.conditions.entry.0.resource.clinicalStatus", "active"),
    put("prefetch.conditions.entry.0.resource.patient", {"reference": "Patient/p1"}),
    drop("prefetch.conditions.entry.0.resource.subject"),
    add("prefetch.conditions.entry", {"resource": {"resourceType": "MedicationOrder", "id": "m"}}),
    add(RESULTS, {"resource": {"resourceType": "ProcedureRequest", "id": "r"}}),
]


@requirement("FVR-05", "FVR-03")
def test_resources_of_an_older_fhir_are_counted_and_left_aside(client: FlaskClient) -> None:
    body = changed(*DSTU2)
    left = send(client, body, EXPLAIN).get_json()["data"][-1]["skipped"]

    assert cards_of(send(client, body).get_json()) == FIRES
    assert {"where": "MedicationOrder", "why": "1 of a type that is not read"} in left


@requirement("FVR-03")
def test_resources_of_almost_nothing_are_no_error(client: FlaskClient) -> None:
    bare = [{"resource": {"resourceType": x}} for x in ("Observation", "Condition", "Patient")]
    body = changed(*(add(RESULTS, x) for x in bare))

    assert cards_of(send(client, body).get_json()) == FIRES


@requirement("REQ-13")
def test_two_patients_of_one_family_are_not_mixed(client: FlaskClient) -> None:
    lesion = problem(90, "203522001", "Osteolysis")
    own = changed(put("prefetch.more", bundle([lesion])), values=NORMAL)
    lesion["subject"] = {"reference": "Patient/p1-sister"}
    hers = changed(put("prefetch.more", bundle([lesion])), values=NORMAL)

    assert cards_of(send(client, own).get_json()) == ("lyticLesionWithoutMyelomaScreen warning",)
    assert send(client, hers).get_json() == {"cards": []}

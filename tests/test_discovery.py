"""GET /cds-services, and the prefetch templates that it publishes."""

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from flask.testing import FlaskClient

from tests.exchanges import SERVICES, calling, send
from tests.invariants import strict_json

requirement = pytest.mark.requirement
TOKEN = re.compile(r"\{\{(.*?)\}\}")
IN_ORDER = (
    *("patient", "alp", "labs", "longterm", "conditions", "medications", "administrations"),
    *("reports", "orders", "procedures", "encounters"),
)
KEYS = pytest.mark.parametrize("key", IN_ORDER)


@pytest.fixture
def services(client: FlaskClient) -> list[dict[str, Any]]:
    answer: dict[str, list[dict[str, Any]]] = client.get("/cds-services").get_json()
    return answer["services"]


@requirement("DSC-01", "DSC-02", "DSC-04", "DSC-21", "JSN-01", "JSN-06")
def test_discovery_is_open_and_strict_json(client: FlaskClient) -> None:
    answer = client.get("/cds-services")

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    found = strict_json(answer.data)
    assert set(found) == {"services"} and isinstance(found["services"], list)


@requirement("DSC-05", "DSC-06", "DSC-07", "DSC-08", "DSC-09", "DSC-11", "HOK-09", "JSN-09")
def test_every_service_is_described_in_the_words_of_cds_hooks(
    services: list[dict[str, Any]],
) -> None:
    assert [x["id"] for x in services] == SERVICES
    for service in services:
        assert set(service) == {
            *("hook", "id", "title", "description", "prefetch", "usageRequirements")
        }
        for name, value in service.items():
            assert name == "prefetch" or (isinstance(value, str) and value.strip()), name
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", service["id"])
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", service["hook"])


@requirement("FVR-01")
def test_usage_requirements_name_the_fhir_version_and_what_is_required(
    services: list[dict[str, Any]],
) -> None:
    for service in services:
        for word in ("R4", "'patient'", "'alp'", "412"):
            assert word in service["usageRequirements"]


@requirement("DSC-14")
def test_no_service_id_is_listed_twice(services: list[dict[str, Any]]) -> None:
    ids = [x["id"] for x in services]

    assert len(set(ids)) == len(ids)  # the CDS Hooks Sandbox knows a service by its id alone


@requirement("DSC-06")
def test_every_listed_service_answers_its_hook(
    client: FlaskClient, services: list[dict[str, Any]]
) -> None:
    for service in services:
        answer = send(client, calling(service["hook"]), f"/cds-services/{service['id']}")
        assert answer.status_code == 200


@requirement("DSC-18")
def test_discovery_is_the_same_bytes_every_time_and_ignores_a_query(client: FlaskClient) -> None:
    first = client.get("/cds-services").data

    assert client.get("/cds-services").data == first
    assert client.get("/cds-services?_format=json&x=1").data == first


@requirement("DSC-10", "DSC-16", "TPL-12", "TPL-15")
def test_prefetch_keys_stand_in_the_order_of_the_content(client: FlaskClient) -> None:
    found = strict_json(client.get("/cds-services").data)["services"][0]["prefetch"]

    assert tuple(found) == IN_ORDER
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key) for key in found)


@KEYS
@requirement("TPL-01")
def test_a_template_is_a_relative_read_or_search(templates: dict[str, str], key: str) -> None:
    assert re.fullmatch(r"[A-Z]\w+(/\S+|\?\S+)", templates[key])


@KEYS
@requirement("TPL-02", "TPL-03", "TPL-04", "TPL-05", "TPL-06", "TPL-07", "TPL-08", "TPL-13")
def test_the_only_token_is_the_patient_id(templates: dict[str, str], key: str) -> None:
    assert TOKEN.findall(templates[key]) == ["context.patientId"]
    assert not re.search(r"[{}]", TOKEN.sub("", templates[key]))


@KEYS
@requirement("TPL-09", "TPL-11")
def test_a_search_uses_only_what_every_client_can_ask(templates: dict[str, str], key: str) -> None:
    _, _, query = templates[key].partition("?")
    names = [name for name, _ in parse_qsl(TOKEN.sub("1", query), strict_parsing=bool(query))]

    assert set(names) <= {"patient", "code", "status", "_sort", "_count"}  # no modifier, no chain
    assert len(set(names)) == len(names)  # the CDS Hooks Sandbox joins repeated ones with a comma
    assert not re.search(r"_sort=(?!-?[a-z-]+(&|$))", query)


@KEYS
@requirement("TPL-10")
def test_a_template_is_encoded_once(templates: dict[str, str], key: str) -> None:
    assert not re.search(r'[ |"<>\\^`]', templates[key])
    assert "%" not in unquote(TOKEN.sub("1", templates[key]))


@requirement("TPL-10")
def test_codes_name_their_system(templates: dict[str, str]) -> None:
    for key in ("alp", "labs", "longterm"):
        codes = dict(parse_qsl(templates[key].partition("?")[2]))["code"].split(",")
        assert all(re.fullmatch(r"http://loinc\.org\|\d+-\d", code) for code in codes)

"""Each whole exchange under fixtures/exchanges: the request yields its response, uuids aside."""

import json
import re
import tomllib
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.config import Settings
from tests.exchanges import SERVICES, send
from tests.invariants import without_uuids

EXCHANGES = Path(__file__).parent.parent / "fixtures" / "exchanges"
NAMES = sorted(path.name for path in EXCHANGES.iterdir())


@cache
def client(day: date) -> FlaskClient:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    return create_app(Settings(open=True), now=lambda: noon).test_client()


def about(name: str) -> dict[str, Any]:
    return tomllib.loads((EXCHANGES / name / "about.toml").read_text("utf-8"))


def part(name: str, which: str) -> Any:
    return json.loads((EXCHANGES / name / f"{which}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_the_request_yields_its_response(name: str) -> None:
    found = about(name)
    path = f"/cds-services/{found['service']}"
    answer = send(client(found["as_of"]), part(name, "request"), path)

    assert answer.status_code == found["status"]
    assert without_uuids(answer.get_json()) == without_uuids(part(name, "response"))


def write_response(name: str) -> None:
    """Writes the response that is given by now, unless the one on file is the same but for its
    uuids.
    """
    found = about(name)
    path = f"/cds-services/{found['service']}"
    answer = send(client(found["as_of"]), part(name, "request"), path).get_json()
    if without_uuids(answer) != without_uuids(part(name, "response")):
        written = json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
        (EXCHANGES / name / "response.json").write_text(written, "utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_an_exchange_is_described_and_small(name: str) -> None:
    found = about(name)

    assert list(found) == ["as_of", "service", "status", "says"]
    assert found["says"].strip().endswith(".")
    assert {x.name for x in (EXCHANGES / name).iterdir()} == {
        *("about.toml", "request.json", "response.json")
    }
    assert (EXCHANGES / name / "request.json").stat().st_size < 8_000


def test_every_service_has_an_exchange_with_a_card() -> None:
    spoken = {about(x)["service"] for x in NAMES if part(x, "response").get("cards")}

    assert spoken == {*SERVICES}


def test_every_exchange_is_in_the_table_of_the_fixtures() -> None:
    table = (EXCHANGES.parent / "README.md").read_text("utf-8").split("| exchange |")[1]
    rows = [
        re.findall(r"`([^`]+)`", x.split("|")[1]) for x in table.split("\n\n")[0].splitlines()[2:]
    ]
    endings = {x.removeprefix("…") for row in rows for x in row}

    assert [x for x in NAMES if not any(x.endswith(end) for end in endings)] == []
    assert [end for end in endings if not any(x.endswith(end) for x in NAMES)] == []

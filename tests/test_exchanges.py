"""Each whole exchange under fixtures/exchanges: the request yields its response, uuids aside."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cds_service.app import create_app
from cds_service.config import Settings

EXCHANGES = Path(__file__).parent.parent / "fixtures" / "exchanges"
NAMES = sorted(path.name for path in EXCHANGES.iterdir())


def without_uuids(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_uuids(x) for name, x in answer.items() if name != "uuid"}
    return [without_uuids(x) for x in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize("name", NAMES)
def test_the_request_yields_its_response(name: str) -> None:
    folder = EXCHANGES / name
    day = tomllib.loads((folder / "about.toml").read_text())["as_of"]
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    client = create_app(Settings(open=True), now=lambda: noon).test_client()
    request = json.loads((folder / "request.json").read_text())
    response = client.post("/cds-services/alp-review", json=request)
    assert response.status_code == 200
    expected = json.loads((folder / "response.json").read_text())
    assert without_uuids(response.get_json()) == without_uuids(expected)

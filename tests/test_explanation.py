"""The explanation as JSON: of what an answer rests on, each value with the test that it is of."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import unescape
from io import StringIO

import pytest
from rich.console import Console

from cds_service.answering import Answering
from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.content import Content
from cds_service.explanation import MOST_ENTRIES
from cds_service.loading import load_content
from cds_service.openapi import document
from cds_service.terminal import show_explanation
from tests.exchanges import LOW, Json, alp, now, problem, request, result


@cache
def content() -> Content:
    return load_content(Settings().hooks_dir)


def explained(*more: Json, values: Sequence[float] = LOW) -> Json:
    body = request(values, 0, 1)
    observed = body["prefetch"]["results"]
    observed["entry"] += [{"resource": x} for x in more if x["resourceType"] == "Observation"]
    listed = body["prefetch"]["conditions"]
    listed["entry"] += [{"resource": x} for x in more if x["resourceType"] == "Condition"]
    answering = Answering(content(), None, 1.0, now)
    found: Json = answering.explain("alp-review", json.dumps(body).encode())
    return found


def questions(found: Json) -> Iterator[Json]:
    waiting = [x for verdict in found["verdicts"] for x in verdict["evidence"]]
    while waiting:
        asked = waiting.pop()
        yield asked
        waiting += asked.get("because", [])


def entries(found: Json, kind: str) -> Iterator[Json]:
    """What any question used, or rejected."""
    for asked in questions(found):
        yield from asked[kind]


def named(found: Json, kind: str, reference: str) -> set[str | None]:
    return {x.get("name") for x in entries(found, kind) if x["reference"] == reference}


def test_a_result_is_called_as_we_call_its_test_whatever_the_chart_does() -> None:
    ggt = result(40, "2324-2", "Gamma GT p 37", "U/L", 44, 9)
    found = explained(ggt, values=[300, 310, 305])
    assert named(found, "used", "Observation/o0") == {"ALP"}
    assert named(found, "used", "Observation/o40") == {"GGT"}
    assert not {x["reference"] for x in entries(found, "used") if "range" in x and "name" not in x}


def test_a_result_that_is_no_measure_of_ours_is_called_as_the_chart_does() -> None:
    spep = result(41, "24351-9", "Protein electrophoresis, serum", "", 0, 9)
    del spep["valueQuantity"]
    spep["valueString"] = "Monoclonal band in gamma"
    lesion = problem(9, "none", "Lytic lesion of bone")
    lesion["code"]["text"] = "Lytic lesion of bone"
    found = explained(spep, lesion)
    assert named(found, "used", "Observation/o41") == {"Protein electrophoresis, serum"}
    assert named(found, "used", "Condition/c9") == {None}


def test_a_rejected_result_is_named_but_none_of_somebody_else() -> None:
    early = {**alp(42, 29, 2), "status": "preliminary"}
    other = {**alp(43, 29, 3), "subject": {"reference": "Patient/p2"}}
    found = explained(early, other)
    assert named(found, "rejected", "Observation/o42") == {"ALP"}
    assert named(found, "rejected", "Observation/o43") == {None}


@pytest.mark.parametrize("kind", ["used", "rejected"])
def test_of_a_long_chart_some_entries_are_listed_and_the_others_counted(kind: str) -> None:
    status = {"used": "final", "rejected": "preliminary"}[kind]
    early = [{**alp(100 + n, 29, n + 1), "status": status} for n in range(MOST_ENTRIES + 7)]
    found = [x for x in questions(explained(*early, values=[])) if "unlisted" in x]
    assert {(len(x[kind]), x["unlisted"]) for x in found} == {(MOST_ENTRIES, 7)}
    short = explained(*early[:MOST_ENTRIES], values=[])
    assert not [x for x in questions(short) if "unlisted" in x]


@pytest.mark.parametrize("kind", ["UsedEntry", "RejectedEntry"])
def test_the_description_of_the_api_has_the_name(kind: str) -> None:
    schema = document(content())["components"]["schemas"][kind]
    assert "name" in schema["properties"] and "name" not in schema["required"]


def test_the_playground_shows_the_test_beside_the_value() -> None:
    client = create_app(Settings(open=True), now=now).test_client()
    asked = "/?patient=edta-contaminated-sample&service=alp-review"
    html = client.get(asked, headers={"Accept": "text/html"}).text
    said = " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
    for test, unit in (("ALP", "U/L"), ("Calcium", "mmol/L"), ("Potassium", "mmol/L")):
        assert re.search(rf"\d{{4}}-\d\d-\d\d: {test} [\d.]+ {unit} ; limits ", said), test


def test_the_terminal_shows_the_test_beside_the_value() -> None:
    console = Console(file=StringIO(), width=100, _environ={})
    show_explanation(console, explained(), everything=True)
    assert isinstance(console.file, StringIO)
    assert re.search(r"\d{4}-\d\d-\d\d  ALP  [\d.]+ U/L  ", console.file.getvalue())

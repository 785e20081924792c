"""The bench measures what it says: its requests get the cards they are owed, and its page says what
was measured. No figure of speed decides here.
"""

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from shutil import copy
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bench.__main__ import write
from bench.figures import Cost, Figures, Start, line_through
from bench.load import Run
from bench.marked import rewrite
from bench.page import number
from bench.payloads import SIZES, Payload, chart, chart_of, payloads, to_fetch
from bench.servers import FLOOR, OURS, TARGETS
from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint
from tests.exchanges import send
from tests.invariants import cards_of
from tests.loopback import ROOT, serving

TODAY = date(2026, 11, 24)
PAYLOADS = [pytest.param(x, id=x.name) for x in payloads(TODAY)]


def client_on(today: date, *servers: str) -> FlaskClient:
    def now() -> datetime:
        return datetime(today.year, today.month, today.day, 12, tzinfo=UTC)

    return create_app(Settings(open=True, fhir_servers=servers), now=now).test_client()


def topics_of(answer: TestResponse) -> list[str]:
    assert answer.status_code == 200
    return [x.split()[0] for x in cards_of(answer.get_json())]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_request_gets_the_cards_that_it_is_owed(client: FlaskClient, payload: Payload) -> None:
    assert topics_of(send(client, payload.body)) == payload.cards


def test_there_are_four_sizes_firing_and_quiet_and_each_is_larger() -> None:
    found = list(payloads(TODAY))
    assert [x.fires for x in found] == [True] * 4 + [False] * 4
    assert [x.observations for x in SIZES] == [2, 24, 200, 1000]
    for some in (found[:4], found[4:]):
        kilobytes = [len(x.body) / 1000 for x in some]
        assert kilobytes == sorted(kilobytes)
    assert 15 < len(found[1].body) / 1000 < 20


@pytest.mark.parametrize("today", [date(2024, 2, 29), date(2026, 12, 31)])
def test_requests_are_dated_to_the_day_they_are_made_for(today: date) -> None:
    for payload in (*payloads(today), chart_of(10, today), chart_of(3000, today)):
        assert topics_of(send(client_on(today), payload.body)) == payload.cards


def test_a_chart_has_as_many_observations_as_it_is_asked_for() -> None:
    for asked in (10, 300, 10_000):
        held = json.loads(chart_of(asked, TODAY).body)["prefetch"]["observations"]["entry"]
        assert len({x["resource"]["id"] for x in held}) == asked


def test_what_is_fetched_is_the_chart_that_is_sent() -> None:
    patient, results, problems = chart(SIZES[1], True, TODAY)
    entries = [{"resource": x} for x in (patient, *results, *problems)]
    with serving(lambda base: FhirEndpoint([{"entry": entries}], base)) as fhir:
        client = client_on(TODAY, fhir.base)
        payload = to_fetch(fhir.base)
        assert topics_of(send(client, payload.body)) == payload.cards == ["lowAlpPersistent"]
        assert fhir.asked


# -- the page --------------------------------------------------------------------------------------


def run(target: str, rate: float, payload: str = "typical, firing", errors: int = 0) -> Run:
    return Run(target, 1, payload, 8, rate, 1.5, 2.5, 12.25, 0.5, errors)


def figures(*runs: Run) -> Figures:
    return Figures(
        day="2026-11-24",
        machine="2 cores",
        versions={"python": "3.11.7"},
        seconds=2,
        minutes=8.6,
        kilobytes={"typical, firing": 17.1},
        starts=tuple(Start(x.name, 1, (0.9, 1.6, 1.7), 80.4) for x in TARGETS),
        runs=runs,
        fetched=(Run(OURS.name, 1, "fetched", 8, 77.0, 20.0, 30.0, 40.0, 6.0, 0),),
        costs=(Cost(1000, 600.0, 7.0, 4.0), Cost(2000, 1200.0, 12.0, 8.0)),
        megabytes_after_costs=111.0,
        phases={"typical, firing": {"decode": 0.25, "total": 0.75}},
    )


def written(found: Figures, folder: Path) -> str:
    copy(ROOT / "docs" / "performance.md", folder)
    write(found, folder)
    return (folder / "performance.md").read_text("utf-8")


def test_the_page_says_what_was_measured_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = written(figures(run(FLOOR.name, 2000), run(OURS.name, 1500)), tmp_path)
    assert page.startswith((ROOT / "docs" / "performance.md").read_text("utf-8").split("<!--")[0])
    assert "2026-11-24 in 9 minutes, 2 s a run, on 2 cores; python 3.11.7" in page
    assert "| at least 0.7 x floor, typical chart | 0.75 | reached |" in page
    assert "| at least 1 x floor, large chart | not measured | **not reached** |" in page
    assert "| first answer within 1.5 s | 1.60 s | **not reached** |" in page
    assert "| typical, firing | 1 | 0.75 | - | - |" in page
    assert "| typical, firing | 1 | 8 | 2,000 | 1,500 | - | - |" in page
    assert "| 1.50 / 2.50 / 12.2 | 1.50 / 2.50 / 12.2 | - | - |" in page
    assert "| floor | 1 | 1.60 (0.90 to 1.70) | 80 |" in page
    assert "2.00 ms and 5.00 ms for every thousand observations (R² 1.0000)" in page
    assert "| 1 | 8 | 77.0 | 20.0 | 30.0 | 40.0 | 6.00 |" in page
    assert written(figures(), tmp_path).count("### Goals") == 1


def test_failed_calls_and_runs_left_out_are_said(tmp_path: Path) -> None:
    found = figures(run(FLOOR.name, 2000), run(OURS.name, 1500, errors=3))
    page = written(found, tmp_path)
    assert "**3 calls failed: cds-service, 1 worker(s), typical, firing, 8 connections.**" in page
    assert "left out" not in page


def test_the_plot_has_a_point_for_each_run_and_cost(tmp_path: Path) -> None:
    written(figures(run(FLOOR.name, 2000), run(OURS.name, 1500)), tmp_path)
    root = ElementTree.fromstring((tmp_path / "performance.svg").read_text("utf-8"))
    classes = [x.get("class", "") for x in root.iter()]
    # A marker each for the run, two costs and the legend.
    assert classes.count("mark s1") == classes.count("mark s0") == 4
    assert classes.count("mark s2") == 1
    assert "prefers-color-scheme: dark" in "".join(root.itertext())


def test_a_line_through_what_is_no_line_fits_less() -> None:
    ours = [1.0, 9.0, 2.0, 30.0]
    costs = [Cost(1000 * n, 1.0, x, 1.0) for n, x in enumerate(ours)]
    assert line_through(costs).fits < 0.7


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand", "utf-8")
    with pytest.raises(ValueError, match=r"page\.md has no part that make bench writes"):
        rewrite(page, "make bench", "x")
    assert page.read_text("utf-8") == "by hand"


@pytest.mark.parametrize(
    ("value", "said"), [(0.123, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (4321.0, "4,321")]
)
def test_a_figure_has_as_many_digits_as_it_is_worth(value: float, said: str) -> None:
    assert number(value) == said


def test_what_the_peer_runs_with_is_pinned_and_granian_is_ours() -> None:
    pins = (ROOT / "bench" / "requirements.txt").read_text("utf-8")
    lines = [x for x in pins.splitlines() if not x.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", x) for x in lines)
    [granian] = [x for x in lines if x.startswith("granian==")]
    assert granian in (ROOT / "constraints.txt").read_text("utf-8").splitlines()

"""The bench measures what it says: its requests get the cards they are owed, and its page says what
was measured. No figure of speed decides here.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from bench.__main__ import write
from bench.faults import CLOCK, FAULTS, set_clock
from bench.figures import Cost, Figures, Start, line_through
from bench.instructions import counted, table
from bench.load import Run
from bench.marked import rewrite
from bench.mixed_load import ISSUER, Became, calls
from bench.one_caller import caller
from bench.page import number
from bench.payloads import SIZES, Payload, chart, chart_of, payloads, to_fetch
from bench.servers import FLOOR, OURS, TARGETS
from bench.soak import wrong_clock
from bench.soak_page import page as soak_page
from bench.soak_page import plot as soak_plot
from bench.soak_report import Happened, Report, judged
from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint
from cds_service.metrics import Metrics
from tests.exchanges import send
from tests.invariants import cards_of
from tests.loopback import ROOT, serving
from tests.trust import Hospital, client_row

TODAY = date(2026, 11, 24)
PAYLOADS = [pytest.param(x, id=x.name) for x in payloads(TODAY)]


def client_on(today: date, *servers: str) -> FlaskClient:
    def now() -> datetime:
        return datetime(today.year, today.month, today.day, 12, tzinfo=UTC)

    settings = Settings(open=True, fhir_servers=servers, fetch_seconds=20)
    return create_app(settings, now=now).test_client()


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
    shutil.copy(ROOT / "docs" / "performance.md", folder)
    write(found, folder)
    return (folder / "performance.md").read_text("utf-8")


def test_the_page_says_what_was_measured_and_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = written(figures(run(FLOOR.name, 2000), run(OURS.name, 1500)), tmp_path)
    assert page.startswith((ROOT / "docs" / "performance.md").read_text("utf-8").split("<!--")[0])
    assert "2026-11-24 in 9 minutes, 2 s a run, on 2 cores; python 3.11.7" in page
    assert "| at least 0.7 x floor, typical chart | 0.75 | reached |" in page
    slower = written(figures(run(FLOOR.name, 2000), run(OURS.name, 1000)), tmp_path)
    assert "| at least 0.7 x floor, typical chart | 0.50 | **not reached** |" in slower
    assert "| at least 1 x floor, large chart | not measured | **not reached** |" in page
    assert "| at least 4 x HealthChain, dictionaries, large chart | not measured |" in page
    assert "| 99 of 100 typical charts within 25 ms | 12.2 ms | reached |" in page
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


# -- what a call executes --------------------------------------------------------------------------


@pytest.mark.parametrize("target", [FLOOR.name, OURS.name])
def test_what_is_counted_are_calls_of_the_floor_and_of_the_product(target: str) -> None:
    command = [sys.executable, "-m", "bench.one_caller", target, "small, quiet", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('"event":"answered"') == (2 if target == OURS.name else 0)


def test_a_call_that_is_refused_is_not_counted() -> None:
    call = caller(create_app(Settings(open=True)), b"{")
    with pytest.raises(ValueError, match="answered 400"):
        call()


def test_the_counts_have_a_row_for_each_chart() -> None:
    found = {
        (target, chart): count
        for target, counts in ((FLOOR.name, (0.5, 2.0)), (OURS.name, (8.0, 10.0)))
        for chart, count in zip(("small, quiet", "large, quiet"), counts, strict=True)
    }
    said = table(found).splitlines()
    assert "| small, quiet | 0.50 | 8.00 | 0.062 |" in said
    assert "| large, quiet | 2.00 | 10.00 | 0.200 |" in said


def test_what_a_call_executes_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is missing")
    monkeypatch.setattr("bench.instructions._TARGETS", (FLOOR.name,))
    found = counted(["large, quiet"])
    assert 1 < found[FLOOR.name, "large, quiet"] < 1000  # millions


# -- the soak --------------------------------------------------------------------------------------

SLOW, LOCKED = "FHIR server slow", "store locked"


def call(at: float, got: str, kind: str = "firing", owed: str = "200 lowAlpPersistent") -> Became:
    return Became(kind, owed, got, at, at + 0.1)


def soaked(*became: Became, shown: float = 4.0, held: float = 100.0) -> Report:
    """A soak of 60 s with a slow FHIR server from 10 to 15 and a locked store from 40 to 48."""
    return judged(
        day="2026-11-24",
        made_with="2 cores",
        began=1000.0,
        ended=1060.0,
        happened=[
            Happened(SLOW, "`slow`", 7.0, 1010.0, 1015.0),
            Happened(LOCKED, "`locked`", shown, 1040.0, 1048.0),
        ],
        became=became,
        memory={17: [(1000.0 + n, held + n / 60) for n in range(60)]},
        peaks={17: held + 5},
    )


def test_a_fault_excuses_what_it_may_do_to_a_call_of_its_kind_at_its_time() -> None:
    report = soaked(
        call(1001, "200 lowAlpPersistent"),
        call(1012, "412", "fetched"),
        call(1042, "503"),
        call(1050, "503"),
    )
    assert (report.faults, report.calls) == ([], 4)
    slow, locked = report.borne
    assert (slow.marred, slow.recovered) == ({"412": 1}, 0.0)
    assert (locked.marred, locked.recovered) == ({"503": 2}, 2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        call(1005, "503"),  # before any fault
        call(1012, "412"),  # all was sent
        call(1012, "503", "fetched"),  # a slow FHIR server is no reason
        call(1042, "200"),  # the card is missing
        call(1047, "200 lowAlpPersistent", "quiet", "200"),
        call(1061, "503"),  # too long after
    ],
)
def test_any_other_answer_fails_the_soak(wrong: Became) -> None:
    assert soaked(wrong).faults == [f"1 x {wrong.kind}: {wrong.got}"]
    told = soaked(*2 * [replace(wrong, why="alp (timed out)")])
    assert told.faults == [f"2 x {wrong.kind}: {wrong.got} (alp (timed out))"]


def test_a_fault_that_no_metric_shows_and_memory_without_bound_fail_the_soak() -> None:
    assert soaked(shown=0).faults == ["store locked: `locked` does not show it"]
    assert soaked(held=119.5).faults == ["worker 1: 120 MB at its end"]


def test_the_report_of_a_soak_tells_faults_and_memory() -> None:
    page = soak_page(soaked(call(1012, "412", "fetched"), call(1042, "503")))
    assert "2 calls in 1 minutes on 2026-11-24: passed. On 2 cores." in page
    assert "| store locked | 8 | 0 | 1 x 503 | `locked` | 4 | 0.0 |" in page
    assert "| 1 | 59 | 105 | 101 | +1.00 |" in page
    assert "**not passed**" in soak_page(soaked(call(1001, "500")))
    root = ElementTree.fromstring(soak_plot(soaked()))
    classes = [x.get("class", "") for x in root.iter()]
    assert (classes.count("band"), classes.count("line s1")) == (2, 1)


def test_every_fault_is_shown_by_a_metric_that_the_server_has() -> None:
    found = Metrics().text().decode()
    for fault in FAULTS:
        assert re.search(rf"^# TYPE {fault.shows.name} ", found, re.M), fault.name


def test_every_call_of_the_load_gets_what_it_is_owed(tmp_path: Path) -> None:
    server = Hospital(tmp_path, client_row(ISSUER, keys="keys.json"), CDS_PEER_RATE="off")
    for n, one in enumerate(calls(TODAY, "https://fhir.example")):
        if one.kind in ("fetched", "feedback"):
            continue  # these need the FHIR server and the moment
        body = one.body.replace(b'p1"', f'p1x{n}"'.encode())
        answer = server.ask(ISSUER, body, one.path)
        said = one.reads(answer.get_json()) if answer.status_code == 200 else ""
        assert f"{answer.status_code} {said}".strip() == one.owed, one.kind


def test_the_wall_clock_of_a_server_can_be_set_while_its_timers_go_on(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    said = "import time; print(time.time(), time.monotonic()); time.sleep(0.01)"
    environ = wrong_clock(tmp_path)
    set_clock(tmp_path / CLOCK, 3600)
    told = subprocess.run(
        [sys.executable, "-c", said], env=environ, capture_output=True, text=True, timeout=60
    )
    wall, timer = map(float, told.stdout.split())
    assert 3500 < wall - time.time() < 3700
    assert abs(timer - time.monotonic()) < 100

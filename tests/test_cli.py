"""The command line: what evaluate, explain and check read, print and end with."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cds_service.cli import group
from cds_service.errors import ContentError
from tests.exchanges import FIRES, TODAY, Json, changed, drop, put, request
from tests.invariants import cards_of, violations
from tests.loopback import counting, ended

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
ON_THE_DAY = ("--as-of", str(TODAY))
LATER = ("--as-of", "2029-01-01")
BOTH = pytest.mark.parametrize("command", ["evaluate", "explain"])


def run(*arguments: str, body: str = "", **settings: str) -> Result:
    """A command in this process, with these CDS_* settings and no other."""
    return CliRunner(env=settings).invoke(group, arguments, input=body)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A request that gets one card on its day."""
    return written(tmp_path, request())


def written(folder: Path, body: Json | str) -> str:
    path = folder / "request.json"
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(path)


def cards(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    shown = {"cards": printed(result)["cards"]}
    assert violations(shown) == []
    return [*cards_of(shown)]


def printed(result: Result) -> Any:
    return json.loads(result.stdout)


def evaluated(command: str, *arguments: str, body: str = "", **settings: str) -> list[str]:
    """The cards that evaluate prints, or explain in JSON."""
    more = ("--json",) if command == "explain" else ()
    return cards(run(command, *more, *arguments, body=body, **settings))


# -- evaluate and explain ----------------------------------------------------------------------


@BOTH
def test_a_request_is_read_from_a_file_or_from_standard_input(command: str, file: str) -> None:
    assert evaluated(command, file, *ON_THE_DAY) == [*FIRES]
    assert evaluated(command, "-", *ON_THE_DAY, body=Path(file).read_text()) == [*FIRES]


@BOTH
def test_as_of_sets_the_day(command: str, file: str) -> None:
    assert evaluated(command, file, *LATER) == []


def test_the_explanation_is_of_the_day_asked_for(file: str) -> None:
    assert printed(run("explain", "--json", file, *LATER))["asOf"] == "2029-01-01"


@BOTH
@pytest.mark.parametrize("day", ["24.11.2026", "2026-13-01", "today", "2026-11", ""])
def test_a_day_that_is_none_is_refused(command: str, file: str, day: str) -> None:
    assert run(command, file, "--as-of", day).exit_code == 2


@BOTH
def test_the_service_may_be_named(command: str, file: str) -> None:
    assert evaluated(command, file, *ON_THE_DAY, "--service", "alp-review") == [*FIRES]
    result = run(command, file, *ON_THE_DAY, "--service", "alp-revue")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "404" in result.stderr


@BOTH
@pytest.mark.parametrize("mode", ["lowAlpPersistent=off", "lowAlpPersistent=shadow", "*=off"])
def test_a_topic_can_be_switched(command: str, file: str, mode: str) -> None:
    assert evaluated(command, file, *ON_THE_DAY, "--topic-mode", mode) == []


@BOTH
def test_modes_add_up_and_the_command_line_wins_over_the_environment(
    command: str, file: str
) -> None:
    modes = ("--topic-mode", "*=off", "--topic-mode", "lowAlpPersistent=on")
    assert evaluated(command, file, *ON_THE_DAY, *modes) == [*FIRES]
    settings = {"CDS_TOPIC_MODES": "lowAlpPersistent=off"}
    assert evaluated(command, file, *ON_THE_DAY, **settings) == []
    assert evaluated(command, file, *ON_THE_DAY, *modes[2:], **settings) == [*FIRES]


@BOTH
@pytest.mark.parametrize("mode", ["lowAlpPersistent", "lowAlpPersistent=loud", "=on"])
def test_a_mode_that_is_none_is_refused(command: str, file: str, mode: str) -> None:
    result = run(command, file, "--topic-mode", mode)
    assert result.exit_code == 2 or isinstance(result.exception, ContentError)


@BOTH
def test_a_site_file_is_honoured(command: str, file: str, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[limits]\nfewest_low_readings = 5\n")
    assert evaluated(command, file, *ON_THE_DAY, CDS_SITE_FILE=str(site)) == []


@BOTH
def test_nothing_is_fetched_unless_asked_for(command: str, tmp_path: Path) -> None:
    with counting() as (url, callers):
        server = f"{url}/fhir"
        file = written(tmp_path, changed(drop("prefetch"), put("fhirServer", server)))
        settings = {"CDS_FHIR_SERVERS": server, "CDS_FETCH_SECONDS": "0.2"}
        result = run(command, file, *ON_THE_DAY, **settings)
        assert "412" in result.output
    assert callers == []
    with counting() as (url, callers):
        server = f"{url}/fhir"
        file = written(tmp_path, changed(drop("prefetch"), put("fhirServer", server)))
        settings = {"CDS_FHIR_SERVERS": server, "CDS_FETCH_SECONDS": "0.2"}
        run(command, file, *ON_THE_DAY, "--fetch", **settings)
    assert callers != []


@BOTH
def test_a_server_that_is_not_allowed_is_not_called_even_when_asked_for(
    command: str, tmp_path: Path
) -> None:
    with counting() as (url, callers):
        file = written(tmp_path, changed(drop("prefetch"), put("fhirServer", f"{url}/fhir")))
        run(command, file, *ON_THE_DAY, "--fetch")
        run(command, file, *ON_THE_DAY, "--fetch", CDS_FHIR_SERVERS="http://127.0.0.1:9/fhir")
    assert callers == []


@BOTH
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", "400"),
        ("{", "400"),
        ("[]", "400"),
        ('"patient-view"', "400"),
        (json.dumps(changed(put("hook", "order-sign"))), "422"),
        (json.dumps(changed(drop("context.patientId"))), "422"),
    ],
)
def test_a_request_that_is_none_ends_with_1_and_a_sentence(
    command: str, body: str, status: str
) -> None:
    result = run(command, "-", *ON_THE_DAY, body=body)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{status}: ") and "Traceback" not in result.stderr


@BOTH
@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('{"hook": "patient-view",\n  "Zyxmark": }', "line 2, column 14: Expecting value"),
        ('{"hook": "patient-view" "Zyxmark": 1}', "line 1, column 25: Expecting ',' delimiter"),
        ('{"hook":\n\n"Zyxmark\\q"}', "line 3, column 9: Invalid \\escape"),
        ('{"hook": "Zyxmark', "line 1, column 10: Unterminated string starting at"),
    ],
)
def test_what_is_not_json_is_said_by_line_and_column_without_its_content(
    command: str, body: str, place: str
) -> None:
    result = run(command, "-", *ON_THE_DAY, body=body)
    assert result.exit_code == 1
    assert result.stderr.startswith("400: ") and place in result.stderr
    assert "Zyxmark" not in result.stderr


@BOTH
def test_bytes_that_are_no_text_are_said_by_line_and_column(command: str, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(b'{"hook":\n"\xff"}')
    result = run(command, str(tmp_path / "request.json"))
    assert "line 2, column 2" in result.stderr


@BOTH
@pytest.mark.parametrize("name", ["low-alp-persistent", "bundle"])
def test_a_chart_is_told_apart_from_a_request(command: str, tmp_path: Path, name: str) -> None:
    chart = HOOKS.parent / "fixtures" / "patients" / "low-alp-persistent.json"
    if name == "bundle":
        file = written(tmp_path, json.loads(chart.read_text("utf-8"))["bundle"])
    else:
        file = str(chart)
    result = run(command, file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "This is a chart, not a CDS Hooks request." in result.stderr


def test_missing_data_is_an_error_to_evaluate_and_an_answer_to_explain(tmp_path: Path) -> None:
    file = written(tmp_path, changed(drop("prefetch")))
    result = run("evaluate", file, *ON_THE_DAY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "412" in result.stderr and "alp" in result.stderr
    explained = run("explain", file, *ON_THE_DAY)
    assert explained.exit_code == 0 and "412" in explained.stdout


@BOTH
def test_a_file_that_is_missing_is_refused(command: str) -> None:
    assert run(command, "/no/such/request.json").exit_code == 2
    assert run(command).exit_code == 2


def test_explain_names_every_topic_readably(file: str) -> None:
    result = run("explain", file, *ON_THE_DAY)
    assert result.exit_code == 0
    topics = [x["topic"] for x in printed(run("explain", "--json", file, *ON_THE_DAY))["verdicts"]]
    cards = (HOOKS / "alp_review" / "cards").glob("*.toml")
    assert len(topics) == len([*cards])
    assert [x for x in topics if x not in result.stdout] == []


def test_explain_says_more_when_asked_for_everything(file: str) -> None:
    short, everything = (run("explain", file, *ON_THE_DAY, *x) for x in ((), ("--all",)))
    assert len(everything.stdout) > len(short.stdout)


# -- check -------------------------------------------------------------------------------------

ROWS = """
as_of = 2026-01-15
[[vignette]]
id = "one"
says = "Two lows."
patient = "F 47 y"
results = ["alp 33 U/L [35-104] 2025-03-01", "alp 31 U/L [35-104] 2025-11-01"]
expect = ["lowAlpPersistent info"]
[[vignette]]
id = "two"
says = "A normal value."
patient = "M 50 y"
results = ["alp 70 U/L [40-129] -10d"]
expect = []
verdicts = { lowAlpPersistent = "not-met" }
must_not_say = ["reassuring"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the content with two vignettes."""
    here = tmp_path / "hooks"
    shutil.copytree(HOOKS, here, ignore=shutil.ignore_patterns("__pycache__", "vignettes.toml"))
    (here / "alp_review" / "vignettes.toml").write_text(ROWS)
    return here


def spoil(folder: Path, old: str, new: str, file: str = "alp_review/vignettes.toml") -> None:
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), "utf-8")


def test_check_passes_when_every_vignette_gets_what_it_is_owed(folder: Path) -> None:
    result = run("check", str(folder))
    assert result.exit_code == 0
    assert "2 passed, 0 failed" in result.stdout
    assert "FAILED" not in result.stdout and "moved" not in result.stdout
    assert str(folder) in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('expect = ["lowAlpPersistent info"]', "expect = []", "cards lowAlpPersistent info"),
        ("lowAlpPersistent info", "lowAlpPersistent warning", "expected lowAlpPersistent warning"),
        ("alp 31 U/L", "alp 71 U/L", "cards none, expected lowAlpPersistent info"),
        ('"not-met"', '"fired"', "lowAlpPersistent is not-met, expected fired"),
        (
            'expect = ["lowAlpPersistent info"]',
            'expect = ["lowAlpPersistent info"]\nmust_not_say = ["Acquired causes"]',
            'a card says "Acquired causes"',
        ),
        (
            'results = ["alp 33',
            'absent = ["alp"]\nresults = ["ggt 14 U/L -1d", "alp 33',
            "expected lowAlpPersistent info",
        ),
    ],
)
def test_check_ends_with_1_and_says_what_differs_when_a_row_is_wrong(
    folder: Path, old: str, new: str, told: str
) -> None:
    spoil(folder, old, new)
    result = run("check", str(folder))
    assert result.exit_code == 1
    assert "1 passed, 1 failed" in result.stdout
    assert "FAILED" in result.stdout and told in result.stdout


def test_check_lists_what_a_site_file_moves_and_does_not_fail_for_it(
    folder: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[limits]\nfewest_low_readings = 3\n")
    result = run("check", str(folder), CDS_SITE_FILE=str(site))
    assert result.exit_code == 0
    assert "2 passed, 0 failed" in result.stdout
    assert "site: limits.fewest_low_readings is 3 (shipped: 2)" in result.stdout
    assert "moved one: Two lows." in result.stdout
    assert "lowAlpPersistent info -> no card" in result.stdout
    assert "moved two" not in result.stdout


def test_check_says_which_row_fails_as_shipped_whatever_the_site_changes(
    folder: Path, tmp_path: Path
) -> None:
    spoil(folder, "alp 31 U/L", "alp 71 U/L")
    site = tmp_path / "site.toml"
    site.write_text("[limits]\nfewest_low_readings = 3\n")
    result = run("check", str(folder), CDS_SITE_FILE=str(site))
    assert result.exit_code == 1 and "FAILED one" in result.stdout


def test_check_lists_what_a_topic_mode_moves(folder: Path) -> None:
    result = run("check", str(folder), "--topic-mode", "lowAlpPersistent=shadow")
    assert result.exit_code == 0
    assert "moved one: Two lows." in result.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("alp_review/vignettes.toml", "patient =", "pateint =", "pateint"),
        ("alp_review/vignettes.toml", "alp 33 U/L", "app 33 U/L", "app"),
        ("alp_review/vignettes.toml", 'id = "two"', 'id = "one"', "one"),
        ("shared/limits.toml", "low_cap ", "low_cap.x ", "low_cap"),
    ],
)
def test_content_that_is_wrong_ends_with_2_and_one_sentence(
    folder: Path, file: str, old: str, new: str, told: str
) -> None:
    spoil(folder, old, new, file)
    result = ended("check", str(folder))
    assert result.returncode == 2
    assert result.stderr.startswith("cds-service: ") and result.stderr.count("\n") == 1
    assert Path(file).name in result.stderr and told in result.stderr


@pytest.mark.parametrize("arguments", [("check",), ("evaluate", "-"), ("explain", "-")])
def test_a_wrong_setting_ends_with_2_and_one_sentence(arguments: Sequence[str]) -> None:
    result = ended(*arguments, CDS_FETCHSECONDS="2")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("cds-service: environment: CDS_FETCHSECONDS: ")


def test_a_server_list_that_is_wrong_ends_with_2_and_one_sentence() -> None:
    result = ended("evaluate", "-", "--fetch", CDS_FHIR_SERVERS="ehr.example/fhir")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and "CDS_FHIR_SERVERS" in result.stderr


# -- serve, as far as it refuses ---------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("serve",), ("serve", "--open", "--host", "0.0.0.0"), ("serve", "--prot", "1")]
)
def test_serve_refuses_what_would_not_be_safe(arguments: Sequence[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and result.stdout == ""


def test_the_open_server_of_the_environment_is_loopback_only_too() -> None:
    assert run("serve", "--host", "0.0.0.0", CDS_OPEN="1").exit_code == 2


def test_every_command_explains_itself() -> None:
    for command in ("serve", "migrate", "token", "demo", "check", "evaluate", "explain"):
        assert command in run("--help").stdout
        assert run(command, "--help").exit_code == 0
    assert run("--version").exit_code == 0

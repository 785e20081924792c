"""One line changed in the content, or in a site file, and `check` lists the vignettes that move."""

import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cds_service.checking import vignettes_of
from cds_service.cli import group
from cds_service.loading import load_content
from cds_service.topic_shape import TopicPage
from cds_service.topics import topic_pages

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
ROWS = """
as_of = 2026-01-15
[[vignette]]
id = "lows"
says = "Two lows."
patient = "F 47 y"
results = ["alp 33 U/L [35-104] 2025-03-01", "alp 31 U/L [35-104] 2025-11-01"]
expect = ["lowAlpPersistent info"]
suggests = { lowAlpPersistent = ["62236-5", "2777-1", "17861-6", "19123-9", "3016-3"] }
[[vignette]]
id = "raised"
says = "Raised, no GGT."
patient = "F 60 y"
results = ["alp 210 U/L [35-104] -12d"]
expect = ["raisedAlpSourceUnknown info"]
suggests = { raisedAlpSourceUnknown = ["2324-2"] }
[[vignette]]
id = "liver"
says = "Raised with GGT."
patient = "F 60 y"
results = ["alp 210 U/L [35-104] -12d", "ggt 95 U/L [5-36] -12d"]
reports = ["us-abdomen @-20d"]
expect = ["raisedAlpHepatobiliary info"]
suggests = { raisedAlpHepatobiliary = ["24325-3", "5247-2", "2472-9"] }
[[vignette]]
id = "quiet"
says = "A normal value."
patient = "M 50 y"
results = ["alp 70 U/L [40-129] -10d"]
expect = []
"""


@pytest.fixture(scope="module")
def _copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("content") / "hooks"
    shutil.copytree(HOOKS, here, ignore=shutil.ignore_patterns("__pycache__", "vignettes.toml"))
    (here / "alp_review" / "vignettes.toml").write_text(ROWS)
    return here


@pytest.fixture
def folder(_copy: Path) -> Iterator[Path]:
    """A copy of the content with four vignettes; what a test changed is as it was afterwards."""
    texts = {x: x.read_text("utf-8") for x in _copy.rglob("*") if x.suffix in (".toml", ".json")}
    yield _copy
    for path, text in texts.items():
        path.write_text(text, "utf-8")


def edit(folder: Path, file: str, old: str, new: str) -> None:
    """Changes one line of a file."""
    text = (folder / file).read_text("utf-8")
    assert text.count(old) == 1, f"{file} holds {old} {text.count(old)} times"
    (folder / file).write_text(text.replace(old, new), "utf-8")


def check(folder: Path, *arguments: str, site: str = "") -> Result:
    """`check` on a folder, under a site file of this text when there is one."""
    settings = {}
    if site:
        path = folder.parent / "site.toml"
        path.write_text(site)
        settings["CDS_SITE_FILE"] = str(path)
    return CliRunner(env=settings).invoke(group, ["check", str(folder), *arguments])


def listed(word: str, result: Result) -> list[str]:
    """The ids of the vignettes printed under a word."""
    return re.findall(rf"^{word} (\w+):", result.stdout, re.MULTILINE)


EDITS = [
    (
        "shared/limits.toml",
        "raised_times           = { value = 1.5,",
        "raised_times           = { value = 2.5,",
        {"raised", "liver"},
        "cards none, expected raisedAlpSourceUnknown info",
    ),
    (
        "shared/valuesets/obs-ggt.json",
        '"code": "2324-2"',
        '"code": "99999-9"',
        {"liver"},
        "cards raisedAlpSourceUnknown info, expected raisedAlpHepatobiliary info",
    ),
    (
        "shared/valuesets/obs-alp-total.json",
        '"code": "6768-6"',
        '"code": "6768-7"',
        {"lows", "raised", "liver"},
        "cards none, expected lowAlpPersistent info",
    ),
    (
        "shared/orders/ggt.json",
        '"code": "2324-2"',
        '"code": "99999-9"',
        {"raised"},
        "raisedAlpSourceUnknown suggests 99999-9, expected 2324-2",
    ),
    (
        "shared/orders/ggt.json",
        '"system": "http://loinc.org"',
        '"system": "http://loinc.example"',
        {"raised"},
        "raisedAlpSourceUnknown suggests http://loinc.example|2324-2, expected 2324-2",
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "moved", "told"), EDITS)
def test_one_line_of_the_content_fails_the_vignettes_that_it_moves(
    folder: Path, file: str, old: str, new: str, moved: set[str], told: str
) -> None:
    edit(folder, file, old, new)
    result = check(folder)
    assert set(listed("FAILED", result)) == moved
    assert told in result.stdout
    assert result.exit_code == 1


def test_a_code_that_set_and_order_both_lose_fails_the_row_that_carries_it(folder: Path) -> None:
    for file in ("shared/valuesets/img-us-abdomen.json", "shared/orders/us-abdomen.json"):
        edit(folder, file, '"code": "24558-9"', '"code": "24558-8"')
    result = check(folder)
    assert listed("FAILED", result) == ["liver"]
    assert "raisedAlpHepatobiliary suggests 24325-3, 24558-8, expected 24325-3, 5247-2, 2472-9" in (
        result.stdout
    )


SITES = [
    (
        "[limits]\nraised_times = 2.5",
        ["raised", "liver"],
        "raisedAlpSourceUnknown info -> no card",
    ),
    (
        '[codes]\nobs-ggt = { codings = [{ system = "http://loinc.org", code = "6768-6" }] }',
        ["raised"],
        "",
    ),
    (
        '[orders]\nggt = { codings = [{ system = "urn:our-orders", code = "L-4711" }] }',
        ["raised"],
        "raisedAlpSourceUnknown suggests 2324-2 -> urn:our-orders|L-4711",
    ),
    ("[orders]\nggt = false", ["raised"], "raisedAlpSourceUnknown suggests 2324-2 -> no order"),
    ('[labels]\nggt = "Gamma-GT"', [], ""),
    ('[modes]\nlowAlpPersistent = "shadow"', ["lows"], "lowAlpPersistent info -> no card"),
]


@pytest.mark.parametrize(("site", "moved", "told"), SITES)
def test_one_line_of_a_site_file_lists_the_vignettes_that_it_moves_and_fails_none(
    folder: Path, site: str, moved: list[str], told: str
) -> None:
    result = check(folder, site=site)
    assert (result.exit_code, listed("FAILED", result)) == (0, [])
    assert listed("moved", result) == moved
    assert told in result.stdout
    assert f"{len(moved)} moved by the settings of this site\n4 passed, 0 failed" in result.stdout


def test_without_a_setting_nothing_is_said_about_a_site(folder: Path) -> None:
    assert "moved" not in check(folder).stdout


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('"alp 31 U/L [35-104] 2025-11-01"', "lowAlpPersistent: not-met (persistently-low): Is"),
        ('"alp 29 mmHg [35-104] 2025-11-01"', "lowAlpPersistent: data-"),
        ('"alp 31 U/L [35-104] 2025-11-01", "tsh 48 mIU/L -9d"', "suppressed by acquired-cause: "),
    ],
)
def test_a_vignette_that_fails_says_why_the_card_did_not_come(
    folder: Path, row: str, told: str
) -> None:
    old = '"alp 33 U/L [35-104] 2025-03-01", "alp 31 U/L [35-104] 2025-11-01"'
    new = row if "tsh" not in row else f'"alp 33 U/L [35-104] 2025-03-01", {row}'
    edit(folder, "alp_review/vignettes.toml", old, new)
    result = check(folder)
    assert listed("FAILED", result) == ["lows"]
    assert "cards none, expected lowAlpPersistent info" in result.stdout and told in result.stdout


def test_a_vignette_that_fails_says_why_a_card_came_that_nobody_expected(folder: Path) -> None:
    edit(folder, "alp_review/vignettes.toml", 'expect = ["lowAlpPersistent info"]', "expect = []")
    assert "lowAlpPersistent: fired: Every condition held." in check(folder).stdout


def test_explain_shows_one_vignette_as_explain_shows_a_request(folder: Path) -> None:
    result = check(folder, "--explain", "lows")
    assert result.exit_code == 0
    assert "1 card: lowAlpPersistent (info)" in result.stdout
    assert "Is the ALP persistently low" in result.stdout and "passed" not in result.stdout
    here = check(folder, "--explain", "lows", site="[limits]\nfewest_low_readings = 3")
    assert "lowAlpPersistent (info)" not in here.stdout


def test_a_vignette_that_is_not_there_cannot_be_explained(folder: Path) -> None:
    result = check(folder, "--explain", "low")
    assert result.exit_code != 0 and "vignette low" in str(result.exception)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"alp 70 U/L', '"alpp 70 U/L', "alpp"),
        ('"us-abdomen @-20d"', '"us-abdomn @-20d"', "us-abdomn"),
    ],
)
def test_a_name_without_a_code_is_refused_with_folder_and_row(
    folder: Path, old: str, new: str, told: str
) -> None:
    edit(folder, "alp_review/vignettes.toml", old, new)
    error = str(check(folder).exception)
    assert error.startswith("alp_review/vignettes.toml: vignette ") and told in error


# -- the shipped rows --------------------------------------------------------------------------


@cache
def suggested() -> dict[str, set[str]]:
    """The codes that some row names as suggested, by topic."""
    found: dict[str, set[str]] = {}
    for family in load_content(HOOKS).families:
        for vignette in vignettes_of(family)[1]:
            for topic, codes in vignette.suggests.items():
                found.setdefault(topic, set()).update(codes)
    return found


@cache
def pages() -> dict[str, TopicPage]:
    return topic_pages(load_content(HOOKS))


WITHOUT_ORDERS = {"antiresorptiveWithHypophosphatasia", "lyticLesionAbnormalMyelomaScreen"}


@pytest.mark.parametrize("topic", sorted(load_content(HOOKS).topics()))
def test_every_order_that_a_card_offers_is_named_by_its_code_in_some_row(topic: str) -> None:
    offered = {
        coding["code"]: order.name for order in pages()[topic].orders for coding in order.codings
    }
    assert offered or topic in WITHOUT_ORDERS
    assert {x: y for x, y in offered.items() if x not in suggested().get(topic, set())} == {}

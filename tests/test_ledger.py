"""The ledger of clinical statements and the page of codes say what the content does."""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text("utf-8")
CODES = (ROOT / "docs" / "terminology.md").read_text("utf-8")

SIZES = {"A": 14, "B": 16, "C": 30, "D": 30, "E": 25}
IDS = [f"{seed}-{n:02}" for seed, size in SIZES.items() for n in range(1, size + 1)]
VERDICTS = ["implemented", "reworded", "text only", "exclusion", "constraint", "refused"]
READ = {"abstract", "part", "recalled"}
TOPICS = {
    "LOW-0": "lowAlpInfant",
    "LOW-1": "lowAlpUnconfirmed",
    "LOW-2": "lowAlpPersistent",
    "LOW-3": "lowAlpBeforeAntiresorptive",
    "LOW-4": "lowAlpOnAntiresorptive",
    "LOW-5": "lowAlpRaisedPlp",
    "ARX-1": "antiresorptiveWithLowAlp",
    "ARX-2": "antiresorptiveWithPersistentLowAlp",
    "ARX-3": "antiresorptiveWithHypophosphatasia",
    "LYT-1": "lyticLesionWithoutMyelomaScreen",
    "LYT-2": "bonePainWithoutMyelomaScreen",
    "LYT-3": "lyticLesionAbnormalMyelomaScreen",
    "HI-1": "raisedAlpSourceUnknown",
    "HI-2": "raisedAlpHepatobiliary",
    "HI-3": "raisedAlpBoneSource",
    "HI-4": "raisedAlpBoneSourceUnexplained",
    "TUM-1": "raisedAlpWithCancer",
    "MM-1": "raisedAlpInMyeloma",
    "MM-2": "alpRiseOnProteasomeInhibitor",
    "HEM-1": "lowAlpWithMarrowMalignancy",
    "X-1": "extremeAlp",
    "WIL-1": "acuteLiverFailureLowAlpRatio",
    "PAG-1": "pagetAlpReview",
}


def tables(page: str, heading: str) -> list[list[list[str]]]:
    """The cells of each table under a heading, without the head of the table."""
    section = page.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    lines = [block.splitlines()[2:] for block in blocks]
    return [[[x.strip() for x in row.split("|")[1:-1]] for row in found] for found in lines]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


STATEMENTS = [row for seed in SIZES for found in tables(EVIDENCE, f"{seed}: ") for row in found]
ROWS = tables(EVIDENCE, "Rows and sources")[0]
SOURCES = {row: sources.split("; ") for row, _, _, sources in ROWS}
COUNTS = tables(EVIDENCE, "How to read it")[1]
CARDS = {
    found["row"]: (path.stem, found)
    for path in sorted((ROOT / "hooks").glob("*/cards/*.toml"))
    if (found := tomllib.loads(path.read_text("utf-8")))
}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def is_among(citation: str, sources: list[str]) -> bool:
    """Whether one source has every word of a card's citation."""
    return any(words(citation) <= words(source) for source in sources)


def named(where: str) -> list[tuple[str, str]]:
    """The rows and topic codes that a cell names; raises ValueError for anything else in it."""
    if where in ("nowhere", "every row"):
        return []
    parts = [re.fullmatch(r"([A-Z]+-\d) `(\w+)`", part) for part in where.split(", ")]
    if not all(parts):
        raise ValueError(where)
    return [(part[1], part[2]) for part in parts if part]


def test_every_statement_stands_once_in_order_under_its_article() -> None:
    assert len(IDS) == 115
    assert [row[0] for row in STATEMENTS] == IDS


@pytest.mark.parametrize("row", STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_every_statement_has_a_verdict_a_reason_and_a_place(row: list[str]) -> None:
    _, says, verdict, why, where = row
    assert verdict in VERDICTS
    assert says.endswith(".") and why
    assert [(name, TOPICS.get(name)) for name, _ in named(where)] == named(where)
    if verdict in ("implemented", "reworded", "exclusion"):
        assert named(where)
    elif verdict == "refused":
        assert where == "nowhere"
    else:
        assert where != "every row" or verdict == "constraint"


@pytest.mark.parametrize("where", ["LOW-2", "lowAlpPersistent", "LOW-2 lowAlpPersistent", "none"])
def test_a_place_that_is_no_row_with_its_topic_is_noticed(where: str) -> None:
    with pytest.raises(ValueError, match=re.escape(where)):
        named(where)


def test_the_counts_in_the_head_are_those_of_the_tables() -> None:
    counted = Counter(row[2] for row in STATEMENTS)
    said = {verdict: int(number) for verdict, number, _ in COUNTS}
    assert said == {**counted, "together": len(STATEMENTS)}
    assert list(said) == [*VERDICTS, "together"]


def test_every_unsafe_statement_is_in_the_ledger_and_not_taken_as_it_stands() -> None:
    section = EVIDENCE.split("\n## Unsafe first", 1)[1].split("\n## ", 1)[0]
    unsafe = re.findall(r"[A-E]-\d\d", section)
    verdict = {row[0]: row[2] for row in STATEMENTS}
    assert {"A-13", "B-03", "D-01", "E-09", "E-13"} <= set(unsafe)
    plain = {x for x in unsafe if verdict[x] == "implemented"}
    assert plain == {"B-14", "B-16"}  # the tests are right, the trigger was changed


def test_the_rows_are_the_known_rows_with_their_topics() -> None:
    assert [(row, quoted(topic)) for row, topic, _, _ in ROWS] == [
        (row, [topic]) for row, topic in TOPICS.items()
    ]


def test_the_ledger_says_of_each_row_whether_it_is_in_service() -> None:
    assert {x[0]: x[2] for x in ROWS} == {x: "yes" if x in CARDS else "not yet" for x in TOPICS}


@pytest.mark.parametrize("row", sorted(CARDS))
def test_a_card_is_named_after_the_topic_of_its_row(row: str) -> None:
    snake = re.sub(r"([A-Z])", lambda found: f"_{found[1].lower()}", TOPICS[row])
    assert CARDS[row][0] == snake


@pytest.mark.parametrize("row", sorted(CARDS))
def test_what_a_card_cites_is_among_the_sources_of_its_row(row: str) -> None:
    citations: list[str] = CARDS[row][1]["citations"]
    assert citations
    assert [x for x in citations if not is_among(x, SOURCES[row])] == []


@pytest.mark.parametrize(
    ("citation", "found"),
    [
        ("Khan 2024", True),
        ("NICE NG35", True),
        ("Khan 2020", False),
        ("Rassie 2019", False),
        ("Khan NG12", False),
    ],
)
def test_a_citation_without_its_source_is_noticed(citation: str, found: bool) -> None:
    assert is_among(citation, ["Khan 2024 [part]", "NICE NG12, NG35 [part]"]) is found


@pytest.mark.parametrize("row", list(SOURCES))
def test_every_source_says_how_it_was_read(row: str) -> None:
    marks = [re.fullmatch(r"[^\[\]]+ \[(\w+)\]", source) for source in SOURCES[row]]
    assert [x[1] if x else "" for x in marks if not x or x[1] not in READ] == []


def value_sets() -> dict[str, dict[str, Any]]:
    files = (ROOT / "hooks" / "shared" / "valuesets").glob("*.json")
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(files)}


def concepts(found: dict[str, Any]) -> list[dict[str, Any]]:
    parts = found.get("compose", {}).get("include", [])
    return [concept for part in parts for concept in part.get("concept", [])]


def test_the_page_of_codes_lists_each_unconfirmed_code_with_its_sets_and_orders() -> None:
    used = {
        (concept["code"], name)
        for name, found in value_sets().items()
        for concept in concepts(found)
        if any(x.get("valueCode") == "component-only" for x in concept.get("extension", []))
    }
    unconfirmed = {code for code, _ in used}
    for path in (ROOT / "hooks" / "shared" / "orders").glob("*.json"):
        [coding] = json.loads(path.read_text("utf-8"))["code"]["coding"]
        used |= {(coding["code"], path.stem)} if coding["code"] in unconfirmed else set()
    listed = tables(CODES, "Codes not fully confirmed")[0]
    assert {(code, name) for code, _, places in listed for name in quoted(places)} == used


def test_no_set_holds_a_code_that_the_page_calls_left_out_or_too_vague() -> None:
    out = tables(CODES, "Codes not fully confirmed")[1] + tables(CODES, "Codes that count only")[0]
    assert len(out) == 15
    shipped = {concept["code"] for found in value_sets().values() for concept in concepts(found)}
    assert {row[0] for row in out} & shipped == set()


def test_the_page_of_codes_names_the_sets_that_have_no_code() -> None:
    without = {name for name, x in value_sets().items() if not x.get("compose", {}).get("include")}
    [listed] = tables(CODES, "By text alone")
    assert {name for _, names in listed for name in quoted(names)} == without


def test_the_page_of_codes_names_the_systems_in_use() -> None:
    listed = {quoted(row[1])[0] for row in tables(CODES, "Systems")[0]}
    parts = [
        x for found in value_sets().values() for x in found.get("compose", {}).get("include", [])
    ]
    assert listed == {part["system"] for part in parts} | {"http://unitsofmeasure.org"}

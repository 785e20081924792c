"""The report, the export and the purge, over a store whose rows are known."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from cds_service.cli import group
from cds_service.clients import Caller
from cds_service.feedback import Feedback, parse_feedback
from cds_service.issued import IssuedCards
from cds_service.store import CARD, CHARTS_SEEN, OVERRIDE, TABLES, Store
from tests.databases import Databases, opened
from tests.exchanges import Json

requirement = pytest.mark.requirement
NORTH, SOUTH = Caller("https://ehr.example", "north"), Caller("https://ehr.example", "south")
PATIENT, USER = "f" * 64, "e" * 64


@dataclass(frozen=True)
class Kept:
    """A store that is written to as the server does, on days of the test's own."""

    url: str
    store: Store

    def issue(self, day: str, *ids: str, topic: str = "t1", **more: Any) -> None:
        row = {
            **{"issuer": NORTH.issuer, "tenant": NORTH.tenant, "service": "s", "topic": topic},
            **{"variant": "v", "indicator": "info", "shadow": False, "content": "c" * 64},
            **{"patient": PATIENT, "asked_by": USER, "evidence": "{}"},
            **{"suggestions": '{"s1":"order-one"}', "issued": _milliseconds(day)},
        }
        with self.store.writing() as connection:
            connection.execute(CARD.insert(), [{**row, **more, "id": x} for x in ids])

    def see(self, day: str, times: int, issuer: str = "i", content: str = "c" * 64) -> None:
        row = {"day": day, "issuer": issuer, "service": "s", "content": content, "count": times}
        with self.store.writing() as connection:
            connection.execute(CHARTS_SEEN.insert(), row)

    def hear(self, day: str, *items: Json, caller: Caller = NORTH) -> None:
        at = datetime.fromisoformat(f"{day}T12:00:00+00:00")
        feedback = Feedback(self.store, IssuedCards(self.store, b"s" * 32), lambda: at)
        heard = parse_feedback(json.dumps({"feedback": items}).encode())
        feedback.take("s", heard, caller)

    def said(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code == 0, found.output
        return found.stdout

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(group, [*arguments, "--store", self.url])

    def counts(self) -> dict[str, int]:
        with self.store.reading() as connection:
            return {
                x.name: connection.execute(select(func.count()).select_from(x)).scalar_one()
                for x in TABLES.sorted_tables
            }


def _milliseconds(day: str) -> int:
    return int(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp() * 1000)


def accepted(card: str, at: str, suggestion: str = "s1") -> Json:
    named = [{"id": suggestion}]
    said = {"card": card, "outcome": "accepted", "acceptedSuggestions": named}
    return {**said, "outcomeTimestamp": f"{at}:00Z"}


def aside(card: str, at: str, code: str = "", comment: str = "", system: str = "") -> Json:
    coding = {"code": code, **({"system": system} if system else {})}
    why: Json = {"reason": coding} if code else {}
    why |= {"userComment": comment} if comment else {}
    said = {"card": card, "outcome": "overridden", "overrideReason": why}
    return {**said, "outcomeTimestamp": f"{at}:00Z"}


@pytest.fixture
def kept(databases: Databases) -> Iterator[Kept]:
    url = databases.migrated()
    with opened(url) as store:
        yield Kept(url, store)


# -- counting ----------------------------------------------------------------------------------


def _report(kept: Kept, *arguments: str) -> list[Json]:
    found: list[Json] = json.loads(kept.said("report", "--format", "json", *arguments))
    return found


@requirement("FBK-11")
def test_of_each_card_the_last_outcome_counts_and_silence_is_no_refusal(kept: Kept) -> None:
    kept.see("2026-01-01", 90)
    kept.see("2026-01-02", 10)
    kept.see("2026-01-02", 7, issuer="another")
    kept.see("2026-01-02", 1000, content="d" * 64)
    kept.issue("2026-01-01", *(f"c{n}" for n in range(8)))
    kept.issue("2026-01-01", "shadow-1", "shadow-2", shadow=True)
    kept.issue("2026-01-01", "o1", topic="t2", content="d" * 64)
    kept.hear(
        "2026-01-02",
        aside("c0", "2026-01-01T10:00", "taken-back"),
        accepted("c0", "2026-01-01T11:00"),
        accepted("c1", "2026-01-01T11:00"),
        accepted("c1", "2026-01-01T11:00", "s2"),
        accepted("c2", "2026-01-01T10:00"),
        aside("c3", "2026-01-01T10:00"),
        aside("c4", "2026-01-01T10:00", "later", "words"),
        aside("c5", "2026-01-01T10:00", "later", system="urn:theirs"),
        aside("unknown", "2026-01-01T10:00", "later"),
    )
    kept.hear("2026-02-01", aside("c2", "2026-01-31T10:00", "later"))  # whenever it came
    kept.hear("2026-01-02", accepted("c6", "2026-01-01T10:00"), caller=SOUTH)  # not theirs
    assert _report(kept) == [
        {
            **{"topic": "t1", "service": "s", "content": "c" * 64, "chartsSeen": 107},
            **{"cards": 8, "shadowCards": 2, "accepted": 2, "unanswered": 2},
            "overridden": {"later": 2, "no reason given": 1, "urn:theirs|later": 1},
            "acceptance": "2 of 8",
        },
        {
            **{"topic": "t2", "service": "s", "content": "d" * 64, "chartsSeen": 1000},
            **{"cards": 1, "shadowCards": 0, "accepted": 0, "unanswered": 1},
            **{"overridden": {}, "acceptance": "0 of 1"},
        },
    ]


def test_the_days_are_both_included_and_those_of_the_cards(kept: Kept) -> None:
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        kept.issue(day, f"card of {day}")
        kept.see(day, 5)
    cases = {
        (): (3, 15),
        ("--from", "2026-01-02"): (2, 10),
        ("--to", "2026-01-02"): (2, 10),
        ("--from", "2026-01-02", "--to", "2026-01-02"): (1, 5),
        ("--from", "0001-01-01", "--to", "9999-12-31"): (3, 15),
    }
    for arguments, expected in cases.items():
        [line] = _report(kept, *arguments)
        assert (line["cards"], line["chartsSeen"]) == expected
    assert _report(kept, "--from", "2026-01-04") == []


def test_a_table_and_csv_say_the_same(kept: Kept) -> None:
    kept.see("2026-01-01", 3)
    kept.issue("2026-01-01", "a", "b")
    kept.hear("2026-01-01", aside("a", "2026-01-01T10:00", "=1+1"))
    [row] = csv.DictReader(io.StringIO(kept.said("report", "--format", "csv")))
    assert (row["topic"], row["content"], row["charts seen"]) == ("t1", "c" * 12, "3")
    assert (row["overridden"], row["reasons"], row["acceptance"]) == ("1", "'=1+1: 1", "0 of 2")
    heading, line = kept.said("report").splitlines()
    assert heading.split()[:3] == ["topic", "service", "content"]
    assert line.split()[0] == "t1" and line.endswith("0 of 2")


def test_what_a_client_sent_does_not_steer_the_terminal(kept: Kept) -> None:
    kept.issue("2026-01-01", "a")
    kept.hear("2026-01-01", aside("a", "2026-01-01T10:00", "x\x1b[2J\ny", "\x1b]0;t\x07"))
    for arguments in ((), ("--feedback", "--comments")):
        assert "\x1b" not in kept.said("report", *arguments)
        assert len(kept.said("report", *arguments).splitlines()) == 2


# -- exporting ---------------------------------------------------------------------------------


def test_the_export_has_what_happened_to_which_card_and_no_patient(kept: Kept) -> None:
    kept.issue("2026-01-01", "a")
    kept.hear(
        "2026-01-02",
        aside("a", "2026-01-01T10:00", "later", "words"),
        accepted("a", "2026-01-01T11:30"),
        accepted("unknown", "2026-01-01T12:00", "their-suggestion"),
    )
    said = kept.said("report", "--feedback", "--format", "json")
    assert PATIENT not in said and "words" not in said
    found = sorted(json.loads(said), key=lambda x: x["time"])
    first = found[0]
    assert (first["intervention"], first["variant"], first["card"]) == ("t1", "v", "a")
    assert (first["action"], first["reason"], first["user"]) == ("overridden", "later", USER)
    assert (first["date"], first["time"]) == ("2026-01-01", "10:00:00.000000Z")
    assert first["location"] == "https://ehr.example north"
    assert first["received"] == "2026-01-02T12:00:00.000Z"
    assert [x["suggestion"] for x in found] == ["", "order-one", "their-suggestion"]
    assert (found[2]["intervention"], found[2]["user"]) == ("", "")


def test_comments_are_in_it_when_they_are_asked_for(kept: Kept) -> None:
    kept.issue("2026-01-01", "a")
    kept.hear("2026-01-02", aside("a", "2026-01-01T10:00", comment='@one, "two"\nthree'))
    [plain] = csv.DictReader(io.StringIO(kept.said("report", "--feedback", "--format", "csv")))
    assert "comment" not in plain and PATIENT not in str(plain)
    arguments = ("report", "--feedback", "--comments", "--format")
    [row] = csv.DictReader(io.StringIO(kept.said(*arguments, "csv")))
    assert row == {**plain, "comment": '\'@one, "two"\nthree'}
    [whole] = json.loads(kept.said(*arguments, "json"))
    assert whole["comment"] == '@one, "two"\nthree'


def test_the_export_is_of_the_days_on_which_it_came_in(kept: Kept) -> None:
    kept.hear("2026-01-02", aside("a", "2020-01-01T10:00"))
    kept.hear("2026-01-03", aside("b", "2020-01-01T10:00"))
    found = kept.said("report", "--feedback", "--format", "json", "--from", "2026-01-03")
    assert [x["card"] for x in json.loads(found)] == ["b"]


# -- ending ------------------------------------------------------------------------------------


def _day(days_ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days_ago)).date().isoformat()


def test_purge_deletes_what_is_older_and_says_how_much(kept: Kept) -> None:
    old, young = _day(800), _day(700)
    for day, name in ((old, "old"), (young, "young")):
        kept.issue(day, name)
        kept.see(day, 1)
        kept.hear(day, aside(name, "2026-01-01T10:00", "later", name))
    kept.store.use_token("i", "over", _milliseconds(_day(1)))
    kept.store.use_token("i", "valid", _milliseconds(_day(-1)))
    assert set(kept.counts().values()) == {2}
    assert kept.said("purge", "--older-than", "730d").splitlines() == [
        *("1 tokens", "1 comments", "1 feedback", "1 overrides", "1 cards", "1 tallies")
    ]
    assert set(kept.counts().values()) == {1}
    left = [*_all(kept, CARD), *_all(kept, OVERRIDE), *_all(kept, CHARTS_SEEN)]
    assert "old" not in str(left) and "young" in str(left)
    assert not kept.store.use_token("i", "valid", 1)
    assert "0 cards" in kept.said("purge", "--older-than", "730d")


def _all(kept: Kept, table: Any) -> list[Mapping[str, Any]]:
    with kept.store.reading() as connection:
        return [dict(x) for x in connection.execute(select(table)).mappings()]


def test_purge_deletes_more_than_goes_at_once(kept: Kept) -> None:
    kept.issue(_day(800), *(f"c{n}" for n in range(4100)))
    assert "4100 cards" in kept.said("purge", "--older-than", "730d")
    assert kept.counts()["card"] == 0


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "--comments"),
        ("report", "--from", "yesterday"),
        ("report", "--format", "xml"),
        ("purge",),
        ("purge", "--older-than", "730"),
        ("purge", "--older-than", "-1d"),
        ("purge", "--older-than", "2y"),
    ],
)
def test_what_cannot_be_meant_is_refused(kept: Kept, arguments: tuple[str, ...]) -> None:
    assert kept.run(*arguments).exit_code == 2


def test_a_store_that_is_none_or_has_no_tables_is_refused(databases: Databases) -> None:
    refused = CliRunner().invoke(group, ["report", "--store", "mysql://db/x"])
    assert refused.exit_code == 2 and "sqlite: or postgresql:" in refused.output
    for command in (["report"], ["purge", "--older-than", "1d"]):
        url = databases.empty()
        if databases.kind == "sqlite":
            file = Path(url.removeprefix("sqlite:///"))
            refused = CliRunner().invoke(group, [*command, "--store", url])
            assert refused.exit_code == 2 and "no such file" in refused.output
            assert not file.exists()  # a name that was misspelt is no new store
            file.touch()
        refused = CliRunner().invoke(group, [*command, "--store", url])
        assert "cds-service migrate" in str(refused.exception)

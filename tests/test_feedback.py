"""Feedback through a real server: what is taken, what is refused as a whole, what is kept of it,
and what follows.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import sample
from threading import Timer
from typing import Any
from uuid import uuid4

import pytest
import requests
from sqlalchemy import Table, select

from cds_service.cards import OVERRIDE_REASONS
from cds_service.clients import ANYBODY, Caller
from cds_service.errors import BrokenRequest, StoreDown
from cds_service.feedback import Feedback, parse_feedback
from cds_service.issued import IssuedCards
from cds_service.store import CARD, CHARTS_SEEN, COMMENT, FEEDBACK, OVERRIDE, TABLES, Store
from tests.databases import Databases, opened
from tests.exchanges import SERVICE, Json, now, request
from tests.invariants import faults
from tests.loopback import Running, running, wait_until
from tests.test_openapi import holds

requirement = pytest.mark.requirement
PATH = f"{SERVICE}/feedback"
AT = "2026-05-04T09:31:07Z"
HERE = "clinician's own words"


def accepted(card: str, *suggestions: str, **more: Any) -> Json:
    named = [{"id": x} for x in suggestions or ("s1",)]
    return item(card, outcome="accepted", acceptedSuggestions=named, **more)


def overridden(card: str, code: str = "", comment: str = "", **more: Any) -> Json:
    why: Json = {"reason": {"code": code}} if code else {}
    why |= {"userComment": comment} if comment else {}
    return item(card, **({"overrideReason": why} if why else {}), **more)


def item(card: str, **more: Any) -> Json:
    return {"card": card, "outcome": "overridden", "outcomeTimestamp": AT, **more}


def said(*items: Any) -> bytes:
    return json.dumps({"feedback": items}).encode()


@dataclass(frozen=True)
class Served:
    """A server with a store of its own."""

    server: Running
    store: Store

    def post(self, body: bytes, path: str = PATH, **headers: str) -> requests.Response:
        headers = {"Content-Type": "application/json", **headers}
        answer = requests.post(self.server.url + path, body, headers=headers, timeout=30)
        found = faults("POST", path, answer.status_code, answer.headers, answer.content)
        assert not found, found
        return answer

    def takes(self, *items: Json) -> tuple[int, int]:
        """What is said to have been stored, and to have been before."""
        answer = self.post(said(*items))
        assert answer.status_code == 200, answer.text
        return answer.json()["stored"], answer.json()["repeated"]

    def refuses(self, body: bytes, status: int = 422) -> str:
        """Why a body is refused; nothing is stored then."""
        before = self.rows(FEEDBACK)
        answer = self.post(body)
        assert answer.status_code == status, answer.text
        assert self.rows(FEEDBACK) == before
        issue = answer.json()["issue"][0]
        return f"{issue['details']['text']} {issue.get('diagnostics', '')}"

    def card(self, record: str = "") -> Json:
        """A card that the server has just given, for a patient of that record system; of one that
        nobody else asks for when none is named, so that no card is silent.
        """
        server = f"https://ehr.example/{record or uuid4()}"
        answer = self.post(json.dumps({**request(), "fhirServer": server}).encode(), SERVICE)
        found: Json = answer.json()["cards"][0]
        return found

    def rows(self, table: Table, **where: str) -> list[Mapping[str, Any]]:
        return rows(self.store, table, **where)


def rows(store: Store, table: Table, **where: str) -> list[Mapping[str, Any]]:
    asked = select(table).where(*(table.c[x] == value for x, value in where.items()))
    asked = asked.order_by(*table.primary_key)
    with store.reading() as connection:
        return [dict(x) for x in connection.execute(asked).mappings()]


@pytest.fixture(scope="module")
def served(databases: Databases) -> Iterator[Served]:
    url = databases.migrated()
    with running("--workers", "2", CDS_STORE=url) as server, opened(url) as store:
        yield Served(server, store)


@pytest.fixture
def store(databases: Databases) -> Iterator[Store]:
    with opened(databases.migrated()) as found:
        yield found


# -- the envelope ------------------------------------------------------------------------------


@requirement("FBK-01", "FBK-02", "FBK-09")
def test_an_envelope_is_taken_and_answered_with_how_many(served: Served) -> None:
    assert served.takes(accepted("e1"), overridden("e2")) == (2, 0)
    assert served.takes() == (0, 0)
    assert served.takes(accepted("e3", extension={"com.vendor.x": 1}), overridden("e2")) == (1, 1)


@requirement("FBK-02")
@pytest.mark.parametrize(
    "body", [item("x"), [item("x")], {"feedback": item("x")}, {}, "x", None, 1]
)
def test_what_is_no_envelope_is_refused(served: Served, body: Any) -> None:
    assert "feedback" in served.refuses(json.dumps(body).encode())


@requirement("FBK-02")
@pytest.mark.parametrize(
    "body",
    [
        b'{"feedback": [',
        b"",
        b'{"feedback": [], "feedback": []}',
        b'{"feedback": [{"card": "a", "card": "b"}]}',
        b'{"feedback": [], "n": NaN}',
        b'{"feedback": [], "n": "\xff"}',
        b'{"feedback": ' + b"[" * 5000,
    ],
)
def test_what_is_not_json_of_one_meaning_is_400(served: Served, body: bytes) -> None:
    served.refuses(body, 400)


@requirement("FBK-01", "FBK-09")
def test_an_unknown_service_is_404_and_another_media_type_415(served: Served) -> None:
    assert served.post(said(item("x")), "/cds-services/nope/feedback").status_code == 404
    assert served.post(said(item("x")), **{"Content-Type": "text/plain"}).status_code == 415
    answer = requests.get(served.server.url + PATH, timeout=10)
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]


# -- items -------------------------------------------------------------------------------------

WRONG: dict[str, list[Any]] = {
    "card": [None, "", " ", 1, {}, "c" * 129, "a\0b"],
    "outcome": [None, "", "ignored", "Accepted", 1, ["accepted"]],
    "outcomeTimestamp": [
        *(None, "", "yesterday", 1777887067, "2026-05-04", "2026-05-04T09:31:07"),
        *("2026-05-04T09:31Z", "2026-02-30T09:31:07Z", "2026-05-04T25:31:07Z"),
        *("2026-05-04T09:31:61Z", "0000-01-01T00:00:00Z", "2026-05-04T09:31:07+0200"),
        *("0001-01-01T00:00:00+14:00", "2026-05-04T09:31:07Z\n"),
    ],
}


@requirement("FBK-03")
@pytest.mark.parametrize(
    ("member", "value"),
    [(member, value) for member, values in WRONG.items() for value in values],
)
def test_a_member_that_is_missing_or_no_such_thing_is_named_with_its_place(
    served: Served, member: str, value: Any
) -> None:
    wrong = {**item("x"), member: value}
    for body in (said(overridden("y"), wrong), said(overridden("y"), wrong, overridden("z"))):
        why = served.refuses(body)
        assert "[1]" in why and member in why
    del wrong[member]
    assert f"`{member}` - at `$.feedback[1]`" in served.refuses(said(overridden("y"), wrong))


@requirement("FBK-03")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-05-04T09:31:07Z", "2026-05-04T09:31:07.000000Z"),
        ("2026-05-04t09:31:07.25z", "2026-05-04T09:31:07.250000Z"),
        ("2026-05-04T09:31:07.1234567Z", "2026-05-04T09:31:07.123456Z"),
        ("2026-05-04T00:31:07+02:00", "2026-05-03T22:31:07.000000Z"),
        ("2026-05-04T23:31:07.5-05:30", "2026-05-05T05:01:07.500000Z"),
        ("2026-05-04T09:31:07-00:00", "2026-05-04T09:31:07.000000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
    ],
)
def test_a_moment_of_any_zone_is_kept_in_utc(served: Served, given: str, kept: str) -> None:
    card = f"at {given}"
    assert served.takes(accepted(card, outcomeTimestamp=given)) == (1, 0)
    assert [x["outcome_at"] for x in served.rows(FEEDBACK, card=card)] == [kept]
    assert served.takes(accepted(card, outcomeTimestamp=kept)) == (0, 1)


@requirement("FBK-04")
@pytest.mark.parametrize(
    "suggestions",
    [None, [], ["s1"], {"id": "s1"}, [{}], [{"id": ""}], [{"id": 1}], [{"id": "s"}] * 101],
)
def test_an_accepted_card_names_what_was_accepted(served: Served, suggestions: Any) -> None:
    wrong = item("x", outcome="accepted", acceptedSuggestions=suggestions)
    why = served.refuses(said(wrong))
    assert "feedback[0]" in why and "acceptedSuggestions" in why


@requirement("FBK-04")
def test_every_suggestion_that_was_accepted_is_kept(served: Served) -> None:
    assert served.takes(accepted("many", "s1", "s2", "no UUID")) == (1, 0)
    assert served.takes(accepted("many", "s3", "s2")) == (1, 0)  # the third is new
    assert served.takes(accepted("many", "s2")) == (0, 1)
    found = [x["suggestion"] for x in served.rows(FEEDBACK, card="many")]
    assert sorted(found) == ["no UUID", "s1", "s2", "s3"]


WHYS: list[tuple[Json, str, str, str]] = [  # what is said; the list, the reason and the words kept
    ({}, "", "", ""),
    ({"overrideReason": None}, "", "", ""),
    ({"overrideReason": {}}, "", "", ""),
    ({"overrideReason": {"reason": {"code": "later"}}}, "", "later", ""),
    ({"overrideReason": {"reason": {"code": "later", "system": "x"}}}, "x", "later", ""),
    ({"overrideReason": {"reason": {"code": "?", "display": "Why"}}}, "", "?", ""),
    ({"overrideReason": {"userComment": HERE}}, "", "", HERE),
    ({"overrideReason": {"reason": {"code": "a"}, "userComment": HERE}}, "", "a", HERE),
    ({"overrideReason": {"userComment": "  "}}, "", "", ""),
    ({"overrideReason": {"userComment": "é" * 4000}}, "", "", "é" * 4000),
    (
        {
            "overrideReasons": {
                "reason": {"code": "a", "extension": {"com.vendor.id": 7}},
                "userComment": HERE,
                "extension": {"com.vendor.role": "x"},
            }
        },
        *("", "a", HERE),
    ),
]


@requirement("FBK-05", "FBK-06")
def test_a_card_may_be_set_aside_with_or_without_a_reason_of_any_list(served: Served) -> None:
    items = [item(f"why {n}", **why) for n, (why, *_) in enumerate(WHYS)]
    assert served.takes(*items) == (len(WHYS), 0)
    for n, (why, system, code, comment) in enumerate(WHYS):
        [found] = served.rows(FEEDBACK, card=f"why {n}")
        assert (found["reason_system"], found["reason"]) == (system, code), why
        kept = [x["text"] for x in served.rows(COMMENT, feedback=found["id"])]
        assert kept == ([comment] if comment else []), why


@requirement("FBK-06", "FBK-12")
@pytest.mark.parametrize("name", ["overrideReason", "overrideReasons"])
@pytest.mark.parametrize(
    ("why", "member"),
    [
        ({"reason": "later"}, "reason"),
        ({"reason": {}}, "code"),
        ({"reason": {"code": ""}}, "reason.code"),
        ({"reason": {"code": 1}}, "reason.code"),
        ({"reason": {"code": "c" * 129}}, "reason.code"),
        ({"reason": {"code": "c", "system": "s" * 1001}}, "reason.system"),
        ({"reason": [{"code": "later"}]}, "reason"),
        ({"userComment": {"text": "x"}}, "userComment"),
        ({"userComment": "x" * 4001}, "userComment"),
        ({"userComment": "a\0b"}, "userComment"),
        ("later", ""),
        ([{"reason": {"code": "later"}}], ""),
    ],
)
def test_a_reason_that_is_no_such_thing_is_named(
    served: Served, name: str, why: Any, member: str
) -> None:
    refused = served.refuses(said(overridden("y"), item("x", **{name: why})))
    assert "feedback[1]" in refused and name in refused and member in refused


# -- all or nothing, again and again -----------------------------------------------------------


@requirement("FBK-08")
def test_one_wrong_item_refuses_all_and_nothing_is_stored(served: Served) -> None:
    many = [overridden(f"whole {n}") for n in range(50)]
    why = served.refuses(said(*many, item("x", outcome="ignored")))
    assert "none of it was stored" in why and "feedback[50].outcome" in why
    assert served.rows(FEEDBACK, card="whole 0") == []
    assert served.takes(*many) == (50, 0)


@requirement("FBK-07", "FBK-08")
def test_a_card_may_be_reported_again_and_after_it_was_set_aside(served: Served) -> None:
    first, later = overridden("again"), accepted("again", outcomeTimestamp="2026-05-04T10:00:00Z")
    assert [served.takes(first) for _ in range(3)] == [(1, 0), (0, 1), (0, 1)]
    assert served.takes(later, first, later) == (1, 2)
    assert served.takes(overridden("again", outcomeTimestamp="2026-05-04T11:00:00Z")) == (1, 0)
    assert [x["outcome"] for x in served.rows(FEEDBACK, card="again")] == [
        *("overridden", "accepted", "overridden")
    ]


@requirement("FBK-07")
def test_what_was_said_first_stays(served: Served) -> None:
    served.takes(overridden("first", "later", HERE))
    assert served.takes(overridden("first", "other", "something else")) == (0, 1)
    [found] = served.rows(FEEDBACK, card="first")
    assert found["reason"] == "later"
    assert [x["text"] for x in served.rows(COMMENT, feedback=found["id"])] == [HERE]


@requirement("FBK-07")
def test_a_thousand_items_are_taken_and_one_more_is_not(served: Served) -> None:
    thousand = [accepted(f"of many {n}") for n in range(1000)]
    assert served.takes(*thousand) == (1000, 0)
    assert "1000" in served.refuses(said(*thousand, accepted("one more")))


@requirement("FBK-07")
def test_many_who_report_the_same_at_once_are_all_answered(served: Served) -> None:
    items = [overridden(f"at once {n}", comment=HERE) for n in range(200)]
    orders = [sample(items, len(items)) for _ in range(8)]
    with ThreadPoolExecutor(len(orders)) as threads:
        taken = [*threads.map(lambda order: served.takes(*order), orders)]
    assert sum(stored for stored, _ in taken) == len(items)
    assert sum(repeated for _, repeated in taken) == 7 * len(items)


@requirement("FBK-12")
def test_a_body_of_a_megabyte_is_413(served: Served) -> None:
    served.refuses(said(overridden("x", comment="x" * 1_000_000)), 413)


@requirement("FBK-12")
def test_half_a_character_in_a_comment_is_no_reason_to_lose_it(served: Served) -> None:
    body = said(overridden("half", comment="cut ")).replace(b"cut ", b"cut \\ud83d")
    assert served.post(body).status_code == 200
    [found] = served.rows(FEEDBACK, card="half")
    assert [x["text"] for x in served.rows(COMMENT, feedback=found["id"])] == ["cut \ufffd"]


@requirement("FBK-12")
def test_what_a_user_wrote_is_in_no_log_no_error_and_no_other_table(served: Served) -> None:
    words = "Mrs Unmistakable refuses"
    served.takes(overridden("private", "later", words))
    for wrong in (
        item("x", overrideReason={"userComment": [words]}),
        item("x", overrideReason={"userComment": words * 200}),
        item("x", outcome=words, overrideReason={"userComment": words}),
        {**item("x"), "card": None, "overrideReason": {"userComment": words}},
    ):
        assert words not in served.refuses(said(wrong))
    assert words not in served.server.output
    held = {x.name for x in TABLES.sorted_tables if words in str(served.rows(x))}
    assert held == {"comment"}


# -- what follows ------------------------------------------------------------------------------


def test_a_card_is_kept_with_what_it_was_and_for_whom(served: Served) -> None:
    card = served.card()
    wait_until(lambda: bool(served.rows(CARD, id=card["uuid"])), "the card is not written")
    [row] = served.rows(CARD, id=card["uuid"])
    assert (row["topic"], row["indicator"]) == (card["source"]["topic"]["code"], card["indicator"])
    assert (row["issuer"], row["tenant"], row["service"]) == ("", "", "alp-review")
    assert row["variant"] and not row["shadow"] and json.loads(row["evidence"]) is not None
    assert len(row["content"]) == 64 and abs(row["issued"] / 1000 - time.time()) < 60
    orders = json.loads(row["suggestions"])
    assert list(orders) == [x["uuid"] for x in card["suggestions"]] and "plp" in orders.values()
    assert "p1" not in row["patient"] and len({row["patient"], row["asked_by"], ""}) == 3
    assert "Practitioner" not in str(row)


def test_of_the_same_patient_and_user_every_worker_keeps_the_same_keys(served: Served) -> None:
    cards = {served.card("main")["uuid"] for _ in range(12)}
    wait_until(lambda: cards <= {x["id"] for x in served.rows(CARD)}, "the cards are not written")
    kept = [x for x in served.rows(CARD) if x["id"] in cards]
    assert len({(x["patient"], x["asked_by"]) for x in kept}) == 1


@requirement("FBK-13")
def test_a_card_set_aside_is_an_override_at_once_whichever_worker_hears(served: Served) -> None:
    for n in range(8):
        card = served.card()
        assert served.takes(overridden(card["uuid"], "later", HERE if n % 2 else "")) == (1, 0)
        [row] = served.rows(OVERRIDE, card=card["uuid"])
        [issued] = served.rows(CARD, id=card["uuid"])
        copied = ("issuer", "tenant", "patient", "topic", "asked_by", "evidence")
        assert [row[x] for x in copied] == [issued[x] for x in copied]
        assert (row["reason"], row["commented"]) == ("later", bool(n % 2))
        assert abs(row["began"] / 1000 - time.time()) < 60


def test_a_repeated_item_is_no_second_override(served: Served) -> None:
    uuid = served.card()["uuid"]
    served.takes(overridden(uuid, "later"), overridden(uuid, "later"))
    served.takes(overridden(uuid, "later"))
    assert len(served.rows(OVERRIDE, card=uuid)) == 1


@requirement("FBK-05")
@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ({}, ""),
        ({"reason": {"code": "later"}}, "later"),
        ({"reason": {"code": "later", "system": OVERRIDE_REASONS}}, "later"),
        ({"reason": {"code": "later", "system": "urn:theirs"}}, "urn:theirs|later"),
    ],
)
def test_the_reason_of_an_override_is_ours_or_is_told_from_ours(
    served: Served, reason: Json, kept: str
) -> None:
    uuid = served.card()["uuid"]
    served.takes(item(uuid, overrideReason=reason))
    assert [x["reason"] for x in served.rows(OVERRIDE, card=uuid)] == [kept]


@requirement("FBK-08", "FBK-11")
def test_an_accepted_card_one_that_nobody_speaks_of_and_one_unknown_are_no_overrides(
    served: Served,
) -> None:
    before = len(served.rows(OVERRIDE))
    served.card()
    card = served.card()
    served.takes(accepted(card["uuid"], card["suggestions"][0]["uuid"]), overridden("unknown"))
    assert len(served.rows(OVERRIDE)) == before


def test_a_card_of_shadow_mode_is_kept_and_not_shown(databases: Databases) -> None:
    url = databases.migrated()
    arguments = ("--topic-mode", "lowAlpPersistent=shadow")
    with running(*arguments, CDS_STORE=url) as server, opened(url) as store:
        served = Served(server, store)
        answer = served.post(json.dumps(request()).encode(), SERVICE).json()
        wait_until(lambda: bool(rows(store, CARD)), "the card is not written")
        served.post(json.dumps(request()).encode(), SERVICE.replace("cds-services", "explain"))
    assert answer == {"cards": []}
    [row] = rows_of(url, CARD)
    assert (row["topic"], bool(row["shadow"]), row["suggestions"]) == (
        *("lowAlpPersistent", True),
        "{}",
    )
    assert row["id"].startswith("shadow-")
    assert [x["count"] for x in rows_of(url, CHARTS_SEEN)] == [1]  # an explanation is none


def rows_of(url: str, table: Table) -> list[Mapping[str, Any]]:
    with opened(url) as store:
        return rows(store, table)


def test_a_worker_that_is_told_to_end_writes_what_waits(databases: Databases) -> None:
    url = databases.migrated()
    with running("--workers", "2", CDS_STORE=url) as server, opened(url) as store:
        cards = {Served(server, store).card()["uuid"] for _ in range(3)}
    assert {x["id"] for x in rows_of(url, CARD)} == cards
    assert sum(x["count"] for x in rows_of(url, CHARTS_SEEN)) == 3


def _card(uuid: str, caller: Caller = ANYBODY, shadow: bool = False) -> Json:
    names = ("service", "topic", "variant", "indicator", "content", "asked_by", "evidence")
    more = {"shadow": shadow, "suggestions": "{}", "patient": "pk", "issued": 0}
    whose = {"issuer": caller.issuer, "tenant": caller.tenant}
    return {"id": uuid, **whose, **dict.fromkeys(names, "x"), **more}


def _insert(store: Store, *cards: Json) -> None:
    with store.writing() as connection:
        connection.execute(CARD.insert(), list(cards))


def test_only_cards_of_the_same_issuer_and_tenant_are_acted_on(store: Store) -> None:
    mine, other = Caller("https://ehr.example", "north"), Caller("https://ehr.example", "south")
    stranger = Caller("https://other.example", "north")
    _insert(store, _card("mine", mine), _card("other", other), _card("shade", mine, shadow=True))
    _insert(store, _card("strange", stranger))
    feedback = Feedback(store, IssuedCards(store, b"s" * 32), now)
    cards = ("mine", "other", "shade", "strange")
    taken = feedback.take("alp-review", parse_feedback(said(*map(overridden, cards))), mine)
    assert (taken.stored, taken.repeated) == (4, 0)
    assert [(x["card"], x["tenant"]) for x in rows(store, OVERRIDE)] == [("mine", "north")]
    again = feedback.take("alp-review", parse_feedback(said(*map(overridden, cards))), other)
    assert (again.stored, again.repeated) == (4, 0)  # the same words of somebody else
    assert [x["card"] for x in rows(store, OVERRIDE, tenant="south")] == ["other"]


def test_a_card_that_another_worker_is_about_to_write_is_found(store: Store) -> None:
    late = Timer(0.15, _insert, (store, _card("late")))
    late.start()
    feedback = Feedback(store, IssuedCards(store, b"s" * 32), now)
    feedback.take("alp-review", parse_feedback(said(overridden("late"))), ANYBODY)
    late.join()
    assert [x["card"] for x in rows(store, OVERRIDE)] == ["late"]


def test_a_card_that_waits_in_this_worker_is_written_before_it_is_looked_for(store: Store) -> None:
    issued = IssuedCards(store, b"s" * 32)
    issued._take([_card("waiting")])  # and no thread that would write it
    issued._charts[("2026-01-01", "", "s", "c")] += 1
    Feedback(store, issued, now).take(
        "alp-review", parse_feedback(said(overridden("waiting"))), ANYBODY
    )
    assert [x["card"] for x in rows(store, OVERRIDE)] == ["waiting"]


def test_a_card_that_was_set_aside_and_accepted_at_once_is_one_override(store: Store) -> None:
    _insert(store, _card("both"))
    feedback = Feedback(store, IssuedCards(store, b"s" * 32), now)
    feedback.take(
        "alp-review", parse_feedback(said(overridden("both", "later"), accepted("both"))), ANYBODY
    )
    assert [x["reason"] for x in rows(store, OVERRIDE)] == ["later"]


# -- the store is down -------------------------------------------------------------------------


def test_while_another_keeps_the_file_locked_feedback_is_503_and_cards_go_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.sqlite"
    url = Databases("sqlite", tmp_path).migrated().replace("store0", "store")
    (tmp_path / "store0.sqlite").rename(path)
    with running(CDS_STORE=url) as server, opened(url) as store:
        served = Served(server, store)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            waiting = served.card()["uuid"]
            assert time.monotonic() - started < 4
            _is_down(served.post(said(overridden("x", comment=HERE))))
            other.execute("ROLLBACK")
        assert served.takes(overridden("x"), overridden(waiting)) == (2, 0)
        assert [x["card"] for x in served.rows(OVERRIDE)] == [waiting]
        assert "cards issued wait" in server.output and HERE not in server.output


def test_with_a_file_that_may_only_be_read_feedback_is_503_and_cards_go_on(
    tmp_path: Path,
) -> None:
    url = Databases("sqlite", tmp_path).migrated()
    read_only = url.replace("sqlite:///", "sqlite:///file:") + "?mode=ro&uri=true"
    with opened(url) as store, running(CDS_STORE=read_only) as server:
        served = Served(server, store)
        assert served.card()["uuid"]
        _is_down(served.post(said(overridden("x"))))
        _is_down(served.post(said(accepted("x"))))
        assert served.card()["uuid"]
        assert served.rows(FEEDBACK) == served.rows(CARD) == []


def _is_down(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["issue"][0]["code"] == "transient"


def test_cards_that_find_no_room_while_the_store_is_down_are_counted(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/no/such/folder.sqlite") as store:
        issued = IssuedCards(store, b"s" * 32)
        with issued._waiting:
            issued._take([_card(str(n)) for n in range(1990)])
            issued._take([_card(f"late {n}") for n in range(25)])
            issued._charts[("2026-01-01", "", "s", "c")] += 1
        with pytest.raises(StoreDown):
            issued.flush()
        assert (len(issued._cards), issued.dropped, issued._charts.total()) == (2000, 15, 1)


def test_cards_issued_while_others_could_not_be_written_wait_with_them(tmp_path: Path) -> None:
    url = Databases("sqlite", tmp_path).migrated()
    with opened(url) as store, closing(sqlite3.connect(url[10:], isolation_level=None)) as other:
        issued = IssuedCards(store, b"s" * 32)
        issued._take([_card("first")])
        issued._charts[("2026-01-01", "", "s", "c")] += 1
        other.execute("BEGIN IMMEDIATE")
        late = Timer(1, issued._take, ([_card("later")],))
        late.start()
        with pytest.raises(StoreDown):
            issued.flush()
        late.join()
        other.execute("ROLLBACK")
        issued.flush()
        assert [x["id"] for x in rows(store, CARD)] == ["first", "later"]
        assert [x["count"] for x in rows(store, CHARTS_SEEN)] == [1]


def test_a_server_started_without_a_store_says_so(client: Any) -> None:
    answer = client.post(PATH, json={"feedback": []})
    assert answer.status_code == 503
    assert "without a store" in answer.get_json()["issue"][0]["details"]["text"]


# -- reading -----------------------------------------------------------------------------------


def test_moments_sort_as_their_texts_do() -> None:
    given = ["2026-05-04T09:31:07Z", "2026-05-04T09:31:07.5Z", "2026-05-04T11:31:08+02:00"]
    read = [x.at for x in parse_feedback(said(*(item("x", outcomeTimestamp=t) for t in given)))]
    assert read == sorted(read)
    assert [datetime.fromisoformat(x).second for x in read] == [7, 7, 8]


# -- the description ---------------------------------------------------------------------------

BODIES: list[Any] = [
    {"feedback": []},
    {"feedback": [accepted("x"), overridden("y", "later", HERE)]},
    {"feedback": [item("x", overrideReasons={"userComment": HERE, "extension": {"a": 1}})]},
    {"feedback": [item("x", overrideReason={"reason": {"code": "c", "system": None}})]},
    {"feedback": [item("x", overrideReason=None, acceptedSuggestions=None)]},
    *([item("x")], {}, {"feedback": item("x")}),
    *({"feedback": [{**item("x"), "card": x}]} for x in WRONG["card"]),
    *({"feedback": [{**item("x"), "outcome": x}]} for x in WRONG["outcome"]),
    {"feedback": [item("x", outcome="accepted")]},
    {"feedback": [item("x", outcome="accepted", acceptedSuggestions=[])]},
    {"feedback": [item("x", outcome="accepted", acceptedSuggestions=[{"id": " "}])]},
    {"feedback": [item("x", overrideReason={"reason": {}})]},
    {"feedback": [item("x", overrideReason={"userComment": "x" * 4001})]},
    {"feedback": [item("x", overrideReason={"userComment": "x\0"})]},
    {"feedback": [item(str(n)) for n in range(1001)]},
]


@pytest.mark.parametrize("body", BODIES, ids=lambda x: json.dumps(x)[:60])
def test_the_description_allows_what_is_taken_and_nothing_else(client: Any, body: Any) -> None:
    document = client.get("/openapi.json").get_json()
    described = document["paths"][PATH]["post"]
    [schema] = [x["schema"] for x in described["requestBody"]["content"].values()][:1]
    try:
        parse_feedback(json.dumps(body).encode())
    except BrokenRequest:
        assert holds(document, schema, body)
    else:
        assert holds(document, schema, body) == []
    assert {"200", "422", "503"} <= set(described["responses"])

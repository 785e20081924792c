"""The terminal pages: what they say, that they fit the window, and that chart text does no harm."""

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cds_service.terminal import show_cards, show_explanation

WIDTHS = (60, 80, 120)
HOSTILE = (
    "[red]x[/red] \x1b[31m\x1b]0;own\x07 \u202eflip\u2066 \x9b2J\n"
    "fired: forged\r\u2028:smile: \ud800"
)

Json = dict[str, Any]


def page(explanation: Json, width: int = 80, everything: bool = False, **options: Any) -> str:
    console = Console(file=StringIO(), width=width, _environ={}, **options)
    show_explanation(console, explanation, everything)
    return written(console)


def card_page(cards: list[Json], width: int = 80, **options: Any) -> str:
    console = Console(file=StringIO(), width=width, _environ={}, **options)
    show_cards(console, cards)
    return written(console)


def written(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def asked(question: str, answer: str, *because: Json, **entries: Any) -> Json:
    found: Json = {"question": question, "answer": answer, "used": [], "rejected": [], **entries}
    return {**found, "because": list(because)} if because else found


def verdict(topic: str, outcome: str, reason: str, *evidence: Json, **members: str) -> Json:
    about = {"code": "x", "text": reason}
    return {
        "topic": topic,
        "verdict": outcome,
        **members,
        "reason": about,
        "evidence": list(evidence),
    }


def point(value: float, day: int = 1, **members: Any) -> Json:
    """A value in U/L; limits 30 to 130 unless given, none with low=None, high=None."""
    given = {"low": 30, "high": 130, "limit_from": "report", "used": True, **members}
    dated = {"reference": f"Observation/{day}", "date": f"2026-01-{day:02}"}
    return {
        **dated,
        "value": value,
        "shown": f"{value} U/L",
        **{k: v for k, v in given.items() if v is not None},
    }


def rejected_point(shown: str, why: str, day: int = 1) -> Json:
    return {"date": f"2026-01-{day:02}", "used": False, "why": why, "shown": shown}


def charted(*points: Json) -> Json:
    return {"series": [{"measure": "alp", "title": "ALP", "unit": "U/L", "points": list(points)}]}


def lows(count: int) -> list[Json]:
    return [
        {
            "reference": f"Observation/o{n}",
            "date": f"2026-01-{n + 1:02}",
            "value": "28 U/L",
            "limits": "30-130 (report)",
        }
        for n in range(count)
    ]


CARD: Json = {
    "summary": "ALP low on 4 readings",
    "indicator": "warning",
    "detail": "**Why now:** ALP low.\n\n- ALP &lt;28 U/L on 2026-01-15\n- ALP 27 U/L\n\nLOW-2",
    "suggestions": [{"label": "Order PLP"}, {"label": "Order TSH"}],
    "overrideReasons": [{"code": "a", "display": "Already evaluated"}, {"code": "later"}],
    "source": {"label": "ALP review LOW-2", "topic": {"code": "lowAlpPersistent"}},
}
RAISED = verdict("raisedAlp", "not-met", "Is the ALP raised? no", asked("Is the ALP raised?", "no"))
FIRED = verdict(
    "lowAlpPersistent",
    "fired",
    "Every condition held.",
    asked(
        "Persistently low?",
        "yes",
        asked("Latest low?", "yes", used=lows(1)),
        asked("Which count?", "4"),
        used=lows(5),
    ),
    asked("Wilson disease on record?", "no", asked("Copper seen?", "no")),
)
FIRES: Json = {
    "status": 200,
    "cards": [CARD],
    "verdicts": [
        RAISED,
        verdict("tumour", "not-applicable", "Aged 18 or more? no", asked("Aged 18 or more?", "no")),
        verdict("lytic", "data-missing", "Not available: reports."),
        verdict(
            "odd",
            "data-unusable",
            "Latest low? unknown (none usable)",
            asked(
                "Latest low?",
                "unknown",
                rejected=[
                    {"reference": f"Observation/r{n}", "why": "unit not known"} for n in "123"
                ]
                + [{"reference": "Observation/r4", "why": "haemolysed"}],
            ),
        ),
        verdict("lowAlpUnconfirmed", "suppressed", "Held back.", by="lowAlpPersistent"),
        FIRED,
        {**RAISED, "topic": "raisedAlpBone"},
    ],
    "data": [
        {"key": "alp", "state": "answered", "by": "inferred", "used": 4, "skipped": []},
        {"key": "reports", "state": "failed", "used": 0, "skipped": [], "why": "HTTP 500"},
        {
            "key": "labs",
            "state": "answered",
            "by": "prefetch",
            "used": 9,
            "skipped": [
                {"where": "Observation/1", "why": "no code"},
                {"where": "Observation/2", "why": "no code"},
            ],
        },
        {
            "key": "*",
            "state": "answered",
            "by": "prefetch",
            "used": 0,
            "skipped": [{"where": "Observation/o0", "why": "belongs to another patient"}],
        },
    ],
    "content": {"version": "2026.11.0", "hash": "38f50d7dd04c84118d10d1f9dfffd97d8b552fe5a623b3a4"},
    "asOf": "2026-11-24",
    **charted(
        point(28, 1),
        rejected_point("28 arb", "unit not known", 2),
        point(131, 3, comparator=">"),
        point(70, 3, low=None, high=None, shown="1.17 ukat/L"),
    ),
}
QUIET: Json = {
    **FIRES,
    "cards": [],
    "verdicts": [{**RAISED, "topic": f"topic{n}"} for n in range(5)]
    + [FIRES["verdicts"][2]]
    + [
        verdict(
            "low",
            "not-met",
            "Persistently low? no",
            asked("Persistently low?", "no", asked("Latest low?", "no", used=lows(3))),
        )
    ],
}
UNSETTLED: Json = {
    "status": 412,
    "cards": [],
    "verdicts": [
        verdict(x, "data-missing", "not supplied: patient, alp") for x in ("low", "raised")
    ],
    "data": FIRES["data"],
    "hint": ['[prefetch]\n"observations" = "alp"', '[prefetch]\n"obs" = "alp"'],
}


def with_text(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON with every string changed that says no verdict."""
    if isinstance(value, Mapping):
        return {k: x if k == "verdict" else with_text(x, change) for k, x in value.items()}
    if isinstance(value, list):
        return [with_text(x, change) for x in value]
    return change(value) if isinstance(value, str) else value


HOSTILE_FIRES = with_text(FIRES, lambda text: HOSTILE + text)
LONG_FIRES = with_text(FIRES, lambda text: text + "\N{CJK UNIFIED IDEOGRAPH-9AA8}" * 90)
MANY = {**FIRES, **charted(*(point(20 + n, n % 28 + 1) for n in range(50)))}


def plot_rows(text: str) -> list[str]:
    """The rows of the plots that hold a value."""
    return [x for x in text.splitlines() if re.match("[●○] 2026-", x)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    "explanation",
    [FIRES, QUIET, UNSETTLED, HOSTILE_FIRES, LONG_FIRES, MANY],
    ids=["fires", "quiet", "unsettled", "hostile", "long", "many"],
)
def test_nothing_is_wider_than_the_window(explanation: Json, everything: bool, width: int) -> None:
    assert max(map(cell_len, page(explanation, width, everything).splitlines())) <= width
    cards = explanation["cards"]
    assert max(map(cell_len, card_page(cards, width).splitlines())) <= width


@pytest.mark.parametrize(
    ("explanation", "says"),
    [
        (FIRES, "1 card: lowAlpPersistent (warning)"),
        ({**FIRES, "cards": [CARD, CARD]}, "2 cards: lowAlpPersistent (warning), lowAlpPersistent"),
        (QUIET, "No card. 7 topics looked at: 1 data missing, 6 not met."),
        (UNSETTLED, "412, required data missing: not supplied: patient, alp"),
        ({"verdicts": [RAISED]}, "No card. 1 topic looked at: 1 not met."),
        ({}, "No card. 0 topics looked at."),
    ],
)
def test_the_first_line_is_the_answer(explanation: Json, says: str) -> None:
    assert page(explanation).splitlines()[0].startswith(says)


def test_missing_data_comes_with_the_lines_that_would_declare_it() -> None:
    lines = [x.strip() for x in page(UNSETTLED).splitlines()]
    start = lines.index("[prefetch]")
    assert lines[start + 1 : start + 3] == ['"observations" = "alp"', '"obs" = "alp"']
    assert lines.count("[prefetch]") == 1
    assert "site file" in lines[start - 1]


def test_without_a_hint_the_page_says_what_to_send() -> None:
    assert "Send it in prefetch" in page({**UNSETTLED, "hint": []})


def test_verdicts_stand_in_the_order_of_interest_and_say_who_suppressed() -> None:
    lines = page(FIRES).splitlines()
    headings = [x for x in lines if re.match(r"(fired|suppressed|data \w+|not \w+): ", x)]
    assert headings == [
        "fired: lowAlpPersistent",
        "suppressed: lowAlpUnconfirmed (by lowAlpPersistent)",
        "data missing: lytic",
        "data unusable: odd",
        "not applicable: tumour",
        "not met: raisedAlp, raisedAlpBone",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_topic_has_its_reason(width: int) -> None:
    said = " ".join(page(FIRES, width).split())
    for x in FIRES["verdicts"]:
        assert x["topic"] in said
        assert x["reason"]["text"] in said


@pytest.mark.parametrize(
    ("question", "by_default"),
    [
        ("Persistently low? yes", True),
        ("Latest low? yes", True),
        ("Which count? 4", False),
        ("Wilson disease on record? no", True),
        ("Copper seen? no", False),
    ],
)
def test_only_the_questions_that_decided_are_shown_by_default(
    question: str, by_default: bool
) -> None:
    assert (f"- {question}" in page(FIRES)) is by_default
    assert f"- {question}" in page(FIRES, everything=True)


def test_a_question_asked_twice_is_explained_once() -> None:
    twice = deepcopy(FIRED)
    twice["evidence"].append(twice["evidence"][0])
    said = page({"verdicts": [twice]}, everything=True)
    assert said.count("Latest low? yes") == 1
    assert "Persistently low? yes (as above)" in said


def test_a_question_shows_a_few_of_its_values_and_how_many_more() -> None:
    said = page({"verdicts": [FIRED]})
    assert "2026-01-03  28 U/L  30-130 (report)  Observation/o2\n    and 2 more" in said
    assert "2026-01-05  28 U/L" in page({"verdicts": [FIRED]}, everything=True)


def test_rejected_entries_stand_under_their_reason() -> None:
    said = page(FIRES)
    assert "not used, unit not known: Observation/r1, Observation/r2, Observation/r3\n" in said
    assert "not used, haemolysed: Observation/r4\n" in said


def test_of_many_rejected_entries_the_first_are_named_and_the_rest_counted() -> None:
    rejected = [{"reference": f"Observation/{n}", "why": "haemolysed"} for n in range(5)]
    said = page(
        {"verdicts": [verdict("x", "fired", "Held.", asked("Q?", "yes", rejected=rejected))]}
    )
    assert "haemolysed: Observation/0, Observation/1, Observation/2 and 2 more\n" in said


def test_a_quiet_topic_shows_only_its_last_question() -> None:
    quiet = verdict("x", "not-met", "Low? no", asked("An adult?", "yes"), asked("Low?", "no"))
    assert "An adult?" not in page({"verdicts": [quiet]})
    assert "An adult? yes" in page({"verdicts": [quiet]}, everything=True)


def test_lines_of_prose_end_without_blanks() -> None:
    said = page(FIRES, 60).split("Values")[0] + page(UNSETTLED, 60).split("Values")[0]
    assert not re.search(" $", said, re.M)


def test_a_quiet_topic_shows_the_value_that_kept_it_quiet() -> None:
    lines = page(QUIET, 60).splitlines()
    start = lines.index("not met: low")
    assert [x.strip() for x in lines[start + 1 : start + 5]] == [
        "- Persistently low? no",
        "- Latest low? no",
        "2026-01-01  28 U/L  30-130 (report)  Observation/o0",
        "and 2 more",
    ]


def test_the_page_of_a_quiet_patient_is_short() -> None:
    assert len(page(QUIET, 60).splitlines()) <= 45


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("value", "where"),
    [
        (5, "left"),
        (29.9, "left"),
        (30, "inside"),
        (30.1, "inside"),
        (80, "inside"),
        (130, "inside"),
        (130.1, "right"),
        (400, "right"),
        (1030, "right"),
        (5000, "right"),
    ],
)
def test_a_value_stands_on_the_band_exactly_when_within_its_limits(
    value: float, where: str, width: int
) -> None:
    row, inside = plot_rows(page(charted(point(value), point(80)), width))
    at, low, high = row.rindex("▶" if value > 1030 else "●"), inside.index("░"), inside.rindex("░")
    assert ("left" if at < low else "right" if at > high else "inside") == where


@pytest.mark.parametrize("width", WIDTHS)
def test_a_huge_outlier_leaves_the_scale_to_the_others(width: int) -> None:
    low, huge = plot_rows(page(charted(point(5), point(5000)), width))
    assert "▶" in huge and huge.count("░") >= 4
    assert "5000 U/L" in huge
    assert low.rindex("●") < low.index("░")
    assert "off the axis" in page(charted(point(5000)), width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "points",
    [
        [point(x, n + 1, low=None, high=5) for n, x in enumerate((88, 162, 48))],
        [point(x, n + 1, low=2.15, high=2.55) for n, x in enumerate((2.37, 1.1, 2.31))],
        [point(200, low=5, high=36)],
        [point(5000)],
        [point(3, 1, high=5), point(900, 2, high=5), point(800, 3, high=5)],
    ],
    ids=["all above", "one below", "one far above", "alone", "most far above"],
)
def test_a_few_values_off_their_limits_are_all_on_the_axis(points: list[Json], width: int) -> None:
    rows = plot_rows(page(charted(*points), width))
    assert [row.count("●") for row in rows] == [2] * len(points)
    assert len({row.rindex("●") for row in rows}) == len(points)


@pytest.mark.parametrize(
    ("points", "ends"),
    [
        ([point(28), point(80)], "20 ─+ 140"),
        ([point(0.5, low=0, high=2)], "0 ─+ 2.1"),
        ([point(-4, low=None, high=None), point(4, low=None, high=None)], "-4.5 ─+ 4.5"),
        ([point(1e14, low=None, high=None)], "8.+ ─+ 1.+"),
        ([point(7, low=7, high=7.000000001)], "6.+ ─+ 7.+"),
    ],
)
def test_the_axis_states_its_ends_between_round_numbers(points: list[Json], ends: str) -> None:
    assert re.search(rf"^ +{ends} *$", page(charted(*points)), re.M)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e308, 10**40])
def test_a_number_beyond_any_axis_is_only_written(value: float) -> None:
    row = plot_rows(page(charted(point(value), point(80))))[0]
    assert row.count("●") == 1 and "▶" not in row and "░" in row


def test_long_texts_leave_room_for_the_plot() -> None:
    long = point(28, shown="0.43 microkatal/litre", limit_from="neighbour")
    row = plot_rows(page(charted(long, point(80, 2)), 60))[1]
    assert re.search("░+●░+", row) and row.count("░") >= 5


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "points",
    [
        [point(28)],
        [point(28, 1), point(28, 2)],
        [point(0, low=None, high=None)],
        [point(28, low=None, high=None), point(28, 2, low=None, high=None)],
        [point(28, 1), point(140, 1)],
        [point(28, low=None), point(28, high=None)],
        [point(28, low=130, high=30)],
        [point(1e14), point(1e-300), point(-5)],
    ],
    ids=["one", "equal", "zero", "no limits", "same day", "one limit", "swapped", "extreme"],
)
def test_every_value_has_a_row(points: list[Json], width: int) -> None:
    rows = plot_rows(page(charted(*points), width))
    assert len(rows) == len(points)
    for row, x in zip(rows, points, strict=True):
        assert x["date"] in row and x["shown"] in row
        assert re.search("[●◀▶]", row[1:])


def test_limits_that_all_values_share_are_said_once_and_others_beside_each_value() -> None:
    shared = page(charted(point(28, 1), point(40, 2)))
    assert "ALP in U/L, limits: 30-130 (report)" in shared and shared.count("30-130") == 1
    own = plot_rows(page(charted(point(28), point(28, high=None), point(28, low=None, high=None))))
    said = ("30-130 (report)", "from 30 (report)", "none")
    assert [x.strip().endswith(f" {y}") for x, y in zip(own, said, strict=True)] == [True] * 3


def test_a_value_sent_in_another_unit_is_shown_in_both() -> None:
    said = page(charted(point(28.02, shown="0.467 ukat/L")))
    assert "0.467 ukat/L = 28.02" in said


def test_the_comparator_is_shown() -> None:
    assert "2026-01-01 <28 U/L" in page(charted(point(28, comparator="<")))


def test_a_rejected_value_is_hollow_and_its_reason_stands_beneath() -> None:
    said = page(charted(point(80, 1), rejected_point("28 U/L", "haemolysed", 2)))
    row = plot_rows(said)[1]
    assert row.count("○") == 2 and "●" not in row
    assert "○ not used, haemolysed: 2026-01-02" in said.splitlines()


def test_a_rejected_value_in_an_unknown_unit_has_no_place_on_the_axis() -> None:
    row = plot_rows(page(charted(point(80, 1), rejected_point("28 arb", "unit not known", 2))))[1]
    assert row.count("○") == 1 and "28 arb" in row


def test_of_many_values_the_newest_are_shown_and_the_rest_counted() -> None:
    assert len(plot_rows(page(MANY))) == 12
    assert "38 older not shown" in page(MANY)
    assert len(plot_rows(page(MANY, everything=True))) == 50


def test_each_data_key_has_its_row_and_the_reasons_stand_beneath() -> None:
    said = page(FIRES, 80)
    assert re.search(r"^alp +answered +inferred +4 +0$", said, re.M)
    assert re.search(r"^reports +failed +0 +0$", said, re.M)
    assert re.search(r"^left aside +1$", said, re.M)
    assert "  reports: HTTP 500\n" in said
    assert "  labs: no code (Observation/1, Observation/2)\n" in said
    assert "  left aside: belongs to another patient (Observation/o0)\n" in said


def test_at_most_ten_reasons_for_skipping_are_listed() -> None:
    skipped = [{"where": f"Observation/{n}", "why": f"reason {n}"} for n in range(14)]
    said = page({"data": [{"key": "labs", "state": "answered", "used": 1, "skipped": skipped}]})
    assert said.count("labs: reason") == 10
    assert "and 4 more reasons" in said


def test_the_page_ends_with_what_it_was_made_with() -> None:
    assert page(FIRES).endswith("\ncontent 2026.11.0 (38f50d7dd04c), as of 2026-11-24\n")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_card_is_shown_whole(width: int) -> None:
    said = card_page([CARD], width)
    for part in (
        "WARNING",
        "ALP low on 4 readings",
        "Why now: ALP low.",
        "• ALP <28 U/L on 2026-01-15",
        "1. Order PLP",
        "2. Order TSH",
        "Override reasons: Already evaluated, later",
        "Source: ALP review LOW-2",
    ):
        assert part in said
    assert "**" not in said


def test_no_cards_are_said_to_be_none() -> None:
    assert card_page([]) == "No cards.\n"


def test_a_page_that_is_piped_has_no_escape_codes() -> None:
    assert "\x1b" not in page(FIRES) + card_page([CARD])


def test_no_colour_is_used_when_none_is_wanted() -> None:
    plain: Json = {"force_terminal": True, "no_color": True, "color_system": "standard"}
    coloured: Json = {"force_terminal": True, "color_system": "standard"}
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d")
    assert colour.search(page(FIRES, **coloured)) and colour.search(card_page([CARD], **coloured))
    assert not colour.search(page(FIRES, **plain) + card_page([CARD], **plain))


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_chart_text_can_neither_steer_the_terminal_nor_forge_a_line(
    width: int, everything: bool
) -> None:
    hint = {"hint": [HOSTILE], "status": 412}
    said = page(HOSTILE_FIRES, width, everything) + card_page(HOSTILE_FIRES["cards"], width)
    said += page({**HOSTILE_FIRES, **hint}, width)
    assert {x for x in said if category(x) in ("Cc", "Cf", "Cs")} == {"\n"}
    assert "[red]x[/red]" in said and ":smile:" in said
    assert not re.search("^fired: forged", said, re.M)


def test_chart_text_is_not_read_as_markup_in_colour_either() -> None:
    options: Json = {"force_terminal": True, "color_system": "standard"}
    said = page(HOSTILE_FIRES, 120, **options)
    said += card_page([{"summary": "[red]x[/red]", "suggestions": [{"label": "[b]y"}]}], **options)
    plain = re.sub("\x1b\\[[0-9;]*m", "", said)
    assert plain.count("[red]x[/red]") == page(HOSTILE_FIRES, 120).count("[red]x[/red]") + 1
    assert "1. [b]y" in plain


@pytest.mark.parametrize("entity", ["&#x202e;", "&#8238;", "&rlm;", "&ZeroWidthSpace;"])
def test_an_entity_in_a_detail_does_not_become_a_format_character(entity: str) -> None:
    said = card_page([{**CARD, "detail": f"before{entity}after &lt;b&gt;"}])
    assert "beforeafter <b>" in said


def test_a_link_in_a_detail_shows_where_it_leads() -> None:
    card = {**CARD, "detail": "[see](https://elsewhere.example/x)"}
    said = card_page([card], force_terminal=True, color_system="standard")
    assert "https://elsewhere.example/x" in said and "\x1b]8" not in said


def test_an_explanation_can_be_written_where_only_ascii_can() -> None:
    file = TextIOWrapper(BytesIO(), encoding="ascii")
    long = charted(*FIRES["series"][0]["points"], point(5, 4, shown="5 " + "x" * 90))
    show_explanation(Console(file=file, width=80, _environ={}), {**FIRES, **long})
    file.flush()
    assert isinstance(file.buffer, BytesIO)
    assert b"* 2026-01-01 28 U/L" in file.buffer.getvalue()


@pytest.mark.parametrize(
    "explanation",
    [
        {"status": 412},
        {"cards": [{}]},
        {"verdicts": [{}], "data": [{}], "series": [{}], "content": {}},
        {"verdicts": [{"evidence": [{}], "reason": {}}], "series": [{"points": [{}]}]},
        {"verdicts": [{"evidence": [{"because": [{}], "used": [{}], "rejected": [{}]}]}]},
        {"data": [{"key": None, "by": None, "skipped": [{}], "why": None}], "asOf": None},
        {"series": [{"title": None, "unit": "", "points": [{"value": 1, "used": False}]}]},
        {"verdicts": [{"topic": "x", "verdict": "fired", "by": None, "evidence": []}]},
    ],
    ids=str,
)
def test_empty_pieces_are_shown_as_nothing(explanation: Json) -> None:
    said = page(explanation, everything=True)
    assert "content" in said and "None" not in said
    assert card_page(explanation.get("cards", []))


TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
NUMBER = st.integers() | st.floats() | st.sampled_from([0, 28, 30, 5000])


def shaped(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """JSON objects with any of the members."""
    return st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in members.items()}).map(
        lambda x: {k: v for k, v in x.items() if v is not None}
    )


ENTRY = shaped(reference=TEXT, date=TEXT, value=TEXT, limits=TEXT, why=TEXT, where=TEXT)
ANSWER = st.sampled_from(["yes", "no", "unknown"]) | TEXT
QUESTION = st.recursive(
    shaped(question=TEXT, answer=ANSWER, used=st.lists(ENTRY, max_size=5)),
    lambda x: shaped(
        question=TEXT,
        answer=ANSWER,
        rejected=st.lists(ENTRY, max_size=5),
        because=st.lists(x, max_size=3),
    ),
    max_leaves=6,
)
OUTCOME = st.sampled_from(["fired", "suppressed", "data-missing", "not-met"]) | TEXT
POINT = shaped(
    date=TEXT,
    value=NUMBER,
    low=NUMBER,
    high=NUMBER,
    shown=TEXT | st.sampled_from(["28 U/L", "1e5 U/L"]),
    comparator=TEXT,
    limit_from=TEXT,
    used=st.booleans(),
    why=TEXT,
)
SHOWN_CARD = shaped(
    summary=TEXT,
    indicator=TEXT,
    detail=TEXT,
    source=shaped(label=TEXT, url=TEXT, topic=shaped(code=TEXT)),
    suggestions=st.lists(shaped(label=TEXT), max_size=3),
    overrideReasons=st.lists(shaped(code=TEXT, display=TEXT), max_size=3),
)
EXPLANATION = shaped(
    status=st.sampled_from([200, 412]),
    cards=st.lists(SHOWN_CARD, max_size=2),
    verdicts=st.lists(
        shaped(
            topic=TEXT,
            verdict=OUTCOME,
            by=TEXT,
            reason=shaped(code=TEXT, text=TEXT),
            evidence=st.lists(QUESTION, max_size=3),
        ),
        max_size=3,
    ),
    data=st.lists(
        shaped(
            key=TEXT, state=TEXT, by=TEXT, used=st.integers(), skipped=st.lists(ENTRY, max_size=3)
        ),
        max_size=3,
    ),
    series=st.lists(shaped(title=TEXT, unit=TEXT, points=st.lists(POINT, max_size=6)), max_size=2),
    content=shaped(version=TEXT, hash=TEXT),
    asOf=TEXT,
    hint=st.lists(TEXT, max_size=2),
)


@settings(deadline=None)
@given(EXPLANATION, st.integers(40, 130), st.booleans())
def test_any_explanation_is_shown_within_the_window(
    explanation: Json, width: int, everything: bool
) -> None:
    said = page(explanation, width, everything) + card_page(explanation.get("cards", []), width)
    assert max(map(cell_len, said.splitlines())) <= width
    assert json.loads(json.dumps(said)) == said


@settings(deadline=None)
@given(st.lists(POINT, min_size=1, max_size=60), st.integers(1, 130))
def test_any_series_is_drawn_at_any_width(points: list[Json], width: int) -> None:
    page(charted(*points), width, everything=True)

"""Cards and explanations on a terminal, readable without colour and in a narrow window."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cds_service.dot_plot import ASCII, BLOCKS, dot_plot
from cds_service.terminal_text import Line, by_reason, first_of, harmless, markdown

Json = Mapping[str, Any]

READABLE_WIDTH = 100
MOST_VALUES = 12
MOST_LISTED = 3
MOST_REASONS = 10
ALL = 10_000

_INDICATORS = {"info": "bold cyan", "warning": "bold yellow", "critical": "bold red"}
# In the order of the page.
_VERDICTS = {
    "fired": "bold green",
    "suppressed": "bold yellow",
    "data-missing": "bold magenta",
    "data-unusable": "bold magenta",
    "not-applicable": "bold",
    "not-met": "bold",
}
_HELD = ("fired", "suppressed")
_QUIET = ("not-applicable", "not-met")


def show_cards(console: Console, cards: Sequence[Json], briefly: bool = False) -> None:
    """The cards of a CDS Hooks response, one panel each; `briefly` leaves summary and orders."""
    for card in harmless(cards):
        indicator = card.get("indicator", "no indicator")
        style = _INDICATORS.get(indicator, "bold")
        panel = Panel(
            Group(*_card(card, briefly)),
            title=Text(indicator.upper(), style),
            title_align="left",
            border_style=style,
            width=min(console.width, READABLE_WIDTH),
        )
        console.print(panel)
    if not cards:
        console.print("No cards.")


def _card(card: Json, briefly: bool) -> Iterator[RenderableType]:
    yield Text(card.get("summary", ""), "bold")
    if not briefly and (detail := card.get("detail")):
        yield from ("", markdown(detail))
    if suggestions := card.get("suggestions"):
        yield ""
        for number, suggestion in enumerate(suggestions, 1):
            yield Line(0, suggestion.get("label", ""), "bold", f"{number}. ")
    if briefly:
        yield from ("", Text("The rest as on the first card of this topic.", "dim"))
    else:
        yield from _reasons_and_source(card)


def _reasons_and_source(card: Json) -> Iterator[RenderableType]:
    if reasons := card.get("overrideReasons"):
        named = ", ".join(x.get("display", x.get("code", "")) for x in reasons)
        yield from ("", Text(f"Override reasons: {named}", "dim"))
    source = card.get("source", {})
    said = " ".join(source[x] for x in ("label", "url") if x in source)
    yield from ("", Text(f"Source: {said}", "dim"))


def show_explanation(console: Console, explanation: Json, everything: bool = False) -> None:
    """Why the cards came or did not; `everything` adds the questions that did not decide."""
    explanation = harmless(explanation)
    sections = {
        "Verdicts": _verdicts(explanation.get("verdicts", []), everything),
        "Values": _values(console, explanation.get("series", []), everything),
        "Data": _data(explanation.get("data", [])),
    }
    console.print(Group(*_answer(explanation)))
    for title, section in sections.items():
        if lines := list(section):
            console.print("", Rule(title, align="left", style="dim"), *lines, sep="\n")
    content = explanation.get("content", {})
    made = f"content {content.get('version', '')} ({content.get('hash', '')[:12]})"
    console.print("", Line(0, f"{made}, as of {explanation.get('asOf', '')}", "dim"), sep="\n")


def _answer(explanation: Json) -> Iterator[RenderableType]:
    """The answer in a sentence, and what can be done about it when required data is missing."""
    cards, verdicts = explanation.get("cards", []), explanation.get("verdicts", [])
    if explanation.get("status") == 412:
        why = {_reason(x) for x in verdicts}
        yield Line(0, f"412, required data missing: {'; '.join(sorted(why))}", "bold red")
        yield from _what_to_do(explanation.get("hint", []))
    elif cards:
        named = ", ".join(f"{_topic(x)} ({x.get('indicator', '')})" for x in cards)
        yield Line(0, f"{len(cards)} card{'s' * (len(cards) > 1)}: {named}", "bold")
        yield from (Line(0, x.get("summary", "")) for x in cards)
    else:
        said = counted(verdicts)
        topics = f"{len(verdicts)} topic{'s' * (len(verdicts) != 1)} looked at"
        yield Line(0, f"No card. {topics}{': ' * bool(said)}{said}.", "bold")


def counted(verdicts: Sequence[Json]) -> str:
    """How many topics came to which verdict."""
    counts = Counter(x.get("verdict", "") for x in sorted(verdicts, key=_place))
    return ", ".join(f"{n} {verdict.replace('-', ' ')}" for verdict, n in counts.items())


def _place(verdict: Json) -> int:
    """Where on the page a verdict stands."""
    order = list(_VERDICTS)
    return order.index(x) if (x := verdict.get("verdict")) in order else len(order)


def _reason(verdict: Json) -> str:
    text: str = verdict.get("reason", {}).get("text", "")
    return text


def _topic(card: Json) -> str:
    code: str = card.get("source", {}).get("topic", {}).get("code", "no topic")
    return code


def _what_to_do(hints: Sequence[str]) -> Iterator[RenderableType]:
    lines = dict.fromkeys(line for hint in hints for line in hint.split("\n"))
    if lines:
        yield Line(0, "If such a key holds the data, say so in the site file (CDS_SITE_FILE):")
        yield from (Line(2, line, "bold") for line in lines)
    else:
        yield Line(0, "Send it in prefetch under these keys, or name a FHIR server to read from.")


def _verdicts(verdicts: Sequence[Json], everything: bool) -> Iterator[RenderableType]:
    """Every topic with its reason; topics of which the same is to be said stand together."""
    found: dict[tuple[str, str, tuple[Line, ...]], list[str]] = {}
    for x in sorted(verdicts, key=_place):
        said = (x.get("verdict", ""), x.get("by", ""), tuple(_lines(x, everything)))
        found.setdefault(said, []).append(x.get("topic", ""))
    for (verdict, by, lines), topics in found.items():
        named = ", ".join(topics) + (f" (by {by})" if by else "")
        yield Line(0, named, _VERDICTS.get(verdict, ""), f"{verdict.replace('-', ' ')}: ")
        yield from lines


def _lines(verdict: Json, everything: bool) -> Iterator[Line]:
    """The reason, and the questions that decided; of a quiet topic only the last one."""
    outcome, asked, reason = verdict.get("verdict"), verdict.get("evidence", []), _reason(verdict)
    quiet = not everything and outcome in _QUIET
    most = ALL if everything else 1 if quiet else MOST_LISTED
    last = asked[-1] if asked else {}
    is_last = bool(asked) and reason.startswith(_said(last))
    if reason and not is_last:
        yield Line(1, reason)
    seen: set[str] = set()
    for top in asked[-1:] if quiet else asked:
        decided = top.get("answer") != "no" if outcome in _HELD else top is last
        waiting = [(1, top)]
        while waiting:
            depth, question = waiting.pop()
            said = reason if is_last and question is last else _said(question)
            behind = question.get("because", []) if everything else _deciding(question)[:most]
            behind = behind if decided or everything else []
            if behind and str(question) in seen:
                yield Line(depth, f"{said} (as above)", bullet="- ")
                continue
            seen.add(str(question))
            yield Line(depth, said, bullet="- ")
            yield from _entries(question, depth + 1, most)
            waiting += [(depth + 1, x) for x in reversed(behind)]


def _said(question: Json) -> str:
    return f"{question.get('question', '')} {question.get('answer', '')}".strip()


def _deciding(question: Json) -> list[Json]:
    """The questions that gave a question its answer: those answered alike."""
    answer, behind = question.get("answer"), question.get("because", [])
    is_plain = answer in ("yes", "no", "unknown")
    return [x for x in behind if is_plain and x.get("answer") == answer]


def _entries(question: Json, depth: int, most: int) -> Iterator[Line]:
    used = question.get("used", [])
    for x in used[:most]:
        said = (x.get(name, "") for name in ("date", "name", "value", "limits", "reference"))
        yield Line(depth, "  ".join(part for part in said if part), "dim")
    if more := max(0, len(used) - most) + question.get("unlisted", 0):
        yield Line(depth, f"and {more} more", "dim")
    for why, references in by_reason(question.get("rejected", []), "reference").items():
        yield Line(depth, f"not used, {why}: {first_of(references, most)}", "dim")


def show_in_force(console: Console, found: Json) -> None:
    """What is in force, each with where it comes from."""
    found = harmless(found)
    content = found["content"]
    sections = {
        "Settings": (Line(0, _set(x)) for x in found["settings"]),
        "Clients": _agreed(found["clients"]),
        "Site file": (Line(0, _changed(x)) for x in found["site"]),
        "Topics": _switched(found["topics"]),
    }
    console.print(Line(0, f"content {content['version']} ({content['hash'][:12]})", "bold"))
    console.print(Line(0, f"from {content['folder']}"))
    for title, section in sections.items():
        if lines := list(section):
            console.print("", Rule(title, align="left", style="dim"), *lines, sep="\n")
    if ignored := ", ".join(found["ignored"]):
        console.print("", Line(0, f"Not settings, set by Kubernetes: {ignored}"), sep="\n")
    if lacking := ", ".join(found["lacking"]):
        said = f"serve would not start without --open: {lacking} not set"
        console.print("", Line(0, said, "bold"), sep="\n")


def _set(setting: Json) -> str:
    return f"{setting['name']} = {setting['value']} ({setting['origin']})"


def _changed(change: Json) -> str:
    return f"{change['key']} is {change['here']} (shipped: {change['shipped']})"


def _agreed(clients: Sequence[Json]) -> Iterator[Line]:
    for x in clients:
        yield Line(0, f"{x['name']} ({x['issuer']})", "bold")
        yield Line(1, f"failures: {x['failures']}")
        yield Line(1, f"rate: {x['rate']}")
        yield from (Line(1, f"{topic}: {mode}") for topic, mode in x["modes"].items())


def _switched(topics: Sequence[Json]) -> Iterator[Line]:
    """The topics under their mode and where that comes from."""
    found: dict[str, list[str]] = {}
    for x in topics:
        found.setdefault(f"{x['mode']} ({x['origin']})", []).append(x["topic"])
    for mode, names in sorted(found.items()):
        yield Line(0, f"{mode}: {', '.join(names)}")


def _values(console: Console, series: Sequence[Json], everything: bool) -> Iterator[RenderableType]:
    marks = ASCII if console.options.ascii_only else BLOCKS
    drawn = [x for x in series if x.get("points")]
    if drawn:
        yield Line(0, marks.legend(), "dim")
    for x in drawn:
        yield from dot_plot(x, marks, ALL if everything else MOST_VALUES)


def _data(sources: Sequence[Json]) -> Iterator[RenderableType]:
    """What became of each prefetch key, and why something was left out."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("key", "state", "by"):
        table.add_column(heading, no_wrap=True, overflow="crop")
    table.add_column("used", justify="right")
    table.add_column("skipped", justify="right")
    reasons: list[str] = []
    for x in sources:
        skipped = x.get("skipped", [])
        count = len(skipped) + x.get("unlisted", 0)
        key, *cells = (str(x.get(name, "")) for name in ("key", "state", "by", "used"))
        if key == "*":
            key, cells = "left aside", ["", "", ""]
        table.add_row(*(Text(cell) for cell in (key, *cells, str(count))))
        reasons += [f"{key}: {x['why']}"] if "why" in x else []
        for why, where in by_reason(skipped, "where").items():
            reasons.append(f"{key}: {why} ({first_of(where, MOST_LISTED)})")
        if "unlisted" in x:
            reasons.append(f"{key}: {x['unlisted']} more, not listed")
    if sources:
        yield table
    yield from (Line(1, x, "dim") for x in reasons[:MOST_REASONS])
    if len(reasons) > MOST_REASONS:
        yield Line(1, f"and {len(reasons) - MOST_REASONS} more reasons", "dim")

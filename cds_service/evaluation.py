"""One service on one patient: every topic's verdict, then who yields to whom, and at most so many
cards.
"""

from collections.abc import Callable, Mapping, Sequence, Set

from msgspec import Struct
from msgspec.structs import replace

from cds_service.content import Family, Topic
from cds_service.content_files import Hold, Service
from cds_service.evidence import Answer, Record, Undecided, surely, unique
from cds_service.facts import PatientFacts
from cds_service.modes import MODES, Mode
from cds_service.rules import Advice, Verdict

SHADOW: Mode = "shadow"
DONE_OR_ORDERED = "done-or-ordered"
MOST_CARDS = "most-cards"


class Review(Struct, frozen=True):
    """All verdicts of one call, in order of precedence, and the facts they rest on;
    `overrides_read` is False where nobody could tell what was set aside.
    """

    family: Family
    facts: PatientFacts
    verdicts: tuple[Verdict, ...]
    overrides_read: bool = True

    @property
    def fired(self) -> list[Verdict]:
        """The verdicts that become cards, most urgent first."""
        shown = [x for x in self.verdicts if x.outcome == "fired"]
        return sorted(shown, key=lambda x: x.indicator != "warning")


def review(
    family: Family,
    service: Service,
    facts: PatientFacts,
    modes: Mapping[str, Mode],
    *,
    also_off: bool = False,
    hold_back: Callable[[Sequence[Verdict]], bool] | None = None,
) -> Review:
    """The verdict of every topic at the service's hook; topics switched off are evaluated only when
    asked for. `hold_back` is asked once something is about to be shown, or would be but for shadow,
    and suppresses what somebody has set aside; whether it could tell is its answer.
    """
    verdicts, finished = _asked(family, service, facts, modes, also_off)
    _give_way(family, modes, verdicts, finished)
    imagined = _with_shadow_on(family, modes, verdicts, finished)
    in_shadow = [x for x in imagined if x.in_shadow]
    shown = [x for x in (*verdicts, *in_shadow) if x.outcome == "fired"]
    # Once: the store is asked, and may be slow.
    is_read = hold_back is None or not shown or hold_back(shown)
    for verdict, other in zip(verdicts, imagined, strict=False):
        if not other.in_shadow and verdict.outcome == "suppressed":
            _suppress(other, verdict.by)
    _keep_the_most_urgent(family, verdicts)
    _keep_the_most_urgent(family, imagined)
    return Review(family, facts, tuple(verdicts), is_read)


def _asked(
    family: Family,
    service: Service,
    facts: PatientFacts,
    modes: Mapping[str, Mode],
    also_off: bool,
) -> tuple[list[Verdict], set[str]]:
    """What each topic says by itself, and those with nothing left to do."""
    holding = _Holds(family, facts)
    verdicts: list[Verdict] = []
    finished: set[str] = set()
    for topic in family.topics:
        mode = modes[topic.code]
        if mode == "off" and not also_off:
            verdicts.append(_switched_off(topic))
            continue
        if topic.card.hooks and service.hook not in topic.card.hooks:
            verdicts.append(_at_another_hook(topic, facts))
            continue
        verdict = _ask(topic, facts, holding)
        if verdict.advice is not None:
            alive = _plan_orders(topic, verdict, verdict.advice, facts)
            _settle_indicator(topic, verdict, facts, service.hook)
            holding.apply(topic, verdict)
            _hold_by_mode(topic, verdict, mode, facts)
            if not alive:
                finished.add(topic.code)
        verdicts.append(verdict)
    return verdicts, finished


def _give_way(
    family: Family, modes: Mapping[str, Mode], verdicts: list[Verdict], finished: Set[str]
) -> None:
    _yield_to_others(family, modes, verdicts)
    for verdict in verdicts:
        if verdict.topic in finished:
            _suppress(verdict, DONE_OR_ORDERED)


def _with_shadow_on(
    family: Family, modes: Mapping[str, Mode], verdicts: list[Verdict], finished: Set[str]
) -> list[Verdict]:
    """All verdicts as they would be if those in shadow were on, so that what is recorded of a topic
    in shadow is what would have been shown of it; none when none is held back by shadow alone.
    """
    if not any(x.in_shadow for x in verdicts):
        return []
    imagined = [replace(x) for x in verdicts]
    for verdict, other in zip(verdicts, imagined, strict=True):
        if verdict.in_shadow:
            other.outcome, other.by, verdict.if_on = "fired", "", other
    on = {topic: "on" if mode == SHADOW else mode for topic, mode in modes.items()}
    _give_way(family, on, imagined, finished)
    return imagined


def _switched_off(topic: Topic) -> Verdict:
    return Verdict(topic.code, "suppressed", Record(topic.code, ""), by="off")


def _at_another_hook(topic: Topic, facts: PatientFacts) -> Verdict:
    """A topic that has nothing to say at this hook, whoever the patient is."""
    record = facts.trace.begin(topic.code)
    facts.trace.ask(
        ("hook", topic.code),
        "hook",
        f"Does it speak at this hook, not only at {' and '.join(topic.card.hooks)}?",
        True,
        facts.trace.answer,
        False,
    )
    return Verdict(topic.code, "not-applicable", record)


def _ask(topic: Topic, facts: PatientFacts, holding: "_Holds") -> Verdict:
    """What the rule says by itself."""
    record = facts.trace.begin(topic.code)
    missing = tuple(
        name for name in topic.card.needs if facts.chart.sources[name].state != "answered"
    )
    if missing:
        record.unchecked += missing
        return Verdict(topic.code, "data-missing", record, unchecked=missing)
    advice: Advice | None = None
    try:
        advice = next(topic.rule(facts), None)
    except Undecided as undecided:
        outcome = (
            "data-unusable" if undecided.unusable and not undecided.missing else "data-missing"
        )
        return Verdict(topic.code, outcome, record, unchecked=unique(undecided.missing))  # type: ignore[arg-type]
    if advice is None:
        return Verdict(topic.code, _silence(record), record)  # type: ignore[arg-type]
    verdict = Verdict(topic.code, "fired", record, advice=advice)
    verdict.unchecked = unique((*record.unchecked, *holding.unchecked(topic)))
    return verdict


def _silence(record: Record) -> str:
    """Why a rule ended without advice: its last question kept it quiet (a yes), or was not met (a
    no).
    """
    last = record.because[-1] if record.because else None
    if last is None:
        return "not-met"
    answer = last.answer
    said_yes = isinstance(answer, Answer) and answer.value is True
    return "not-applicable" if said_yes or last.gate else "not-met"


def _settle_indicator(topic: Topic, verdict: Verdict, facts: PatientFacts, hook: str) -> None:
    """The variant's indicator at the hook, capped when a source was not answered that could have
    silenced the row.
    """
    assert verdict.advice is not None
    variant = topic.card.variant[verdict.advice.variant]
    verdict.indicator = variant.indicator_at.get(hook, variant.indicator)
    sources = facts.chart.sources
    if topic.card.capped and any(sources[x].key.caps for x in verdict.unchecked if x in sources):
        verdict.indicator = "info"
    if verdict.advice.held_by:
        _suppress(verdict, verdict.advice.held_by)


def _suppress(verdict: Verdict, by: str) -> None:
    """The first thing that held it back is the one that is named."""
    if verdict.outcome == "fired":
        verdict.outcome, verdict.by = "suppressed", by


class _Holds:
    """What keeps every card back, such as a deceased patient."""

    def __init__(self, family: Family, facts: PatientFacts) -> None:
        self._asked: list[tuple[Hold, bool, list[str]]] = []
        for hold, ask in family.holds:
            record = facts.trace.begin("holds")
            self._asked.append((hold, surely(ask(facts)), record.unchecked))

    def unchecked(self, topic: Topic) -> list[str]:
        """What was not answered of the questions that could have held a topic's card back."""
        return [
            name
            for hold, _, lacking in self._asked
            if topic.code not in hold.keeps
            for name in lacking
        ]

    def apply(self, topic: Topic, verdict: Verdict) -> None:
        """Suppresses the verdict unless each hold keeps its topic."""
        for hold in (hold for hold, holds, _ in self._asked if holds):
            kept = topic.code in hold.keeps or (
                topic.code in hold.keeps_warnings and verdict.indicator == "warning"
            )
            if not kept:
                _suppress(verdict, hold.question.replace("_", "-"))


def _hold_by_mode(topic: Topic, verdict: Verdict, mode: Mode, facts: PatientFacts) -> None:
    there = topic.card.while_inpatient
    if mode != "off" and there is not None and facts.is_inpatient().value:
        mode = max(mode, there, key=MODES.index)
    if mode == "shadow" and verdict.outcome == "fired":
        verdict.in_shadow = True
    if mode != "on":
        _suppress(verdict, mode)


def _yield_to_others(family: Family, modes: Mapping[str, Mode], verdicts: list[Verdict]) -> None:
    """A topic that is on and whose conditions hold silences others, even when it is not shown
    itself.
    """
    speaking = {
        x.topic
        for x in verdicts
        if _holds_its_conditions(x) and modes[x.topic] == "on" and x.by != SHADOW
    }
    for suppressor, silenced in family.precedence.suppresses.items():
        if suppressor in speaking:
            for verdict in verdicts:
                if verdict.topic in silenced:
                    _suppress(verdict, suppressor)


def _holds_its_conditions(verdict: Verdict) -> bool:
    return verdict.advice is not None and not verdict.advice.held_by


def _plan_orders(topic: Topic, verdict: Verdict, advice: Advice, facts: PatientFacts) -> bool:
    """Leaves out the orders that are done or on order; whether the card is still worth showing."""
    card, variant = topic.card, topic.card.variant[advice.variant]
    offered = advice.consider
    if offered is None:
        offered = tuple(card.orders if variant.orders is None else variant.orders)
    wanted = tuple(x for x in offered if not _is_finished(facts, x, advice))
    verdict.orders = tuple(x for x in wanted if facts.is_orderable(x))
    verdict.left_out = {
        x: None if x in advice.again else facts.when_done(x, advice.since)
        for x in offered
        if x not in wanted
    }
    vital = advice.hinges_on if advice.hinges_on is not None else tuple(card.kept_alive_by)
    alive = bool(wanted) and (not vital or any(not _is_finished(facts, x, advice) for x in vital))
    verdict.unchecked = unique((*verdict.unchecked, *verdict.record.unchecked))
    return alive or card.always_shown or variant.always_shown


def _is_finished(facts: PatientFacts, order: str, advice: Advice) -> bool:
    is_done = order not in advice.again and surely(facts.done(order, advice.since))
    return is_done or surely(facts.ordered(order))


def _keep_the_most_urgent(family: Family, verdicts: list[Verdict]) -> None:
    fired = [x for x in verdicts if x.outcome == "fired"]
    fired.sort(key=lambda x: x.indicator != "warning")  # stable: precedence inside each
    for verdict in fired[family.precedence.most_cards :]:
        _suppress(verdict, MOST_CARDS)

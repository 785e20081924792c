"""The words a rule answers in: Advice when it speaks, and the verdict of every topic."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct

from cds_service.evidence import Record
from cds_service.facts import Draft, Judged, Moment, PatientFacts, Problem, Report, Result

Outcome = Literal[
    "fired", "suppressed", "not-applicable", "data-missing", "data-unusable", "not-met"
]
Indicator = Literal["info", "warning", "critical"]
Filling = str | int | Decimal


class Named(Struct, frozen=True):
    """A problem, or a result or report that is no number: shown by the title of a value set and its
    date, never by its words.
    """

    value_set: str
    entry: Result | Report | Problem


class Advice(Struct, frozen=True):
    """One thing worth telling the clinician.

    `variant` picks the words of the topic's card; `consider` names order templates in order (none:
    the variant's own); `values` fill the placeholders; `findings` are the numbers and what
    is named under "why", the number that decides first; `since` is the day from which a test
    counts as done; `again` are orders worth repeating: only an open order leaves them out;
    `hinges_on` are the orders without which the card is not worth showing (none: the card's own);
    `held_by` names what defers the advice although every condition held; `quoted` is text of the
    chart for the placeholder {quoted} of the detail; `about` are the drafts that the card names, in
    words and by reference.
    """

    topic: str
    variant: str
    consider: tuple[str, ...] | None = None
    values: Mapping[str, Filling] = msgspec.field(default_factory=dict)
    findings: Sequence[Judged | Named] = ()
    since: int | None = None
    again: tuple[str, ...] = ()
    hinges_on: tuple[str, ...] | None = None
    held_by: str = ""
    quoted: str = ""
    about: Sequence[Draft] = ()


Rule = Callable[[PatientFacts], Iterator[Advice]]


class Verdict(Struct):
    """What became of one topic: the outcome, what held it back (`by`), and the questions
    behind it; `left_out` are the orders that are not needed, with the day on which each was done
    (None: on order); `fingerprint` is what an override of the card is compared with later, as
    JSON, and `held_because` the reason of one that holds it back, `until` the day on which that
    ends.

    `in_shadow`: every condition held, and its mode alone held it back, or would have; `if_on` is
    then what had become of it had all topics in shadow been on.
    """

    topic: str
    outcome: Outcome
    record: Record
    by: str = ""
    advice: Advice | None = None
    indicator: Indicator = "info"
    orders: tuple[str, ...] = ()
    left_out: Mapping[str, Moment | None] = {}
    unchecked: tuple[str, ...] = ()
    fingerprint: str = "{}"
    held_because: str = ""
    until: str = ""
    in_shadow: bool = False
    if_on: "Verdict | None" = None

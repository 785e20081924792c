"""What is published of a topic: the types behind its page and behind its JSON."""

from msgspec import Struct

from cds_service.modes import Mode

Number = int | float


class Published(Struct, rename="camel"):
    """A part of a topic's page."""


class ModeHere(Published):
    """Whether cards are shown here; `set_by` is "content", "site" or "server"."""

    here: Mode
    shipped: Mode
    set_by: str
    while_inpatient: Mode | None


class Situation(Published):
    """The words for one variant, and when they are said; {names} stand for what the chart fills
    in. `indicator_at` has the hooks with an indicator of their own.
    """

    name: str
    when: str
    indicator: str
    indicator_at: dict[str, str]
    summary: str
    why: str
    consider: str


class Filling(Published):
    """What the chart may fill in for a name: one of these words."""

    name: str
    words: list[str]


class QuestionAsked(Published):
    """One question; `ends` is the answer that ends the rule, `verdict` what it then is.

    `alone` is false when it ends the rule only together with others. An `unknown` answer "ends"
    the rule as data-missing or "goes-on". A yes to one that `defers` holds the card back.
    `behind` are the questions it consists of, `numbers` what it compares with itself.
    """

    text: str
    kind: str
    ends: str
    verdict: str
    alone: bool
    unknown: str
    defers: bool
    behind: list["QuestionAsked"]
    numbers: list[str]


class LimitRead(Published):
    """One number; `shipped` is None unless a site changed it, `own` is false for shared ones, and
    `about` is what a group of them belongs to.
    """

    name: str
    value: Number
    unit: str
    says: str
    about: str
    shipped: Number | None
    own: bool


class IntervalRead(Published):
    """One row of fallback limits; `sex` is "" for both, None is no limit on that side."""

    ages: str
    sex: str
    low: Number | None
    high: Number | None


class MeasureRead(Published):
    """One measure with the limits that hold when a report prints none; a number from `highest` on
    is not plausible (None: any is).
    """

    name: str
    title: str
    unit: str
    highest: Number | None
    intervals: list[IntervalRead]


class SetMember(Published):
    """One line of a value set: a `code`, or a `prefix` or `pattern` of codes; one that is excluded
    ends the matching.
    """

    kind: str
    system: str
    code: str
    display: str
    excluded: bool


class SetUsed(Published):
    """One value set; `groups` counts prefixes and patterns of codes, `text` is the pattern by which
    words count when no code decides ("": none do), `shipped` is "" unless a site added to it.
    """

    id: str
    title: str
    codes: int
    groups: int
    text_is_read: bool
    text: str
    members: list[SetMember]
    shipped: str


class OrderOffered(Published):
    """One order; `done_by` are titles of sets: any combination counts as done, inside
    `within_days` (None: ever). `shipped` is "" unless a site changed it.
    """

    name: str
    title: str
    codings: list[dict[str, str]]
    orderable: bool
    done_by: list[list[str]]
    within_days: int | None
    never_done: bool
    shipped: str


class Reason(Published):
    """One reason to set the card aside, and how long the card then stays silent: `days`, or until
    its "value", the "problems" on record or the answer to a "question" changes (`text`).
    """

    code: str
    display: str
    days: int | None
    until: str
    text: str
    user_only: bool
    every_topic: bool
    needs_proof: bool


class HeldBack(Published):
    """A question that, answered yes, holds the card back; `keeps_warnings`: but not a warning."""

    text: str
    keeps_warnings: bool


class Standing(Published):
    """Who yields to whom."""

    rank: int
    of: int
    most_cards: int
    silences: list[str]
    silenced_by: list[str]
    held_back_by: list[HeldBack]
    needs: list[str]
    capped_without: list[str]


class Evidence(Published):
    """What the topic rests on, what speaks against it, and what it cannot do."""

    tier: str
    citations: list[str]
    contrary: str
    limits: str


class Attribute(Published):
    """One source attribute of 45 CFR 170.315(b)(11)(iv)(A)."""

    name: str
    title: str
    value: str


class ContentVersion(Published):
    """Which content all this was read from."""

    version: str
    hash: str
    released: str
    revised: str
    next_review: str
    publisher: str


class Code(Published):
    """The rule itself; `file` is relative to the content folder."""

    file: str
    source: str


class TopicPage(Published):
    """All that is published of one topic; `elsewhere` is the same for other services that have it,
    by a rule of their own.
    """

    code: str
    row: str
    title: str
    says: str
    services: list[str]
    mode: ModeHere
    situations: list[Situation]
    fillings: list[Filling]
    questions: list[QuestionAsked]
    limits: list[LimitRead]
    measures: list[MeasureRead]
    value_sets: list[SetUsed]
    orders: list[OrderOffered]
    override_reasons: list[Reason]
    evidence: Evidence
    standing: Standing
    source_attributes: list[Attribute]
    remarks: list[Attribute]
    content: ContentVersion
    rule: Code
    elsewhere: list["TopicPage"]


class TopicLine(Published):
    """One topic in the list of all."""

    code: str
    row: str
    title: str
    says: str
    mode: Mode
    shipped_mode: Mode
    tier: str
    services: list[str]
    path: str


class TopicList(Published):
    """Every topic, in order of precedence."""

    content: ContentVersion
    topics: list[TopicLine]

"""The formats of the content files and of the site file: a wrong key is named with its file."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from cds_service.modes import Mode
from cds_service.rules import Indicator

Said = Annotated[str, Meta(min_length=1)]


QUOTED = "quoted"  # the placeholder for text of the chart: in a detail only, and escaped


class Strict(Struct, forbid_unknown_fields=True):
    """A table of a content file: an unknown key refuses to load."""


class LimitRow(Strict):
    value: Decimal
    unit: str
    says: str
    about: str = ""


class MeasureRow(Strict):
    title: str
    value_set: str
    unit: str
    shown: str = ""
    factors: dict[str, Decimal] = {}
    highest: Decimal | None = None
    not_specimen: str = ""


class IntervalRow(Strict):
    ages: str = "any"
    sex: Literal["female", "male"] | None = None
    low: Decimal | None = None
    high: Decimal | None = None


class OrderRow(Strict):
    done_by: list[list[str]] = []
    within_days: int | None = None
    never_done: bool = False


class ReasonRow(Strict):
    """Why a card may be set aside, and for how long: `days`, or until something changes: its value,
    or the problem list. `needs_proof`: only with one of the card's tests on file, or a comment.
    """

    display: Said
    every_card: bool = False
    days: int | None = None
    until: Literal["value", "problems"] | None = None
    user_only: bool = False
    every_topic: bool = False
    needs_proof: bool = False


class Service(Strict):
    """One entry of discovery."""

    id: str
    hook: str
    title: str
    description: str
    usage_requirements: str


class PrefetchRow(Strict):
    title: str
    query: str
    codes: list[str] = []
    except_codes: list[str] = []
    required: bool = False
    caps: bool = False
    supplements: str = ""


class Hold(Strict):
    """A question that, answered yes, keeps every card back but those excepted."""

    question: str
    keeps: list[str] = []
    keeps_warnings: list[str] = []


class Precedence(Strict):
    order: list[str]
    most_cards: int
    suppresses: dict[str, list[str]] = {}


class Repeats(Strict):
    """For how many days the same card about the same numbers is not shown to the same user
    again.
    """

    info_days: int
    warning_days: int


class SourceAttributes(Strict):
    """What 45 CFR 170.315(b)(11)(iv)(A) has a source of evidence say of itself, but for citations
    (the card's) and dates (the content's); `limits` and `provenance` are our own.
    """

    developer: Said
    funding: Said
    race: Said
    ethnicity: Said
    language: Said
    sexual_orientation: Said
    gender_identity: Said
    sex: Said
    date_of_birth: Said
    social_determinants: Said
    health_status: Said
    limits: Said
    provenance: Said


class SourceRow(Strict):
    label: str
    attributes: SourceAttributes


class FamilyFile(Strict):
    service: list[Service]
    prefetch: dict[str, PrefetchRow]
    precedence: Precedence
    source: SourceRow
    limits: dict[str, LimitRow] = {}
    placeholders: dict[str, int] = {}
    hold: list[Hold] = []
    news: str = ""
    repeats: Repeats | None = None


class Variant(Strict):
    """The words for one situation; what it does not say, the card says for it."""

    indicator: Indicator
    indicator_at: dict[str, Indicator] = {}
    when: str = ""
    summary: str = ""
    why: str = ""
    consider: str = ""
    orders: list[str] | None = None
    starts_after: dict[str, str] = {}
    always_shown: bool = False


class CardFile(Strict):
    """One topic: when it is shown, in what words, on what evidence; `hooks` are those at which it
    speaks (none: all of its services').

    An override lasts at most `snooze_days` (0: for this value, result or order only), for cards
    with the same words for `snooze_for`, and for a reason of `snooze_while` as long as that
    question is answered yes; a value that is a quarter `worse` ends it.
    """

    row: Said
    title: Said
    mode: Mode
    tier: Said
    citations: Annotated[list[Said], Meta(min_length=1)]
    variant: dict[str, Variant]
    summary: str = ""
    why: str = ""
    consider: str = ""
    contrary: str = ""
    limits: str = ""
    orders: list[str] = []
    override: list[str] = []
    needs: list[str] = []
    kept_alive_by: list[str] = []
    always_shown: bool = False
    capped: bool = True
    while_inpatient: Mode | None = None
    hooks: list[str] = []
    snooze_days: int | None = None
    snooze_for: list[str] = []
    snooze_while: dict[str, str] = {}
    worse: Literal["lower", "higher"] | None = None
    phrases: dict[str, dict[str, str]] = {}


class NegationFile(Strict):
    cues: list[Said]
    signs: list[Said]
    struck_out: list[Said]


class VignetteNames(Strict):
    """The code that the charts of vignettes carry for a result or an order: "system code"."""

    results: dict[str, str]
    orders: dict[str, str] = {}


class Frame(Strict):
    """The headings of a card's detail."""

    why: str
    checked: str
    consider: str
    evidence: str
    contrary: str
    limits: str
    none_of_these: str
    left_out: str
    on_order: str
    more: str
    about: str


class SharedWords(Strict):
    """What any card may say; `phrases` serve a placeholder for which the card has none of
    its own.
    """

    remarks: dict[str, str]
    set_aside: dict[str, str]
    limit_from: dict[str, str]
    frame: Frame
    phrases: dict[str, dict[str, str]] = {}


LONGEST_LABEL = 24  # what one line of a picture has room for
Label = Annotated[str, Meta(min_length=1, max_length=LONGEST_LABEL)]


class LineRow(Strict):
    """A limit drawn through the points of a panel: what a function of definitions.py makes of each
    number. `note` says why it is not drawn above the line before it on the panel's `days`.
    """

    title: Label
    limit: str
    note: str = ""


class PanelRow(Strict):
    """The results of a measure, with the limits by which `judged_by` of definitions.py judges them
    (left out: those of the report, else for age and sex). On the `days` other limits hold than
    else; `outside` judges a number of such a day as on any other.
    """

    measure: str
    judged_by: str = ""
    days: str = ""
    outside: str = ""
    lines: list[LineRow] = []


class LaneRow(Strict):
    """What stands beneath the panels: records of drugs, from the first to the last dose and on to
    where they may still act, or problems.
    """

    title: Label
    drugs: list[str] = []
    problems: list[str] = []
    last_dose: str = ""
    acts_until: str = ""


class TrendFile(Strict):
    title: Said
    panel: Annotated[list[PanelRow], Meta(min_length=1)]
    lane: list[LaneRow] = []


class ContentFile(Strict):
    version: str
    released: str
    revised: str
    next_review: str
    publisher: str


class SiteCoding(Strict):
    system: str
    code: str
    display: str = ""


class SiteCodes(Strict):
    """Local codes and texts that mean a value set of ours."""

    codings: list[SiteCoding] = []
    texts: list[str] = []


class SiteOrder(Strict):
    """The site's own coding of an order."""

    codings: list[SiteCoding]
    text: str = ""


class SiteFile(Strict):
    """What a site may change; every key must exist in the content."""

    prefetch: dict[str, str] = {}
    codes: dict[str, SiteCodes] = {}
    orders: dict[str, SiteOrder | bool] = {}
    limits: dict[str, Any] = {}
    modes: dict[str, Mode] = {}
    labels: dict[str, str] = {}
    time_zone: str = "UTC"

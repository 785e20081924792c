"""The what-if page: a site file as a form, what it would change, and its text to take away."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal
from urllib.parse import urlencode

from msgspec import Struct

from cds_service.content import Content
from cds_service.errors import BrokenRequest, ContentError
from cds_service.modes import MODES as MODE_NAMES
from cds_service.quantity import Quantity
from cds_service.rule_code import Library
from cds_service.topic_pages import environment
from cds_service.topic_reading import TopicReading, in_words
from cds_service.topic_shape import ContentVersion
from cds_service.topics import content_version
from cds_service.what_if import (
    LIMITS,
    MODES,
    MOST_TYPED,
    CardLine,
    Change,
    Compared,
    Limit,
    Moved,
    Proposal,
    WhatIf,
    Why,
)

_PATIENT, _SERVICE = "patient", "service"
_HEAD = """\
# What differs at this site from content {version}. CDS_SITE_FILE names this file to the server;
# with it in place, cds-service check lists the vignettes that it moves.
"""
_SIGNS = {"comes": "+", "goes": "\N{MINUS SIGN}", "changes": "~", "stays": "="}


class Field(Struct, frozen=True):
    """One field of the form; `value` is what was typed, else what is in force (`here`)."""

    key: str
    label: str
    code: str
    unit: str
    value: str
    here: str
    shipped: str
    is_shipped: bool
    file: str
    rows: tuple[str, ...]
    wrong: str
    is_far: bool = False

    @property
    def is_changed(self) -> bool:
        """Whether it says otherwise than what is in force."""
        return self.value != self.here


class Group(Struct, frozen=True):
    """Fields under a heading."""

    about: str
    fields: tuple[Field, ...]

    @property
    def changed(self) -> int:
        """How many fields say otherwise than what is in force, or cannot be read."""
        return sum(x.is_changed or bool(x.wrong) for x in self.fields)


class Row(Struct, frozen=True):
    """A card before and after; None is no card, and why is None where the card stays."""

    kind: Literal["comes", "goes", "changes", "stays"]
    sign: str
    title: str
    before: CardLine | None
    after: CardLine | None
    why_before: Why | None
    why_after: Why | None


class Shown(Struct, frozen=True):
    """All that the page shows. `chosen` are the calls of the chosen patient, for whom `who` asks;
    `moved` are the others that differ; `query` asks for the changes; `text` is "" where what was
    typed cannot be read.
    """

    content: ContentVersion
    patients: tuple[str, ...]
    patient: str
    service: str
    who: str
    groups: tuple[Group, ...]
    modes: Group
    wrong: Mapping[str, str]
    changes: tuple[Change, ...]
    chosen: tuple[Compared, ...]
    moved: tuple[Compared, ...]
    counts: Mapping[str, int]
    text: str
    query: str

    @property
    def far(self) -> Mapping[str, str]:
        """The shipped values of limits that are far from them, by their keys."""
        return {x.key: x.shipped for group in self.groups for x in group.fields if x.is_far}


class WhatIfPage:
    """Renders the page and its download; `prefix` is the path under which the server is
    published.
    """

    def __init__(self, what_if: WhatIf, prefix: str) -> None:
        self._what_if = what_if
        self._content: Content = what_if.content
        self._environment = environment(prefix)
        self._environment.filters |= {"rows": _rows, "asks": _asks}

    def html(self, query: Mapping[str, str], links: Sequence[tuple[str, str]]) -> tuple[int, bytes]:
        """The page and its status: 422 where it says what was wrong in the query. `links` are the
        pages of this server, each with its name.
        """
        shown = self._shown(query)
        html = self._environment.get_template("what-if.html").render(
            shown=shown, links=links, mode_names=MODE_NAMES, most_typed=MOST_TYPED
        )
        return 422 if shown.wrong else 200, html.encode()

    def toml(self, query: Mapping[str, str]) -> str:
        """The site file; raises BrokenRequest naming what the loader would refuse."""
        proposal = self._what_if.proposal(_typed(query))
        for key, why in proposal.wrong.items():
            raise BrokenRequest("No site file says this.", f"{key}: {why}")
        return self._text(proposal)

    def _text(self, proposal: Proposal) -> str:
        version = self._content.about.version
        return f"{_HEAD.format(version=version)}\n{proposal.text.lstrip()}"

    def _shown(self, query: Mapping[str, str]) -> Shown:
        typed, patient, service = _typed(query), query.get(_PATIENT, ""), query.get(_SERVICE, "")
        proposal = self._what_if.proposal(typed)
        wrong = dict(proposal.wrong)
        patients = self._what_if.patients()
        if patient and patient not in patients:
            wrong[_PATIENT], patient = "is no fixture patient", ""
        service = service if self._content.find(service) is not None else ""
        compared: tuple[Compared, ...] = ()
        if not wrong and (patient or proposal.changes):
            try:
                compared = self._what_if.compared(proposal)
            except ContentError as error:
                wrong[error.key] = error.why
        chosen = _of(patient, service, compared)
        return Shown(
            content=content_version(self._content),
            patients=patients,
            patient=patient,
            service=service,
            who=_who(patient, service),
            groups=tuple(self._limit_groups(typed, wrong)),
            modes=self._modes(typed, wrong),
            wrong=wrong,
            changes=proposal.changes,
            chosen=tuple(chosen),
            moved=tuple(x for x in compared if x.moved and x not in chosen),
            counts=_counts(compared),
            text="" if wrong else self._text(proposal),
            query=self._query(typed, proposal),
        )

    def _query(self, typed: Mapping[str, str], proposal: Proposal) -> str:
        """The query that asks for the changes alone."""
        return urlencode({x.key: typed[x.key] for x in proposal.changes if x.key in typed})

    # -- the form ------------------------------------------------------------------------------

    @cached_property
    def _used_by(self) -> dict[str, tuple[str, ...]]:
        """The rows of the topics that use a limit, by its name."""
        library = Library(self._content.folder)
        found: dict[str, dict[str, None]] = {}
        for family in self._content.families:
            for topic in family.topics:
                for limit in TopicReading(self._content, family, topic, library).limits():
                    found.setdefault(limit.name, {})[topic.card.row] = None
        return {name: tuple(sorted(rows)) for name, rows in found.items()}

    def _limit_groups(self, typed: Mapping[str, str], wrong: Mapping[str, str]) -> Iterator[Group]:
        groups: dict[str, list[Field]] = {}
        for limit in self._what_if.limits.values():
            groups.setdefault(limit.about, []).append(self._limit(limit, typed, wrong))
        yield from (Group(about, tuple(fields)) for about, fields in groups.items())

    def _limit(self, limit: Limit, typed: Mapping[str, str], wrong: Mapping[str, str]) -> Field:
        key, here = f"{LIMITS}{limit.name}", f"{limit.here.value:f}"
        return Field(
            key=key,
            label=limit.row.says,
            code=limit.name,
            unit=_unit(limit.shipped),
            value=typed.get(key, here),
            here=here,
            shipped=in_words(limit.shipped),
            is_shipped=limit.here == limit.shipped,
            file=limit.file,
            rows=self._used_by.get(limit.name, ()),
            wrong=wrong.get(key, ""),
            is_far=limit.is_far(typed.get(key, here)),
        )

    def _modes(self, typed: Mapping[str, str], wrong: Mapping[str, str]) -> Group:
        return Group("Modes", tuple(self._mode_fields(typed, wrong)))

    def _mode_fields(self, typed: Mapping[str, str], wrong: Mapping[str, str]) -> Iterator[Field]:
        for code, topic in self._content.topics().items():
            key, here = f"{MODES}{code}", self._content.modes[code]
            yield Field(
                key=key,
                label=topic.card.title,
                code=code,
                unit="",
                value=typed.get(key, here),
                here=here,
                shipped=topic.card.mode,
                is_shipped=here == topic.card.mode,
                file="",
                rows=(topic.card.row,),
                wrong=wrong.get(key, ""),
            )


def _typed(query: Mapping[str, str]) -> dict[str, str]:
    """What was typed in the fields of the form, never longer than a wrong value has to be to be
    wrong.
    """
    return {
        key[: len(LIMITS) + 64]: text.strip()[: MOST_TYPED + 1]
        for key, text in query.items()
        if key.startswith((LIMITS, MODES))
    }


def _who(patient: str, service: str) -> str:
    """The query that asks for a patient at a service, "" for nobody."""
    asked = {_PATIENT: patient, _SERVICE: service}
    return urlencode({name: x for name, x in asked.items() if x}) if patient else ""


def _unit(quantity: Quantity) -> str:
    """The unit of a number as it is said of several."""
    return in_words(Quantity(quantity.value + 2, quantity.unit)).partition(" ")[2]


def _of(patient: str, service: str, compared: Sequence[Compared]) -> list[Compared]:
    """A patient's calls; those of the service where there are any."""
    found = [x for x in compared if x.call.patient == patient]
    return [x for x in found if x.call.service == service] or found


def _asks(compared: Compared) -> str:
    return _who(compared.call.patient, compared.call.service)


def _counts(compared: Sequence[Compared]) -> dict[str, int]:
    kinds = [x.kind for one in compared for x in one.moved]
    found = {kind: kinds.count(kind) for kind in ("comes", "goes", "changes")}
    return {**found, "patients": len({x.call.patient for x in compared if x.moved})}


def _rows(compared: Compared, with_all: bool = False) -> Iterator[Row]:
    """The cards that differ, and the others too where they are asked for."""
    for x in compared.moved:
        yield _row(x)
    for card in compared.after if with_all else ():
        if card in compared.before:
            yield Row("stays", _SIGNS["stays"], card.title, card, card, None, None)


def _row(moved: Moved) -> Row:
    card = moved.after or moved.before
    assert card is not None
    whys = (None, None) if moved.kind == "changes" else (moved.why_before, moved.why_after)
    return Row(moved.kind, _SIGNS[moved.kind], card.title, moved.before, moved.after, *whys)

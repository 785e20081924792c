"""Which prefetch keys were answered, what they held, and the chart that comes of it; 412 when
required data is not there.

A value is read under the site's name for a key, else discovery's, else by what it holds.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Struct

from cds_service.clients import ANYBODY, Caller
from cds_service.deliveries import Delivery, deliver
from cds_service.drafts import Drafts, drafts_of
from cds_service.errors import DataUnobtainable, NotJson
from cds_service.fhir_client import Fetched
from cds_service.hook_request import Call
from cds_service.resources import (
    DRUG_TYPES,
    READ_TYPES,
    Clinical,
    Medication,
    Note,
    Observation,
    Patient,
    Resource,
)
from cds_service.terminology import local_text, plain_code, remembered, same_system, spoken

R = TypeVar("R", bound=Resource)
State = Literal["answered", "failed", "incomplete", "absent"]


class PrefetchKey(Struct, frozen=True):
    """One query we publish: its template, what it reads, and what it means when it is not
    answered.
    """

    name: str
    template: str
    type: str
    title: str
    codes: frozenset[tuple[str, str]] | None
    texts: frozenset[str]
    value_sets: frozenset[str]
    required: bool
    caps: bool
    supplements: str

    @property
    def is_read(self) -> bool:
        """Whether the query reads one resource by id rather than searching."""
        return "?" not in self.template


class KeyIndex:
    """The keys of a service, and which of them ask for a resource: by type or by its codes."""

    def __init__(self, keys: Sequence[PrefetchKey]) -> None:
        self.keys = tuple(keys)
        self._by_type: dict[type[Resource], frozenset[str]] = {}
        self._by_code: dict[tuple[str, str], list[str]] = {}
        self._by_text: dict[str, list[str]] = {}
        self._asking_for_coding = remembered(self._by_coding)
        for key in keys:
            if key.codes is None:
                kind = READ_TYPES[key.type]
                self._by_type[kind] = self._by_type.get(kind, frozenset()) | {key.name}
            for code in key.codes or ():
                self._by_code.setdefault(code, []).append(key.name)
            for text in key.texts:
                self._by_text.setdefault(text, []).append(key.name)

    def asking_for(self, resource: Resource) -> frozenset[str]:
        """The names of the keys whose query the resource answers."""
        names = self._by_type.get(type(resource), frozenset())
        if not isinstance(resource, Observation) or resource.code is None:
            return names
        for coding in resource.code.coding:
            if coding.code and (more := self._asking_for_coding(coding.system, coding.code)):
                names = names | more if names else more
        if self._by_text:
            for text in map(local_text, spoken(resource.code)):
                names |= frozenset(self._by_text.get(text, ()))
        return names

    def _by_coding(self, system: str | None, code: str) -> frozenset[str]:
        where = same_system(system)
        return frozenset(self._by_code.get((where, plain_code(where, code)), ()))


class Source(Struct):
    """What became of one key: its state, how it was had, how many resources it gave."""

    key: PrefetchKey
    state: State = "absent"
    by: Literal["prefetch", "fetched", "inferred"] | None = None
    used: int = 0
    why: str = ""
    skipped: list[Note] = msgspec.field(default_factory=list)


class Chart(Struct):
    """The patient's resources by type, what belongs to somebody else, and the state of every key;
    `unasked` counts those of the patient's that no key asks for, by type.

    `drafts` are the draft orders that the call is about, `beside` is what came with them, and
    `drafted` says what was odd about them (None: the hook has no draft orders).
    """

    patient: Patient | None = None
    resources: dict[type[Resource], list[Resource]] = msgspec.field(default_factory=dict)
    foreign: list[Resource] = msgspec.field(default_factory=list)
    unread: Counter[str] = msgspec.field(default_factory=Counter)
    unasked: Counter[str] = msgspec.field(default_factory=Counter)
    sources: dict[str, Source] = msgspec.field(default_factory=dict)
    elsewhere: list[Note] = msgspec.field(default_factory=list)
    drafts: list[Resource] = msgspec.field(default_factory=list)
    beside: list[Resource] = msgspec.field(default_factory=list)
    drafted: list[Note] | None = None

    def of(self, kind: type[R]) -> list[R]:
        """The patient's resources of one type."""
        return cast("list[R]", self.resources.get(kind, []))


class Fetcher(Protocol):
    """Reads the client's FHIR server."""

    def refusal(self, base: str, caller: Caller, subject: str | None) -> str:
        """Why the server is not called for the caller, "" when it is; `subject` is that of the
        fhirAuthorization, None without one.
        """
        ...

    def fetch(
        self,
        base: str,
        queries: Mapping[str, str],
        *,
        token: str | None,
        caller: Caller,
    ) -> dict[str, Fetched]:
        """The answer to each query, as far as there is one within the call's time."""
        ...


def settle(
    call: Call,
    keys: KeyIndex,
    site_names: Mapping[str, str],
    fetcher: Fetcher | None,
    caller: Caller = ANYBODY,
) -> Chart:
    """The chart of a call: what was sent, what could be fetched for the caller; `site_names` maps a
    site's key to ours.

    Raises DataUnobtainable naming the required keys that are not answered.
    """
    access = _Access(fetcher, call, caller) if fetcher is not None and call.fhir_server else None
    try:
        return _settle(call, keys, site_names, access)
    except RecursionError:
        raise NotJson("The body is nested too deeply.") from None


class _Access:
    """The FHIR server that a call names; `refusal` says why it is not asked, "" when it is."""

    def __init__(self, fetcher: Fetcher, call: Call, caller: Caller) -> None:
        assert call.fhir_server is not None
        self.base = call.fhir_server
        self._fetcher = fetcher
        self._caller = caller
        self._granted = granted = call.fhir_authorization
        subject = granted.subject if granted is not None else None
        self.refusal = fetcher.refusal(self.base, caller, subject)

    def may_ask(self, resource_type: str, *, read: bool) -> bool:
        """Whether the client's grant, where it gave one, covers a query."""
        granted = self._granted
        return granted is None or (
            granted.expires_in > 0 and scope_covers(granted.scope, resource_type, read=read)
        )

    def ask(self, queries: Mapping[str, str]) -> dict[str, Fetched]:
        """The answer to each query, with the client's token."""
        if not queries:
            return {}
        token = self._granted.access_token if self._granted is not None else None
        return self._fetcher.fetch(self.base, queries, token=token, caller=self._caller)


def _settle(
    call: Call,
    index: KeyIndex,
    site_names: Mapping[str, str],
    access: _Access | None,
) -> Chart:
    sorting = _Sorting(call.context.patient_id, index)
    sorting.drafts = drafts_of(call.context)
    known = {key.name: key for key in index.keys}
    named: list[tuple[PrefetchKey, Delivery]] = []
    unnamed: list[tuple[str, Delivery]] = []
    for name, raw in call.prefetch.items():
        key = known.get(site_names.get(name, name))
        delivery = deliver(raw, name if key is not None or _SAFE_NAME.match(name) else "prefetch")
        sorting.keep(delivery)
        if key is None:
            unnamed.append((name, delivery))
        else:
            named.append((key, delivery))
    for key, delivery in named:
        sorting.accept(key, delivery, "prefetch")
    for name, delivery in unnamed:
        sorting.infer(name, delivery)
    if access is not None and access.refusal:
        sorting.refuse(access.refusal)
    elif access is not None:
        if lacking := [key for key in index.keys if sorting.lacks(key)]:
            _fetch(call, lacking, access, sorting)
        if drugs := sorting.drugs_without_words(access.base):
            _fetch_drugs(drugs, access, sorting)
    chart = sorting.chart()
    required = [key for key in index.keys if key.required and sorting.lacks(key)]
    if required:
        undeclared = tuple(name for name, one in unnamed if one.kind != "resource")
        raise Unsettled(required, chart, undeclared)
    return chart


class Unsettled(DataUnobtainable):
    """Required keys are not answered; `chart` says what there was, `undeclared` under which names
    that are not ours the answer to a search may have come.
    """

    def __init__(
        self, keys: Sequence[PrefetchKey], chart: Chart, undeclared: tuple[str, ...]
    ) -> None:
        each = "; ".join(f"{key.name} ({_why_lacking(chart.sources[key.name])})" for key in keys)
        names = tuple(key.name for key in keys)
        super().__init__(names, f"prefetch keys that could not be had: {each}")
        self.chart = chart
        self.undeclared = undeclared


_SO_FAR: dict[State, str] = {"absent": "not supplied", "incomplete": "one page of several"}


def _why_lacking(source: "Source") -> str:
    if source.why:
        return source.why
    if source.state in _SO_FAR:
        return f"{_SO_FAR[source.state]}, and no usable FHIR access"
    return "does not hold the patient"


def _fetch(
    call: Call, lacking: Sequence[PrefetchKey], access: _Access, sorting: "_Sorting"
) -> None:
    lacking = [x for x in lacking if access.may_ask(x.type, read=x.is_read)]
    queries = {key.name: _expand(key.template, call.context.patient_id) for key in lacking}
    fetched = access.ask(queries)
    for key in lacking:
        sorting.accept_fetched(key, fetched[key.name])


def _fetch_drugs(drugs: Sequence[str], access: _Access, sorting: "_Sorting") -> None:
    """What the drugs are that the record names by nothing but a reference."""
    if not access.may_ask("Medication", read=True):
        return
    for reference, fetched in access.ask({x: x for x in drugs}).items():
        for page in fetched.pages:
            sorting.keep(_deliver_page(page, reference))
        if fetched.why:
            sorting.note(Note(reference, f"could not be fetched: {fetched.why}"))


MOST_DRUGS = 20  # a call waits for them
_MEDICATION = re.compile(r"Medication/([A-Za-z0-9.-]{1,128})(?:/_history/|\Z)")
_SAFE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
_SPECIAL = re.compile(r"([\\,|$])")  # between the values of a search parameter (FHIR R4, 3.1.1.4.6)


def _expand(template: str, patient_id: str) -> str:
    value = _SPECIAL.sub(r"\\\1", patient_id) if "?" in template else patient_id
    return template.replace("{{context.patientId}}", quote(value, safe=""))


def scope_covers(scope: str, resource_type: str, *, read: bool) -> bool:
    """Whether SMART scopes (version 1 or 2) let us read, or search, a type.

    Scopes in another language are given the doubt.
    """
    smart = [x for x in scope.split() if x.startswith(("patient/", "user/", "system/"))]
    needed = "r" if read else "s"
    for one in smart:
        name, _, rights = one.split("/", 1)[1].partition(".")
        rights = rights.partition("?")[0]
        if name in ("*", resource_type) and (rights in ("read", "*") or _grants(rights, needed)):
            return True
    return not smart


def _grants(rights: str, needed: str) -> bool:
    """Whether SMART 2 rights, some of c r u d s in that order, hold the one needed."""
    return set(rights) <= set("cruds") and needed in rights


_WORSE: dict[State, int] = {"absent": 0, "answered": 1, "incomplete": 2, "failed": 3}


class _Held(Struct):
    """How many of the patient's resources in a delivery each key asks for, and whether any is the
    patient's, any somebody else's. Other people's for a required key show that it was asked.
    """

    asked_for: Counter[str] = msgspec.field(default_factory=Counter)
    of_others: Counter[str] = msgspec.field(default_factory=Counter)
    own: bool = False
    foreign: bool = False


class _Sorting:
    """Puts deliveries under keys and into the chart, the patient's apart from other people's."""

    def __init__(self, patient_id: str, index: KeyIndex) -> None:
        self._patient_id = patient_id
        self._subject = f"Patient/{patient_id}"
        self._index = index
        self._required = {key.name for key in index.keys if key.required}
        self._sources = {key.name: Source(key) for key in index.keys}
        self._resources: list[tuple[str, Resource]] = []
        self._own_urls: set[str] = set()
        self._known_own: set[int] = set()
        self._unread: Counter[str] = Counter()
        self._unasked: Counter[str] = Counter()
        self._elsewhere: list[Note] = []
        self.drafts: Drafts | None = None

    def keep(self, delivery: Delivery) -> None:
        """Adds what was delivered, before anybody asks whose it is."""
        self._resources += delivery.resources
        self._unread.update(delivery.unread)
        self._own_urls |= {
            url
            for url, x in delivery.resources
            if isinstance(x, Patient) and url and self._is_own(x)
        }

    def note(self, note: Note) -> None:
        """Adds something odd that belongs to no key."""
        self._elsewhere.append(note)

    def drugs_without_words(self, server: str) -> list[str]:
        """`Medication/id` of the server for each of the patient's drugs that is named by a
        reference only, which nothing sent resolves; at most so many.
        """
        drafts = self.drafts.chosen if self.drafts is not None else []
        sent = [x for _, x in self._resources] + (self.drafts.beside if self.drafts else [])
        known = {x.id for x in sent if isinstance(x, Medication)}
        wanted: list[str] = []
        for resource in (*drafts, *(x for _, x in self._resources)):
            if isinstance(resource, DRUG_TYPES) and self._is_own(resource):
                reference = resource.medication_reference
                if resource.medication_codeable_concept is None and reference is not None:
                    path = (reference.reference or "").removeprefix(f"{server.rstrip('/')}/")
                    named = _MEDICATION.match(path)
                    if named and not reference.display and named[1] not in known:
                        wanted.append(f"Medication/{named[1]}")
        return list(dict.fromkeys(wanted))[:MOST_DRUGS]

    def lacks(self, key: PrefetchKey) -> bool:
        """Whether the key is still without a full answer; a read must have brought the patient."""
        source = self._sources[key.name]
        if key.is_read and key.required:
            return source.state != "answered" or source.used == 0
        return source.state != "answered"

    def accept(
        self,
        key: PrefetchKey,
        delivery: Delivery,
        by: Literal["prefetch", "fetched"],
    ) -> State:
        """A delivery under a name we know, and what the key is with it: the worst of several
        decides.
        """
        source = self._sources[key.name]
        held = self._held(delivery)
        state, why = _state(key, delivery, held.own, held.foreign)
        source.skipped += delivery.notes
        source.used += held.asked_for[key.name]
        if state == "absent" and by == "fetched":
            state = "failed"
        if state != "absent":
            source.by = by
        if _WORSE[state] >= _WORSE[source.state]:
            source.state, source.why = state, why
        return source.state

    def accept_fetched(self, key: PrefetchKey, fetched: Fetched) -> None:
        """What the FHIR server answered to the key's query."""
        source = self._sources[key.name]
        if fetched.state == "failed":
            if source.state == "absent":
                source.state, source.by = "failed", "fetched"
            source.why = fetched.why
            return
        source.used, source.state = 0, "absent"
        for n, page in enumerate(fetched.pages):
            delivery = _deliver_page(page, f"page {n + 1}")
            self.keep(delivery)
            if self.accept(key, delivery, "fetched") == "failed":
                source.state = "incomplete" if n else "failed"
                return
        source.state, source.why = fetched.state, fetched.why

    def refuse(self, why: str) -> None:
        """Says of every key without a full answer why the client's FHIR server was not asked."""
        for source in self._sources.values():
            if source.state in _SO_FAR and not source.why:
                source.why = f"{_SO_FAR[source.state]}, and {why}"

    def infer(self, name: str, delivery: Delivery) -> None:
        """A delivery under an unknown name answers the queries of which it holds a matching
        resource.
        """
        answered = False
        if delivery.kind == "error":
            self._elsewhere.append(Note(name, "an OperationOutcome was sent"))
        held = self._held(delivery)
        for key in self._index.keys if delivery.kind in ("bundle", "resource") else ():
            source = self._sources[key.name]
            is_held = held.asked_for[key.name] or held.of_others[key.name]
            if not is_held or source.by == "prefetch":
                continue
            if delivery.kind == "resource" and not key.is_read:
                continue
            answered = True
            source.used += held.asked_for[key.name]
            if delivery.more or source.state == "incomplete":
                source.state = "incomplete"
            else:
                source.state = "answered"
            source.by = "inferred"
            source.skipped += delivery.notes
        if not answered:
            self._elsewhere += delivery.notes

    def _held(self, delivery: Delivery) -> "_Held":
        """What a delivery holds for each key, and of whom."""
        held = _Held()
        of_each: dict[frozenset[str], int] = {}  # there are far fewer than resources
        for _, resource in delivery.resources:
            asked_by = self._index.asking_for(resource)
            if self._is_own(resource):
                self._known_own.add(id(resource))
                held.own = True
                of_each[asked_by] = of_each.get(asked_by, 0) + 1
                if not asked_by:
                    self._unasked[type(resource).__name__] += 1
            elif not isinstance(resource, Patient):
                held.foreign = True
                held.of_others.update(asked_by & self._required)
        for asked_by, count in of_each.items():
            held.asked_for.update(dict.fromkeys(asked_by, count))
        return held

    def _is_own(self, resource: Resource) -> bool:
        """Whether a resource is the patient's, or says of nobody whose it is."""
        if isinstance(resource, Patient):
            return resource.id in (None, self._patient_id)
        if not isinstance(resource, Clinical):
            return True
        subject = resource.subject or resource.patient
        reference = subject.reference if subject is not None else None
        if not reference or reference == self._subject or reference in self._own_urls:
            return True
        return _means(reference, self._patient_id)

    def chart(self) -> Chart:
        """Everything kept, each resource once, other people's apart."""
        chart = Chart(
            sources=self._sources,
            unread=self._unread,
            unasked=+self._unasked,
            elsewhere=self._elsewhere,
        )
        seen: set[object] = set()
        for _, resource in self._resources:
            identity = (
                (type(resource), resource.id) if resource.id else msgspec.json.encode(resource)
            )
            if identity in seen:
                continue
            seen.add(identity)
            self._place(resource, chart)
        if self.drafts is not None:
            self._place_drafts(self.drafts, chart)
        return chart

    def _place_drafts(self, drafts: Drafts, chart: Chart) -> None:
        """Drafts are no record of anything: they stay apart from the chart's resources."""
        chart.drafts = [x for x in drafts.chosen if self._is_own(x)]
        chart.beside = [x for x in drafts.beside if self._is_own(x)]
        chart.foreign += [x for x in (*drafts.chosen, *drafts.beside) if not self._is_own(x)]
        chart.drafted = drafts.notes

    def _place(self, resource: Resource, chart: Chart) -> None:
        own = id(resource) in self._known_own or self._is_own(resource)
        if isinstance(resource, Patient):
            if own and chart.patient is None:
                chart.patient = resource
        elif own:
            chart.resources.setdefault(type(resource), []).append(resource)
        else:
            chart.foreign.append(resource)


def _deliver_page(page: bytes, where: str) -> Delivery:
    """What a page of the client's FHIR server held; one nested too deeply holds nothing."""
    try:
        return deliver(page, where)
    except RecursionError:
        return Delivery("other")


def _state(key: PrefetchKey, delivery: Delivery, own: bool, foreign: bool) -> tuple[State, str]:
    """What a delivery makes of its key, and why, where it is no full answer; `own` and `foreign`:
    whether it holds anything of the patient's, and of other people.
    """
    if delivery.kind == "error":
        return "failed", "an OperationOutcome was sent"
    if delivery.kind == "other" or (delivery.kind == "resource" and not key.is_read):
        return "absent", "the value is not what the key asks for"
    if not own and not (foreign and key.required):
        if delivery.refused:
            return "failed", "an OperationOutcome was sent"
        if foreign:
            return "failed", "all of it belongs to other patients"
        if delivery.entries:
            return "failed", "does not hold the patient" if key.is_read else "holds nothing we read"
    return ("incomplete" if delivery.more else "answered"), ""


def _means(reference: str, patient_id: str) -> bool:
    """Whether a reference, absolute, versioned or a urn, means the patient of the call."""
    if reference.startswith("urn:uuid:"):
        return reference == f"urn:uuid:{patient_id}"
    if reference.startswith("#"):
        return True
    parts = reference.partition("/_history/")[0].rsplit("/", 2)
    return parts[-2:] == ["Patient", patient_id]


def undeclared_line(name: str, key: str) -> str:
    """The line of a site file that would say which key of ours a site's key answers."""
    return f"[prefetch]\n{json.dumps(name)} = {json.dumps(key)}"

"""The playground: one call fired as a client fires it, and all there is to show of it: cards, why,
checks, times.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property, lru_cache
from math import isfinite
from pathlib import Path
from typing import Any
from unicodedata import category
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from cds_service.chart_requests import bundle_request, fixture_request
from cds_service.content import Content, Family
from cds_service.content_files import Service
from cds_service.dates import as_text
from cds_service.drafts import WHERE as DRAFTS
from cds_service.errors import BrokenRequest, NotJson, UnknownPatient, UnknownService
from cds_service.evaluation import DONE_OR_ORDERED, MOST_CARDS
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient, load_patients
from cds_service.overrides import OVERRIDDEN, SHOWN_LATELY
from cds_service.playground_checks import Check, Checks
from cds_service.playground_evidence import Questions, decided_by, questions_of
from cds_service.playground_patient import PatientShown, patient_shown
from cds_service.saved_fixtures import (
    file_name,
    patients_of,
    read_fixture,
    saved_fixture,
    sent_resources,
)
from cds_service.topic_shape import QuestionAsked, TopicPage
from cds_service.topics import topic_pages

Json = dict[str, Any]
# Posts a body to a path of this server and tells what it was answered with.
Ask = Callable[[str, bytes], "Answered"]

SANDBOX = "https://sandbox.cds-hooks.org/"
MOST_REASONS = 6
MOST_ENTRIES = 2
DEEPEST = 100  # levels that are shown indented; FHIR has some twenty
_OPENED = "patient-view"
_PLAIN = ("yes", "no", "unknown")
_SCREENS = {_OPENED: "patient-view", "order-select": "rx-view", "order-sign": "rx-sign"}
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_NOT_PLAIN = re.compile(r"[^\x20-\x7e\r\n\t]")
_BY = re.compile(r"\bby (\w+)")
_LIMITS = re.compile(r"(?P<numbers>.*) \((?P<source>[\w-]+)\)\Z")
# The order in which verdicts stand on the page: what would interest first.
VERDICTS = (
    *("fired", "suppressed", "data-missing", "data-unusable"),
    *("not-met", "not-applicable"),
)
_BLIND = ("data-missing", "data-unusable")
_NOTHING_TO_SAY = "No card: the chart was looked at, and there is nothing to say."
PHASES = {
    "wait": "waiting for its turn",
    "decode": "reading the request",
    "fetch": "fetching what was not sent",
    "facts": "putting the chart in order",
    "rules": "rules and what holds cards back",
    "cards": "writing the cards",
    "total": "in all, from first byte to answer",
}


class Answered(Struct, frozen=True):
    """What a call was answered with; `seconds` is how long each of its phases took."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    seconds: Mapping[str, float] = msgspec.field(default_factory=dict)

    @property
    def json(self) -> Json:
        """The body as JSON."""
        found: Json = json.loads(self.body)
        return found


class Chosen(Struct, frozen=True):
    """What is filled in on the form: a fixture patient's id, a service's id ("" for the one of the
    hook), and what was pasted.
    """

    patient: str = ""
    service: str = ""
    pasted: str = ""


class TopicSeen(Struct, frozen=True):
    """What became of a topic: its verdict as the explanation has it, the reason with titles for
    codes, and what would have to differ for it to fire.
    """

    code: str
    row: str
    title: str
    reason: str
    found: Json
    questions: Questions
    differs: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict's name."""
        return str(self.found["verdict"])


class Fired(Struct, frozen=True):
    """One call with its answer, and all that is shown of it; `silence` says what it means that
    there is no card.
    """

    service: Service
    url: str
    request: str
    curl: str
    answer: Answered
    cards: tuple[Json, ...]
    silence: tuple[str, ...]
    refused: tuple[str, ...]
    topics: tuple[TopicSeen, ...]
    data: tuple[Json, ...]
    hints: tuple[str, ...]
    as_of: str
    resources: Mapping[str, str]
    checks: tuple[Check, ...]

    @property
    def times(self) -> list[tuple[str, float]]:
        """Each phase in words, with its milliseconds."""
        spent = self.answer.seconds
        return [(said, spent[name] * 1000) for name, said in PHASES.items() if name in spent]


class Playground:
    """Makes requests of what was chosen, fires them and reads what came back; `url` is the server's
    own address, `fhir` the FHIR endpoint with the fixture patients where there is one.
    """

    def __init__(
        self,
        content: Content,
        folder: Path,
        url: str,
        fhir: FhirEndpoint | None,
        today: Callable[[], int],
    ) -> None:
        self.content = content
        self.url = url
        self._folder = folder
        self._fhir = fhir
        self._today = today
        self._patients = lru_cache(maxsize=1)(self._loaded)

    @property
    def fhir_url(self) -> str:
        """The base of the FHIR endpoint, "" without one."""
        return f"{self.url}/fhir" if self._fhir is not None else ""

    def patients(self) -> Mapping[str, FixturePatient]:
        """The fixture patients of today by id, those first that tell most."""
        return self._patients(self._today())

    def _loaded(self, today: int) -> Mapping[str, FixturePatient]:
        found = load_patients(self._folder, date.fromordinal(today))
        found.sort(key=lambda x: (x.rank, not x.expect))
        return {str(x.patient["id"]): x for x in found}

    @cached_property
    def pages(self) -> dict[str, TopicPage]:
        """What is published of each topic."""
        return topic_pages(self.content)

    @cached_property
    def _checks(self) -> Checks:
        return Checks(self.content)

    # -- what is asked -------------------------------------------------------------------------

    def request_for(self, chosen: Chosen, sent: bytes) -> tuple[Family, Service, bytes]:
        """The service that is called and the body it is sent; `sent` is a file, b"" for none. A
        Bundle or a fixture is made a request, anything else goes as it is. Raises CdsError.
        """
        body = sent or chosen.pasted.encode("utf-8", "replace")
        given = _object(body)
        hook: object = given.get("hook")
        if not body.strip():
            family, service = self._service(chosen.service, _OPENED)
            if not chosen.patient:
                raise NotJson("Nothing was pasted, and no file was chosen.")
            fixture = self.patients().get(chosen.patient)
            if fixture is None:
                raise UnknownPatient("There is no fixture patient of that id.")
            made = fixture_request(fixture, service.hook, family.keys, self.fhir_url)
        elif "bundle" in given and "asOf" in given:
            fixture = read_fixture(given, self._today())
            hook = fixture.orders[0].hook if fixture.orders else _OPENED
            family, service = self._service(chosen.service, hook)
            made = fixture_request(fixture, service.hook, family.keys)
        elif given.get("resourceType") == "Bundle":
            family, service = self._service(chosen.service, _OPENED)
            made = bundle_request(given, service.hook, family.keys)
        else:
            is_object = given or b"".join(body.split()) == b"{}"
            if is_object and not chosen.service and hook not in self._hooks:
                why = f"hook is none of {', '.join(self._hooks)}; a service can be chosen as well"
                raise BrokenRequest("No service answers the hook of this request.", why)
            family, service = self._service(chosen.service, hook)
            return family, service, body
        return family, service, _indented(made)

    @cached_property
    def _hooks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(x.hook for _, x in self.content.services()))

    def _service(self, service_id: str, hook: object) -> tuple[Family, Service]:
        """The service of an id, else the first one of a hook, else the first; raises
        UnknownService.
        """
        services = [*self.content.services()]
        if service_id:
            services = [x for x in services if x[1].id == service_id]
        if not services:
            raise UnknownService("No such service.")
        return next((x for x in services if x[1].hook == hook), services[0])

    # -- what comes back -----------------------------------------------------------------------

    def fire(self, service: Service, body: bytes, ask: Ask) -> Fired:
        """Calls the service, and asks why."""
        path = f"/cds-services/{service.id}"
        answer = ask(path, body)
        why = ask(f"/explain/{service.id}", body)
        explained = why.json if why.status == 200 else {}
        text = body.decode("utf-8", "replace")
        cards = tuple(answer.json["cards"]) if answer.status == 200 else ()
        topics = tuple(self._topics(explained.get("verdicts", [])))
        data = tuple(explained.get("data", []))
        return Fired(
            service=service,
            url=f"{self.url}{path}",
            request=visible(text),
            curl=_curl(f"{self.url}{path}", text),
            answer=answer,
            cards=cards,
            silence=self._silence(answer.status, topics, data),
            refused=_refused(answer, body),
            topics=topics,
            data=data,
            hints=tuple(explained.get("hint", [])),
            as_of=explained.get("asOf", ""),
            resources=self._resources(_object(body), explained),
            checks=self._checks.of(service, body, answer.status, answer.body),
        )

    def _silence(
        self, status: int, topics: tuple[TopicSeen, ...], data: tuple[Json, ...]
    ) -> tuple[str, ...]:
        """What it means that there is no card: it is an all-clear only where all was read."""
        if status != 200:
            return ("No answer, so no cards." if status >= 500 else "Refused, so no cards.",)
        said = []
        if any(x["key"] == DRAFTS and not x["used"] for x in data):
            said.append("No card: no order was read in this request, so none was looked at.")
        blind = [x.title for x in topics if x.verdict in _BLIND and self._is_on(x.code)]
        if blind:
            lack = "1 topic lacks" if len(blind) == 1 else f"{len(blind)} topics lack"
            named = "; ".join(blind)
            said.append(f"No card, and that is no all-clear: {lack} usable data ({named}).")
        if any(x.verdict == "suppressed" for x in topics):
            said.append("No card: what there is to say is held back; the topics say by what.")
        return tuple(said) or (_NOTHING_TO_SAY,)

    def _is_on(self, code: str) -> bool:
        return self.content.modes[code] == "on"

    def _topics(self, verdicts: list[Json]) -> Iterator[TopicSeen]:
        for found in sorted(verdicts, key=lambda x: VERDICTS.index(x["verdict"])):
            page = self.pages[found["topic"]]
            differs = tuple(self._differs(found))
            reason = self._reason(found)
            asked = questions_of(found, self._compared)
            yield TopicSeen(page.code, page.row, page.title, reason, found, asked, differs)

    def _reason(self, found: Json) -> str:
        """The reason in words, each topic that holds the card back by its title."""
        text = str(found["reason"]["text"])
        if found["verdict"] != "suppressed":
            return text
        return _BY.sub(lambda x: f"by “{self.title(x[1])}”" if x[1] in self.pages else x[0], text)

    def title(self, code: str) -> str:
        """A topic's title, or the code of what is no topic."""
        page = self.pages.get(code)
        return page.title if page is not None else code

    def _differs(self, found: Json) -> Iterator[str]:
        """What would have to differ for a topic to fire, as far as it was looked into."""
        verdict, by, asked = found["verdict"], found.get("by", ""), found["evidence"]
        if verdict == "fired":
            return
        if verdict == "suppressed":
            yield self._would_free(by, found)
        elif not asked or verdict == "data-missing":
            yield f"The data would have to be there. {found['reason']['text']}"
        else:
            last = decided_by(found) or asked[-1]
            wanted = {"no": "yes", "yes": "no"}.get(last["answer"], "known")
            is_now = f"would have to be {wanted}; it is {last['answer']}."
            yield f"The answer to “{last['question']}” {is_now}"
            yield from list(dict.fromkeys(self._rests_on(last)))[:MOST_REASONS]
            yield "What the rule asks after that was not asked yet."

    def _rests_on(self, question: Json) -> Iterator[str]:
        """The innermost questions that gave a question its answer; one that has none of that answer
        behind it rests on all that is behind it.
        """
        behind = [x for x in question.get("because", []) if x["answer"] in _PLAIN]
        alike = [x for x in behind if x["answer"] == question["answer"]]
        for each in alike:
            yield from self._rests_on(each)
        if alike:
            return
        for each in (question, *([] if question["used"] else behind)):
            is_bare = not (each["used"] or each["rejected"] or self.numbers.get(each["question"]))
            if each is not question or not is_bare:
                yield self._told(each)

    def _told(self, question: Json) -> str:
        """A question and its answer, with what was looked at and what that was compared with."""
        entries = [self._entry(x) for x in question["used"][:MOST_ENTRIES]]
        if not entries:
            whys = dict.fromkeys(x["why"] for x in question["rejected"])
            entries = [f"not used: {shown(x)}" for x in whys][:MOST_ENTRIES]
        numbers = [x for x, _ in self.numbers.get(question["question"], ())]
        said = f"{question['question']} {question['answer']}"
        said += f" ({'; '.join(entries)})" if entries else ""
        return said + (f"; compared with {'; '.join(numbers)}" if numbers else "")

    def _entry(self, entry: Json) -> str:
        told = [entry[x] for x in ("date", "name", "value") if x in entry]
        said = " ".join(told) or entry["reference"]
        limits = f", limits {self.limits(entry['limits'])}" if "limits" in entry else ""
        return shown(f"{said}{limits}")

    def _would_free(self, by: str, found: Json) -> str:
        """What would let a card through that is held back."""
        if by in (OVERRIDDEN, SHOWN_LATELY):
            until = f"until {found['until']}" if "until" in found else "until its evidence changes"
            return f"It would have to be later, or there be new evidence: it is silent {until}."
        if by == DONE_OR_ORDERED:
            return "One of its orders would have to be neither done nor ordered."
        if by == MOST_CARDS:
            return "Fewer cards would have to go before it: there are never more than three."
        if by in ("shadow", "off"):
            return f"Its mode would have to be on; it is {by}."
        return f"“{self.title(by)}” would have to be silent: it goes first."

    @cached_property
    def numbers(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """What each question compares with, by its text: the number in words, and where it is
        from.
        """
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for page in self.pages.values():
            for each in (page, *page.elsewhere):
                sources = {x.says: _source(x.own, x.shipped) for x in each.limits}
                for question in _all_of(each.questions):
                    found[question.text] = tuple(
                        (x, sources.get(x.rpartition(": ")[0], "")) for x in question.numbers
                    )
        return found

    @cached_property
    def _compared(self) -> frozenset[str]:
        return frozenset(text for text, numbers in self.numbers.items() if numbers)

    def limits(self, text: str) -> str:
        """The limits of a number with where they are from in words."""
        found = _LIMITS.match(text)
        if found is None:
            return text
        low, _, high = found["numbers"].partition("-")
        numbers = f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}"
        if not low and not high:
            return "no limits"
        return f"{numbers}, {self.content.words.limit_from.get(found['source'], found['source'])}"

    def _resources(self, request: Json, explained: Json) -> Mapping[str, str]:
        """The resources that the verdicts name, as JSON by their reference."""
        sent = {f"{x.get('resourceType')}/{x.get('id')}": x for x in sent_resources(request)}
        found = {}
        for reference in sorted(_references(explained.get("verdicts", []))):
            if reference in sent:
                found[reference] = visible(_indented(sent[reference]).decode())
            elif self._fhir is not None and request.get("fhirServer") == self.fhir_url:
                status, body = self._fhir.answer("GET", reference, "")
                if status == 200:
                    found[reference] = visible(_indented(json.loads(body)).decode())
        return found

    def patient(self, chosen: Chosen, fired: Fired) -> PatientShown:
        """Whose call it was."""
        hook, fixture = fired.service.hook, self.patients().get(chosen.patient)
        family, _ = self._service(fired.service.id, hook)
        stored = fixture_request(fixture, hook, family.keys, self.fhir_url) if fixture else {}
        request = _object(fired.request.encode("utf-8", "replace"))
        return patient_shown(request, hook, fixture, stored, self._today())

    # -- what can be taken along ---------------------------------------------------------------

    def sandbox(self, patient: PatientShown, service: Service) -> str:
        """The address that opens the CDS Hooks Sandbox with this patient; "" where no FHIR endpoint
        has it as it was sent.
        """
        if not self.fhir_url or not patient.is_stored:
            return ""
        asked = {
            "fhirServiceUrl": self.fhir_url,
            "patientId": patient.id,
            "serviceDiscoveryURL": f"{self.url}/cds-services",
            "screen": _SCREENS[service.hook],
            "hook": service.hook,
        }
        return f"{SANDBOX}?{urlencode(asked, quote_via=quote)}"

    def as_fixture(self, body: bytes, fired: Fired, ask: Ask) -> tuple[str, bytes]:
        """The name and the bytes of a fixture file: the chart that was sent, on its day, with what
        was ordered, and the cards that it got.
        """
        hook, as_of = fired.service.hook, fired.as_of or as_text(self._today())
        story = f"Saved from the playground: {fired.service.id}."
        fixture = saved_fixture(_object(body), hook, as_of, story, _owed(fired.cards))
        if hook != _OPENED:
            fixture["expect"] = self._owed_when_opened(fixture, ask)
        return file_name(fixture), _indented(fixture)

    def _owed_when_opened(self, fixture: Json, ask: Ask) -> list[str]:
        """The cards of a chart that is only opened; none where it is nobody's."""
        family, service = self._service("", _OPENED)
        ids = [x.get("id") for x in patients_of(fixture["bundle"])]
        if service.hook != _OPENED or not any(isinstance(x, str) and x for x in ids):
            return []
        opened = bundle_request(fixture["bundle"], _OPENED, family.keys)
        why = ask(f"/explain/{service.id}", json.dumps(opened).encode())
        return _owed(why.json["cards"]) if why.status == 200 else []


# -- texts and JSON ----------------------------------------------------------------------------


def visible(text: str) -> str:
    """The text with every character that is not seen as the escape that JSON has for it."""
    return _NOT_PLAIN.sub(lambda x: _escape(x[0]) if category(x[0]) in _UNSEEN else x[0], text)


def _escape(x: str) -> str:
    return json.dumps(x)[1:-1]


def shown(text: str) -> str:
    """A text of the chart on one line, of what can be seen in it, at most so long."""
    line = " ".join("".join(x for x in text if x.isspace() or category(x) not in _UNSEEN).split())
    return line if len(line) <= 200 else f"{line[:200]}…"


def _indented(value: Any) -> bytes:
    """JSON with a line for each value; on one line when it is nested so deeply that most of the
    text would be blanks. Half a character is an escape, as it came.
    """
    indent = 1 if _levels(value) <= DEEPEST else None
    return json.dumps(value, ensure_ascii=False, indent=indent).encode(errors="backslashreplace")


def _levels(value: Any) -> int:
    """How deeply lists and objects are nested; counted without recursion."""
    found, level = 0, [value]
    while level := [x for x in level if isinstance(x, dict | list) and x]:
        found += 1
        level = [y for x in level for y in (x.values() if isinstance(x, dict) else x)]
    return found


def _never(_: str) -> None:
    raise ValueError


def _number(digits: str) -> int | float | str:
    """A number of JSON; one that is too large for Python stays the text that it is."""
    number = float(digits)
    if not isfinite(number):
        return digits
    return int(digits) if digits.lstrip("-").isdigit() else number


def _object(body: bytes) -> Json:
    """The JSON object of a body; empty for anything else."""
    try:
        found = json.loads(body, parse_constant=_never, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refused(answer: Answered, body: bytes) -> tuple[str, ...]:
    """What an answer that is none says, and where a text is no JSON."""
    if answer.status == 200:
        return ()
    where = _broken_at(body) if answer.status == 400 else ""
    return (*_said(answer.json), *([where] if where else []))


def _broken_at(body: bytes) -> str:
    """Where a text stops being JSON; "" where it does not."""
    try:
        json.loads(body.decode(), parse_int=str)  # Python reads no number of over 4,300 digits
    except UnicodeDecodeError as error:
        before = body[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"Line {line}, column {column}: not a character of UTF-8."
    except json.JSONDecodeError as error:
        return f"Line {error.lineno}, column {error.colno}: {error.msg}."
    except RecursionError:
        pass
    return ""


def _said(outcome: Json) -> tuple[str, ...]:
    """What an OperationOutcome says."""
    issue = outcome["issue"][0]
    said = (issue["details"]["text"], issue.get("diagnostics", ""))
    return tuple(shown(x) for x in said if x)


def _owed(cards: Sequence[Json]) -> list[str]:
    """Cards as a fixture names them."""
    return [f"{x['source']['topic']['code']} {x['indicator']}" for x in cards]


def _curl(url: str, text: str) -> str:
    """The command that sends the same, in ASCII: JSON has other characters in its texts only."""
    text = _NOT_PLAIN.sub(lambda x: _escape(x[0]), text)
    said = text.split()
    ends = next(x for n in range(len(said) + 1) if (x := f"REQUEST{n or ''}") not in said)
    sent = "-H 'Content-Type: application/json' --data-binary @-"
    return f"curl -sS {url} {sent} <<'{ends}'\n{text}\n{ends}"


# -- questions and resources -------------------------------------------------------------------


def _all_of(questions: list[QuestionAsked]) -> Iterator[QuestionAsked]:
    for x in questions:
        yield x
        yield from _all_of(x.behind)


def _source(own: bool, shipped: object) -> str:
    """Which file a number is from."""
    if shipped is not None:
        return f"site file; shipped: {shipped}"
    return "service.toml" if own else "shared/limits.toml"


def _references(value: Any) -> set[str]:
    """Every reference below verdicts."""
    if isinstance(value, list):
        return set().union(*map(_references, value))
    if not isinstance(value, dict):
        return set()
    named = {value["reference"]} if isinstance(value.get("reference"), str) else set()
    return named.union(*map(_references, value.values()))

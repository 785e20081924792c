"""The grammar of a vignettes file: its rows with their shorthand read, or what is wrong with it."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from cds_service.dates import parse_date
from cds_service.errors import ContentError
from cds_service.hook_request import CONTEXTS, ORDER_HOOKS
from cds_service.modes import EVERY, MODES, Mode
from cds_service.terminology import SYSTEMS

_EVERY = " subject sent_in status text system code"
_MEMBERS = {
    "results": "measure value unit unit_code low high range_unit ranges comparator date start time"
    " issued effective value_date concept interpretation comment specimen specimen_ref"
    f" specimen_note missing name{_EVERY}",
    "conditions": "display codings verification onset onset_start recorded abatement undated"
    + _EVERY,
    "medications": "rxnorm atc start end kind intent dosage frequency period period_unit"
    f" do_not_perform{_EVERY}",
    "procedures": f"date{_EVERY}",
    "encounters": f"class start end location type{_EVERY}",
    "reports": f"order date conclusion{_EVERY}",
    "orders": f"order date intent do_not_perform{_EVERY}",
    "drafts": "order rxnorm atc date intent dosage reasons reason_problem unselected do_not_perform"
    " subject status text system code",
}
_NUMBERS = "value low high period frequency reason_problem"
_TABLES = {
    "ranges": "low high unit type applies_to",
    "codings": "system code display",
    "reasons": "system code text",
}
_FLAGS = "undated do_not_perform unselected"
_DATES = "born date start end issued onset onset_start recorded abatement value_date"
_ANY = "entered-in-error unknown"
_STATUSES = {
    "results": f"registered preliminary final amended corrected cancelled {_ANY}",
    "conditions": "active recurrence relapse inactive remission resolved",
    "medications": "active on-hold cancelled completed stopped draft in-progress not-done intended"
    f" not-taken {_ANY}",
    "procedures": f"preparation in-progress not-done on-hold stopped completed {_ANY}",
    "encounters": f"planned arrived triaged in-progress onleave finished cancelled {_ANY}",
    "reports": f"registered partial preliminary final amended corrected appended cancelled {_ANY}",
    "orders": f"draft active on-hold revoked completed {_ANY}",
    "drafts": f"draft active on-hold cancelled completed stopped {_ANY}",
}
_CHOICES = {
    "verification": "unconfirmed provisional differential confirmed refuted entered-in-error",
    "kind": "request administration statement",
    "effective": "dateTime period instant",
    "comparator": "< <= > >=",
}
_LISTS = "expect absent failed incomplete must_not_say"
_KEYS = f"id says hook patient modes verdicts suggests {_LISTS} {' '.join(_MEMBERS)}"
_VERDICTS = "fired suppressed not-applicable data-missing data-unusable not-met"

_DAY = r"(?:[+-]\d{1,5}d|\d{4}(?:-\d\d(?:-\d\d)?)?)"
_NUMBER = r"\d+(?:\.\d+)?"
_RESULT = re.compile(
    rf"(?P<measure>[a-z]\w*)(?: (?P<comparator>[<>]=?)?(?P<value>{_NUMBER})"
    rf"(?: (?P<unit>[^\s\[(]+))?(?: \[(?P<low>{_NUMBER})?-(?P<high>{_NUMBER})?\])?"
    rf"| '(?P<text>[^']*)')? (?P<date>{_DAY})(?: \((?P<status>[a-z-]+)\))?"
)
_ITEM = re.compile(
    rf"(?P<words>[^'@()]*?) *(?:'(?P<text>[^']*)')? *(?:@(?P<date>{_DAY}))?"
    rf"(?: *\bfrom (?P<start>{_DAY}))?(?: *\bto (?P<end>{_DAY}))?"
    r"(?: *\((?P<notes>[a-z, -]+)\))?(?:: (?P<conclusion>.+))?"
)
_PATIENT = re.compile(
    rf"(?P<sex>[FM?])(?: (?:(?P<age>\d{{1,3}}) (?P<unit>y|mo|d)|born (?P<born>{_DAY})))?"
    r"(?P<deceased>, deceased)?"
)
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)")
_EXAMPLES = {
    "results": "name 14 U/L [5-36] -26d (corrected)",
    "conditions": "icd10cm X00.0 'name' @2025-03 (resolved)",
    "medications": "'name 70 mg weekly' from -300d to -9d (administration)",
    "procedures": "'name' @-10d",
    "encounters": "IMP from -9d to -2d (finished)",
    "reports": "'name' @-12d: What it concludes.",
    "orders": "name @-10d (active)",
    "drafts": "'name 70 mg' (unselected)",
    "patient": "F 52 y, deceased",
}


class Vignette(Struct, frozen=True):
    """One patient and the cards owed; `row` holds patient and items, their shorthand read.

    `suggests` gives for topics the codes of the orders that their card suggests, in order.
    """

    file: str
    id: str
    says: str
    hook: str
    modes: Mapping[str, Mode]
    expect: tuple[tuple[str, str], ...]
    verdicts: Mapping[str, str]
    suggests: Mapping[str, tuple[str, ...]]
    must_not_say: tuple[str, ...]
    row: Mapping[str, Any]


def read_vignettes(path: Path) -> list[Vignette]:
    """The rows of a file in their order; raises ContentError for the first thing that is wrong."""
    found = _content(path)
    rows = found.get("vignette")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ContentError(_name(path), "vignette", "must be a list of tables: [[vignette]]")
    vignettes: list[Vignette] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        vignette = _Reader(_name(path), f"vignette {row.get('id', number)}").vignette(row)
        if vignette.id in seen:
            raise ContentError(_name(path), f"vignette {vignette.id}", "the id occurs twice")
        seen.add(vignette.id)
        vignettes.append(vignette)
    return vignettes


def read_as_of(path: Path) -> date:
    """The day the file's dates are relative to."""
    as_of = _content(path).get("as_of")
    assert type(as_of) is date
    return as_of


def _name(path: Path) -> str:
    """The file with its folder: each family has one."""
    return f"{path.parent.name}/{path.name}"


def _content(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContentError(_name(path), "", f"cannot be read as TOML: {error}") from error
    if type(found.get("as_of")) is not date:
        raise ContentError(_name(path), "as_of", "must be a day, as in as_of = 2026-01-15")
    for key in found.keys() - {"as_of", "vignette"}:
        raise ContentError(_name(path), key, "is unknown; allowed: as_of, [[vignette]]")
    return found


class _Reader(Struct, frozen=True):
    """Reads one row; every complaint names the file, the row and the key."""

    file: str
    name: str

    def _wrong(self, key: str, why: str) -> ContentError:
        return ContentError(self.file, f"{self.name}: {key}", why)

    def _string(self, row: Mapping[str, Any], key: str, default: str | None = None) -> str:
        value = row.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "must be a text that is not empty")
        return value

    def _strings(self, row: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise self._wrong(key, "must be a list of texts")
        return tuple(value)

    def _one_of(self, key: str, value: str, allowed: str) -> str:
        if value not in allowed.split():
            raise self._wrong(key, f'"{value}" is not one of: {", ".join(allowed.split())}')
        return value

    def vignette(self, row: Mapping[str, Any]) -> Vignette:
        """The row, checked; `expect` is required, since silence too must be written down."""
        for key in row:
            self._one_of("key", key, _KEYS)
        if "expect" not in row:
            raise self._wrong("expect", "is missing; silence is expect = []")
        items = {kind: self._items(row, kind) for kind in _MEMBERS}
        hook = self._one_of("hook", self._string(row, "hook", "patient-view"), " ".join(CONTEXTS))
        if items["drafts"] and hook not in ORDER_HOOKS:
            raise self._wrong("drafts", f"there are none at {hook}")
        lists = {key: self._strings(row, key) for key in ("absent", "failed", "incomplete")}
        return Vignette(
            file=self.file,
            id=self._string(row, "id"),
            says=self._string(row, "says"),
            hook=hook,
            modes=self._modes(row.get("modes", {})),
            expect=tuple(self._expected(text) for text in self._strings(row, "expect")),
            verdicts=self._verdicts(row.get("verdicts", {})),
            suggests=self._suggests(row.get("suggests", {})),
            must_not_say=self._strings(row, "must_not_say"),
            row={"patient": self._patient(self._string(row, "patient")), **items, **lists},
        )

    def _modes(self, value: object) -> dict[str, Mode]:
        if value == "all-on":
            return {EVERY: "on"}
        if not isinstance(value, dict):
            raise self._wrong("modes", 'must be "all-on" or a table of topic = mode')
        modes = {x: self._one_of("modes", str(mode), " ".join(MODES)) for x, mode in value.items()}
        return cast(dict[str, Mode], modes)

    def _verdicts(self, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            raise self._wrong("verdicts", "must be a table of topic = verdict")
        for verdict in value.values():
            if not re.fullmatch(r"suppressed by \S.*", str(verdict)):
                self._one_of("verdicts", str(verdict), _VERDICTS)
        return dict(value)

    def _suggests(self, value: object) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            raise self._wrong("suggests", "must be a table of topic = list of codes")
        return {topic: self._strings({"suggests": x}, "suggests") for topic, x in value.items()}

    def _expected(self, text: str) -> tuple[str, str]:
        words = text.split(" ")
        if len(words) != 2:
            raise self._wrong("expect", f'"{text}" is not of the form "topic indicator"')
        return words[0], self._one_of("expect", words[1], "info warning critical")

    def _patient(self, text: str) -> dict[str, str]:
        return self._given(self._parsed(_PATIENT, "patient", "patient", text), "patient")

    def _items(self, row: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], ...]:
        value = row.get(kind, [])
        if not isinstance(value, list):
            raise self._wrong(kind, "must be a list")
        return tuple(self._item(kind, f"{kind}[{n}]", item) for n, item in enumerate(value))

    def _item(self, kind: str, where: str, item: object) -> dict[str, Any]:
        if isinstance(item, str):
            item = self._shorthand(kind, where, item)
        if not isinstance(item, dict):
            raise self._wrong(where, "must be a text or a table")
        for member, value in item.items():
            self._one_of(where, member, _MEMBERS[kind])
            self._check(f"{where}.{member}", member, value)
            if member == "status" and value:
                self._one_of(f"{where}.status", value, _STATUSES[kind])
        return self._given(item, where)

    def _check(self, where: str, member: str, value: object) -> None:
        if member in _TABLES:
            self._check_tables(where, value, _TABLES[member])
        elif member in _FLAGS.split():
            if not isinstance(value, bool):
                raise self._wrong(where, "must be true or false")
        elif member in _NUMBERS.split():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._wrong(where, "must be a number")
        elif not isinstance(value, str):
            raise self._wrong(where, "must be a text")
        else:
            self._check_text(where, member, value)

    def _check_text(self, where: str, member: str, value: str) -> None:
        if member == "time" and not _TIME.fullmatch(value):
            raise self._wrong(where, f'"{value}" is no time; a time is written 08:00:00Z')
        elif member in _CHOICES:
            self._one_of(where, value, _CHOICES[member])

    def _check_tables(self, where: str, value: object, allowed: str) -> None:
        if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
            raise self._wrong(where, "must be a list of tables")
        for key in (key for part in value for key in part):
            self._one_of(where, key, allowed)

    def _given(self, item: Mapping[str, Any], where: str) -> dict[str, Any]:
        for member in _DATES.split():
            text = item.get(member, "-1d")
            if not re.fullmatch(_DAY, text) or (text[-1] != "d" and parse_date(text) is None):
                forms = "2025-03-01, 2025-03, 2025 or -26d"
                raise self._wrong(where, f'"{text}" is no date; a date is written {forms}')
        return dict(item)

    def _parsed(self, form: re.Pattern[str], kind: str, where: str, text: str) -> dict[str, Any]:
        found = form.fullmatch(text)
        if found is None:
            raise self._wrong(where, f'"{text}" cannot be read; write it as "{_EXAMPLES[kind]}"')
        return {member: value for member, value in found.groupdict().items() if value is not None}

    def _shorthand(self, kind: str, where: str, text: str) -> dict[str, Any]:
        if kind == "results":
            result = self._parsed(_RESULT, kind, where, text)
            return {k: _number(v) if k in _NUMBERS.split() else v for k, v in result.items()}
        item = self._parsed(_ITEM, kind, where, text)
        words, notes = item.pop("words").split(), item.pop("notes", "")
        item |= self._head(kind, where, words, "text" in item)
        if kind == "conditions" and "date" in item:
            item["onset"] = item.pop("date")
        for note in filter(None, notes.split(", ")):
            if kind == "medications" and note in _CHOICES["kind"].split():
                item["kind"] = note
            elif kind == "drafts" and note == "unselected":
                item["unselected"] = True
            elif kind == "conditions" and note in _CHOICES["verification"].split():
                item["verification"] = note
            else:
                item["status"] = self._one_of(where, note, _STATUSES[kind])
        return item

    def _head(self, kind: str, where: str, words: list[str], has_text: bool) -> dict[str, str]:
        if len(words) == 2 and (words[0] in SYSTEMS or ":" in words[0]):
            return {"system": words[0], "code": words[1]}
        if len(words) == 1 and not has_text and kind in ("orders", "reports", "drafts"):
            return {"order": words[0]}
        if len(words) == 1 and not has_text and kind == "encounters":
            return {"class": words[0]}
        if has_text and words in ([], ["text"]):
            return {}
        known = ", ".join(SYSTEMS)
        raise self._wrong(where, f"names no system and code, and no 'text'; systems: {known}")


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)

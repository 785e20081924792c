"""FHIR ValueSets in memory: which sets a code or a text belongs to.

A coding decides first; when none matches, a set's text pattern is tried on each sentence that is
not negated.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from cds_service.errors import ContentError
from cds_service.fhir_files import FilterFile, IncludeFile, ValueSetFile
from cds_service.resources import CodeableConcept

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ATC = "http://www.whocc.no/atc"
ICD_10_CM = "http://hl7.org/fhir/sid/icd-10-cm"
ICD_10 = "http://hl7.org/fhir/sid/icd-10"
ICD_9_CM = "http://hl7.org/fhir/sid/icd-9-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SYSTEMS = {
    "sct": SNOMED,
    "icd10cm": ICD_10_CM,
    "icd10": ICD_10,
    "icd9cm": ICD_9_CM,
    "loinc": LOINC,
    "rxnorm": RXNORM,
    "atc": ATC,
}  # the short names that content files may use

# The same systems by OID (HL7 OID registry) and by the names real servers use.
_SAME_SYSTEM = {
    "urn:oid:2.16.840.1.113883.6.1": LOINC,
    "urn:oid:2.16.840.1.113883.6.96": SNOMED,
    "urn:oid:2.16.840.1.113883.6.73": ATC,
    "urn:oid:2.16.840.1.113883.6.90": ICD_10_CM,
    "urn:oid:2.16.840.1.113883.6.3": ICD_10,
    "urn:oid:2.16.840.1.113883.6.103": ICD_9_CM,
    "urn:oid:2.16.840.1.113883.6.88": RXNORM,
    "http://hl7.org/fhir/sid/icd-9": ICD_9_CM,
}
_BY_PREFIX = (ICD_10_CM, ICD_10, ICD_9_CM, ATC)
_WITHOUT_DOTS = (ICD_10_CM, ICD_10, ICD_9_CM)

CANONICAL = "https://alp-review.example"
TEXT_PATTERN = f"{CANONICAL}/StructureDefinition/text-pattern"
LOOKS_LIKE = f"{CANONICAL}/StructureDefinition/looks-like"
NOT_A_CUE = f"{CANONICAL}/StructureDefinition/not-a-negation"

LONGEST_NAME = 200  # of a drug, a diagnosis or a test; what is longer would not come again
# Characters that are looked at, of a name or a sentence and of a text: patterns take the square of
# their number and more, and what is longer is none.
LONGEST_READ, LONGEST_TEXT = 1000, 100_000
LONGEST_CODE = 64
_SENTENCE_END = re.compile(r"[.;\n]| but ")
_BLANKS = re.compile(r"[^\S\n]+")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")


def same_system(system: str | None) -> str:
    """The system's canonical URI, whether it was given as URI or as OID."""
    if system is None:
        return ""
    if system.startswith("2.16."):
        system = f"urn:oid:{system}"
    return _SAME_SYSTEM.get(system, system)


def plain_code(system: str, code: str) -> str:
    """The code as it is compared: ICD without dots and in capitals, others as they are."""
    return code.replace(".", "").upper() if system in _WITHOUT_DOTS else code


T = TypeVar("T")


def remembered(find: Callable[[str | None, str], T]) -> Callable[[str | None, str], T]:
    """What is found for a system and a code, kept for codes of usual length: others would not come
    again, and may be as long as a request.
    """
    kept = lru_cache(maxsize=8192)(find)

    def found(system: str | None, code: str) -> T:
        if len(code) > LONGEST_CODE or len(system or "") > LONGEST_NAME:
            return find(system, code)
        return kept(system, code)

    return found


class Negation:
    """When a sentence says that something is not so, by the content's cues."""

    def __init__(
        self, cues: Iterable[str] = (), signs: Iterable[str] = (), struck_out: Iterable[str] = ()
    ) -> None:
        words = [rf"\b{re.escape(x)}\b" for x in cues] + [re.escape(x) for x in signs]
        self._cue = re.compile("|".join(words) or "(?!)")
        self._struck_out = re.compile("|".join(map(re.escape, struck_out)) or "(?!)")

    def sentences(self, text: str) -> Iterator[str]:
        """The sentences of a text in lower case, without what is invisible or struck out."""
        plain = _BLANKS.sub(" ", _INVISIBLE.sub("", text[:LONGEST_TEXT]).lower())
        plain = self._struck_out.sub(" ", plain)
        parts = (part.strip()[:LONGEST_READ] for part in _SENTENCE_END.split(plain))
        return (part for part in parts if part)

    def is_in(self, sentence: str, not_a_cue: str) -> bool:
        """Whether a sentence is negated; `not_a_cue` does not negate here, "*": none does."""
        if not_a_cue == "*":
            return False
        return (
            self._cue.search(sentence.replace(not_a_cue, " ") if not_a_cue else sentence)
            is not None
        )


class Listed(Struct, frozen=True):
    """One line of a value set as its file has it: a code, or a prefix or pattern of codes."""

    kind: Literal["code", "prefix", "pattern"]
    system: str
    code: str
    display: str = ""
    excluded: bool = False


class ValueSet(Struct, frozen=True):
    """One set: codes, ICD or ATC prefixes, and a pattern for text; `excluded` ends the matching."""

    name: str
    title: str
    codes: frozenset[tuple[str, str]]
    prefixes: tuple[tuple[str, str], ...] = ()
    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    not_codes: frozenset[tuple[str, str]] = frozenset()
    not_prefixes: tuple[tuple[str, str], ...] = ()
    not_patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    text: re.Pattern[str] | None = None
    looks_like: re.Pattern[str] | None = None
    not_a_cue: str = ""
    local_texts: frozenset[str] = frozenset()
    listed: tuple[Listed, ...] = ()

    @property
    def systems_of_rules(self) -> frozenset[str]:
        """The systems of which the set holds, or excludes, more than single codes."""
        rules = (*self.prefixes, *self.patterns, *self.not_prefixes, *self.not_patterns)
        return frozenset(system for system, _ in rules)

    def excludes(self, system: str, code: str) -> bool:
        """Whether a coding ends the matching, whatever its text says."""
        return _holds(system, code, self.not_codes, self.not_prefixes, self.not_patterns)

    def includes(self, system: str, code: str) -> bool:
        """Whether a coding belongs to the set."""
        return _holds(system, code, self.codes, self.prefixes, self.patterns)


def _holds(
    system: str,
    code: str,
    codes: frozenset[tuple[str, str]],
    prefixes: tuple[tuple[str, str], ...],
    patterns: tuple[tuple[str, re.Pattern[str]], ...],
) -> bool:
    return (
        (system, code) in codes
        or any(system == where and code.startswith(prefix) for where, prefix in prefixes)
        or any(system == where and pattern.search(code) for where, pattern in patterns)
    )


class _Rows(Struct):
    codes: list[tuple[str, str]] = msgspec.field(default_factory=list)
    prefixes: list[tuple[str, str]] = msgspec.field(default_factory=list)
    patterns: list[tuple[str, re.Pattern[str]]] = msgspec.field(default_factory=list)


def value_set_of(file: str, found: ValueSetFile) -> ValueSet:
    """The set of a FHIR R4 ValueSet; raises ContentError for what cannot be honoured in memory."""
    included = _rows(file, "compose.include", found.compose.include)
    included.codes += [_code(item.system, item.code) for item in found.expansion.contains]
    excluded = _rows(file, "compose.exclude", found.compose.exclude)
    extensions = {x.url: x.value_string for x in found.extension}
    return ValueSet(
        name=found.id,
        title=found.title,
        codes=frozenset(included.codes),
        prefixes=tuple(included.prefixes),
        patterns=tuple(included.patterns),
        not_codes=frozenset(excluded.codes),
        not_prefixes=tuple(excluded.prefixes),
        not_patterns=tuple(excluded.patterns),
        text=_pattern(file, "text-pattern", extensions.get(TEXT_PATTERN)),
        looks_like=_pattern(file, "looks-like", extensions.get(LOOKS_LIKE)),
        not_a_cue=extensions.get(NOT_A_CUE) or "",
        listed=(
            *_listed(found.compose.include),
            *(Listed("code", same_system(x.system), x.code) for x in found.expansion.contains),
            *_listed(found.compose.exclude, excluded=True),
        ),
    )


def _listed(parts: Iterable[IncludeFile], *, excluded: bool = False) -> Iterator[Listed]:
    for part in parts:
        system = same_system(part.system)
        for one in part.concept:
            yield Listed("code", system, one.code, one.display, excluded)
        for rule in part.filter:
            yield Listed(
                "prefix" if rule.op == "is-a" else "pattern", system, rule.value, "", excluded
            )


def _code(system: str, code: str) -> tuple[str, str]:
    return same_system(system), plain_code(same_system(system), code)


def _rows(file: str, key: str, parts: Iterable[IncludeFile]) -> _Rows:
    rows = _Rows()
    for part in parts:
        system = same_system(part.system)
        if not system or part.value_set:
            why = "needs a system; references to other sets are not expanded"
            raise ContentError(file, f"{key}.system", why)
        rows.codes += [_code(system, concept.code) for concept in part.concept]
        for rule in part.filter:
            _add_filter(file, key, system, rule, rows)
    return rows


def _add_filter(file: str, key: str, system: str, rule: FilterFile, rows: _Rows) -> None:
    if system not in _BY_PREFIX:
        why = f"is honoured for ICD and ATC only, not for {system}"
        raise ContentError(file, f"{key}.filter", why)
    if rule.op == "is-a":
        rows.prefixes.append((system, plain_code(system, rule.value)))
    elif rule.op == "regex":
        pattern = _pattern(file, f"{key}.filter", rule.value)
        assert pattern is not None
        rows.patterns.append((system, pattern))
    else:
        raise ContentError(file, f"{key}.filter.op", "must be is-a or regex")


def _pattern(file: str, key: str, pattern: str | None) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ContentError(file, key, f"is no regular expression: {error}") from error


def _any_of(sets: Iterable[ValueSet]) -> re.Pattern[str]:
    """One pattern that matches wherever one of the sets' patterns does."""
    alternatives = "|".join(f"(?:{one.text.pattern})" for one in sets if one.text is not None)
    return re.compile(alternatives or r"(?!)", re.IGNORECASE)


class Terminology:
    """All sets, and for a coded concept the names of those it belongs to."""

    def __init__(self, sets: Iterable[ValueSet], negation: Negation) -> None:
        self.sets: dict[str, ValueSet] = {one.name: one for one in sets}
        self._negation = negation
        spoken_sets = [one for one in self.sets.values() if one.text is not None]
        self._any_text = _any_of(spoken_sets)
        rows = [spoken_sets[n : n + 8] for n in range(0, len(spoken_sets), 8)]
        self._groups = [(_any_of(row), row) for row in rows]
        self._local: dict[str, set[str]] = {}
        for one in self.sets.values():
            for text in one.local_texts:
                self._local.setdefault(text, set()).add(one.name)
        self._with_code: dict[tuple[str, str], list[ValueSet]] = {}
        self._with_rules: dict[str, list[ValueSet]] = {}  # by the system of prefixes and patterns
        for one in self.sets.values():
            for coding in one.codes | one.not_codes:
                self._with_code.setdefault(coding, []).append(one)
            for system in one.systems_of_rules:
                self._with_rules.setdefault(system, []).append(one)
        self._of_coding = remembered(self._sets_of_coding)
        self._of_name = lru_cache(maxsize=8192)(self._sets_of_text)

    def __contains__(self, name: object) -> bool:
        return name in self.sets

    def says(self, name: str, text: str) -> bool:
        """Whether a sentence of the text that is not negated matches a set's pattern."""
        return bool(text) and any(True for _ in self.sentences_saying(name, text))

    def sentences_saying(self, name: str, text: str) -> Iterator[str]:
        """The sentences of the text, in lower case, that match a set's pattern and are not
        negated.
        """
        one = self.sets[name]
        return (x for x in self._negation.sentences(text) if self._is_said(one, x))

    def _is_said(self, one: ValueSet, sentence: str) -> bool:
        return (
            one.text is not None
            and one.text.search(sentence) is not None
            and not self._negation.is_in(sentence, one.not_a_cue)
        )

    def of_code(self, concept: CodeableConcept | None) -> frozenset[str]:
        """The sets whose codes, or a site's own texts, hold a coding or text of the concept."""
        names: frozenset[str] = frozenset()
        for coding in concept.coding if concept is not None else ():
            if coding.code and (more := self._of_coding(coding.system, coding.code)[0]):
                names = names | more if names else more
        return names | self._locally_named(concept) if self._local else names

    def _locally_named(self, concept: CodeableConcept | None) -> frozenset[str]:
        texts = map(local_text, spoken(concept) if concept is not None else ())
        return frozenset(name for text in texts for name in self._local.get(text, ()))

    def identified_by(self, concept: CodeableConcept | None) -> str:
        """What brought a concept into its sets: the first code that did, or its words; "" when it
        is in none.
        """
        for coding in concept.coding if concept is not None else ():
            where = same_system(coding.system)
            plain = plain_code(where, coding.code or "")
            if names := self._of_coding(coding.system, coding.code or "")[0]:
                listed = any((where, plain) in self.sets[x].codes for x in names)
                return f"{'code' if listed else 'group of codes'} {where}|{coding.code}"
        return "words" if self.of_concept(concept) else ""

    def of_concept(self, concept: CodeableConcept | None) -> frozenset[str]:
        """The sets a concept belongs to, by its codings, else by its text."""
        if concept is None:
            return frozenset()
        included = self._locally_named(concept) if self._local else frozenset()
        excluded: frozenset[str] = frozenset()
        for coding in concept.coding:
            if coding.code:
                plus, minus = self._of_coding(coding.system, coding.code)
                included, excluded = included | plus, excluded | minus
        for text in spoken(concept):
            read = self._of_name if len(text) <= LONGEST_NAME else self._sets_of_text
            included |= read(text)
        return included - excluded

    def _sets_of_text(self, text: str) -> frozenset[str]:
        """The sets said in a text."""
        return frozenset(
            name
            for sentence in self._negation.sentences(text[:LONGEST_READ])
            if self._any_text.search(sentence)
            for name in self._said_in(sentence)
        )

    def _said_in(self, sentence: str) -> Iterator[str]:
        """The sets said in a sentence: groups first, since most sets are in none."""
        for pattern, group in self._groups:
            if pattern.search(sentence):
                yield from (one.name for one in group if self._is_said(one, sentence))

    def _sets_of_coding(
        self, system: str | None, code: str
    ) -> tuple[frozenset[str], frozenset[str]]:
        where = same_system(system)
        plain = plain_code(where, code)
        asked = (*self._with_code.get((where, plain), ()), *self._with_rules.get(where, ()))
        minus = frozenset(x.name for x in asked if x.excludes(where, plain))
        plus = frozenset(x.name for x in asked if x.includes(where, plain))
        return plus - minus, minus


def local_text(text: str) -> str:
    """A site's own text as it is compared: blanks and case do not matter."""
    return " ".join(text.split()).casefold()


def spoken(concept: CodeableConcept) -> tuple[str, ...]:
    """The texts of a concept, each a sentence of its own: code.text and the codings' displays."""
    texts = [concept.text] if concept.text else []
    texts += [x.display for x in concept.coding if x.display and x.display != concept.text]
    return tuple(texts)

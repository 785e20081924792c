"""Reads and checks the content folder, each family in it a service or more; wrong content stops the
start.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from cds_service.content import (
    Content,
    Family,
    LanePlan,
    LinePlan,
    PanelPlan,
    Topic,
    TrendPlan,
    VignetteCodes,
)
from cds_service.content_files import (
    LONGEST_LABEL,
    QUOTED,
    CardFile,
    ContentFile,
    FamilyFile,
    Hold,
    IntervalRow,
    LaneRow,
    LimitRow,
    MeasureRow,
    NegationFile,
    OrderRow,
    PanelRow,
    Precedence,
    PrefetchRow,
    ReasonRow,
    SharedWords,
    TrendFile,
    Variant,
    VignetteNames,
)
from cds_service.content_laws import breaches
from cds_service.content_python import AdviceGiven, Named, Source, advice_in, names_in, sources_in
from cds_service.content_references import unresolved
from cds_service.errors import ContentError
from cds_service.facts import READ_HERE, Interval, Knowledge, Limits, OrderRule
from cds_service.fhir_files import ActivityDefinitionFile, ValueSetFile, read_fhir
from cds_service.hook_request import CONTEXTS
from cds_service.modes import Mode
from cds_service.orders import OrderTemplate, order_of
from cds_service.prefetch import KeyIndex, PrefetchKey
from cds_service.quantity import Quantity, Units
from cds_service.resources import READ_TYPES
from cds_service.results import MeasureOf
from cds_service.rules import Rule
from cds_service.site import Site, SiteText, site_text
from cds_service.terminology import (
    SYSTEMS,
    Negation,
    Terminology,
    ValueSet,
    plain_code,
    same_system,
    value_set_of,
)
from cds_service.toml_files import read_toml

PACKAGE = "hooks"
_TREND = "shared/trend.toml"
_VIGNETTE_NAMES = "shared/vignette_names.toml"
SUMMARY_LIMIT = 139  # CDS Hooks 2.0, "Card Attributes": fewer than 140 characters
_IS_PYTHON_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TEMPLATE = re.compile(r"[A-Z]\w+(/\S+|\?\S+)\Z")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_TOKEN = re.compile(r"\{\{(.*?)\}\}")
_TOKENS = {"context.patientId"}  # the one that every hook has and that we expand ourselves
_PLAIN_UNITS = {"d", "a", "1", "mg/d"}  # days, years, a plain number, a daily dose
_BROKEN_IMPORTS = (SyntaxError, ImportError, NameError, AttributeError, TypeError)


def load_content(
    folder: Path,
    site: Path | SiteText | None = None,
    modes: Mapping[str, Mode] | None = None,
) -> Content:
    """The content of a folder under a site's settings: a file, or its text.

    Raises ContentError, naming file and key, for the first thing that is wrong.
    """
    text = site_text(site) if isinstance(site, Path) else site
    return _Loader(folder, Site(text), modes or {}).load()


class _Loader:
    """Reads one folder, once."""

    def __init__(self, folder: Path, site: Site, modes: Mapping[str, Mode]) -> None:
        if not (folder / "content.toml").is_file():
            raise ContentError(str(folder), "", "is no content folder: it has no content.toml")
        self.root = folder.resolve()
        self.shared = self.root / "shared"
        self.site = site
        self.asked_modes = modes

    def load(self) -> Content:
        about = self._toml("content.toml", ContentFile)
        self.reasons = self._reasons()
        self.order_rows = self._toml("shared/orders.toml", dict[str, OrderRow])
        self.orders = self._orders()
        self.terminology = self._terminology()
        self.measures = self._measures()
        self.intervals = self._intervals()
        self.shared_limits = self._toml("shared/limits.toml", dict[str, LimitRow])
        self.words: SharedWords = self._toml("shared/words.toml", SharedWords)
        self._check_words()
        self.sources = self._lawful_sources()
        _make_importable(self.root)
        families = tuple(self._family(x) for x in self._folders())
        self._check_ids(families)
        _check_same_topics(families)
        self._check_references()
        self._check_names(families)
        self._check_shared_phrases(families)
        self._check_advice(families)
        topics = [topic for family in families for topic in family.topics]
        self.site.check(self._names(families), {x.name for f in families for x in f.keys.keys})
        modes = self.site.modes(topics, self.asked_modes)
        return Content(
            folder=self.root,
            about=about,
            hash=self._hash(),
            families=families,
            orders=self.orders,
            limits=self.shared_limits,
            words=self.words,
            override_reasons=self.reasons,
            measures=self.measures,
            site=self.site.file,
            overrides=tuple(self.site.overrides),
            modes=modes,
            vignette_codes=self._vignette_codes(),
            trend=self._trend(),
        )

    def _toml(self, name: str, kind: type[Any]) -> Any:
        return read_toml(self.root / name, kind, self.root)

    # -- shared --------------------------------------------------------------------------------

    def _reasons(self) -> dict[str, ReasonRow]:
        file = "shared/override_reasons.toml"
        found: dict[str, ReasonRow] = self._toml(file, dict[str, ReasonRow])
        for code, row in found.items():
            if (row.days is None) == (row.until is None):
                raise ContentError(file, code, "needs either days or until")
        return found

    def _terminology(self) -> Terminology:
        folder = self.shared / "valuesets"
        sets = [self._value_set(path) for path in sorted(folder.glob("*.json"))]
        for name, template in self.orders.items():
            systems = [(same_system(x["system"]), x["code"]) for x in template.codings]
            codes = frozenset((system, plain_code(system, code)) for system, code in systems)
            sets.append(ValueSet(f"order-{name}", template.title, codes))
        cues: NegationFile = self._toml("shared/negation.toml", NegationFile)
        negation = Negation(cues.cues, cues.signs, cues.struck_out)
        return Terminology([self.site.value_set(x) for x in sets], negation)

    def _value_set(self, path: Path) -> ValueSet:
        return value_set_of(self._name(path), read_fhir(path, ValueSetFile, self.root))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _orders(self) -> dict[str, OrderTemplate]:
        found = {}
        for path in sorted((self.shared / "orders").glob("*.json")):
            found_order = read_fhir(path, ActivityDefinitionFile, self.root)
            order = order_of(self._name(path), found_order)
            found[path.stem] = self.site.order(order)
        for name in self.order_rows:
            if name not in found:
                why = f"has no template shared/orders/{name}.json"
                raise ContentError("shared/orders.toml", name, why)
        return found

    def _measures(self) -> dict[str, MeasureOf]:
        file = "shared/measures.toml"
        tables = self._toml("shared/units.toml", dict[str, dict[str, Decimal]])
        for unit, spellings in tables.items():
            for spelling, factor in spellings.items():
                if factor <= 0:
                    why = f"the factor to {unit} must be above 0"
                    raise ContentError("shared/units.toml", f"{unit}.{spelling}", why)
        self.units = units = Units(tables)
        found = {}
        for name, row in self._toml(file, dict[str, MeasureRow]).items():
            if not units.knows(row.unit):
                why = f"{row.unit} is none of {', '.join(tables)}"
                raise ContentError(file, f"{name}.unit", why)
            self._need_set(file, f"{name}.value_set", row.value_set)
            if row.not_specimen:
                self._need_set(file, f"{name}.not_specimen", row.not_specimen)
            own = units.with_factors(row.unit, row.factors) if row.factors else units
            measure = MeasureOf(name, row.title, row.value_set, row.unit, own)
            measure.highest, measure.not_specimen = row.highest, row.not_specimen
            measure.shown = row.shown or row.unit
            found[name] = measure
        return found

    def _vignette_codes(self) -> VignetteCodes:
        found: VignetteNames = self._toml(_VIGNETTE_NAMES, VignetteNames)
        return VignetteCodes(
            {name: _vignette_code(f"results.{name}", x) for name, x in found.results.items()},
            {name: _vignette_code(f"orders.{name}", x) for name, x in found.orders.items()},
        )

    def _need_set(self, file: str, key: str, name: str) -> None:
        if name not in self.terminology:
            raise ContentError(file, key, f'no value set "{name}" in shared/valuesets/')

    def _intervals(self) -> dict[str, tuple[Interval, ...]]:
        file = "shared/reference_intervals.toml"
        found = {}
        for name, intervals in self._toml(file, dict[str, list[IntervalRow]]).items():
            if name not in self.measures:
                raise ContentError(file, name, "is no measure of shared/measures.toml")
            unit = self.measures[name].unit
            found[name] = tuple(_interval(file, name, row, unit) for row in intervals)
        return found

    # -- the picture ---------------------------------------------------------------------------

    def _trend(self) -> TrendPlan | None:
        """What is drawn of a patient; None for a content without such a file."""
        if not (self.root / _TREND).is_file():
            return None
        found: TrendFile = self._toml(_TREND, TrendFile)
        definitions = self._module("shared.definitions")
        panels = (self._panel(n, x, definitions) for n, x in enumerate(found.panel))
        lanes = (self._lane(n, x, definitions) for n, x in enumerate(found.lane))
        return TrendPlan(found.title, tuple(panels), tuple(lanes))

    def _panel(self, number: int, row: PanelRow, definitions: ModuleType) -> PanelPlan:
        where = f"panel[{number}]"
        if row.measure not in self.measures:
            why = f"{row.measure} is no measure of shared/measures.toml"
            raise ContentError(_TREND, f"{where}.measure", why)
        if len(self.measures[row.measure].title) > LONGEST_LABEL:
            why = f"is over {LONGEST_LABEL} characters, and {_TREND} has it drawn"
            raise ContentError("shared/measures.toml", f"{row.measure}.title", why)
        if bool(row.days) != bool(row.outside):
            raise ContentError(_TREND, where, "needs both days and outside, or neither")
        lines = [
            (x, self._definition(_TREND, f"{where}.lines[{n}].limit", x.limit, definitions))
            for n, x in enumerate(row.lines)
        ]
        return PanelPlan(
            row.measure,
            self._optional(f"{where}.judged_by", row.judged_by, definitions),
            tuple(LinePlan(x.title, limit, x.note) for x, limit in lines),
            self._optional(f"{where}.days", row.days, definitions),
            self._optional(f"{where}.outside", row.outside, definitions),
        )

    def _lane(self, number: int, row: LaneRow, definitions: ModuleType) -> LanePlan:
        where = f"lane[{number}]"
        if bool(row.drugs) == bool(row.problems):
            raise ContentError(_TREND, where, "needs either drugs or problems")
        for key, names in (("drugs", row.drugs), ("problems", row.problems)):
            for name in names:
                self._need_set(_TREND, f"{where}.{key}", name)
        return LanePlan(
            row.title,
            tuple(row.drugs),
            tuple(row.problems),
            {name: self.terminology.sets[name].title for name in (*row.drugs, *row.problems)},
            self._optional(f"{where}.last_dose", row.last_dose, definitions),
            self._optional(f"{where}.acts_until", row.acts_until, definitions),
        )

    def _optional(self, key: str, name: str, definitions: ModuleType) -> Callable[..., Any] | None:
        return self._definition(_TREND, key, name, definitions) if name else None

    # -- one family ----------------------------------------------------------------------------

    def _family(self, folder: Path) -> Family:
        file = f"{folder.name}/service.toml"
        found: FamilyFile = self._toml(file, FamilyFile)
        keys = tuple(self._prefetch_key(file, name, row) for name, row in found.prefetch.items())
        knowledge = Knowledge(
            terminology=self.terminology,
            measures=self.measures,
            intervals=self.intervals,
            limits=self._limits(file, found.limits),
            orders={name: self._order_rule(name, row) for name, row in self.order_rows.items()},
        )
        self._check_service(file, found)
        topics = self._topics(folder, found, {key.name for key in keys})
        definitions = self._module("shared.definitions")
        holds = tuple((hold, self._hold(file, hold, definitions, topics)) for hold in found.hold)
        self._check_suppressors(file, found.precedence, {topic.code for topic in topics})
        return Family(
            name=folder.name,
            services=tuple(found.service),
            keys=KeyIndex(keys),
            topics=topics,
            holds=holds,
            precedence=found.precedence,
            placeholders=found.placeholders,
            source=found.source,
            limits=found.limits,
            knowledge=knowledge,
            folder=folder,
            news=self._definition(file, "news", found.news, definitions) if found.news else None,
            snooze_questions={
                name: self._definition(f"{folder.name}/cards", "snooze_while", name, definitions)
                for topic in topics
                for name in topic.card.snooze_while.values()
            },
            repeats=found.repeats,
        )

    def _check_suppressors(self, file: str, found: Precedence, codes: Collection[str]) -> None:
        for suppressor, others in found.suppresses.items():
            for code in (suppressor, *others):
                if code not in codes:
                    key = f"precedence.suppresses.{suppressor}"
                    raise ContentError(file, key, f"no topic {code}")

    def _check_service(self, file: str, found: FamilyFile) -> None:
        for service in found.service:
            if service.hook not in CONTEXTS:
                why = f"{service.hook} is none of {', '.join(CONTEXTS)}"
                raise ContentError(file, "service.hook", why)
        for name, row in found.prefetch.items():
            if row.supplements and row.supplements not in found.prefetch:
                why = f"no prefetch key {row.supplements}"
                raise ContentError(file, f"prefetch.{name}.supplements", why)
        order = found.precedence.order
        for code in order:
            if order.count(code) > 1:
                raise ContentError(file, "precedence.order", f"names {code} twice")

    def _prefetch_key(self, file: str, name: str, row: PrefetchRow) -> PrefetchKey:
        where = f"prefetch.{name}"
        names = [
            x for pattern in row.codes for x in self._sets_named(file, f"{where}.codes", pattern)
        ]
        for name_left_out in row.except_codes:
            self._need_set(file, f"{where}.except_codes", name_left_out)
        names = [x for x in names if x not in row.except_codes]
        codes = frozenset(code for x in names for code in self.terminology.sets[x].codes)
        query = row.query.replace("{codes}", _code_list(codes))
        if not _TEMPLATE.match(query) or set(_TOKEN.findall(query)) - _TOKENS:
            raise ContentError(
                file, f"{where}.query", "must be a FHIR read or search relative to the server"
            )
        return PrefetchKey(
            name=name,
            template=query,
            type=re.split(r"[/?]", query, maxsplit=1)[0],
            title=row.title,
            codes=codes or None,
            texts=frozenset(text for x in names for text in self.terminology.sets[x].local_texts),
            value_sets=frozenset(names),
            required=row.required,
            caps=row.caps,
            supplements=row.supplements,
        )

    def _sets_named(self, file: str, key: str, pattern: str) -> list[str]:
        if not pattern.endswith("*"):
            self._need_set(file, key, pattern)
            return [pattern]
        names = [x for x in self.terminology.sets if x.startswith(pattern[:-1])]
        if not names:
            raise ContentError(file, key, f"no value set is named like {pattern}")
        return names

    def _limits(self, file: str, own: Mapping[str, LimitRow]) -> Limits:
        values = {}
        for where, rows in (("shared/limits.toml", self.shared_limits), (f"{file}: limits", own)):
            for name, row in rows.items():
                if name in values:
                    raise ContentError(where, name, "is a limit already")
                if not _IS_PYTHON_NAME.match(name):
                    raise ContentError(where, name, "must be lower case with underscores")
                if row.unit not in _PLAIN_UNITS and not self.units.knows(row.unit):
                    why = f"{row.unit} is no unit of shared/units.toml, nor d, a, 1 or mg/d"
                    raise ContentError(where, f"{name}.unit", why)
                if row.value < 0:
                    raise ContentError(where, f"{name}.value", "must not be below 0")
                values[name] = self.site.limit(name, Quantity(row.value, row.unit))
        self._check_limits("shared/limits.toml", values)
        return Limits(values)

    def _order_rule(self, name: str, row: OrderRow) -> OrderRule:
        for combination in row.done_by:
            for one in combination:
                self._need_set("shared/orders.toml", f"{name}.done_by", one)
        return OrderRule(
            name=name,
            title=self.orders[name].text,
            done_by=tuple(tuple(x) for x in row.done_by),
            window=None if row.within_days is None else Quantity(Decimal(row.within_days), "d"),
            never_done=row.never_done,
            orderable=self.site.is_orderable(name),
        )

    def _hold(
        self, file: str, hold: Hold, definitions: ModuleType, topics: tuple[Topic, ...]
    ) -> Callable[[Any], Any]:
        found = self._definition(file, "hold.question", hold.question, definitions)
        for code in (*hold.keeps, *hold.keeps_warnings):
            if code not in {topic.code for topic in topics}:
                raise ContentError(file, f"hold.{hold.question}", f"no topic {code}")
        return found

    def _definition(
        self, file: str, key: str, name: str, definitions: ModuleType
    ) -> Callable[..., Any]:
        found = getattr(definitions, name, None)
        if not callable(found):
            raise ContentError(file, key, f"shared/definitions.py has no {name}")
        return found  # type: ignore[no-any-return]

    def _topics(self, folder: Path, found: FamilyFile, keys: set[str]) -> tuple[Topic, ...]:
        rules = self._rules(folder)
        cards = {x.stem: x for x in sorted((folder / "cards").glob("*.toml"))}
        for name in sorted(set(rules) ^ set(cards)):
            lacks = f"cards/{name}.toml" if name in rules else f"a function {name} in rules/"
            raise ContentError(f"{folder.name}/", name, f"has no {lacks}")
        order = found.precedence.order
        topics = []
        for name, path in cards.items():
            card = read_toml(path, CardFile, self.root)
            code = _camel(name)
            if code not in order:
                raise ContentError(
                    f"{folder.name}/service.toml", "precedence.order", f"does not name {code}"
                )
            self._check_card(path.relative_to(self.root).as_posix(), card, found, keys)
            topics.append(Topic(code, rules[name], card, order.index(code)))
        for code in order:
            if code not in {topic.code for topic in topics}:
                raise ContentError(
                    f"{folder.name}/service.toml", "precedence.order", f"no topic {code}"
                )
        return tuple(sorted(topics, key=lambda topic: topic.rank))

    def _rules(self, folder: Path) -> dict[str, Rule]:
        rules: dict[str, Rule] = {}
        for path in sorted((folder / "rules").glob("*.py")):
            if path.stem == "__init__":
                continue
            module = self._module(f"{folder.name}.rules.{path.stem}")
            for name, function in inspect.getmembers(module, inspect.isgeneratorfunction):
                if function.__module__ == module.__name__ and not name.startswith("_"):
                    rules[name] = function
        return rules

    def _module(self, name: str) -> ModuleType:
        try:
            return importlib.import_module(f"{PACKAGE}.{name}")
        except _BROKEN_IMPORTS as error:
            file = _file_of(error, self.root) or name.replace(".", "/") + ".py"
            raise ContentError(file, "", f"does not import: {error}") from error

    def _check_card(self, file: str, card: CardFile, found: FamilyFile, keys: set[str]) -> None:
        for key in card.needs:
            if key not in keys:
                raise ContentError(file, "needs", f"no prefetch key {key}")
        for reason in card.override:
            if reason not in self.reasons:
                why = f"no override reason {reason} in shared/override_reasons.toml"
                raise ContentError(file, "override", why)
        self._check_snooze(file, card, found)
        self._check_orders(file, "orders", card.orders)
        self._check_orders(file, "kept_alive_by", card.kept_alive_by)
        _check_hooks(file, card, [x.hook for x in found.service])
        _check_phrases(file, card.phrases, found.placeholders)
        for where, text in (("contrary", card.contrary), ("limits", card.limits)):
            if names := _PLACEHOLDER.findall(text):
                raise ContentError(file, where, f"{{{names[0]}}} would not be filled here")
        for name, variant in card.variant.items():
            self._check_orders(file, f"variant.{name}.orders", variant.orders or [])
            self._check_starts(file, f"variant.{name}.starts_after", variant.starts_after, found)
            _check_words(file, f"variant.{name}", card, variant, found.placeholders)

    def _check_snooze(self, file: str, card: CardFile, found: FamilyFile) -> None:
        for reason in card.snooze_while:
            if reason not in self.reasons:
                why = f"no override reason {reason} in shared/override_reasons.toml"
                raise ContentError(file, "snooze_while", why)
        for name in card.snooze_for:
            if name not in found.placeholders:
                raise ContentError(file, "snooze_for", f"{name} is no placeholder")

    def _check_starts(
        self, file: str, where: str, starts: Mapping[str, str], found: FamilyFile
    ) -> None:
        self._check_orders(file, where, list(starts))
        for limit in starts.values():
            row = found.limits.get(limit) or self.shared_limits.get(limit)
            if row is None or row.unit != "d":
                raise ContentError(file, where, f"{limit} is no limit in days")

    def _check_orders(self, file: str, key: str, names: list[str]) -> None:
        for name in names:
            if name not in self.order_rows:
                needs = f"a table [{name}] there"
                if name in self.orders:
                    needs = f"{needs}, since its template is in shared/orders/ already"
                else:
                    needs = f"a template shared/orders/{name}.json and {needs}"
                why = f"no order {name} in shared/orders.toml: it needs {needs}"
                raise ContentError(file, key, why)

    # -- the whole -----------------------------------------------------------------------------

    def _check_ids(self, families: tuple[Family, ...]) -> None:
        seen: dict[str, str] = {}
        for family in families:
            for service in family.services:
                if not re.fullmatch(r"[A-Za-z0-9._~-]+", service.id) or service.id == "feedback":
                    raise ContentError(
                        f"{family.name}/service.toml", "service.id", "must be URL-safe"
                    )
                if service.id in seen:
                    raise ContentError(
                        f"{family.name}/service.toml", "service.id", f"{service.id} is taken"
                    )
                seen[service.id] = family.name

    def _check_words(self) -> None:
        file = "shared/words.toml"
        for table, names in (("remarks", ("as_sent",)), ("limit_from", ("report", "fallback"))):
            for name in names:
                if name not in getattr(self.words, table):
                    raise ContentError(file, f"{table}.{name}", "is missing")

    def _check_shared_phrases(self, families: tuple[Family, ...]) -> None:
        """Raises ContentError for phrases that fit no family's placeholder of their name."""
        widths: dict[str, int] = {}
        for family in families:
            for name, width in family.placeholders.items():
                widths[name] = min(width, widths.get(name, width))
        if families:
            _check_phrases("shared/words.toml", self.words.phrases, widths)

    def _check_limits(self, file: str, names: Collection[str]) -> None:
        for name in sorted(READ_HERE - set(names)):
            raise ContentError(file, name, "is a limit that the server itself reads")

    def _folders(self) -> list[Path]:
        """The folders of the families; raises ContentError for one that is none."""
        folders = [x for x in sorted(self.root.iterdir()) if x.is_dir() and x != self.shared]
        folders = [x for x in folders if not x.name.startswith((".", "__"))]
        for folder in folders:
            if not (folder / "service.toml").is_file():
                why = "has no service.toml: a folder beside shared/ is a family of services"
                raise ContentError(f"{folder.name}/", "", why)
        return folders

    # -- the Python ----------------------------------------------------------------------------

    def _lawful_sources(self) -> list[Source]:
        """The Python of the content; raises ContentError for a file that breaks a law."""
        sources = sources_in(self.root)
        for source in sources:
            for line, why in _breaches_in(source):
                raise ContentError(source.file, f"line {line}", why)
        return sources

    def _check_references(self) -> None:
        """Raises ContentError for a name, an attribute or an argument that does not exist."""
        for source in self.sources:
            if not source.file.endswith("__init__.py"):
                for line, why in _unresolved_in(source, self._module(source.module)):
                    raise ContentError(source.file, f"line {line}", why)

    def _check_names(self, families: tuple[Family, ...]) -> None:
        """Raises ContentError for a set, limit and the like that the Python names and nobody
        defines.
        """
        data = {*READ_TYPES, "drugs", *self.terminology.sets}
        known: dict[str, tuple[Collection[str], str]] = {
            "set": (self.terminology.sets, "no value set in shared/valuesets/"),
            "measure": (self.measures, "no measure of shared/measures.toml"),
            "order": (self.order_rows, "no order of shared/orders.toml"),
            "data": (data, 'no type of resource that is read, no value set, nor "drugs"'),
        }
        for named in names_in(self.sources):
            if named.kind == "limit":
                family = named.file.partition("/")[0]
                where = [x for x in families if family in (x.name, "shared")]
                if not all(named.name in x.knowledge.limits.values for x in where):
                    raise _unknown_name(named, "no limit of the content")
            elif named.kind == "remark":
                self._check_remark(named)
            elif named.name not in known[named.kind][0]:
                raise _unknown_name(named, known[named.kind][1])

    def _check_remark(self, named: Named) -> None:
        key = f"remarks.{named.name}"
        if named.name not in self.words.remarks:
            why = f"is no remark of shared/words.toml, which {named.file} names"
            raise ContentError("shared/words.toml", key, why)
        if set(_PLACEHOLDER.findall(self.words.remarks[named.name])) - named.words:
            why = f"says {self.words.remarks[named.name]!r}; filled: {sorted(named.words)}"
            raise ContentError("shared/words.toml", key, why)

    def _check_advice(self, families: tuple[Family, ...]) -> None:
        """Raises ContentError for advice on no topic or in no variant's words, and for a variant
        that could never be shown.
        """
        given = list(advice_in(self.sources))
        for family in families:
            cards = {topic.code: topic.card for topic in family.topics}
            for advice in given:
                if advice.file.startswith(f"{family.name}/"):
                    _check_advice(advice, cards)
            for topic in family.topics:
                file = f"{family.name}/cards/{topic.rule.__name__}.toml"
                _check_alive(file, topic, [x for x in given if x.topic == topic.code])

    def _names(self, families: tuple[Family, ...]) -> dict[str, set[str]]:
        """The names that a site file may use, by table."""
        return {
            "codes": set(self.terminology.sets),
            "orders": set(self.orders),
            "labels": set(self.orders),
            "limits": {name for x in families for name in x.knowledge.limits.values},
            "modes": {topic.code for x in families for topic in x.topics},
        }

    def _hash(self) -> str:
        digest = hashlib.sha256()
        files = [x for x in sorted(self.root.rglob("*")) if x.suffix in (".toml", ".json", ".py")]
        for path in files:
            digest.update(self._name(path).encode() + b"\0" + path.read_bytes() + b"\0")
        digest.update(self.site.content)
        for name, mode in sorted(self.asked_modes.items()):
            digest.update(f"\0{name}={mode}".encode())
        return digest.hexdigest()


@lru_cache(maxsize=256)
def _breaches_in(source: Source) -> tuple[tuple[int, str], ...]:
    return tuple(breaches(source.nodes))


@lru_cache(maxsize=256)
def _unresolved_in(source: Source, module: ModuleType) -> tuple[tuple[int, str], ...]:
    return tuple(unresolved(source, module))


def _make_importable(root: Path) -> None:
    """Makes the folder the importable package `hooks`, with nothing put on sys.path.

    Another folder loaded before keeps its functions and loses the name.
    """
    loaded = sys.modules.get(PACKAGE)
    if loaded is None or [Path(x) for x in loaded.__path__] != [root]:
        for name in [x for x in sys.modules if x == PACKAGE or x.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        spec = importlib.util.spec_from_loader(PACKAGE, loader=None, is_package=True)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__path__ = [str(root)]
        sys.modules[PACKAGE] = module


def _file_of(error: BaseException, root: Path) -> str:
    """The innermost file of the content in an error's traceback, "" when none is."""
    files = [Path(x.filename) for x in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        files.append(Path(error.filename))
    inside = [x for x in files if x.is_relative_to(root)]
    return inside[-1].relative_to(root).as_posix() if inside else ""


def _unknown_name(named: Named, why: str) -> ContentError:
    return ContentError(named.file, f"line {named.line}", f'"{named.name}" is {why}')


def _check_advice(advice: AdviceGiven, cards: Mapping[str, CardFile]) -> None:
    if advice.topic not in cards:
        why = f"advises on {advice.topic}, which is no topic of this folder"
        raise ContentError(advice.file, f"line {advice.line}", why)
    for name in advice.variants:
        if name not in cards[advice.topic].variant:
            why = f"the card of {advice.topic} has no [variant.{name}]"
            raise ContentError(advice.file, f"line {advice.line}", why)


def _check_alive(file: str, topic: Topic, given: Sequence[AdviceGiven]) -> None:
    """Raises ContentError for a variant that has no order to lose and would count as done."""
    card = topic.card
    if card.kept_alive_by or card.always_shown or not given:
        return
    for name, variant in card.variant.items():
        orders = card.orders if variant.orders is None else variant.orders
        by_rule = any(
            x.chooses_orders for x in given if name in x.variants or not x.names_every_variant
        )
        if not (orders or by_rule or variant.always_shown):
            why = (
                "offers no order, and the rule names none by consider: such a card counts as "
                "done and is never shown; give it orders, or always_shown = true"
            )
            raise ContentError(file, f"variant.{name}", why)


def _check_hooks(file: str, card: CardFile, hooks: Collection[str]) -> None:
    """Raises ContentError for a hook that no service of the family answers."""
    named = [("hooks", x) for x in card.hooks]
    for name, variant in card.variant.items():
        named += [(f"variant.{name}.indicator_at", x) for x in variant.indicator_at]
    for key, hook in named:
        if hook not in hooks:
            raise ContentError(file, key, f"{hook} is none of {', '.join(hooks)}")


def _check_same_topics(families: Iterable[Family]) -> None:
    """Raises ContentError for a topic of two families that is not the same in both: it has one mode
    and one name.
    """
    seen: dict[str, CardFile] = {}
    for family in families:
        for topic in family.topics:
            card = seen.setdefault(topic.code, topic.card)
            for key in ("row", "title", "mode"):
                here, there = getattr(topic.card, key), getattr(card, key)
                if here != there:
                    file = f"{family.name}/cards/{topic.rule.__name__}.toml"
                    why = f'is "{here}", and "{there}" in another family\'s card of the same name'
                    raise ContentError(file, key, why)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(x.capitalize() for x in rest)


def _code_list(codes: frozenset[tuple[str, str]]) -> str:
    return ",".join(f"{system}%7C{code}" for system, code in sorted(codes)).replace(
        "://", "%3A%2F%2F"
    )


def _vignette_code(key: str, text: str) -> tuple[str, str]:
    """System and code of a text like "loinc 718-7"."""
    system, _, code = text.partition(" ")
    system = SYSTEMS.get(system, system)
    if ":" not in system or not code or " " in code:
        why = f'"{text}" is not of the form "system code"; systems: {", ".join(SYSTEMS)}, or a URI'
        raise ContentError(_VIGNETTE_NAMES, key, why)
    return system, code


_AGE = re.compile(r"(\d+) (d|a) to (\d+) (d|a)\Z")
_ANY_AGE = "0 d to 200 a"


def _interval(file: str, name: str, row: IntervalRow, unit: str) -> Interval:
    found = _AGE.match(_ANY_AGE if row.ages == "any" else row.ages)
    if found is None:
        raise ContentError(file, f"{name}.ages", 'must be like "15 d to 1 a", or "any"')
    return Interval(
        from_age=Quantity(Decimal(found[1]), found[2]),
        to_age=Quantity(Decimal(found[3]), found[4]),
        sex=row.sex,
        low=None if row.low is None else Quantity(row.low, unit),
        high=None if row.high is None else Quantity(row.high, unit),
    )


def _check_placeholders(file: str, key: str, text: str, known: Collection[str]) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in known:
            raise ContentError(file, key, f"{{{name}}} is no placeholder of service.toml")


def _check_phrases(
    file: str, found: Mapping[str, Mapping[str, str]], widths: Mapping[str, int]
) -> None:
    for name, phrases in found.items():
        for key, phrase in phrases.items():
            if len(phrase) > widths.get(name, -1):
                why = "is longer than its placeholder in service.toml, or there is none"
                raise ContentError(file, f"phrases.{name}.{key}", why)


def _check_words(
    file: str, where: str, card: CardFile, variant: Variant, widths: Mapping[str, int]
) -> None:
    """Checks the words of a variant, each under the key where it stands."""
    for key in ("summary", "why", "consider"):
        own, common = getattr(variant, key), getattr(card, key)
        at, text = (f"{where}.{key}", own) if own else (key, common)
        if not text and key != "consider":
            raise ContentError(file, where, f"needs a {key}, here or for the whole card")
        if key == "summary":
            _check_summary(file, at, text, widths)
        else:
            _check_placeholders(file, at, text, {*widths, QUOTED})


def _check_summary(file: str, key: str, text: str, widths: Mapping[str, int]) -> None:
    _check_placeholders(file, key, text, widths)
    longest = _PLACEHOLDER.sub(lambda found: "x" * widths[found[1]], text)
    length = len(longest.encode("utf-16-le")) // 2
    if length > SUMMARY_LIMIT:
        raise ContentError(
            file, key, f"can be {length} characters long; {SUMMARY_LIMIT} is the most"
        )
    if "\n" in text or any(x in text for x in ("**", "](", "<")):
        raise ContentError(file, key, "must be one line of plain text")

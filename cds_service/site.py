"""What a site may change of the content: only keys that exist, each change noted beside the shipped
value.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct
from msgspec.structs import replace

from cds_service.content import Override, Topic
from cds_service.content_files import SiteCoding, SiteFile
from cds_service.errors import ContentError, did_you_mean
from cds_service.modes import Mode, switched, unknown_topic
from cds_service.orders import OrderTemplate
from cds_service.quantity import Quantity
from cds_service.terminology import Listed, ValueSet, local_text, plain_code, same_system
from cds_service.toml_files import bytes_of, parse_toml

_LONGEST = {"d": 73_050, "a": 200}  # 200 years: dates end where calendars do


class SiteText(Struct, frozen=True):
    """A site file: its name, and what is written in it."""

    name: str
    content: bytes


def site_text(path: Path) -> SiteText:
    """The site file at a path; raises ContentError when it cannot be read."""
    return SiteText(path.name, bytes_of(path, path.name))


class Site:
    """A site file applied to the content, piece by piece; without a file nothing changes."""

    def __init__(self, text: SiteText | None) -> None:
        self.file = SiteFile() if text is None else parse_toml(text.name, text.content, SiteFile)
        self.name = "" if text is None else text.name
        self.content = b"" if text is None else text.content
        self.overrides: list[Override] = []
        self._check_time_zone()

    def _check_time_zone(self) -> None:
        here, shipped = self.file.time_zone, SiteFile().time_zone
        try:
            ZoneInfo(here)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self._wrong("time_zone", f"{here} is no time zone") from None
        if here != shipped:
            self._note("time_zone", shipped, here)

    def _wrong(self, key: str, why: str) -> ContentError:
        return ContentError(self.name, key, why)

    def _note(self, key: str, shipped: str, here: str) -> None:
        made = Override(key, shipped, here)
        if made not in self.overrides:  # a shared limit is read for each family
            self.overrides.append(made)

    def value_set(self, shipped: ValueSet) -> ValueSet:
        """The set with the site's local codes and texts."""
        row = self.file.codes.get(shipped.name)
        if row is None:
            return shipped
        key = f"codes.{shipped.name}"
        codes = {_local_code(x) for x in row.codings}
        texts = frozenset(local_text(x) for x in row.texts)
        if "" in texts:
            raise self._wrong(f"{key}.texts", "must not be blank")
        more = [f"{x.system}|{x.code}" for x in row.codings] + [f'"{x}"' for x in row.texts]
        count = len(shipped.codes)
        also = f"as shipped and {', '.join(more)}" if more else "as shipped"
        self._note(key, f"{count} code{'s' * (count != 1)}", also)
        patterns = [rf"(?<!\w){re.escape(x)}(?!\w)" for x in sorted(texts)]
        patterns += [shipped.text.pattern] if shipped.text is not None else []
        text = re.compile("|".join(f"(?:{x})" for x in patterns), re.I) if patterns else None
        own = [
            Listed("code", same_system(x.system), x.code, x.display)
            for x in row.codings
            if _local_code(x) not in shipped.codes
        ]
        codes |= shipped.codes
        return replace(
            shipped,
            codes=frozenset(codes),
            text=text,
            local_texts=texts,
            listed=(*own, *shipped.listed),
        )

    def order(self, order: OrderTemplate) -> OrderTemplate:
        """The order with the site's label and codings."""
        key = f"orders.{order.name}"
        if label := self.file.labels.get(order.name):
            self._note(f"labels.{order.name}", order.title, label)
            order = replace(order, title=label)
        here = self.file.orders.get(order.name)
        if here is None:
            return order
        if here is True:
            raise self._wrong(key, "must be false (not orderable here) or have codings")
        if here is False:
            self._note(key, "orderable", "not orderable here")
            return order
        shipped = ", ".join(f"{x['system']}|{x['code']}" for x in order.codings)
        self._note(key, shipped, ", ".join(f"{x.system}|{x.code}" for x in here.codings))
        if not here.codings:
            raise self._wrong(f"{key}.codings", "must not be empty")
        coded = tuple(
            {"system": x.system, "code": x.code, **({"display": x.display} if x.display else {})}
            for x in here.codings
        )
        return replace(order, codings=coded, text=here.text or order.text)

    def is_orderable(self, name: str) -> bool:
        """Whether the site can order the test."""
        return self.file.orders.get(name) is not False

    def limit(self, name: str, shipped: Quantity) -> Quantity:
        """The limit here; a site changes the number, never the unit."""
        here = self.file.limits.get(name)
        if here is None:
            return shipped
        if isinstance(here, dict):
            if set(here) != {"value", "unit"} or here["unit"] != shipped.unit:
                why = f"must be a number, or have value and unit, which is {shipped.unit}"
                raise self._wrong(f"limits.{name}", why)
            here = here["value"]
        if isinstance(here, bool) or not isinstance(here, int | Decimal) or here < 0:
            raise self._wrong(f"limits.{name}", "must be a number from 0 on")
        most = _LONGEST.get(shipped.unit)
        if most is not None and here > most:
            raise self._wrong(f"limits.{name}", f"must be at most {most} {shipped.unit}")
        unit = "" if shipped.unit == "1" else f" {shipped.unit}"
        self._note(f"limits.{name}", f"{shipped.value}{unit}", f"{here}{unit}")
        return Quantity(Decimal(here), shipped.unit)

    def modes(self, topics: Iterable[Topic], asked: Mapping[str, Mode]) -> dict[str, Mode]:
        """Every topic's mode: shipped, else the site's, else what the command line asked for."""
        modes: dict[str, Mode] = {}
        for topic in topics:
            modes[topic.code] = topic.card.mode
            if (here := self.file.modes.get(topic.code)) is not None:
                self._note(f"modes.{topic.code}", topic.card.mode, here)
                modes[topic.code] = here
        if wrong := unknown_topic(asked, modes):
            raise ContentError("topic mode", *wrong)
        return switched(modes, asked)

    def check(self, known: Mapping[str, set[str]], keys: set[str]) -> None:
        """Raises ContentError for a key that does not exist: a misspelt one must not pass."""
        for table, names in known.items():
            for name in getattr(self.file, table):
                if name not in names:
                    why = f"does not exist in the content{did_you_mean(name, names)}"
                    raise self._wrong(f"{table}.{name}", why)
        for name, key in self.file.prefetch.items():
            if key not in keys:
                why = f"{key} is none of {', '.join(sorted(keys))}{did_you_mean(key, keys)}"
                raise self._wrong(f"prefetch.{name}", why)
            self._note(f"prefetch.{name}", "no key of ours", key)


def _local_code(coding: SiteCoding) -> tuple[str, str]:
    system = same_system(coding.system)
    return system, plain_code(system, coding.code)

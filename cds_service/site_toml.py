"""Writes a site file: what differs from the shipped content, as short as it can be said."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from cds_service.content_files import SiteFile

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def site_toml(site: SiteFile) -> str:
    """The text of a site file; read again it says the same."""
    found: dict[str, Any] = msgspec.to_builtins(site, builtin_types=(Decimal,))
    shipped: dict[str, Any] = msgspec.to_builtins(SiteFile())
    differing = {name: x for name, x in found.items() if x != shipped[name]}
    tables = {name: x for name, x in differing.items() if isinstance(x, dict)}
    lines = [f"{name} = {_value(x)}" for name, x in differing.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", *_table(name, table)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{name}]"
    for key, value in table.items():
        yield f"{_key(key)} = {_value(value)}"


def _key(name: str) -> str:
    return name if _BARE.match(name) else _string(name)


def _string(text: str) -> str:
    """The text in quotes: JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(name)} = {_value(x)}" for name, x in value.items() if x != "")
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_value, value))}]"
    return _string(value) if isinstance(value, str) else str(value)

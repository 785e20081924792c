"""Reads a TOML file as the struct it must be: a wrong or unknown key is named with its file."""

import re
import tomllib
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from cds_service.errors import ContentError, did_you_mean

F = TypeVar("F")
_PART = re.compile(r"[^.\[\]]+")


def read_toml(path: Path, kind: type[F], root: Path) -> F:
    """The file as its struct; raises ContentError naming file and key."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return parse_toml(name, bytes_of(path, name), kind)


def bytes_of(path: Path, name: str) -> bytes:
    """What a file holds; raises ContentError with the name it goes by."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ContentError(name, "", "is missing") from None
    except OSError as error:
        raise ContentError(name, "", f"cannot be read: {error.strerror}") from None


def parse_toml(name: str, content: bytes, kind: type[F]) -> F:
    """What a file of that name says, as its struct; raises ContentError naming file and key."""
    try:
        found = tomllib.loads(content.decode(), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContentError(name, "", f"is not TOML: {error}") from error
    if at := _not_a_number(found):
        raise ContentError(name, at, "must be a finite number")
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at ")
        where = _exactly(found, kind, where.strip("`").removeprefix("$.").removeprefix("$"))
        if why.startswith("Object missing required field"):
            why = f"lacks {', '.join(_lacking(found, kind, where))}"
        elif not where:
            _refuse_unknown(found, kind, name)
        raise ContentError(name, where or "top level", why) from error


def _refuse_unknown(found: dict[str, Any], kind: Any, name: str) -> None:
    """Raises ContentError for a top-level key that the file cannot have, naming those it can."""
    known = getattr(kind, "__struct_fields__", ())
    for key in found:
        if known and key not in known:
            why = f"is no key of this file{did_you_mean(key, known)}; there are {', '.join(known)}"
            raise ContentError(name, key, why)


def _lacking(found: Any, kind: Any, where: str) -> list[str]:
    """The required keys that the table at a place lacks, all of them."""
    expected = msgspec.inspect.type_info(kind)
    for part in _PART.findall(where):
        expected = _inside(expected, part)
        found = found[int(part)] if isinstance(found, list) else found[part]
    fields = expected.fields if isinstance(expected, msgspec.inspect.StructType) else ()
    return [x.encode_name for x in fields if x.required and x.encode_name not in found]


def _inside(outer: msgspec.inspect.Type, part: str) -> msgspec.inspect.Type:
    """What is expected under a key or at a place of something; a table where it may be one."""
    inner = outer
    if isinstance(outer, msgspec.inspect.StructType):
        inner = next(x.type for x in outer.fields if x.encode_name == part)
    elif isinstance(outer, msgspec.inspect.DictType):
        inner = outer.value_type
    elif isinstance(outer, msgspec.inspect.ListType):
        inner = outer.item_type
    if isinstance(inner, msgspec.inspect.UnionType):
        tables = [x for x in inner.types if isinstance(x, msgspec.inspect.StructType)]
        inner = tables[0] if tables else inner
    return inner


def _not_a_number(found: Any, at: str = "") -> str:
    """The place of the first number that is none or has no end, "" when all are finite."""
    if isinstance(found, Decimal):
        return "" if found.is_finite() else at
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(found, dict):
        items = found.items()
    elif isinstance(found, list):
        items = enumerate(found)
    return next(
        (x for key, value in items if (x := _not_a_number(value, f"{at}.{key}"))), ""
    ).lstrip(".")


def _exactly(found: dict[str, Any], kind: Any, where: str) -> str:
    """The place of an error with the key that msgspec leaves out of a table of tables."""
    before, gap, after = where.partition("[...]")
    if not gap:
        return where
    table: Any = found
    for part in _PART.findall(before):
        table = table[int(part)] if isinstance(table, list) else table.get(part, {})
    for key, value in list(table.items()):
        table.clear()
        table[key] = value
        try:
            msgspec.convert(found, kind)
        except msgspec.ValidationError as error:
            if "[...]" in str(error):
                deeper = _exactly(found, kind, f"{before}.{key}{after}".lstrip("."))
                return deeper
    return where

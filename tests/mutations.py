"""Changes to a JSON body that know its structure: the same seed and number make the same bytes.

What no JSON writer would write, 1e400, half a character, a name given twice, is written as bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import Raw

Step = str | int
MOST_CHANGES = 4
MOST_BYTES = 4_000_000  # of what is repeated to make a body larger

_NUMBERS = (
    *(b"1e400", b"-1e400", b"1e-400", b"1e999999999", b"-0", b"0", b"0.0", b"-1", b"1e15", b"1E+2"),
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b"0x10", b"1_000"),
    *(b"9" * 6000, b"0." + b"3" * 6000, b"9007199254740993", b"-9223372036854775809"),
    *(b"18446744073709551616", b"0.1" + b"0" * 400 + b"1", b"4e-324", b"1.7976931348623159e308"),
)
_TEXTS = (
    *("", " ", "\t\n", "\u200b", "\ufeff", "\u202e", "\0", "\x1b[2J", "\x7f", "\x85", "\u2028"),
    *("x\u0301" * 300, "\U0001f9b4", "\ud7ff\ue000\uffff", "ß", "\u0130", "\ufb01", "\u00b5kat/L"),
    *(
        "<script>alert(1)</script>",
        "](javascript:alert(1))",
        "{0} %s ${x}",
        "' OR 1=1 --",
        "../../x",
    ),
    *("NaN", "null", "true", "0", "-1", "1e400", "__proto__", "constructor", "\\", '"'),
)
_WRITTEN = (
    *(b'"\\ud83d"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x"', b'"\xff\xfe"', b'"\xed\xa0\x80"'),
    *(b'"\\u00e9\\ud83e\\uddb4"', b'"\xc0\xaf"', b"'x'", b"", b"undefined", b"{", b"]", b'"x'),
    *(b"[,]", b'{"a":1,}', b"/**/1"),
)
_DATES = (
    *(
        "0001-01-01",
        "9999-12-31",
        "0000",
        "0000-00-00",
        "2026-02-30",
        "2027",
        "2026-13",
        "2026-1-1",
    ),
    *("2026-11-24T25:00:00+99:99", "2026-11-24T12:00:00", "2026-11-24T12:00:60Z", "20261124"),
    *("2026-11-24T12:00:00.123456789123Z", "-2026-01-01", "12026-01-01", "2026-W47", "yesterday"),
    *(
        "2026-11-24T23:59:59-14:00",
        "2026-11-25",
        "2026-11-26",
        "2024-02-29",
        "\u0662\u0660\u0662\u0666",
    ),
)
_WORDS = (
    *("Bundle", "Patient", "Observation", "OperationOutcome", "Binary", "Condition", "Encounter"),
    *("DiagnosticReport", "MedicationRequest", "Parameters", "final", "entered-in-error", "active"),
    *(
        "<",
        ">=",
        "ad",
        "U/L",
        "ukat/L",
        "mg/dL",
        "%",
        "Patient/p1",
        "#x",
        "urn:uuid:p1",
        "Patient/",
    ),
    *("http://loinc.org", "http://snomed.info/sct", "urn:oid:2.16.840.1.113883.6.1", "6768-6"),
    *("next", "self", "match", "outcome", "normal", "IMP", "draft", "order", "patient-view"),
)
_NAMES = (
    *(
        "resource",
        "resourceType",
        "entry",
        "id",
        "code",
        "coding",
        "value",
        "valueQuantity",
        "link",
    ),
    *(
        "subject",
        "reference",
        "contained",
        "extension",
        "prefetch",
        "context",
        "hook",
        "fhirServer",
    ),
    *("", "\0", "a.b", "__class__", "_id", "value[x]", "\ud7ff", "x" * 300),
)
# As deep as no reader goes, and as deep as the first of several may still go: Python 3.11 reads a
# thousand levels, 3.12 and 3.13 ten thousand.
_DEPTHS = (200, 250, 450, 900, 3000, 9_900)
_DEEP = (
    *(b"[" * n + b"]" * n for n in _DEPTHS),
    *(b'{"contained":' * n + b"1" + b"}" * n for n in _DEPTHS),
    *(b'{"resourceType":"Bundle","entry":[{"resource":' * n + b"1" + b"}]}" * n for n in _DEPTHS),
)
ODD = tuple(Raw(x) for x in (*_NUMBERS, *_WRITTEN, *_DEEP))

Kind = Callable[[Random, Any, Any], Any]


class _Dropped:
    """In place of a value: the member or item goes."""


_DROPPED = _Dropped()


# -- what is done to a value: (random, the value, another value of the body) -> the new one --------


def _drop(random: Random, old: Any, other: Any) -> Any:
    return _DROPPED


def _replace(random: Random, old: Any, other: Any) -> Any:
    return random.choice((None, True, False, 0, -1, 3.5, "", "x", [], {}, [None], {"x": None}))


def _swap(random: Random, old: Any, other: Any) -> Any:
    return other


def _retype(random: Random, old: Any, other: Any) -> Any:
    """The same said in another type."""
    if isinstance(old, list):
        return random.choice((old[0] if old else None, {str(n): x for n, x in enumerate(old)}, 7))
    if isinstance(old, dict):
        return random.choice(([old], [*old.values()], [*old], _text(old), [[old]]))
    if isinstance(old, str):
        return random.choice(
            ([old], {"value": old}, Raw(old.encode("utf-8", "replace") or b"0"), 5)
        )
    return random.choice((str(old), [old], {"value": old}, not old))


def _text(value: Any) -> str:
    """The JSON of a value as a text, cut short."""
    return msgspec.json.encode(value)[:2000].decode("utf-8", "replace")


def _duplicate(random: Random, old: Any, other: Any) -> Any:
    """More of the same: an item several times, or a name twice in one object."""
    if isinstance(old, list) and old:
        return [*old, *[random.choice(old)] * random.randint(1, 3)]
    if isinstance(old, dict) and old:
        name = random.choice([*old])
        return _named_twice(old, name, random.choice((old[name], None, other, "x", [])), random)
    return [old, old]


def _named_twice(old: Mapping[str, Any], name: str, second: Any, random: Random) -> Raw:
    pairs = [*old.items()]
    pairs.insert(random.randint(0, len(pairs)), (name, second))
    members = (msgspec.json.encode(x) + b":" + msgspec.json.encode(y) for x, y in pairs)
    return Raw(b"{" + b",".join(members) + b"}")


def _reorder(random: Random, old: Any, other: Any) -> Any:
    if isinstance(old, list):
        return random.sample(old, len(old))
    if isinstance(old, dict):
        return {name: old[name] for name in random.sample([*old], len(old))}
    return old[::-1] if isinstance(old, str) else old


def _rename(random: Random, old: Any, other: Any) -> Any:
    if not isinstance(old, dict) or not old:
        return {random.choice(_NAMES): old}
    gone, name = random.choice([*old]), random.choice(_NAMES)
    new = random.choice((name, gone.upper(), gone + " ", gone[:-1], f"_{gone}"))
    return {new if x == gone else x: y for x, y in old.items()}


def _add(random: Random, old: Any, other: Any) -> Any:
    if isinstance(old, dict):
        return {**old, random.choice(_NAMES): other}
    return [*old, other] if isinstance(old, list) else other


def _oversize(random: Random, old: Any, other: Any) -> Any:
    if isinstance(old, list) and old:
        more = random.choice(old)
        times = min(random.choice((20, 200)), MOST_BYTES // len(msgspec.json.encode(more)))
        return [*old, *[more] * times][:2000]
    if isinstance(old, dict):
        return {**old, **{f"x{n}": n for n in range(random.choice((100, 2000)))}}
    return random.choice(("x" * 100_000, "x " * 20_000, "\u0301" * 5_000, "9" * 5_000))


def _nest(random: Random, old: Any, other: Any) -> Any:
    if (
        isinstance(old, dict)
        and old.get("resourceType") in ("Bundle", None)
        and random.random() < 0.5
    ):
        for _ in range(random.choice((1, 5, 60))):
            old = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": old}]}
        return old
    for _ in range(random.choice((1, 2, 30))):
        old = random.choice(([old], {"a": old}, {"contained": [old]}, {"extension": [old]}))
    return old


def _strange_text(random: Random, old: Any, other: Any) -> Any:
    new = random.choice(_TEXTS)
    if isinstance(old, str) and random.random() < 0.6:
        at = random.randint(0, len(old))
        return old[:at] + new + old[at:]
    return new


def _number(random: Random, old: Any, other: Any) -> Any:
    if isinstance(old, int | float) and random.random() < 0.3:
        return random.choice((-old, old * 10 ** random.randint(1, 20), old / 7, str(old), old + 1))
    return Raw(random.choice(_NUMBERS))


def _raw(random: Random, old: Any, other: Any) -> Any:
    return random.choice(ODD)


def _deep(random: Random, old: Any, other: Any) -> Any:
    return Raw(random.choice(_DEEP))


def _date(random: Random, old: Any, other: Any) -> Any:
    return random.choice(_DATES)


def _word(random: Random, old: Any, other: Any) -> Any:
    return random.choice(_WORDS)


KINDS: Mapping[str, Kind] = {
    "drop": _drop,
    "replace": _replace,
    "swap": _swap,
    "retype": _retype,
    "duplicate": _duplicate,
    "reorder": _reorder,
    "rename": _rename,
    "add": _add,
    "oversize": _oversize,
    "nest": _nest,
    "strange text": _strange_text,
    "number": _number,
    "raw": _raw,
    "deep": _deep,
    "date": _date,
    "word": _word,
}
_OFTEN = [x for x in KINDS if x not in ("oversize", "raw", "deep")] * 2 + [*KINDS]


# -- where ---------------------------------------------------------------------------------------


def _somewhere(random: Random, value: Any) -> tuple[Step, ...]:
    """The way to a place below a value; every level ends it now and then, and what holds more is
    chosen more often.
    """
    way: list[Step] = []
    while isinstance(value, dict | list) and value and (not way or random.random() > 0.1):
        steps: list[Step] = [*value] if isinstance(value, dict) else [*range(len(value))]
        held: Any = value.values() if isinstance(value, dict) else value
        weights = [2 + 2 * len(x) if isinstance(x, dict | list) else 1 for x in held]
        [step] = random.choices(steps, weights)
        way.append(step)
        value = value[step]  # type: ignore[index]
    return tuple(way)


def _at(value: Any, way: Sequence[Step]) -> Any:
    for step in way:
        value = value[step]
    return value


def with_value(value: Any, way: Sequence[Step], new: Any) -> Any:
    """The value with another at the end of a way; what is not on the way is shared."""
    if not way:
        return None if new is _DROPPED else new
    step, rest = way[0], way[1:]
    copy: Any = [*value] if isinstance(value, list) else dict(value)
    if rest:
        copy[step] = with_value(value[step], rest, new)
    elif new is _DROPPED:
        del copy[step]
    else:
        copy[step] = new
    return copy


def changed_value(random: Random, body: Any, kind: str = "") -> Any:
    """The body changed at one place, in one of KINDS ("": any)."""
    way = _somewhere(random, body)
    other = _at(body, _somewhere(random, body))
    change = KINDS[kind or random.choice(_OFTEN)]
    return with_value(body, way, change(random, _at(body, way), other))


# -- bytes ---------------------------------------------------------------------------------------


def _cut(random: Random, body: bytes) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def _inserted(random: Random, body: bytes) -> bytes:
    at = random.randrange(len(body) + 1)
    new = random.choice(
        (random.randbytes(3), b"\xff", b",", b'"', b"}", b"\\", b"\0", b"null", b"\n")
    )
    return body[:at] + new + body[at + random.choice((0, 0, 1, 40)) :]


def _twice(random: Random, body: bytes) -> bytes:
    return body + random.choice((body[:10_000], b"x", b"\0", b" " * 10_000, b"{}", b"]"))


def _prefixed(random: Random, body: bytes) -> bytes:
    return (
        random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" " * 10_000, b"\0", b"//x\n", b"[")) + body
    )


def _recoded(random: Random, body: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(random.choice(("utf-16", "utf-32", "latin-1", "utf-7")), "replace")


def _escaped(random: Random, body: bytes) -> bytes:
    """Some letters written as JSON may write them, so that no name is found by its bytes."""
    letter = random.choice(b"aeirst")
    return body.replace(bytes([letter]), b"\\u%04x" % letter)


_ON_BYTES = (_cut, _inserted, _inserted, _twice, _prefixed, _recoded, _escaped)
_BYTES_RATHER_THAN_VALUES = 0.12


def mutated(random: Random, body: Any, below: Sequence[Step] = ()) -> bytes:
    """The bytes of a body after one to a few changes, all of them below a place, and now and then
    to the bytes themselves.
    """
    part = _at(body, below)
    for _ in range(random.randint(1, MOST_CHANGES)):
        part = changed_value(random, part)
    written = msgspec.json.encode(with_value(body, below, part))
    if random.random() < _BYTES_RATHER_THAN_VALUES:
        written = random.choice(_ON_BYTES)(random, written)
    return written

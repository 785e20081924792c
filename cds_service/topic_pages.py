"""The pages of the topics, rendered once: HTML without script, style sheet from here, and the same
as JSON.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct

from cds_service.content import Content
from cds_service.quantity import Quantity
from cds_service.terminology import ATC, ICD_9_CM, ICD_10, ICD_10_CM, LOINC, RXNORM, SNOMED
from cds_service.topic_reading import in_words
from cds_service.topic_shape import Number, Published, SetUsed
from cds_service.topics import topic_list, topic_pages

_HERE = Path(__file__).resolve().parent
_SYSTEMS = {
    LOINC: "LOINC",
    SNOMED: "SNOMED CT",
    ATC: "ATC",
    RXNORM: "RxNorm",
    ICD_10_CM: "ICD-10-CM",
    ICD_10: "ICD-10",
    ICD_9_CM: "ICD-9-CM",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Page(Struct, frozen=True):
    """One page in both of its forms."""

    html: bytes
    json: bytes


class Pages(Struct, frozen=True):
    """The list of all topics, the page of each by its code, and their style sheet."""

    listing: Page
    topics: Mapping[str, Page]
    style: bytes


def rendered(content: Content, prefix: str = "") -> Pages:
    """All pages of a content; `prefix` is the path under which the server is published."""
    made = environment(prefix)
    pages = topic_pages(content)
    listing = topic_list(content, pages)
    titles = {code: page.title for code, page in pages.items()}
    return Pages(
        listing=_page(made, "topics.html", listing, titles),
        topics={x: _page(made, "topic.html", page, titles) for x, page in pages.items()},
        style=(_HERE / "static" / "topics.css").read_bytes(),
    )


def environment(prefix: str) -> Environment:
    """What renders the templates, everything in them escaped."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["prefix"] = prefix
    made.filters |= {
        "amount": _amount,
        "counted": _counted,
        "parts": lambda text: list(_parts(text)),
        "system": lambda system: _SYSTEMS.get(system, system),
        "sentence": _sentence,
    }
    return made


def _page(
    environment: Environment, template: str, shown: Published, titles: Mapping[str, str]
) -> Page:
    html = environment.get_template(template).render(shown=shown, titles=titles)
    return Page(html.encode(), msgspec.json.encode(shown))


def _amount(value: Number, unit: str) -> str:
    return in_words(Quantity(Decimal(str(value)), unit))


def _counted(used: SetUsed) -> str:
    """How much a set holds: "1 code", "3 codes, 2 groups of codes, words"."""
    counts = ((used.codes, "code", "codes"), (used.groups, "group of codes", "groups of codes"))
    said = [f"{n} {one if n == 1 else many}" for n, one, many in counts if n]
    if used.text_is_read:
        said.append("words" if said else "words only")
    return ", ".join(said)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text cut at its placeholders: each piece, and whether it is a placeholder's name."""
    for number, piece in enumerate(_PLACEHOLDER.split(text)):
        if piece:
            yield piece, number % 2 == 1


def _sentence(text: str) -> str:
    """The text with a capital first letter and an end."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""

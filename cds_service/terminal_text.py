"""Text for a terminal: nothing in it can steer the terminal, forge a line or pass for markup."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import unescape
from typing import Any
from unicodedata import category

from msgspec import Struct
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.text import Text

LONGEST_LINE = 2000
DEEPEST_INDENT = 8

_WITH_LINES = ("detail", "hint")
_ENTITY = re.compile(r"&#?\w+;")


def harmless(value: Any, with_lines: bool = False) -> Any:
    """JSON without nulls, its strings on one line and free of control and format characters.

    Card details and hints keep their lines.
    """
    if isinstance(value, str):
        lines = value.splitlines() if with_lines else [" ".join(value.split())]
        return "\n".join(_printable(line)[:LONGEST_LINE] for line in lines)
    if isinstance(value, Mapping):
        kept = ((k, v) for k, v in value.items() if v is not None)
        return {harmless(k): harmless(v, k in _WITH_LINES) for k, v in kept}
    if isinstance(value, Sequence):
        return [harmless(x, with_lines) for x in value]
    return value


def _printable(text: str) -> str:
    return "".join(x for x in text if category(x) not in ("Cc", "Cf", "Cs"))


def markdown(text: str) -> Markdown:
    """The text as Markdown, without entities that would become control or format characters."""
    kept = _ENTITY.sub(lambda x: x[0] if _printable(unescape(x[0])) else "", text)
    return Markdown(kept, hyperlinks=False)


class Line(Struct, frozen=True):
    """A line and how deep it stands; what does not fit continues below it, indented."""

    depth: int
    text: str
    style: str = ""
    bullet: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, wrapped, without blanks at the ends of its rows."""
        lead = "  " * min(self.depth, DEEPEST_INDENT) + self.bullet
        below = " " * max(2, len(lead))  # never at the margin, where it would pass for a heading
        for row in Text(self.text, self.style).wrap(
            console, max(1, options.max_width - len(below))
        ):
            row.rstrip()
            yield Text(lead, self.style).append_text(row)
            lead = below


def first_of(names: Sequence[str], most: int) -> str:
    """The first names in a row, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def by_reason(entries: Iterable[Mapping[str, Any]], name: str) -> dict[str, list[str]]:
    """The member `name` of the entries, under the reason each was left out for."""
    found: dict[str, list[str]] = {}
    for x in entries:
        found.setdefault(x.get("why", "no reason given"), []).append(x.get(name, "unnamed"))
    return found

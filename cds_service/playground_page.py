"""The page of the playground: HTML that is whole without its script, in which nothing of a chart is
live.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from msgspec import Struct

from cds_service.overrides import OVERRIDDEN
from cds_service.playground import VERDICTS, Chosen, Fired, Playground, shown
from cds_service.topic_pages import environment
from cds_service.topics import topic_list

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

NO_REASON = "no-reason-given"  # what is chosen to send an override without a reason
_NOT_IN_CARDS = (
    *("code", "fence", "heading", "hr", "html_block", "html_inline", "image", "lheading"),
    *("blockquote", "reference"),
)
_SHAPES = {
    **{"fired": "●", "suppressed": "◐", "data-missing": "?", "data-unusable": "!"},
    **{"not-met": "○", "not-applicable": "-"},
}


def _allowed(url: str) -> bool:
    return re.match(r"https://[^\s\\]+\Z", url) is not None


@cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt  # no worker needs it before somebody opens the page

    reading = MarkdownIt("commonmark", {"html": False}).disable([*_NOT_IN_CARDS])
    reading.validateLink = _allowed  # type: ignore[method-assign]
    return reading


def card_text(detail: str) -> Markup:
    """A card's Markdown as HTML, of the few kinds of it that cards use."""
    return Markup(_markdown().render(detail))


class Shown(Struct, frozen=True):
    """What is on the page beside the form: an answer or why there is none, and what became of
    feedback; `silent_because` says why there are no buttons for it, "" where there are.
    """

    fired: Fired | None = None
    wrong: tuple[str, ...] = ()
    notice: tuple[str, ...] = ()
    silent_because: str = ""
    links: Sequence[tuple[str, str]] = ()
    trends: Sequence[Markup] = ()


class PlaygroundPage:
    """Renders the page; `prefix` is the path under which the server is published."""

    def __init__(self, playground: Playground, prefix: str) -> None:
        self._playground = playground
        made = environment(prefix)
        made.filters |= {
            "card_text": card_text,
            "json": lambda x: json.dumps(x, ensure_ascii=False, indent=1),
            "limits": playground.limits,
            "shown": lambda x: shown(str(x)),
        }
        made.globals |= {"shapes": _SHAPES, "no_reason": NO_REASON}
        self._template = made.get_template("playground.html")
        self._about = topic_list(playground.content, playground.pages).content

    def html(self, chosen: Chosen, page: Shown) -> bytes:
        """The whole page."""
        playground, fired = self._playground, page.fired
        counted = (
            [(x, sum(t.verdict == x for t in fired.topics)) for x in VERDICTS] if fired else []
        )
        patient = playground.patient(chosen, fired) if fired else None
        made: dict[str, Any] = {
            "shown": {"content": self._about},
            "playground": playground,
            "services": [service for _, service in playground.content.services()],
            "chosen": chosen,
            "page": page,
            "fired": fired,
            "counted": [(name, n) for name, n in counted if n],
            "aside": [x for x in fired.topics if x.found.get("by") == OVERRIDDEN] if fired else [],
            "places": {x: f"resource-{n}" for n, x in enumerate(fired.resources)} if fired else {},
            "patient": patient,
            "sandbox": playground.sandbox(patient, fired.service) if fired and patient else "",
        }
        return self._template.render(made).encode()

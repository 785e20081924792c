"""The questions of a topic in the order of the page, what is behind one shown only once."""

import json
from collections.abc import Container, Iterable
from typing import Any

import msgspec
from msgspec import Struct

Json = dict[str, Any]

# These verdicts rest on one question; a card that fired, or is held back, on all of them.
_OF_ONE = ("data-missing", "data-unusable", "not-met", "not-applicable")


class QuestionShown(Struct, frozen=True):
    """A question as the explanation has it; `place` is its id on the page, `first` that of the same
    question further up, which has all that is behind it ("": it is here), `behind` what is shown
    behind it here.
    """

    found: Json
    place: str
    first: str
    behind: tuple["QuestionShown", ...]


class Questions(Struct, frozen=True):
    """What a topic asked: the question that decided, None where it was not one, and the others in
    the order asked.
    """

    decided: QuestionShown | None
    others: tuple[QuestionShown, ...]


def questions_of(verdict: Json, compared: Container[str]) -> Questions:
    """The questions of a verdict; `compared` are those that are shown with numbers."""
    asked = verdict["evidence"]
    last = decided_by(verdict)
    seen = _Seen(verdict["topic"], compared)
    first = None if last is None else seen.shown(last)
    return Questions(first, seen.all_of(x for x in asked if x is not last))


def decided_by(verdict: Json) -> Json | None:
    """The question that a verdict rests on; None where there is not the one."""
    asked = verdict["evidence"]
    if verdict["verdict"] not in _OF_ONE or not asked:
        return None
    reason = verdict["reason"]
    named = [
        x for x in asked if x["code"] == reason["code"] and reason["text"].startswith(x["question"])
    ]
    found: Json = (named or asked)[-1]
    return found


class _Seen(Struct):
    topic: str
    compared: Container[str]
    places: dict[str, str] = msgspec.field(default_factory=dict)

    def all_of(self, asked: Iterable[Json]) -> tuple[QuestionShown, ...]:
        return tuple(self.shown(x) for x in asked)

    def shown(self, question: Json) -> QuestionShown:
        behind = question.get("because", [])
        is_bare = not (question["used"] or question["rejected"] or behind)
        if is_bare and question["question"] not in self.compared:
            return QuestionShown(question, "", "", ())
        said = json.dumps(question, sort_keys=True)
        if said in self.places:
            return QuestionShown(question, "", self.places[said], ())
        place = self.places[said] = f"asked-{self.topic}-{len(self.places) + 1}"
        return QuestionShown(question, place, "", self.all_of(behind))

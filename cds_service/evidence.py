"""What was asked about a patient, what the answer was, and what it rests on: the record is the
explanation.

An answer is yes, no or unknown. Using an unknown one as a condition raises Undecided, which becomes
the verdict.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import wraps
from typing import Any, Protocol, TypeVar, TypeVarTuple

from msgspec import Struct

Asked = TypeVarTuple("Asked")


class Rejected(Struct, eq=False):
    """An entry that could not be used, and why; `foreign` says that it is about somebody else."""

    entry: Any
    why: str
    foreign: bool = False


class Answer(Struct, eq=False):
    """Yes (True), no (False) or unknown (None); an unknown one names the keys it lacks, or that its
    data is unusable.
    """

    trace: "Trace"
    value: bool | None
    missing: tuple[str, ...] = ()
    unusable: bool = False

    def __bool__(self) -> bool:
        if self.value is None:
            raise Undecided(self.missing, self.unusable)
        return self.value


class Undecided(Exception):
    """A condition was unknown: data is missing (these keys) or there but unusable."""

    def __init__(self, missing: tuple[str, ...] = (), unusable: bool = False) -> None:
        super().__init__()
        self.missing = missing
        self.unusable = unusable


class Record(Struct, eq=False):
    """One question: its name and text, its answer, the entries used and rejected, and the questions
    behind it; `undecided` is what it raised in place of an answer.
    """

    name: str
    text: str
    gate: bool = False
    answer: Any = None
    undecided: tuple[tuple[str, ...], bool] | None = None
    used: list[Sequence[Any]] = []
    rejected: list[Sequence[Rejected]] = []
    because: "list[Record]" = []
    unchecked: list[str] = []
    remarks: list[tuple[str, dict[str, str]]] = []

    def raise_undecided(self) -> None:
        """Raises Undecided when that is what became of the question."""
        if self.undecided is not None:
            missing, unusable = self.undecided
            raise Undecided(missing, unusable)


class Trace:
    """The questions asked in one call, each evaluated once however many topics ask it; `frame` is
    the record being written.
    """

    __slots__ = ("_known", "frame")

    def __init__(self) -> None:
        self._known: dict[Hashable, Record] = {}
        self.frame = Record("", "")

    def begin(self, name: str) -> Record:
        """A fresh outermost record: what is asked from now on belongs to it."""
        self.frame = Record(name, "")
        return self.frame

    def resume(self, record: Record) -> None:
        """Goes on writing an outermost record."""
        self.frame = record

    def known(self, key: Hashable) -> Record | None:
        """The record of what was asked before, which joins the one being written; None when it was
        not asked yet.
        """
        record = self._known.get(key)
        if record is not None:
            self._join(record)
        return record

    def ask(
        self,
        key: Hashable,
        name: str,
        text: str,
        gate: bool,
        ask: Callable[[*Asked], Any],
        *args: *Asked,
    ) -> Record:
        """The record of what is asked for the first time, which joins the one being written."""
        record, outer = Record(name, text, gate), self.frame
        self.frame = record
        try:
            record.answer = ask(*args)
        except Undecided as undecided:
            # Without its traceback, which would keep all that the call was made of.
            record.undecided = undecided.missing, undecided.unusable
            record.answer = Answer(self, None, undecided.missing, undecided.unusable)
        finally:
            self.frame = outer
        self._known[key] = record
        self._join(record)
        return record

    def _join(self, record: Record) -> None:
        frame = self.frame
        frame.because.append(record)
        if record.unchecked:
            frame.unchecked += record.unchecked
        if record.remarks:
            frame.remarks += record.remarks

    def close(self) -> None:
        """Forgets what was asked, once nothing more will be: answers and trace lead to one another,
        and Python would free such a ring only when it next looks for them.
        """
        self._known.clear()
        self.frame = Record("", "")

    def outcomes(self) -> Iterable[Any]:
        """What every question and finding came to."""
        return (record.answer for record in self._known.values())

    def answer(
        self, value: bool | None, missing: tuple[str, ...] = (), unusable: bool = False
    ) -> Answer:
        """An answer that belongs to this trace."""
        return Answer(self, value, missing, unusable)


class Traced(Protocol):
    """Whatever carries the trace: the patient's facts."""

    @property
    def trace(self) -> Trace:
        """The questions asked so far."""
        ...


Who = TypeVar("Who", bound=Traced)
R = TypeVar("R")


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n", 1)[0].split())


def question(
    ask: Callable[[Who, *Asked], Answer | bool],
) -> Callable[[Who, *Asked], Answer]:
    """A yes/no question: evaluated once per call, recorded under its docstring, unknown when what
    it needs is.
    """
    return _question(ask, gate=False)


def gate(
    ask: Callable[[Who, *Asked], Answer | bool],
) -> Callable[[Who, *Asked], Answer]:
    """A question that says whom a row is for: a no makes the row not applicable, where a question's
    makes it not met.
    """
    return _question(ask, gate=True)


def _question(
    ask: Callable[[Who, *Asked], Answer | bool], gate: bool
) -> Callable[[Who, *Asked], Answer]:
    name = ask.__name__.replace("_", "-")
    text = _first_paragraph(ask.__doc__)
    names_its_limit = "{}" in text

    @wraps(ask)
    def asked(patient: Who, /, *args: *Asked) -> Answer:
        trace, key = patient.trace, (ask, args)
        record = trace.known(key)
        if record is None:
            said = text.format(*args) if names_its_limit else text
            record = trace.ask(key, name, said, gate, ask, patient, *args)
            if not isinstance(record.answer, Answer):
                record.answer = Answer(trace, bool(record.answer))
        answer: Answer = record.answer
        return answer

    return asked


def finding(
    find: Callable[[Who, *Asked], R],
) -> Callable[[Who, *Asked], R]:
    """Something found in the chart, not a yes or no: evaluated once, recorded, and raising
    Undecided when unknown.
    """
    name = find.__name__.replace("_", "-")
    text = _first_paragraph(find.__doc__)

    @wraps(find)
    def found(patient: Who, /, *args: *Asked) -> R:
        trace, key = patient.trace, (find, args)
        record = trace.known(key)
        if record is None:
            record = trace.ask(key, name, text, False, find, patient, *args)
        record.raise_undecided()
        outcome: R = record.answer
        return outcome

    return found


def surely(answer: Answer) -> bool:
    """Whether the answer is yes; an unknown one does not stop the row, but what it lacks is named
    on the card.
    """
    if answer.value is None:
        answer.trace.frame.unchecked += answer.missing
        return False
    return answer.value


def any_of(patient: Who, *questions: Callable[[Who], Answer]) -> Answer:
    """Yes when one of the questions is, asked in order; unknown when none is yes and one is
    unknown.
    """
    missing: tuple[str, ...] = ()
    unusable = unknown = False
    for ask in questions:
        answer = ask(patient)
        if answer.value:
            return answer
        if answer.value is None:
            unknown = True
            missing += answer.missing
            unusable = unusable or answer.unusable
    return patient.trace.answer(None if unknown else False, missing, unusable)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names in order, each once."""
    return tuple(dict.fromkeys(names))


def outcome_of(record: Record) -> str:
    """A record's answer in a word: yes, no, unknown, or how many were found."""
    answer = record.answer
    if isinstance(answer, Answer):
        return {True: "yes", False: "no", None: "unknown"}[answer.value]
    if answer is None:
        return "none"
    return str(len(answer)) if isinstance(answer, list | tuple | dict | frozenset) else "found"

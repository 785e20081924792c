"""docs/conformance.md: what is asked of a CDS Hooks service, and the tests that show it.

docs/requirements.toml says what is asked, the marks say which tests show it; `make conformance`
writes the page from both.
"""

import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "conformance.md"
AREAS = (
    *("operation and packaging", "speed and fuzzing"),
    "playground",
)
_SPOKEN = ("MUST", "MUST NOT", "SHOULD", "MAY")
_LAID_ON = ("derived", "client")
STRENGTHS = (*_SPOKEN, *(f"{x} {y}" for x in _LAID_ON for y in _SPOKEN), "policy", "note")
STATES = ("shown", "in part", "waiting", "measured", "does not apply")
_HEAD = """\
# Conformance to CDS Hooks 2.0.1

Written by `make conformance` from [requirements.toml](requirements.toml) and the marks of the
tests; `make test` fails when it is not what they say.

Every requirement is in our own words; the text that counts is [the specification](https://cds-hooks.hl7.org/2.0/).

| strength | meaning |
|---|---|
| MUST, MUST NOT, SHOULD, MAY | the specification's own word, for a service |
| derived | not said of a service, but it cannot be right otherwise |
| client | laid on the client; the service copes with it, or refuses what breaks it |
| policy | the specification is silent; the choice of this server |
| note | nothing is asked |

| state | meaning |
|---|---|
| shown | a test fails when the server does otherwise |
| in part | tests show some of it; the rest waits for work that is named |
| waiting | for work that is named |
| measured | on the page that is named; nothing timed decides a test |
| does not apply | for the reason given |
"""
_DEVIATING = (
    "What the server does otherwise when it is told to ([protocol.md](protocol.md#deviations)):"
)

Tests = Mapping[str, Sequence[str]]  # the tests that show a requirement, by its id


@dataclass(frozen=True)
class Requirement:
    """One thing asked; `does_not_apply` is a reason, `measured` says where and what, `waits_for` is
    an area and why ("area: why"), and `deviates` says what the server does otherwise when it is
    told to.
    """

    id: str
    strength: str
    asks: str
    does_not_apply: str = ""
    measured: str = ""
    waits_for: str = ""
    deviates: str = ""

    @property
    def area(self) -> str:
        return self.waits_for.partition(": ")[0]

    def state(self, tests: Tests) -> str:
        if self.does_not_apply:
            return "does not apply"
        if self.measured:
            return "measured"
        if self.waits_for:
            return "in part" if self.id in tests else "waiting"
        return "shown"


@dataclass(frozen=True)
class Section:
    """The requirements of one part of the specification."""

    title: str
    requirements: tuple[Requirement, ...]


def read(text: str) -> tuple[Section, ...]:
    """The sections of a requirements.toml."""
    return tuple(
        Section(table.pop("title"), tuple(Requirement(x, **said) for x, said in table.items()))
        for table in tomllib.loads(text).values()
    )


def faults(sections: Sequence[Section], tests: Tests) -> list[str]:
    """What the requirements and the marks say that cannot be."""
    requirements = [x for section in sections for x in section.requirements]
    times = Counter(x.id for x in requirements)
    return [
        *(f"{x}: no such requirement ({', '.join(tests[x])})" for x in sorted({*tests} - {*times})),
        *(f"{x}: stands twice" for x, n in times.items() if n > 1),
        *(f"{x.id}: {why}" for x in requirements for why in _faults(x, x.id in tests)),
    ]


def _faults(requirement: Requirement, has_tests: bool) -> Iterator[str]:
    reasons = (requirement.does_not_apply, requirement.measured, requirement.waits_for)
    if not (has_tests or any(reasons)):
        yield "neither a test nor a reason"
    if has_tests and requirement.does_not_apply:
        yield "does not apply, and a test shows it"
    if sum(map(bool, reasons)) > 1:
        yield "has two reasons for being shown by no test"
    if requirement.waits_for and requirement.area not in AREAS:
        yield f"waits for none of {', '.join(AREAS)}"
    if requirement.strength not in STRENGTHS:
        yield f"its strength is none of {', '.join(STRENGTHS)}"


def page(sections: Sequence[Section], tests: Tests) -> str:
    """The page in Markdown."""
    return "\n".join([_HEAD, *_summary(sections, tests), *_sections(sections, tests)])


def _summary(sections: Sequence[Section], tests: Tests) -> Iterator[str]:
    yield "## Summary\n"
    yield f"| section | {' | '.join(STATES)} | together |"
    yield f"|---|{'---:|' * (len(STATES) + 1)}"
    everything = Counter[str]()
    for section in sections:
        counted = Counter(x.state(tests) for x in section.requirements)
        yield _row(_linked(section.title), counted)
        everything += counted
    yield _row("**together**", everything)
    yield "\n| what is waited for | in part | waiting |\n|---|---:|---:|"
    requirements = [x for section in sections for x in section.requirements]
    counts = Counter((x.area, x.state(tests)) for x in requirements)
    for area in AREAS:
        yield f"| {area} | {counts[area, 'in part']} | {counts[area, 'waiting']} |"
    if deviating := [f"**{x.id}**: {x.deviates}" for x in requirements if x.deviates]:
        yield f"\n{_DEVIATING}\n"
        yield from (f"* {x}" for x in deviating)


def _linked(title: str) -> str:
    return f"[{title}](#{title.lower().replace(' ', '-').replace(chr(39), '')})"


def _row(title: str, counted: Counter[str]) -> str:
    return f"| {title} | {' | '.join(str(counted[x]) for x in STATES)} | {counted.total()} |"


def _sections(sections: Sequence[Section], tests: Tests) -> Iterator[str]:
    for section in sections:
        yield f"\n## {section.title}"
        for x in section.requirements:
            yield f"\n**{x.id}** ({x.strength}, {x.state(tests)}): {x.asks}\n"
            if x.does_not_apply:
                yield f"* Does not apply: {x.does_not_apply}"
            if x.measured:
                yield f"* Measured: {x.measured}"
            if x.waits_for:
                yield f"* Waits for {x.waits_for}."
            if x.deviates:
                yield f"* Deviates when told to: {x.deviates}"
            yield from (f"* `{name}`" for name in tests.get(x.id, ()))
    yield ""


# -- the marks ---------------------------------------------------------------------------------


# Nothing is run, so no assertion need be told well; a list of all tests is not read.
_COLLECT = ("--collect-only", "--quiet", "--quiet", "--assert=plain")


class _Marks:
    """A plugin of pytest that keeps which tests bear which marks, parametrised ones once."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            name = item.nodeid.partition("[")[0].removeprefix("tests/")
            for mark in item.iter_markers("requirement"):
                self.pairs |= {(x, name) for x in mark.args}


def marked() -> dict[str, list[str]]:
    """The tests of every requirement; pytest collects them and runs none."""
    marks = _Marks()
    with redirect_stdout(StringIO()) as said:
        code = pytest.main([*_COLLECT, str(DOCS.parent / "tests")], plugins=[marks])
    if code:
        raise SystemExit(said.getvalue())
    tests: dict[str, list[str]] = {}
    for x, name in sorted(marks.pairs):
        tests.setdefault(x, []).append(name)
    return tests


def main(path: Path) -> None:
    """Writes the page, or ends with what is wrong."""
    sections = read((DOCS / "requirements.toml").read_text("utf-8"))
    tests = marked()
    if found := faults(sections, tests):
        raise SystemExit("\n".join(found))
    path.write_text(page(sections, tests), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)

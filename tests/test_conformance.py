"""docs/conformance.md is what the requirements and the marks of the tests say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import PAGE, Section, Tests, faults, page, read
from tests.loopback import ROOT, clean_environment

TEXT = """
[a]
title = "The first's part"
AAA-01 = { strength = "MUST", asks = "One." }
AAA-02 = { strength = "policy", asks = "Two.", does_not_apply = "Not here." }
[b]
title = "Second"
BBB-01 = { strength = "client SHOULD", asks = "Three.", waits_for = "playground: not yet" }
BBB-02 = { strength = "derived MUST NOT", asks = "Four.", waits_for = "speed and fuzzing: more" }
BBB-03 = { strength = "MUST", asks = "Five.", deviates = "Six for some." }
"""
TESTS = {"AAA-01": ["test_a.py::test_one", "test_b.py::test_x"], "BBB-02": ["test_a.py::test_one"]}
TESTS["BBB-03"] = ["test_c.py::test_five"]


@pytest.fixture
def sections() -> tuple[Section, ...]:
    return read(TEXT)


def test_the_page_is_what_the_marks_say(tmp_path: Path) -> None:
    written = tmp_path / "page.md"
    run = subprocess.run(
        [sys.executable, "-m", "tests.conformance", str(written)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert run.returncode == 0, run.stderr
    is_current = written.read_text("utf-8") == PAGE.read_text("utf-8")
    assert is_current, "docs/conformance.md is out of date; write it anew with: make conformance"


def test_requirements_with_tests_or_reasons_are_no_fault(sections: tuple[Section, ...]) -> None:
    assert faults(sections, TESTS) == []


@pytest.mark.parametrize(
    ("old", "new", "tests", "fault"),
    [
        ("", "", TESTS | {"ZZZ-01": ["test_z.py::test_z"]}, "ZZZ-01: no such requirement"),
        (
            "",
            "",
            dict([*TESTS.items()][1:]),
            "AAA-01: neither a test nor a reason",
        ),
        (', does_not_apply = "Not here."', "", TESTS, "AAA-02: neither a test nor a reason"),
        ("", "", TESTS | {"AAA-02": ["x"]}, "AAA-02: does not apply, and a test shows it"),
        ('"Not here."', '"x", waits_for = "playground: x"', TESTS, "AAA-02: has two"),
        ("playground: not yet", "later", TESTS, "BBB-01: waits for none of"),
        ('"policy"', '"SHALL"', TESTS, "AAA-02: its strength is none of"),
        ("BBB-01", "AAA-01", TESTS, "AAA-01: stands twice"),
    ],
)
def test_what_cannot_be_is_a_fault(old: str, new: str, tests: Tests, fault: str) -> None:
    found = faults(read(TEXT.replace(old, new)), tests)

    assert len(found) == 1 and found[0].startswith(fault)


def test_the_page_counts_and_lists_every_requirement_once(sections: tuple[Section, ...]) -> None:
    said = page(sections, TESTS)

    assert "| [The first's part](#the-firsts-part) | 1 | 0 | 0 | 0 | 1 | 2 |" in said
    assert "| **together** | 2 | 1 | 1 | 0 | 1 | 5 |" in said
    assert "| speed and fuzzing | 1 | 0 |" in said and "| playground | 0 | 1 |" in said
    assert re.findall(r"\*\*([A-Z]{3}-\d\d)\*\* \((.+)\): (.+)", said) == [
        ("AAA-01", "MUST, shown", "One."),
        ("AAA-02", "policy, does not apply", "Two."),
        ("BBB-01", "client SHOULD, waiting", "Three."),
        ("BBB-02", "derived MUST NOT, in part", "Four."),
        ("BBB-03", "MUST, shown", "Five."),
    ]
    assert "(protocol.md#deviations)):\n\n* **BBB-03**: Six for some.\n" in said
    assert "* Deviates when told to: Six for some.\n* `test_c" in said
    assert said.count("* `test_a.py::test_one`") == 2
    assert "* Does not apply: Not here." in said and "* Waits for speed and fuzzing: more." in said


def test_a_mark_has_one_spelling() -> None:
    mark = "pytest.mark." + "requirement"
    for path in (ROOT / "tests").glob("*.py"):
        lines = [x for x in path.read_text("utf-8").splitlines() if mark in x]
        assert set(lines) <= {f"requirement = {mark}"}, path.name

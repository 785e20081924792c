"""The topic and the service that hooks/README.md documents work as they stand there."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from cds_service import content_files
from cds_service.facts import PatientFacts
from cds_service.loading import load_content
from cds_service.rules import Advice
from cds_service.vignette_rows import read_vignettes
from tests.loopback import ended

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
README = (HOOKS / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^`([a-z_]+/[\w/]+\.\w+)`(?:,[^:]*)?:\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


def documented() -> dict[str, str]:
    """The files that the README writes out, by their path."""
    return {file: dedent(text).strip() + "\n" for file, text in BLOCK.findall(README)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The content with the documented family beside what ships, which has no vignettes here."""
    here = tmp_path / "hooks"
    shutil.copytree(HOOKS, here, ignore=shutil.ignore_patterns("__pycache__", "vignettes.toml"))
    for file, text in documented().items():
        path = here / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return here


@pytest.mark.parametrize("kind", ["ReasonRow", "FamilyFile", "Repeats", "CardFile", "Variant"])
def test_every_key_is_explained(kind: str) -> None:
    keys = getattr(content_files, kind).__struct_fields__
    assert [x for x in keys if not re.search(rf"`\[*{x}\b", README)] == []


def test_the_documented_topic_and_service_pass_check(folder: Path) -> None:
    assert sorted(x.split("/", 1)[1] for x in documented()) == [
        "cards/low_magnesium_unrepeated.toml",
        "rules/magnesium.py",
        "service.toml",
        "vignettes.toml",
    ]
    result = ended("check", str(folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 passed, 0 failed" in result.stdout
    loaded = load_content(folder)
    assert loaded.find("magnesium-review") and loaded.find("alp-review")


def test_the_documented_service_is_the_shortest_there_is(folder: Path) -> None:
    for name in ("placeholders", "limits", "source", "precedence", "prefetch.labs"):
        text = documented()["magnesium_review/service.toml"]
        shorter = re.sub(rf"\[{re.escape(name)}\]\n(?:[^\[].*\n|\n)*", "", text)
        assert shorter != text
        (folder / "magnesium_review" / "service.toml").write_text(shorter)
        assert ended("check", str(folder)).returncode != 0, name


def test_a_vignette_of_the_documented_topic_can_fail(folder: Path) -> None:
    path = folder / "magnesium_review" / "vignettes.toml"
    path.write_text(path.read_text("utf-8").replace("magnesium 0.4", "magnesium 0.9", 1), "utf-8")
    result = ended("check", str(folder))
    assert result.returncode == 1 and "FAILED MG01" in result.stdout


def test_the_documented_rule_has_the_types_that_rules_have(folder: Path) -> None:
    path = folder / "magnesium_review" / "rules" / "magnesium.py"
    for command in (
        ["ruff", "check", "--quiet", str(path)],
        ["ruff", "format", "--check", str(path)],
    ):
        found = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


# -- what the tables say -----------------------------------------------------------------------


def rows_of(heading: str) -> str:
    """The first column of the table under a heading."""
    table = README[README.index(heading) :].split("\n\n", 1)[0]
    return "\n".join(x.split(" | ")[0] for x in table.splitlines())


def test_every_question_that_a_rule_may_ask_is_in_the_table() -> None:
    told = set(re.findall(r"\w+", rows_of("| ask the patient |")))
    asked = {
        x for x in vars(PatientFacts) if not x.startswith("_") and x not in ("judged_in_trace",)
    }
    asked |= set(PatientFacts.__annotations__)
    assert sorted(asked - told) == []


def test_everything_that_clinical_python_asks_is_in_the_table() -> None:
    told = set(re.findall(r"\w+", rows_of("| ask the patient |")))
    asked = {
        x.attr
        for path in HOOKS.rglob("*.py")
        for x in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(x, ast.Attribute)
        and isinstance(x.value, ast.Name)
        and x.value.id == "patient"
    }
    assert sorted(asked - told) == []


def test_every_argument_of_advice_is_in_the_table() -> None:
    told = re.findall(r"`(\w+)`", rows_of("| argument of `Advice` |"))
    assert told[1:] == list(Advice.__struct_fields__)
    assert list(inspect.signature(Advice).parameters)[:2] == ["topic", "variant"]


ITEMS = [
    ("results", "alp <0.4 ukat/L [0.58-1.74] -26d (corrected)"),
    ("results", "spep 2025-12-06"),
    ("results", "spep 'M-protein' -9d"),
    ("conditions", "icd10cm M81.0 'Osteoporosis' @2025-03 (resolved)"),
]


@pytest.mark.parametrize(("key", "item"), ITEMS)
def test_the_documented_items_of_vignettes_can_be_read(tmp_path: Path, key: str, item: str) -> None:
    assert f"`{item}`" in README
    path = tmp_path / "vignettes.toml"
    head = (
        'as_of = 2026-01-15\n[[vignette]]\nid = "a"\nsays = "b"\npatient = "F 52 y"\nexpect = []\n'
    )
    path.write_text(f'{head}{key} = ["{item}"]\n')
    assert read_vignettes(path)


def test_every_shared_file_is_in_the_tree_and_has_its_keys_explained() -> None:
    for path in HOOKS.glob("shared/*.toml"):
        assert f"\n      {path.name} " in README, path.name
        assert f"`shared/{path.name}`" in README, path.name

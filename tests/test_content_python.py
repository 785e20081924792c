"""A mistake in the Python of the content stops the server, with a sentence that names file and
line, before any patient meets it.
"""

import re
import shutil
from pathlib import Path

import pytest

from cds_service.errors import ContentError
from cds_service.loading import load_content
from tests.loopback import ended

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
LYTIC = "alp_review/rules/lytic_lesion.py"
RULE = "alp_review/rules/low_alp.py"
LESION = "alp_review/rules/lytic_lesion.py"
IMPORT = "from hooks.shared import definitions as d"
CARE = "shared/care.py"
CARD = "alp_review/cards/raised_alp_source_unknown.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of its own, whose Python nobody has imported yet."""
    here = tmp_path / "hooks"
    shutil.copytree(HOOKS, here, ignore=shutil.ignore_patterns("__pycache__"))
    return here


def edit(folder: Path, file: str, old: str, new: str) -> int:
    """Changes the first place that a text stands in a file; the line of it."""
    text = (folder / file).read_text("utf-8")
    assert old in text, f"{file} no longer holds {old}"
    changed = text.replace(old, new, 1)
    (folder / file).write_text(changed, "utf-8")
    start = text.index(old)
    return changed.count("\n", 0, start + len(new) - len(new.lstrip("\n"))) + 1


def refusal(folder: Path) -> ContentError:
    with pytest.raises(ContentError) as refused:
        load_content(folder)
    return refused.value


TYPOS = [
    # a name of a module, of the patient, of the module itself, of anything declared
    (RULE, "not d.persistently_low(patient)", "not d.persistently_loww(patient)", "loww"),
    (RULE, "not patient.is_of_known_age()", "not patient.is_of_age()", "PatientFacts has no is_of"),
    (CARE, "x.within(window, patient.today", "x.within(window, patient.todya", "no todya"),
    (RULE, "limit.unconfirmed_window", "limit.unconfirmed_windo", '"unconfirmed_windo"'),
    (LYTIC, "patient.limit.adult_age", "patient.limit.adultage", '"adultage"'),
    (RULE, "not worth_repeating(patient)", "not worth_repeatin(patient)", "worth_repeatin is"),
    ("shared/raised_alp.py", "return judged.high is not", "return judged.hihg is not", "no hihg"),
    # the arguments of a call
    (RULE, "d.persistently_low(patient)", "d.persistently_low()", "missing a required argument"),
    (RULE, "d.hypophosphatasia_known(patient)", "d.hypophosphatasia_known(patient, 1)", "too many"),
    (RULE, '"cond-wilson", silencing', '"cond-wilson", silence', "silence"),
    (RULE, "findings=[latest]", "finding=[latest]", "finding"),
    # what the content names
    (RULE, '"cond-osteoporosis"', '"osteoporosis"', '"osteoporosis" is no value set'),
    (RULE, '"cond-osteoporosis"', '"cond-osteoporos"', '"cond-osteoporos" is no value set'),
    (LESION, '"hemoglobin"', '"haemoglobin"', "no measure"),
    (LESION, 'orderable("sflc")', 'orderable("flc")', "no order"),
    (LESION, 'patient), "Condition")', 'patient), "Conditon")', "Conditon"),
    # the answer
    (RULE, '"lowAlpUnconfirmed",', '"lowAlpUnconfirmd",', "no topic"),
    (RULE, '"infant" if infant', '"infants" if infant', "variant.infants"),
    # the laws
    (RULE, IMPORT, f"import datetime\n{IMPORT}", "imports datetime"),
    (RULE, IMPORT, f"from cds_service.cards import Cards\n{IMPORT}", "imports cds_service.cards"),
    (CARE, "return patient.is_deceased()", "return bool(open(patient.sex))", "uses open"),
    (CARE, "patient.is_deceased()", "patient._held is None", "_held, which is private"),
    (RULE, "if not worth_repeating(patient):", "if patient.today > 30:", "the number 30"),
    (CARE, 'has("cond-palliative"', 'has("C90.0"', '"C90.0", which looks like a code'),
    (CARE, 'has("cond-palliative"', 'has("6768-6"', '"6768-6", which looks like'),
    (CARE, 'settled(found, "Condition")', "settled(found, None)", "kinds of data, written out"),
    (CARE, 'settled(found, "Condition")', "settled(found)", "without which a no is unknown"),
    (RULE, '"lowAlpUnconfirmed",', "patient.sex,", "must begin with its topic"),
    (RULE, '"acquired-cause" if surely', '"an acquired cause" if surely', "words for a card"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "told"), TYPOS)
def test_a_mistake_in_python_is_named_with_file_and_line(
    folder: Path, file: str, old: str, new: str, told: str
) -> None:
    line = edit(folder, file, old, new)
    error = refusal(folder)
    assert error.file == file
    assert re.fullmatch(r"line \d+", error.key)
    assert abs(int(error.key.removeprefix("line ")) - line) <= 8  # a call begins before its end
    assert told in error.why and "\n" not in str(error)


def test_a_file_that_nothing_imports_is_read_too(folder: Path) -> None:
    (folder / "shared" / "spare.py").write_text("def spare(patient):\n    return nothing\n")
    error = refusal(folder)
    assert (error.file, error.key) == ("shared/spare.py", "line 2")


def test_python_that_is_not_text_is_named(folder: Path) -> None:
    (folder / CARE).write_bytes(b"# \xff\n")
    assert refusal(folder).file == CARE


def test_serve_does_not_start_on_a_typo(folder: Path) -> None:
    edit(folder, RULE, "not d.persistently_low(patient)", "not d.persistently_loww(patient)")
    result = ended("serve", "--open", CDS_HOOKS_DIR=str(folder))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and f"{RULE}: line " in result.stderr


# -- cards that could never be shown -----------------------------------------------------------


def test_a_card_without_any_order_is_refused_unless_it_is_always_shown(folder: Path) -> None:
    bone = "alp_review/cards/raised_alp_bone_source.toml"
    edit(folder, bone, "orders    = []\nalways_shown = true", "orders    = []")
    error = refusal(folder)
    assert (error.file, error.key) == (bone, "variant.result-first")
    assert "never shown" in error.why and "always_shown = true" in error.why


def test_a_card_that_inherits_no_order_is_refused(folder: Path) -> None:
    edit(folder, CARD, 'orders   = ["ggt"]', "orders   = []")
    edit(
        folder,
        "alp_review/rules/raised_alp.py",
        'consider=("ggt",) if d.paired_ggt(patient) is None else (),\n',
        "",
    )
    assert refusal(folder).key == "variant.info"
    edit(folder, CARD, "orders   = []", "orders   = []\nalways_shown = true")
    load_content(folder)


def test_a_rule_may_choose_the_orders_that_its_card_does_not_list(folder: Path) -> None:
    edit(folder, CARD, 'orders   = ["ggt"]', "orders   = []")
    load_content(folder)

"""Wrong content stops the server with a sentence; what ships is whole and all of it is used."""

import ast
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

import msgspec
import pytest

from cds_service.answering import Answering
from cds_service.checking import builder_for, in_modes, vignettes_of
from cds_service.content import Content, Topic
from cds_service.content_files import CardFile, Variant
from cds_service.errors import ContentError, DataUnobtainable
from cds_service.loading import load_content
from cds_service.modes import Mode
from cds_service.outgoing import check_drafts, check_files

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
TODAY = date(2026, 11, 24)
FILES = {
    "about": "content.toml",
    "card": "alp_review/cards/low_alp_unconfirmed.toml",
    "intervals": "shared/reference_intervals.toml",
    "order": "shared/orders/plp.json",
    "rule": "alp_review/rules/low_alp.py",
    "service": "alp_review/service.toml",
    "set": "shared/valuesets/cond-aff.json",
    "vignettes": "alp_review/vignettes.toml",
    **{x.stem: f"shared/{x.name}" for x in HOOKS.glob("shared/*.toml")},
}


def sources() -> list[Path]:
    return [x for x in HOOKS.rglob("*") if x.is_file() and x.suffix != ".pyc"]


def copied(to: Path) -> Path:
    shutil.copytree(HOOKS, to, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@pytest.fixture(scope="module")
def _copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("content") / "hooks")


@pytest.fixture
def folder(_copy: Path) -> Iterator[Path]:
    """A copy of the content, to be spoilt: what a test changed is as it was for the next one."""
    yield _copy
    for source in sources():
        here = _copy / source.relative_to(HOOKS)
        if not here.is_file() or here.stat().st_mtime_ns != source.stat().st_mtime_ns:
            shutil.copy2(source, here)
    for new in [x for x in _copy.iterdir() if not (HOOKS / x.name).exists()]:
        shutil.rmtree(new)


@pytest.fixture
def fresh_folder(tmp_path: Path) -> Path:
    """A copy of its own, whose Python nobody has imported yet."""
    return copied(tmp_path / "hooks")


def edit(folder: Path, file: str, old: str, new: str) -> None:
    """Replaces the one place in a file that a regular expression finds."""
    path = folder / file
    text, times = re.subn(old, lambda found: found.expand(new), path.read_text("utf-8"), count=1)
    assert times == 1, f"{file} no longer holds {old}"
    path.write_text(text, "utf-8")


def refusal(folder: Path) -> ContentError:
    with pytest.raises(ContentError) as refused:
        load_content(folder)
    return refused.value


# -- mistakes ----------------------------------------------------------------------------------

# File, what stands there (a regular expression), the mistake, and what the sentence must name.
MISTAKES = [
    # a key that no file has, in every kind of table
    ("about", r"\A", "colour = 1\n", "colour"),
    ("override_reasons", r"\[later\]", "[later]\ncolour = 1", "later.*colour"),
    ("orders", r"\[ggt\]", "[ggt]\ncolour = 1", "ggt.*colour"),
    ("measures", r"\[ggt\]", "[ggt]\ncolour = 1", "ggt.*colour"),
    ("limits", r"(low_cap *= \{)", r"\1 colour = 1,", "low_cap.*colour"),
    ("intervals", r"ages = \"0 d", 'colour = 1, ages = "0 d', r"alp.*colour"),
    ("words", r"\A", "[colours]\n", "colours"),
    ("negation", r"\A", "colour = 1\n", "colour"),
    ("service", r"\A", "colour = 1\n", "colour"),
    ("service", r"(\[\[service\]\])", r"\1\ncolour = 1", r"service\[0\].*colour"),
    ("service", r"(\[prefetch.alp\])", r"\1\ncolour = 1", r"prefetch.alp.*colour"),
    ("service", r"(repeat_after *= \{)", r"\1 colour = 1,", r"limits.repeat_after.*colour"),
    ("service", r"(\[precedence\])", r"\1\ncolour = 1", "precedence.*colour"),
    ("service", r"(\[\[hold\]\])", r"\1\ncolour = 1", "hold.*colour"),
    ("service", r"(\[source\])", r"\1\ncolour = 1", "source.*colour"),
    ("card", r"\A", "colour = 1\n", "colour"),
    ("card", r"(\[variant.older\])", r"\1\ncolour = 1", "variant.older.*colour"),
    ("vignette_names", r"\A", "colour = 1\n", "colour"),
    ("trend", r"\A", "colour = 1\n", "colour"),
    ("trend", r"measure += \"ggt\"", 'measure = "ggt"\ncolour = 1', r"panel\[1\].*colour"),
    ("trend", r"\[\[lane\]\]", "[[lane]]\ncolour = 1", r"lane\[0\].*colour"),
    # a key that is missing
    ("about", r"version *=.*\n", "", "version"),
    ("limits", r"(low_cap .*)unit = \"U/L\",", r"\1", "low_cap.*unit"),
    ("card", r"row .*\n", "", "row"),
    ("card", r"summary .*\n", "", "variant.*summary"),
    ("words", r"checked *=.*\n", "", "frame.*checked"),
    ("words", r"fallback *=.*\n", "", "limit_from.*fallback"),
    ("words", r"as_sent *=.*\n", "", "remarks.*as_sent"),
    # a value of the wrong kind
    ("limits", r"(low_cap .*value = )40", r"\1true", "low_cap.value"),
    ("limits", r"(low_cap .*value = )40", r"\1nan", "low_cap"),
    ("limits", r"(low_cap .*value = )40", r"\1-inf", "low_cap"),
    ("limits", r"(low_cap .*value = )40", r"\1-40", "low_cap"),
    ("measures", r"highest = 30000", "highest = nan", "alp.highest"),
    ("intervals", r"low = 83", "low = nan", "alp.*low"),
    ("units", r"\"kU/L\" = 1000", '"kU/L" = 0', "kU/L"),
    ("units", r"\"kU/L\" = 1000", '"kU/L" = nan', "kU/L"),
    ("units", r"\"kU/L\" = 1000", '"kU/L" = "many"', "kU/L"),
    ("orders", r"within_days = 30", 'within_days = "30"', "within_days"),
    ("intervals", r"\"0 d to 15 d\"", '"newborn"', "alp.*newborn|alp.ages"),
    ("intervals", r"sex = \"male\"", 'sex = "boy"', "sex.*boy"),
    ("card", r"mode .*", 'mode = "loud"', "mode.*loud"),
    ("card", r"(older\]\nwhen.*\n)indicator = .*", r'\1indicator = "urgent"', "older.*urgent"),
    ("card", r"older  = \"about 30 days\"", "older = 30", "interval.older"),
    ("card", r"title .*", 'title = ""', "title"),
    ("override_reasons", r"(later\]\ndisplay = ).*", r'\1""', "later.display"),
    # a reason that lasts for no time, or for two
    ("override_reasons", r"\[later\]((\n.+)*)\ndays = 30", r"[later]\1", "later: needs either"),
    ("override_reasons", r"\[later\]", '[later]\nuntil = "value"', "later: needs either"),
    # a unit that nobody knows
    ("measures", r"unit = \"U/L\"", 'unit = "parsec"', "alp.unit.*parsec"),
    ("limits", r"(low_cap .*unit = )\"U/L\"", r'\1"parsec"', "low_cap.*parsec"),
    ("service", r"(repeat_after .*unit = )\"d\"", r'\1"fortnight"', "repeat_after.*fortnight"),
    # a value set that is not there
    ("measures", r"\"obs-ggt\"", '"obs-gt"', "ggt.value_set.*obs-gt"),
    ("measures", r"\"text-not-serum\"", '"text-serum"', "alp.not_specimen.*text-serum"),
    ("orders", r"\"obs-ggt\"", '"obs-gt"', "ggt.done_by.*obs-gt"),
    ("service", r"codes *= \[\"obs-alp-total\"\]", 'codes = ["obs-ap"]', "alp.codes.*obs-ap"),
    ("service", r"codes = \[\"obs-\*\"\]", 'codes = ["lab-*"]', "labs.codes.*lab-"),
    ("service", r"except_codes = \[.*\]", 'except_codes = ["obs-ap"]', "labs.except_codes.*obs-ap"),
    ("trend", r"measure += \"ggt\"", 'measure = "ggtt"', r"panel\[1\].measure.*ggtt"),
    ("trend", r"\"alp_values\"", '"alp_value"', r"panel\[0\].judged_by.*alp_value"),
    ("trend", r"\"very_low_limit\"", '"low_limits"', r"panel\[0\].lines\[1\].limit.*low_limits"),
    ("trend", r"\"pregnancy_days\"", '"pregnancy_day"', r"panel\[0\].days.*pregnancy_day"),
    ("trend", r"\"outside_pregnancy\"", '"outside"', r"panel\[0\].outside.*outside"),
    ("trend", r"outside +=.*", "", r"panel\[0\].*both days and outside"),
    ("trend", r"\"med-denosumab\"", '"med-x"', r"lane\[0\].drugs.*med-x"),
    ("trend", r"\"cond-aff\"", '"cond-x"', r"lane\[1\].problems.*cond-x"),
    ("trend", r"\"lowered_until\"", '"until"', r"lane\[0\].acts_until.*until"),
    ("trend", r"\"last_dose\"", '"dose"', r"lane\[0\].last_dose.*dose"),
    ("trend", r"drugs +=", 'problems = ["cond-aff"]\ndrugs =', r"lane\[0\].*either drugs or"),
    ("trend", r"drugs +=.*", "", r"lane\[0\].*either drugs or"),
    ("trend", r"\"Fractures\"", '"Fractures of any bone at all"', r"lane\[1\].title.*24"),
    ("measures", r"title = \"GGT\"", 'title = "Gamma-glutamyl transferase"', r"ggt.title.*over 24"),
    ("vignette_names", r"loinc 36916-5", "36916-5", "results.kappa.*36916-5"),
    ("vignette_names", r"loinc 36916-5", "loincs 36916-5", "results.kappa.*loincs"),
    ("vignette_names", r"(ggt  .*)loinc 2324-2", r"\1loinc 2324-2 GGT", "results.ggt.*GGT"),
    ("vignette_names", r"(25ohd .*)loinc ", r"\1", "orders.25ohd"),
    ("intervals", r"\npotassium ", "\nkalium ", "kalium"),
    # an order that is not there, or computes
    ("orders", r"\Z", "\n[marrow]\n", "marrow"),
    ("card", r"orders .*", 'orders = ["ap"]', "orders.*ap"),
    ("card", r"kept_alive_by .*", 'kept_alive_by = ["ap"]', "kept_alive_by.*ap"),
    ("card", r"(\[variant.older\])", r'\1\norders = ["ap"]', "variant.older.orders.*ap"),
    ("card", r"\{ alp = \"repeat_after\" \}", '{ ap = "repeat_after" }', "starts_after.*ap"),
    ("order", r"\"kind\":", '"dynamicValue": [], "kind":', "dynamicValue"),
    ("order", r"\"kind\":", '"library": [], "kind":', "library"),
    ("order", r"\"kind\":", '"transform": "x", "kind":', "transform"),
    ("order", r"\"kind\": \"ServiceRequest\"", '"kind": "Task"', "kind"),
    ("order", r"\"id\": \"plp\"", '"id": "b6"', "id"),
    ("order", r"\"coding\"", '"codings"', "coding"),
    ("order", r"\"code\": \"62236-5\"", '"coda": "62236-5"', "code"),
    ("order", r"(\"coding\": \[)", r'\1 "62236-5",', "coding"),
    ("order", r"(\"coding\": \[)\s*\{\"system\": \"[^\"]*\",", r"\1 {", "system"),
    # a value set that memory cannot honour
    ("set", r"\"id\": \"cond-aff\"", '"id": "cond-af"', "id"),
    ("set", r"\"title\"", '"titel"', "title"),
    ("set", r"(sct\",)", r'\1 "filter": [{"op": "is-a", "value": "1"}],', "filter.*snomed"),
    ("set", r"\"op\": \"is-a\"", '"op": "="', "filter.op"),
    ("set", r"\"value\": \"M84.75\"", '"value": 3', "filter"),
    ("set", r"\"system\": \"http://snomed.info/sct\",", '"valueSet": ["x"],', "compose.include"),
    ("set", r"\"code\": \"890095006\"", '"coda": "890095006"', "include"),
    ("set", r"\"include\": \[", '"include": ["x", ', "include"),
    ("set", r"\"compose\": \{", '"compose": [], "x": {', "compose"),
    ("set", r"\\\\batypical", "(atypical", "text-pattern"),
    ("set", r"\\\\batypical", "x(?i)atypical", "text-pattern"),
    ("negation", r"\"no\",", '"",', "cues"),
    ("negation", r"\"\?\"", '""', "signs"),
    ("negation", r"struck_out = \[", 'struck_out = ["",', "struck_out"),
    # a limit that is there twice, or not at all
    ("service", r"unconfirmed_window ", "low_cap ", "low_cap"),
    ("limits", r"low_cap ", "Low_Cap ", "Low_Cap"),
    ("card", r"\{ alp = \"repeat_after\" \}", '{ alp = "repeat" }', "starts_after.*repeat"),
    ("card", r"\{ alp = \"repeat_after\" \}", '{ alp = "low_cap" }', "starts_after.*low_cap"),
    # a prefetch key or query that cannot be
    ("card", r"(mode .*)", r'\1\nneeds = ["problems"]', "needs.*problems"),
    ("service", r"supplements = \"labs\"", 'supplements = "lab"', "supplements.*lab"),
    ("service", r"\"Patient/\{\{", '"https://ehr.example/Patient/{{', "prefetch.patient.query"),
    ("service", r"(alp\]\n.*\n.*)context.patientId", r"\1context.patient", "prefetch.alp.query"),
    ("service", r"hook  = \"patient-view\"", 'hook = "chart-view"', "hook.*chart-view"),
    ("service", r"id    = \"alp-review\"", 'id = "alp review"', "service.id"),
    # topics
    ("service", r"(order = \[)", r'\1 "lowAlpUnheard",', "precedence.order.*lowAlpUnheard"),
    ("service", r"(order = \[)", r'\1 "lowAlpUnconfirmed",', "precedence.order.*lowAlpUnconfirmed"),
    ("service", r"\n  \"lowAlpUnconfirmed\",", "", "precedence.order.*lowAlpUnconfirmed"),
    ("service", r"\nraisedAlpWithCancer ", "\nraisedAlp ", "suppresses.raisedAlp"),
    ("service", r"(suppresses\]\n.*= \[)", r'\1 "raisedAlp",', "suppresses.*raisedAlp"),
    ("service", r"question = \"deceased\"", 'question = "dead"', "hold.question.*dead"),
    ("service", r"keeps = \[", 'keeps = ["lytic",', "hold.palliative_care.*lytic"),
    ("service", r"keeps_warnings = \[", 'keeps_warnings = ["lytic",', "hold.palliat.*lytic"),
    ("card", r"override = \[", 'override = ["bored",', "override.*bored"),
    # words
    ("card", r"(summary .*\()", r"\1as the hospital's laboratory printed it: ", "summary.*139"),
    ("card", r"(summary .*)\{val\}", r"\1{value}", "summary.*value"),
    ("card", r"(why  .*)\.\"", r'\1 {value}."', "why.*value"),
    ("card", r"(consider = \")", r"\1{value} ", "consider.*value"),
    ("card", r"(contrary = \")", r"\1{value} ", "contrary.*value"),
    ("card", r"(limits   = \")", r"\1{value} ", "limits.*value"),
    ("words", r"\{date\} could", "{value} could", "newer_unreadable.*value"),
    ("card", r"\"about 30 days\"", '"in about thirty days"', "phrases.interval.older"),
    ("card", r"\[phrases.interval\]", "[phrases.span]", "phrases.span"),
    ("words", r"\[phrases.drug\]", "[phrases.span]", "phrases.span"),
    ("words", r"thyroid +=.*", f'thyroid = "{"x" * 41}"', "phrases.cause.thyroid"),
    ("card", r"(summary  = \")", r"\1{quoted} ", "summary.*quoted"),
    ("card", r"(contrary = \")", r"\1{quoted} ", "contrary.*quoted"),
    ("card", r"(summary  = \")", r"\1**", "summary"),
    ("card", r"(summary  = \")", r"\1<b>", "summary"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "named"), MISTAKES)
def test_a_mistake_stops_the_start_and_is_named_with_its_file(
    folder: Path, name: str, old: str, new: str, named: str
) -> None:
    edit(folder, FILES[name], old, new)
    error = refusal(folder)
    assert error.file.startswith(FILES[name])
    assert re.search(named, f"{error.key}: {error.why}", re.DOTALL)
    assert str(error).startswith(error.file) and "\n" not in str(error)


@pytest.mark.parametrize("name", [x for x in FILES if x not in ("rule", "vignettes")])
def test_a_file_that_cannot_be_parsed_is_named(folder: Path, name: str) -> None:
    for spoilt in (b"\xff\xfe", b"{" if name in ("set", "order") else b"= 1\n", b"[]\n[[]"):
        (folder / FILES[name]).write_bytes(spoilt)
        assert refusal(folder).file == FILES[name]


@pytest.mark.parametrize("found", ["[]", "7", "null", '"ValueSet"'])
@pytest.mark.parametrize("name", ["set", "order"])
def test_a_json_file_that_is_no_object_is_named(folder: Path, name: str, found: str) -> None:
    (folder / FILES[name]).write_text(found)
    assert refusal(folder).file == FILES[name]


@pytest.mark.parametrize(
    "name",
    [
        x
        for x in FILES
        if x not in ("about", "card", "order", "rule", "set", "service", "trend", "vignettes")
    ],
)
def test_a_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / FILES[name]).unlink()
    error = refusal(folder)
    assert (error.file, error.why) == (FILES[name], "is missing")


def test_a_content_may_have_no_picture(folder: Path) -> None:
    (folder / FILES["trend"]).unlink()
    assert load_content(folder).trend is None


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("content.toml", "content.toml"),
        ("shared/orders/plp.json", "plp"),
        ("shared/valuesets/cond-sepsis.json", "cond-sepsis"),
        ("shared/valuesets/obs-ggt.json", "obs-ggt"),
        ("shared/valuesets/text-not-serum.json", "text-not-serum"),
        ("alp_review/cards/low_alp_persistent.toml", "low_alp_persistent"),
        ("alp_review/rules/low_alp.py", "low_alp_persistent|low_alp_unconfirmed"),
    ],
)
def test_what_others_rest_on_is_missed(folder: Path, file: str, named: str) -> None:
    (folder / file).unlink()
    assert re.search(named, str(refusal(folder)))


@pytest.mark.parametrize(
    ("name", "limit"),
    [("limits", "low_cap"), ("limits", "ordered_window"), ("service", "before_lesion")],
)
def test_a_limit_that_is_read_and_missing_stops_the_start(
    folder: Path, name: str, limit: str
) -> None:
    edit(folder, FILES[name], rf"{limit} .*\n", "")
    assert limit in str(refusal(folder))


@pytest.mark.parametrize("old", ["def low_alp_persistent", "def low_alp_unconfirmed"])
def test_a_card_without_its_rule_and_a_rule_without_its_card_are_refused(
    fresh_folder: Path, old: str
) -> None:
    edit(fresh_folder, FILES["rule"], old, "def low_alp_forgotten")
    assert re.search("low_alp_(forgotten|persistent|unconfirmed)", refusal(fresh_folder).key)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (FILES["rule"], r"\Z", "\ndef broken(:\n"),
        (FILES["rule"], r"import definitions as d", "import nothing as d"),
        ("shared/care.py", r"\Z", "\nNOTHING = no_such_name\n"),
    ],
)
def test_python_that_does_not_import_is_named_like_any_other_file(
    fresh_folder: Path, file: str, old: str, new: str
) -> None:
    edit(fresh_folder, file, old, new)
    assert Path(file).stem in str(refusal(fresh_folder))


def test_a_service_id_is_given_once(folder: Path) -> None:
    shutil.copytree(folder / "alp_review", folder / "alp_second")
    assert refusal(folder).key == "service.id"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("order", r"\"intent\": \"proposal\"", '"intent": 3'),
        ("set", r"\"date\": \"[^\"]*\"", '"date": "24.11.2026"'),
        ("set", r"\"experimental\": false", '"experiment": false'),
    ],
)
def test_what_is_not_valid_fhir_is_refused_before_it_is_sent(
    folder: Path, name: str, old: str, new: str
) -> None:
    edit(folder, FILES[name], old, new)
    with pytest.raises(ContentError) as refused:
        content = load_content(folder)
        check_files(content.folder)
        check_drafts(content.orders)
    assert refused.value.file == FILES[name]


def test_all_the_keys_that_a_table_lacks_are_named_at_once(folder: Path) -> None:
    for name in ("funding  ", "race  ", "sex  "):
        edit(folder, FILES["service"], rf"\n{name}.*", "")
    error = refusal(folder)
    assert (error.key, error.why) == ("source.attributes", "lacks funding, race, sex")
    edit(folder, FILES["service"], r"title    = .*\n", "")
    edit(folder, FILES["service"], r"query    = .*\n", "")
    assert "lacks title, query" in str(refusal(folder))


def test_an_order_with_a_template_and_no_table_is_said_to_need_the_table(folder: Path) -> None:
    edit(folder, FILES["card"], r"orders .*", 'orders = ["wbmri"]')
    why = refusal(folder).why
    assert "a table [wbmri]" in why and "template is in shared/orders/ already" in why
    edit(folder, FILES["card"], r"wbmri", "marrow")
    assert "a template shared/orders/marrow.json and a table [marrow]" in refusal(folder).why


def test_words_that_do_not_fit_are_named_where_they_stand(folder: Path) -> None:
    long = "x" * 140
    edit(folder, FILES["card"], r"summary .*", f'summary = "{long}"')
    assert refusal(folder).key == "summary"
    edit(folder, FILES["card"], r"\[variant.older\]", f'[variant.older]\nsummary = "{long}"')
    assert refusal(folder).key == "variant.older.summary"


@pytest.mark.parametrize(("name", "is_refused"), [("spare", True), (".idea", False)])
def test_a_folder_that_is_no_family_is_not_passed_over(
    folder: Path, name: str, is_refused: bool
) -> None:
    (folder / name).mkdir()
    (folder / "__pycache__").mkdir()
    if is_refused:
        error = refusal(folder)
        assert error.file == "spare/" and "no service.toml" in error.why
    else:
        load_content(folder)


# -- the hash ----------------------------------------------------------------------------------


def test_the_hash_is_the_same_for_the_same_content_wherever_it_lies(folder: Path) -> None:
    (folder / "shared" / "__pycache__").mkdir(exist_ok=True)
    (folder / "shared" / "__pycache__" / "care.cpython-311.pyc").write_bytes(b"x")
    assert load_content(folder).hash == shipped().hash
    assert re.fullmatch(r"[0-9a-f]{64}", shipped().hash)


@pytest.mark.parametrize("file", sorted({*FILES.values(), "shared/care.py"}))
def test_the_hash_changes_with_every_file(folder: Path, file: str) -> None:
    with (folder / file).open("a") as out:
        out.write("\n")
    assert load_content(folder).hash != shipped().hash


def test_the_hash_changes_with_the_site_file_and_with_each_mode(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    hashes = [shipped().hash]
    for text in ("", "[limits]\nlow_cap = 41\n", "[limits]\nlow_cap = 42\n"):
        site.write_text(text)
        hashes.append(load_content(HOOKS, site).hash)
    for topic in ("lowAlpPersistent", "lowAlpUnconfirmed", "*"):
        hashes.append(load_content(HOOKS, None, {topic: "off"}).hash)
    assert len(set(hashes[1:])) == len(hashes) - 1
    assert hashes[0] not in hashes[2:]


def test_the_order_in_which_modes_are_asked_for_does_not_matter() -> None:
    modes: dict[str, Mode] = {"lowAlpPersistent": "off", "lowAlpUnconfirmed": "shadow"}
    backwards = dict(reversed(modes.items()))
    assert load_content(HOOKS, None, modes).hash == load_content(HOOKS, None, backwards).hash


# -- what ships is all used --------------------------------------------------------------------


@cache
def shipped() -> Content:
    return load_content(HOOKS)


def nodes(*folders: str) -> Iterator[ast.AST]:
    root = HOOKS.parent
    for path in sorted(x for folder in folders for x in (root / folder).rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def attributes_of_limit(*folders: str) -> set[str]:
    """The names read from something called `limit`."""
    return {
        x.attr
        for x in nodes(*folders)
        if isinstance(x, ast.Attribute)
        and (
            (isinstance(x.value, ast.Attribute) and x.value.attr == "limit")
            or (isinstance(x.value, ast.Name) and x.value.id == "limit")
        )
    }


def arguments(*methods: str) -> set[str]:
    """The strings that Python under hooks/ gives first to these methods."""
    return {
        x.args[0].value
        for x in nodes("hooks")
        if isinstance(x, ast.Call)
        and isinstance(x.func, ast.Attribute)
        and x.func.attr in methods
        and x.args
        and isinstance(x.args[0], ast.Constant)
        and isinstance(x.args[0].value, str)
    }


def strings(*folders: str) -> set[str]:
    return {
        x.value for x in nodes(*folders) if isinstance(x, ast.Constant) and isinstance(x.value, str)
    }


def test_every_limit_is_read_and_every_limit_that_is_read_exists() -> None:
    families = shipped().families
    named = {x for family in families for x in family.knowledge.limits.values}
    later = {
        x
        for family in families
        for topic in family.topics
        for row in topic.card.variant.values()
        for x in row.starts_after.values()
    }
    read = attributes_of_limit("hooks", "cds_service") & set(named) | later
    assert sorted(named - read) == []
    assert sorted(attributes_of_limit("hooks") - named) == []


def test_every_value_set_that_python_names_exists() -> None:
    kinds = {x.split("-")[0] for x in shipped().families[0].knowledge.terminology.sets}
    named = {x for x in strings("hooks") if re.fullmatch(rf"({'|'.join(kinds)})(-[a-z0-9]+)+", x)}
    assert len(named) > 50
    assert sorted(named - set(shipped().families[0].knowledge.terminology.sets)) == []


def test_every_measure_order_and_remark_that_python_names_exists() -> None:
    orders = arguments("done", "ordered", "is_orderable")
    measures = arguments(
        "measured", "measured_on", "judged", "latest_within", "rejected", "fallback"
    )
    assert orders and orders <= set(shipped().families[0].knowledge.orders)
    assert measures and measures <= set(shipped().measures)
    said = arguments("remark")
    assert said | {"as_sent"} == set(shipped().words.remarks)


def test_every_word_that_any_card_may_need_is_used() -> None:
    words, said = shipped().words, strings("hooks", "cds_service")
    named = {**words.limit_from, **words.set_aside, **words.remarks}
    assert sorted(set(named) - said) == []
    read = {x.attr for x in nodes("cds_service") if isinstance(x, ast.Attribute)}
    assert {x.name for x in msgspec.structs.fields(words.frame)} <= read


def test_every_override_reason_stands_on_a_card() -> None:
    offered = {x for topic in shipped().topics().values() for x in topic.card.override}
    common = set(shipped().common_reasons)
    assert offered | common == set(shipped().override_reasons)
    assert offered & common == set()


def test_every_placeholder_is_used_by_a_card() -> None:
    for family in shipped().families:
        text = "".join(texts_of(topic.card) for topic in family.topics)
        assert {x for x in family.placeholders if f"{{{x}}}" not in text} == set(), family.name


def texts_of(card: CardFile) -> str:
    rows = [card.summary, card.why, card.consider]
    rows += [y for x in card.variant.values() for y in (x.summary, x.why, x.consider)]
    return "\n".join(rows)


# -- every word is said to some patient --------------------------------------------------------


@cache
def said_to_patients() -> dict[tuple[str, str], list[str]]:
    """What the cards of each topic of a family say to the patients of its vignettes."""
    noon = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)
    found: dict[tuple[str, str], list[str]] = {}
    for family in shipped().families:
        as_of, vignettes = vignettes_of(family)
        builder = builder_for(shipped(), family)
        service = {x.hook: x.id for x in family.services}
        for vignette in vignettes:
            body = msgspec.json.encode(builder.body(vignette, as_of, TODAY))
            answering = Answering(in_modes(shipped(), vignette.modes), None, 1.0, lambda: noon)
            with suppress(DataUnobtainable):
                for card in answering.cards(service[vignette.hook], body).cards:
                    found.setdefault((family.name, card.source.topic.code), []).append(
                        f"{card.summary}\n{card.detail}"
                    )
    return found


def is_said(family: str, topic: str, template: str, filled: dict[str, str] | None = None) -> bool:
    """Whether some card of a topic says a sentence, its placeholders filled with something."""
    parts = re.split(r"(\{\w+\})", template)
    shape = "".join(
        re.escape((filled or {}).get(x[1:-1], "")) or ".{0,100}?"
        if re.fullmatch(r"\{\w+\}", x)
        else re.escape(x)
        for x in parts
    )
    return any(re.search(shape, text) for text in said_to_patients().get((family, topic), ()))


def sentences_of(*texts: str) -> list[str]:
    return [x for text in texts for x in re.split(r"(?<=\.) ", text) if x]


CARDS = pytest.mark.parametrize(
    ("family", "topic"),
    [
        pytest.param(family.name, topic, id=f"{family.name}-{topic.code}")
        for family in shipped().families
        for topic in family.topics
    ],
)


@CARDS
def test_every_sentence_of_a_card_is_said_to_some_patient(family: str, topic: Topic) -> None:
    card = topic.card
    rows: list[CardFile | Variant] = [card, *card.variant.values()]
    own = sentences_of(*(text for x in rows for text in (x.summary, x.why, x.consider)))
    owed = [*own, card.contrary, card.limits]
    assert [x for x in owed if not is_said(family, topic.code, x)] == []


@CARDS
def test_every_phrase_of_a_card_is_said_to_some_patient(family: str, topic: Topic) -> None:
    unsaid = []
    for name, phrases in topic.card.phrases.items():
        holders = [
            x for x in sentences_of(*texts_of(topic.card).splitlines()) if f"{{{name}}}" in x
        ]
        for words in phrases.values():
            if not any(is_said(family, topic.code, x, {name: words}) for x in holders):
                unsaid.append(words)
    assert unsaid == []


@pytest.mark.parametrize("name", sorted(shipped().words.phrases))
def test_every_phrase_that_cards_share_is_said_to_some_patient(name: str) -> None:
    holders = [
        (family.name, topic.code, sentence)
        for family in shipped().families
        for topic in family.topics
        if name not in topic.card.phrases
        for sentence in sentences_of(*texts_of(topic.card).splitlines())
        if f"{{{name}}}" in sentence
    ]
    words = shipped().words.phrases[name].values()
    assert [x for x in words if not any(is_said(*y, {name: x}) for y in holders)] == []


def test_a_summary_leaves_no_gap_where_a_value_has_no_unit() -> None:
    summaries = [x.splitlines()[0] for texts in said_to_patients().values() for x in texts]
    assert [x for x in summaries if "  " in x] == []
    assert any(x.startswith("ALP 1032 is extreme") for x in summaries)


def test_a_card_names_the_newer_value_that_could_not_be_read() -> None:
    said = said_to_patients()["alp_review", "extremeAlp"]
    assert [x for x in said if "A newer ALP of 2" in x]

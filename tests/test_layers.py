"""The laws of the layout, each read from the source: who may import whom, and who may say what."""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cds_service.content_laws import CODE, breaches
from cds_service.loading import load_content
from cds_service.terminology import CANONICAL

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "cds_service"
HOOKS = ROOT / "hooks"

# Bytes, resources, facts, rules, cards, HTTP: a module imports only from those before it.
ORDER = (
    *("__init__", "errors", "logs", "modes", "toml_files", "jwks", "addresses", "rates"),
    "turns",
    *("clients", "store", "client_keys"),
    "auth",
    *("dates", "quantity", "resources", "fhir_files", "terminology"),
    *("hook_request", "fhir_client", "deliveries", "drafts", "prefetch", "entries", "results"),
    "evidence",
    *("holdings", "facts", "rules", "orders", "content_files", "content_python", "content_laws"),
    *("content_references", "content"),
    *("site", "loading", "overrides", "evaluation", "cards", "issued", "feedback", "call_record"),
    *("explanation", "axes", "trend", "answering", "discovery", "invariants"),
    *("rule_code", "rule_questions", "topic_shape", "topic_reading", "topics", "page_headers"),
    "topic_pages",
    *("trend_limits", "trend_drawing"),
    *(
        "openapi",
        "audit",
        "config",
        "metrics",
        "observing",
        "fhir_endpoint",
        "chart_requests",
        "saved_fixtures",
        "playground_patient",
        "playground_evidence",
        "playground_checks",
        "playground",
        "trend_page",
        "api_page",
        "playground_page",
        "vignette_rows",
        "vignette_charts",
        "vignettes",
    ),
    *("site_toml", "fixture_calls", "what_if", "what_if_page"),
    *("checking", "outgoing", "terminal_text", "dot_plot", "terminal", "report"),
    *("playground_forms", "open_pages", "app", "serving"),
    *("apart", "standing", "in_force", "demonstration", "minting"),
    *("command_options", "serve_command", "demo_command", "request_commands"),
    *("content_commands", "store_commands", "token_commands", "cli", "__main__"),
)


def python(folder: Path, pattern: str = "**/*.py") -> list[Path]:
    return sorted(x for x in folder.glob(pattern) if "__pycache__" not in x.parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; of `from a import b` both a and a.b."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (x.name for x in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}.{x.name}" for x in node.names)


ENGINE_FILES = [pytest.param(x, id=x.stem) for x in python(ENGINE)]
HOOK_FILES = [pytest.param(x, id=x.relative_to(HOOKS).as_posix()) for x in python(HOOKS)]
RULE_FILES = [pytest.param(x, id=x.stem) for x in python(HOOKS, "*/rules/*.py")]


# -- imports -----------------------------------------------------------------------------------


def test_every_module_has_its_place_in_the_flow() -> None:
    assert sorted(ORDER) == sorted(x.stem for x in python(ENGINE))
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("path", ENGINE_FILES)
def test_a_module_imports_only_from_those_before_it(path: Path) -> None:
    if path.stem not in ORDER:
        pytest.fail(f"{path.stem} has no place in ORDER")
    before = ORDER[: ORDER.index(path.stem)]
    asked = {x.split(".")[1] for x in imports(path) if x.startswith("cds_service.")}
    assert sorted(asked & {x.stem for x in python(ENGINE)} - set(before)) == []


@pytest.mark.parametrize("path", ENGINE_FILES)
def test_the_engine_imports_no_content_and_nothing_by_a_relative_name(path: Path) -> None:
    roots = {x.split(".")[0] for x in imports(path)}
    assert not roots & {"hooks", "tests", "fixtures", ""}


@pytest.mark.parametrize("path", HOOK_FILES)
def test_clinical_python_breaks_no_law_of_the_loader(path: Path) -> None:
    assert [*breaches(ast.walk(tree(path)))] == []


@pytest.mark.parametrize(
    ("library", "where"),
    [
        ("flask", {"app", "open_pages", "playground_forms", "serving"}),
        ("werkzeug", {"app"}),
        ("granian", {"serving"}),
        ("requests", {"client_keys", "fhir_client", "demonstration"}),
        ("jwt", {"auth", "jwks", "minting"}),
        ("fhir", {"outgoing"}),
        (
            "click",
            {
                *("cli", "command_options", "serve_command", "demo_command", "request_commands"),
                *("content_commands", "store_commands", "token_commands"),
            },
        ),
        ("jinja2", {"topic_pages"}),
        ("markdown_it", {"playground_page"}),
        (
            "rich",
            {
                *("demonstration", "dot_plot", "terminal", "terminal_text"),
                *("content_commands", "demo_command", "request_commands"),
            },
        ),
    ],
)
def test_a_library_is_known_in_its_place_only(library: str, where: set[str]) -> None:
    users = {
        x.stem for x in python(ENGINE) if library in {name.split(".")[0] for name in imports(x)}
    }
    assert users == where


def test_serving_names_flask_for_a_type_only() -> None:
    assert {x for x in imports(ENGINE / "serving.py") if x.startswith("flask")} == {
        "flask",
        "flask.Flask",
    }
    called = [x.func for x in ast.walk(tree(ENGINE / "serving.py")) if isinstance(x, ast.Call)]
    assert not any(isinstance(x, ast.Name) and x.id == "Flask" for x in called)


# -- errors ------------------------------------------------------------------------------------

WIDE = {"Exception", "BaseException"}


def caught(path: Path) -> Iterator[str]:
    """The names of the exceptions that a file catches or suppresses; "" for a bare except."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield ""
            else:
                yield from (x.id for x in ast.walk(node.type) if isinstance(x, ast.Name))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from (x.id for x in node.args if isinstance(x, ast.Name))


@pytest.mark.parametrize("path", [*ENGINE_FILES, *HOOK_FILES])
def test_nothing_catches_every_error(path: Path) -> None:
    assert not {*caught(path)} & {*WIDE, ""}


def test_only_the_application_answers_for_any_error_and_in_one_place() -> None:
    handlers = [
        named(path)
        for path in python(ENGINE)
        for x in ast.walk(tree(path))
        if isinstance(x, ast.Call)
        and ast.unparse(x.func).endswith("errorhandler")
        and ast.unparse(x.args[0]) in WIDE
    ]
    assert handlers == ["cds_service/app.py"]


# -- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    ["6768-6", "94222008", "77655", "733.90", "M84.551A", "C79.5", "C50", "M05BA08", "M05BA",
     "E83.39", "S72001S", "http://loinc.org", "urn:oid:2.16"],
)  # fmt: skip
def test_a_code_of_any_system_would_be_noticed(code: str) -> None:
    assert CODE.match(code)


def generators(path: Path) -> Iterator[ast.FunctionDef]:
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(x, ast.Yield | ast.YieldFrom) for x in ast.walk(node)
        ):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", RULE_FILES)
def test_a_rule_is_one_short_function(path: Path) -> None:
    rules = [*generators(path)]
    assert rules
    assert {x.name: length(x) for x in rules if length(x) > 30} == {}


@pytest.mark.parametrize("path", RULE_FILES)
def test_a_rule_says_in_its_first_line_which_row_it_is(path: Path) -> None:
    for rule in generators(path):
        assert re.match(r"[A-Z]{1,3}-\d: .+\.\Z", (ast.get_docstring(rule) or "").split("\n")[0])


@pytest.mark.parametrize("path", [*ENGINE_FILES, *HOOK_FILES])
def test_no_function_is_longer_than_forty_lines(path: Path) -> None:
    functions = [
        x for x in ast.walk(tree(path)) if isinstance(x, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert {x.name: length(x) for x in functions if length(x) > 40} == {}


# -- words -------------------------------------------------------------------------------------

# Words of the titles that the engine needs for something else.
ORDINARY = {
    # FHIR and CDS Hooks: types, elements and codes
    *("activity", "acute", "encounter", "family", "history", "quantity", "remission", "repeat"),
    *("result", "specimen", "status", "total"),
    # SQL
    "primary",
    # Python and rich
    *("ast", "complete", "function", "lambda", "panel", "raise", "ratio", "union"),
    # this design's own: a delivery of prefetch, orders, variants and words of a card
    *("delivery", "exchange", "explanation", "order", "share", "variant", "whole", "words"),
    # plain English
    *(
        "another",
        "count",
        "failure",
        "lower",
        "multi",
        "multiple",
        "other",
        "positive",
        "present",
        "right",
    ),
}


def words_in(text: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return set(re.findall(r"[^\W\d_]+", apart.lower()))


@cache
def forbidden() -> tuple[frozenset[str], frozenset[str]]:
    """Names of diseases, drugs and tests as the content gives them, and stems of drugs."""
    content = load_content(HOOKS)
    sets = content.families[0].knowledge.terminology.sets.values()
    titles = [x.title for x in sets] + [x.title for x in content.measures.values()]
    long = {x for title in titles for x in words_in(title) if len(x) >= 5}
    short = {x.lower() for title in titles for x in re.findall(r"\b[A-Z]{3,4}\b", title)}
    drugs = [x.text.pattern for x in sets if x.name.startswith("med-") and x.text is not None]
    stems = {x for text in drugs for x in re.findall(r"[a-z]{5,}", re.sub(r"\\.", " ", text))}
    return frozenset((long | short) - ORDINARY), frozenset(stems - ORDINARY)


def clinical(text: str) -> set[str]:
    """The words of a text that name a disease, a drug or a test."""
    names, stems = forbidden()
    return {
        x
        for x in words_in(text.replace(CANONICAL, ""))
        if x in names or x.removesuffix("s") in names or any(x.startswith(stem) for stem in stems)
    }


@pytest.mark.parametrize("path", ENGINE_FILES)
def test_the_engine_names_no_disease_no_drug_and_no_test(path: Path) -> None:
    kinds = (tokenize.NAME, tokenize.STRING, tokenize.COMMENT)
    with path.open("rb") as source:
        tokens = [x for x in tokenize.tokenize(source.readline) if x.type in kinds]
    found = [(x.start[0], sorted(clinical(x.string))) for x in tokens if clinical(x.string)]
    assert found == []


def test_a_clinical_word_would_be_noticed_in_any_spelling() -> None:
    for text in ("alp", "latest_alp", "AlpReading", "ggt_high", "myeloma", "lytic_lesions"):
        assert clinical(text), text
    for text in ("Hypophosphatasia", "bisphosphonates", "zoledronic", "has_fracture", "# PTH"):
        assert clinical(text), text
    assert not clinical("PatientFacts.latest_within(measure) of a value set")


def test_no_word_is_allowed_that_nobody_needs() -> None:
    used = {x for path in python(ENGINE) for x in words_in(path.read_text("utf-8"))}
    assert sorted(x for x in ORDINARY if not any(word.startswith(x) for word in used)) == []
    content = load_content(HOOKS)
    sets = content.families[0].knowledge.terminology.sets.values()
    texts = [f"{one.title} {one.text.pattern if one.text else ''}" for one in sets]
    said = {x for text in texts for x in words_in(text)}
    said |= {x for measure in content.measures.values() for x in words_in(measure.title)}
    assert sorted(x for x in ORDINARY if x not in said and f"{x}s" not in said) == []

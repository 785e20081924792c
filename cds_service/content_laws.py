"""The laws of the content's Python: what it may import and use, and what stands in other files
instead.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from numbers import Number

MAY_IMPORT = re.compile(
    r"cds_service\.(facts|rules|quantity)(\.\w+)?\Z"
    r"|hooks\.shared(\.\w+)*\Z"
    r"|(collections\.abc|typing|dataclasses)(\.\w+)?\Z"
)
_MAY_IMPORT_SAID = (
    "content imports only cds_service.facts, .rules and .quantity, hooks.shared.*, "
    "collections.abc, typing and dataclasses"
)
_EFFECTS = {"open", "eval", "exec", "compile", "__import__", "input", "print", "globals", "vars"}
CODE = re.compile(
    r"\d{1,7}-\d\Z"  # LOINC
    r"|\d{3,18}(\.\d+)?\Z"  # SNOMED CT, RxNorm, ICD-9
    r"|[A-Z]\d[0-9A-Z](\.?[0-9A-Z]{1,4})?\Z"  # ICD-10
    r"|[A-Z]\d\d[A-Z]{1,2}(\d\d)?\Z"  # ATC
    r"|(https?|urn):"
)
_MAY_COUNT: tuple[object, ...] = (0, 1)
_WORDS = re.compile(r"\w\s+\w")
_IMPORTS = (ast.Import, ast.ImportFrom)
_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def breaches(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Each breach of a law among the nodes of a file: its line, and a sentence."""
    nodes = tuple(nodes)
    said = _docstrings(nodes)
    for node in nodes:
        if isinstance(node, _IMPORTS):
            for name in imported(node):
                if not MAY_IMPORT.match(name):
                    yield node.lineno, f"imports {name}; {_MAY_IMPORT_SAID}"
        elif isinstance(node, ast.Name) and node.id in _EFFECTS:
            yield node.lineno, f"uses {node.id}: a rule has no effect but its answer"
        elif isinstance(node, ast.Call) and (why := _wrong_call(node)):
            yield node.lineno, why
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            yield node.lineno, f"uses {node.attr}, which is private"
        elif (
            isinstance(node, ast.Constant)
            and id(node) not in said
            and (why := _wrong_constant(node.value))
        ):
            yield node.lineno, why


def _wrong_call(call: ast.Call) -> str:
    """Why a call may not stand in a rule, "" when it may: what is not written out cannot be
    checked.
    """
    if isinstance(call.func, ast.Name) and call.func.id == "Advice":
        topic = call.args[0] if call.args else None
        return "" if _is_text(topic) else "an Advice must begin with its topic, written out"
    if isinstance(call.func, ast.Attribute) and call.func.attr == "settled" and call.args:
        found, *kinds = call.args
        if not all(map(_is_text, kinds)):
            return "settled() must name kinds of data, written out"
        if not kinds and not (isinstance(found, ast.Constant) and found.value is True):
            return "settled() must name the kind of data without which a no is unknown"
    return ""


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Every module that a statement imports; of `from a import b` both a and a.b."""
    if isinstance(node, ast.Import):
        yield from (x.name for x in node.names)
    else:
        base = "." * node.level + (node.module or "")
        yield base
        yield from (f"{base}.{x.name}" for x in node.names)


def _docstrings(nodes: Iterable[ast.AST]) -> set[int]:
    """The ids of the string nodes that are docstrings."""
    return {
        id(x.body[0].value)
        for x in nodes
        if isinstance(x, _WITH_DOCSTRING) and x.body and isinstance(x.body[0], ast.Expr)
    }


def _wrong_constant(value: object) -> str:
    """Why a constant may not stand in a rule, "" when it may."""
    if isinstance(value, Number) and value not in _MAY_COUNT:
        return f"holds the number {value}: numbers but 0 and 1 are limits, in limits.toml"
    if isinstance(value, str) and CODE.match(value):
        return f'holds "{value}", which looks like a code: codes are in valuesets and orders'
    if isinstance(value, str) and _WORDS.search(value):
        return f'holds the words "{value}": words for a card are in its TOML file'
    return ""

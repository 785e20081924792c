"""The Python of a content folder as source: its files, parsed once, and the sets, limits and other
things of the content that they name, so that a missing one stops the start.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from cds_service.errors import ContentError

_SET_NAME = re.compile(r"(obs|cond|med|proc|text|img)-[a-z0-9-]+\Z")
# What the first argument of a question about the patient names.
_NAMED_FIRST = {
    **dict.fromkeys(
        ("measured", "measured_on", "judged", "latest_within", "rejected", "fallback"), "measure"
    ),
    **dict.fromkeys(("done", "ordered", "is_orderable"), "order"),
    **dict.fromkeys(("has", "problems", "drugs", "acts", "requests", "final"), "set"),
    **dict.fromkeys(("says", "sentences", "matches", "is_coded", "encounters_of", "sent"), "set"),
    "is_answered": "data",
    "remark": "remark",
}


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One Python file of the content; `file` is relative to the folder, `nodes` are all of its
    tree but for what only says whether a name is read. Two are the same only when they are one
    object.
    """

    file: str
    module: str
    text: str
    nodes: tuple[ast.AST, ...]
    calls: tuple[ast.Call, ...]


class Named(Struct, frozen=True):
    """One name in a file of the content: of a set, a limit, a remark and so on, and the words given
    to it.
    """

    kind: str
    name: str
    file: str
    line: int = 0
    words: frozenset[str] = frozenset()


def sources_in(root: Path) -> list[Source]:
    """Every Python file of a folder; raises ContentError for one that cannot be parsed."""
    return [_source(path, path.relative_to(root)) for path in sorted(root.rglob("*.py"))]


def _source(path: Path, file: Path) -> Source:
    try:
        return _parsed(file, path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        where = f"line {error.lineno}"
        raise ContentError(file.as_posix(), where, f"is not Python: {error.msg}") from error
    except ValueError as error:
        raise ContentError(file.as_posix(), "", f"is not Python: {error}") from error


@lru_cache(maxsize=256)  # `check` with a site file, and every test, loads the same text again
def _parsed(file: Path, text: str) -> Source:
    nodes = _nodes_of(ast.parse(text))
    module = ".".join(file.with_suffix("").parts)
    calls = tuple(x for x in nodes if isinstance(x, ast.Call))
    return Source(file.as_posix(), module, text, nodes, calls)


def _nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """What ast.walk gives, in its order, without the contexts of names, a third of all."""
    nodes = [tree]
    for node in nodes:
        for name in node._fields:
            child = getattr(node, name, None)
            if isinstance(child, list):
                nodes += [x for x in child if isinstance(x, ast.AST)]
            elif isinstance(child, ast.AST) and not isinstance(child, ast.expr_context):
                nodes.append(child)
    return tuple(nodes)


def names_in(sources: Iterable[Source]) -> Iterator[Named]:
    """Everything of the content that its Python names."""
    for source in sources:
        yield from _named_in(source)


@lru_cache(maxsize=256)
def _named_in(source: Source) -> tuple[Named, ...]:
    found: list[Named] = []
    for node in source.nodes:
        if (named := named_by(node, source.file)) is not None:
            found.append(named)
    for call in source.calls:
        if _method(call) == "settled":
            found += _kinds_of_data(call, source.file)
    return tuple(found)


def named_by(node: ast.AST, file: str) -> Named | None:
    """What one node of a file names, if anything."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return Named("set", node.value, file, node.lineno) if _SET_NAME.match(node.value) else None
    if isinstance(node, ast.Attribute) and is_limit(node.value):
        return Named("limit", node.attr, file, node.lineno)
    if isinstance(node, ast.Call) and _method(node) in _NAMED_FIRST and node.args:
        for name in literals(node.args[0]):
            words = frozenset(x.arg for x in node.keywords if x.arg is not None)
            return Named(_NAMED_FIRST[_method(node)], name, file, node.lineno, words)
    return None


def _kinds_of_data(call: ast.Call, file: str) -> Iterator[Named]:
    """The kinds of data on which an answer is settled, after what was found."""
    for argument in call.args[1:]:
        for name in literals(argument):
            yield Named("data", name, file, call.lineno)


def _method(call: ast.Call) -> str:
    """The name of the question when it is one about the patient, else ""."""
    function = call.func
    return (
        function.attr if isinstance(function, ast.Attribute) and is_patient(function.value) else ""
    )


def is_patient(node: ast.AST) -> bool:
    """Whether the expression is the patient that every question is asked about."""
    return isinstance(node, ast.Name) and node.id == "patient"


def is_limit(node: ast.AST) -> bool:
    """Whether the expression is `limit` or `….limit`."""
    return (isinstance(node, ast.Name) and node.id == "limit") or (
        isinstance(node, ast.Attribute) and node.attr == "limit"
    )


def literals(node: ast.AST | None) -> tuple[str, ...]:
    """The strings that an expression can be, as far as they are written out: one, or either side of
    a choice.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if isinstance(node, ast.IfExp):
        return (*literals(node.body), *literals(node.orelse))
    return ()


# -- what rules answer -------------------------------------------------------------------------


class AdviceGiven(Struct, frozen=True):
    """One place where a rule answers: the topic and the variants it names, as far as they are
    written out, and whether the orders are its own choice.
    """

    file: str
    line: int
    topic: str
    variants: tuple[str, ...]
    names_every_variant: bool
    chooses_orders: bool


def advice_in(sources: Iterable[Source]) -> Iterator[AdviceGiven]:
    """Every Advice of the content whose topic is written out."""
    for source in sources:
        for node in source.calls:
            if _is_advice(node.func):
                topic, variant = _argument(node, 0, "topic"), _argument(node, 1, "variant")
                for name in literals(topic):
                    yield AdviceGiven(
                        file=source.file,
                        line=node.lineno,
                        topic=name,
                        variants=literals(variant),
                        names_every_variant=_is_written_out(variant),
                        chooses_orders=_argument(node, 2, "consider") is not None
                        or _argument(node, 6, "hinges_on") is not None,
                    )


def _is_advice(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "Advice"


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    if place < len(call.args):
        return call.args[place]
    return next((x.value for x in call.keywords if x.arg == name), None)


def _is_written_out(node: ast.AST | None) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_written_out(node.body) and _is_written_out(node.orelse)
    return isinstance(node, ast.Constant)

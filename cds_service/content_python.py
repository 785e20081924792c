"""What the Python of a content folder names: sets, limits and remarks, so that a missing
one stops the start.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cds_service.errors import ContentError

_SET_NAME = re.compile(r"(obs|cond|med|proc|text|img)-[a-z0-9-]+\Z")


@dataclass(frozen=True, slots=True)
class Named:
    """One name in a file of the content: of a set, a limit or a remark, and the words given
    to it.
    """

    kind: str
    name: str
    file: str
    words: frozenset[str] = frozenset()


def names_in(root: Path) -> Iterator[Named]:
    """Every set, limit and remark that the content's Python names; raises ContentError for
    bad syntax.
    """
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root).as_posix()
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise ContentError(
                file, f"line {error.lineno}", f"is not Python: {error.msg}"
            ) from error
        for node in ast.walk(tree):
            if (found := named_by(node, file)) is not None:
                yield found


def named_by(node: ast.AST, file: str) -> Named | None:
    """What one node of a file names, if anything."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return Named("set", node.value, file) if _SET_NAME.match(node.value) else None
    if isinstance(node, ast.Attribute) and is_limit(node.value):
        return Named("limit", node.attr, file)
    if isinstance(node, ast.Call) and _is_remark(node.func) and _is_text(node.args[0]):
        words = frozenset(x.arg for x in node.keywords if x.arg is not None)
        return Named("remark", ast.literal_eval(node.args[0]), file, words)
    return None


def _is_remark(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "remark"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_limit(node: ast.AST) -> bool:
    """Whether the expression is `limit` or `….limit`."""
    return (isinstance(node, ast.Name) and node.id == "limit") or (
        isinstance(node, ast.Attribute) and node.attr == "limit"
    )

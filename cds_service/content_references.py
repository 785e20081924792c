"""What the content's Python refers to, resolved before any patient: names, attributes of modules
and of what a parameter is declared to be, and the arguments of calls.
"""

import ast
import builtins
import inspect
import symtable
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from cds_service.content_python import Source, is_limit

_OURS = ("hooks.", "cds_service.")


def unresolved(source: Source, module: ModuleType) -> Iterator[tuple[int, str]]:
    """Each reference of an imported file that leads nowhere: its line, and a sentence."""
    known = vars(module)
    yield from _unknown_names(source, known)
    yield from _Reader(known, source.nodes).read(source.nodes)


def _unknown_names(source: Source, known: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    names = set(_globals(symtable.symtable(source.text, source.file, "exec")))
    for name in sorted(names - set(known) - set(dir(builtins))):
        used = [x for x in source.nodes if isinstance(x, ast.Name) and x.id == name]
        yield min(x.lineno for x in used), f"{name} is defined nowhere"


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that a file reads and that no function of it binds itself."""
    for symbol in table.get_symbols():
        if symbol.is_global() and symbol.is_referenced():
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


class _Reader:
    """Reads one module. A name means a parameter's class when every parameter of that name is
    declared to be of it; a name that some function binds anew is not certainly the module's.
    """

    def __init__(self, known: Mapping[str, Any], nodes: Iterable[ast.AST]) -> None:
        arguments = [x for x in nodes if isinstance(x, ast.arg)]
        stored = {
            x.id for x in nodes if isinstance(x, ast.Name) and not isinstance(x.ctx, ast.Load)
        }
        self._known = known
        self._bound = stored | {x.arg for x in arguments}
        kinds: dict[str, set[type | None]] = {}
        for one in arguments:
            kinds.setdefault(one.arg, set()).add(self._declared(one))
        self._classes = {
            name: of
            for name, (of, *others) in kinds.items()
            if of is not None and not others and name not in stored
        }

    def _declared(self, argument: ast.arg) -> type | None:
        """The class that a parameter is declared to be, when it is one of ours."""
        kind = argument.annotation
        of = self._known.get(kind.id) if isinstance(kind, ast.Name) else None
        return of if isinstance(of, type) and of.__module__.startswith(_OURS) else None

    def read(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
        """What leads nowhere among the nodes of the module."""
        for node in nodes:
            if isinstance(node, ast.Attribute):
                yield from self._attribute(node)
            elif isinstance(node, ast.Call):
                yield from self._call(node)

    def _owner(self, node: ast.AST) -> type | ModuleType | None:
        """The class or module whose attribute is asked for, when it is known."""
        if not isinstance(node, ast.Name):
            return None
        if node.id in self._bound:
            return self._classes.get(node.id)
        found = self._known.get(node.id)
        return found if isinstance(found, ModuleType) else None

    def _attribute(self, node: ast.Attribute) -> Iterator[tuple[int, str]]:
        owner = self._owner(node.value)
        if owner is not None and not is_limit(node.value) and not _has(owner, node.attr):
            name = owner.__name__.removeprefix("hooks.")
            yield node.lineno, f"{ast.unparse(node)}: {name} has no {node.attr}"

    def _call(self, call: ast.Call) -> Iterator[tuple[int, str]]:
        if any(isinstance(x, ast.Starred) for x in call.args):
            return
        if any(x.arg is None for x in call.keywords):
            return
        signature, own = self._signature(call.func)
        if signature is None:
            return
        given = [None] * (len(call.args) + own)
        try:
            signature.bind(*given, **{x.arg or "": None for x in call.keywords})
        except TypeError as error:
            yield call.lineno, f"{ast.unparse(call.func)}(…): {error}"

    def _signature(self, node: ast.AST) -> tuple[inspect.Signature | None, int]:
        """What a call may be given, when that is known, and how many arguments go before those
        written.
        """
        found, own = None, 0
        if isinstance(node, ast.Name) and node.id not in self._bound:
            found = self._known.get(node.id)
        elif isinstance(node, ast.Attribute):
            owner = self._owner(node.value)
            found = getattr(owner, node.attr, None) if owner is not None else None
            own = int(isinstance(owner, type))
        ours = callable(found) and str(getattr(found, "__module__", "")).startswith(_OURS)
        return (_signature(found) if ours else None), own


def _has(owner: type | ModuleType, name: str) -> bool:
    if hasattr(owner, name):
        return True
    classes = owner.__mro__ if isinstance(owner, type) else ()
    return any(name in inspect.get_annotations(x) for x in classes)


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):  # it has none that can be known
        return None

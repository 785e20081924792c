"""The Python of the content as source: where a name is defined, and which limits, sets, measures
and orders a rule and all it calls name.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from cds_service.content_python import is_patient, named_by
from cds_service.evidence import unique

_TAKE_AN_ORDER = ("done", "ordered", "is_orderable")


class Module:
    """One file, and what each of its names means: a definition, or a name of another file."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.definitions: dict[str, ast.AST] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        for node in ast.parse(text).body:
            self._add(node)

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self.definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    self.definitions[target.id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            self.definitions[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                self.imports[name.asname or name.name] = (node.module or "", name.name)


Definition: TypeAlias = tuple[Module, ast.AST]


class _Names(Struct, frozen=True):
    """What one definition names, and the definitions that it names."""

    limits: tuple[str, ...]
    sets: tuple[str, ...]
    asked_about: tuple[str, ...]
    listed: tuple[str, ...]
    rests_on: tuple[Definition, ...]


class RuleCode(Struct, frozen=True):
    """One rule, and the names in it and in every definition of the content that it rests on.

    `asked_about` are the strings with which the patient is asked: measures among them; `listed` are
    those of plain lists: orders among them.
    """

    module: Module
    function: ast.FunctionDef
    limits: tuple[str, ...]
    sets: tuple[str, ...]
    asked_about: tuple[str, ...]
    listed: tuple[str, ...]

    @property
    def source(self) -> str:
        """The text of the rule."""
        return ast.get_source_segment(self.module.text, self.function) or ""


class Library:
    """The Python of a content folder, parsed once."""

    def __init__(self, root: Path, package: str = "hooks") -> None:
        self._modules: dict[str, Module] = {}
        self._known: dict[int, _Names] = {}
        for path in sorted(root.rglob("*.py")):
            file = path.relative_to(root)
            name = ".".join((package, *file.with_suffix("").parts))
            self._modules[name] = Module(file.as_posix(), path.read_text(encoding="utf-8"))

    def rule(self, module_name: str, name: str) -> RuleCode:
        """The rule of that name in a module of the content."""
        module = self._modules[module_name]
        function = module.definitions[name]
        assert isinstance(function, ast.FunctionDef)
        reached = [self._names(*x) for x in self._reached((module, function))]
        return RuleCode(
            module=module,
            function=function,
            limits=unique(name for x in reached for name in x.limits),
            sets=unique(name for x in reached for name in x.sets),
            asked_about=unique(name for x in reached for name in x.asked_about),
            listed=unique(name for x in reached for name in x.listed),
        )

    def meaning(self, module: Module, node: ast.AST) -> Definition | None:
        """What a name or a dotted name of a module stands for, wherever it is defined; None for
        what lies outside the content.
        """
        if isinstance(node, ast.Name):
            return self._find(module, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other = self._modules.get(".".join(module.imports.get(node.value.id, ())))
            return self._find(other, node.attr) if other is not None else None
        return None

    def _find(self, module: Module, name: str) -> Definition | None:
        while name not in module.definitions:
            where, name = module.imports.get(name, ("", name))
            if where not in self._modules:
                return None
            module = self._modules[where]
        return module, module.definitions[name]

    def limits_in(
        self, definition: Definition, is_apart: Callable[[ast.AST], bool]
    ) -> tuple[str, ...]:
        """The limits that a definition names, itself or through others that do not stand apart."""
        reached = self._reached(definition, is_apart)
        return unique(name for x in reached for name in self._names(*x).limits)

    def _reached(
        self, rule: Definition, is_apart: Callable[[ast.AST], bool] = lambda _: False
    ) -> Iterator[Definition]:
        """The rule and every definition of the content that it rests on, each once, but for those
        that stand apart.
        """
        waiting, seen = [rule], {id(rule[1])}
        while waiting:
            definition = waiting.pop(0)
            yield definition
            for other in self._names(*definition).rests_on:
                if id(other[1]) not in seen and not is_apart(other[1]):
                    seen.add(id(other[1]))
                    waiting.append(other)

    def _names(self, module: Module, definition: ast.AST) -> _Names:
        known = self._known.get(id(definition))
        if known is None:
            nodes = list(ast.walk(definition))
            found = [self.meaning(module, node) for node in nodes]
            known = self._known[id(definition)] = _Names(
                limits=_named("limit", nodes),
                sets=_named("set", nodes),
                asked_about=tuple(_asked_about(nodes)),
                listed=tuple(_listed(nodes)),
                rests_on=tuple(x for x in found if x is not None),
            )
        return known


def what_it_says(node: ast.AST) -> str:
    """The first paragraph of a function's docstring on one line, "" when it has none."""
    text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
    return " ".join((text or "").split("\n\n", 1)[0].split())


def strings_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The strings among some nodes."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _named(kind: str, nodes: list[ast.AST]) -> tuple[str, ...]:
    """The names of limits or sets, in the order of the code."""
    found = (named_by(node, "") for node in nodes)
    return tuple(x.name for x in found if x is not None and x.kind == kind)


def _asked_about(nodes: list[ast.AST]) -> Iterator[str]:
    """The strings given to questions about the patient, or gone through in a loop."""
    for node in nodes:
        if isinstance(node, ast.Call) and _asks_about_patient(node):
            yield from strings_in(node.args)
        elif isinstance(node, ast.For | ast.comprehension):
            yield from strings_in(ast.walk(node.iter))


def _asks_about_patient(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Attribute) and is_patient(call.func.value):
        return call.func.attr not in _TAKE_AN_ORDER
    return bool(call.args) and is_patient(call.args[0])


def _listed(nodes: list[ast.AST]) -> Iterator[str]:
    """The strings of plain lists that no loop goes through, or appended to one."""
    loops = [x for x in nodes if isinstance(x, ast.For | ast.comprehension)]
    gone_through = {id(x) for loop in loops for x in ast.walk(loop.iter)}
    for node in nodes:
        if isinstance(node, ast.Tuple | ast.List) and id(node) not in gone_through:
            if all(isinstance(x, ast.Constant | ast.Starred) for x in node.elts):
                yield from strings_in(node.elts)
        elif isinstance(node, ast.Call) and _is_append(node):
            yield from strings_in(node.args)


def _is_append(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "append"

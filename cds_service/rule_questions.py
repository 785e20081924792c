"""The questions of a rule in the order of its source, and which answer ends it."""

import ast
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cds_service.content_python import is_limit, is_patient
from cds_service.rule_code import Library, Module, RuleCode, strings_in, what_it_says

Ends = Literal["yes", "no", ""]
Kind = Literal["gate", "question", "finding"]

# The engine's own questions; {} is a limit, or the title of a set or of an order.
_FACTS: dict[str, tuple[Kind, str]] = {
    "is_of_known_age": ("gate", "Birth date known?"),
    "is_at_least": ("gate", "Aged {.years} or more?"),
    "is_younger_than": ("question", "Younger than {.years}?"),
    "is_inpatient": ("question", "In hospital today?"),
    "has": ("question", "{} on record?"),
    "done": ("question", "{}: done?"),
    "ordered": ("question", "{}: on order?"),
}
_TURNED: dict[Ends, Ends] = {"yes": "no", "no": "yes", "": ""}


class Asked(Struct, frozen=True):
    """One question of a rule. `text` may hold {} for each of `names`: limits, sets or orders.

    `ends` is the answer that ends the rule, by itself only if `alone`; `goes_on` says that an
    unknown answer does not end it; `defers`, that a yes holds the card back; `behind` are the
    questions it consists of, when there is more to it than one, and `limits` what it compares with
    itself.
    """

    kind: Kind = "question"
    text: str = ""
    names: tuple[str, ...] = ()
    ends: Ends = ""
    alone: bool = True
    goes_on: bool = False
    defers: bool = False
    behind: tuple["Asked", ...] = ()
    limits: tuple[str, ...] = ()


def questions_of(library: Library, rule: RuleCode) -> tuple[Asked, ...]:
    """What a rule itself asks, in order; what the functions ask that it calls is behind that."""
    return tuple(_without_repeats(_Reading(library, rule.module).of_rule(rule.function)))


def _without_repeats(asked: Iterable[Asked]) -> Iterator[Asked]:
    """Each question once, and again only where another answer of it ends the rule."""
    seen: set[tuple[str, tuple[str, ...], Ends]] = set()
    for one in asked:
        known = any(x[:2] == (one.text, one.names) for x in seen)
        if not known or (one.ends and (one.text, one.names, one.ends) not in seen):
            seen.add((one.text, one.names, one.ends))
            yield one


class _Reading(Struct, frozen=True):
    """Reads the functions of one module; `like` says what a yes to an expression would mean."""

    library: Library
    module: Module

    def of_rule(self, rule: ast.FunctionDef) -> Iterator[Asked]:
        for statement in rule.body:
            yield from self._statement(statement, nested=False)

    def _statement(self, statement: ast.stmt, *, nested: bool) -> Iterator[Asked]:
        if not isinstance(statement, ast.If):
            yield from self._parts(statement)
            return
        ends: Ends = "yes" if _only_returns(statement.body) else ""
        yield from self._expression(statement.test, Asked(ends=ends, alone=not nested))
        for inner in (*statement.body, *statement.orelse):
            yield from self._statement(inner, nested=True)

    def _parts(self, node: ast.AST) -> Iterator[Asked]:
        for part in ast.iter_child_nodes(node):
            defers = isinstance(part, ast.keyword) and part.arg == "held_by"
            yield from self._expression(part, Asked(defers=defers))

    def _expression(self, node: ast.AST, like: Asked) -> Iterator[Asked]:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield from self._expression(node.operand, replace(like, ends=_TURNED[like.ends]))
        elif isinstance(node, ast.BoolOp):
            one_decides = isinstance(node.op, ast.Or) == (like.ends == "yes")
            like = replace(like, alone=like.alone and one_decides)
            for operand in node.values:
                yield from self._expression(operand, like)
        elif isinstance(node, ast.Attribute) and node.attr == "value":
            yield from self._expression(node.value, replace(like, goes_on=True))
        elif isinstance(node, ast.IfExp | ast.keyword) and like.defers:
            for part in ast.iter_child_nodes(node):
                yield from self._expression(part, like)
        elif isinstance(node, ast.Call):
            yield from self._call(node, like)
        else:
            yield from self._parts(node)

    def _call(self, call: ast.Call, like: Asked) -> Iterator[Asked]:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name == "surely" and call.args:
            yield from self._expression(call.args[0], replace(like, goes_on=True))
        elif name == "any_of":
            like = replace(like, alone=like.alone and like.ends != "no")
            for part in call.args[1:]:
                yield from self._content_question(part, (), like)
        elif isinstance(call.func, ast.Attribute) and is_patient(call.func.value):
            yield from self._fact(call, call.func.attr, like)
        elif found := [*self._content_question(call.func, _names(call.args[1:]), like)]:
            yield from found
        else:
            yield from self._parts(call)

    def _fact(self, call: ast.Call, name: str, like: Asked) -> Iterator[Asked]:
        if name not in _FACTS:
            yield from self._parts(call)
            return
        kind, text = _FACTS[name]
        if any(x.arg == "active" for x in call.keywords):
            text = text.replace("on record?", "active?")
        yield replace(like, kind=kind, text=text, names=_names(call.args))

    def _content_question(
        self, node: ast.AST, names: tuple[str, ...], like: Asked
    ) -> Iterator[Asked]:
        found = self.library.meaning(self.module, node)
        if found is None or (kind := _kind(found[1])) is None:
            return
        module, function = found
        asked = tuple(_without_repeats(_Reading(self.library, module)._parts(function)))
        behind = asked if kind != "finding" else ()
        limits = self.library.limits_in(found, lambda x: _kind(x) is not None)
        yield replace(
            like,
            kind=kind,
            text=what_it_says(function),
            names=names,
            behind=behind if len(behind) > 1 else (),
            limits=limits if kind != "finding" else (),
        )


def _kind(node: ast.AST) -> Kind | None:
    """What a function's decorator makes it; None for a plain one."""
    kinds: dict[str, Kind] = {"gate": "gate", "question": "question", "finding": "finding"}
    for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
        if isinstance(decorator, ast.Name) and decorator.id in kinds:
            return kinds[decorator.id]
    return None


def _only_returns(body: list[ast.stmt]) -> bool:
    """Whether a branch ends the rule without advice."""
    speaks = any(isinstance(x, ast.Yield | ast.YieldFrom) for y in body for x in ast.walk(y))
    return isinstance(body[-1], ast.Return) and not speaks


def _names(arguments: list[ast.expr]) -> tuple[str, ...]:
    """The limits and strings among the arguments of a question."""
    found: list[str] = []
    for argument in arguments:
        if isinstance(argument, ast.Attribute) and is_limit(argument.value):
            found.append(argument.attr)
        else:
            found.extend(strings_in([argument]))
    return tuple(found)

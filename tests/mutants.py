"""Would a test notice? Changes one thing in the code, or one limit of the content by one unit, and
runs the tests that reach it; `make mutants` prints what no test noticed.

A pytest plugin. mutmut makes the changes; it is run from here because mutmut itself passes over
decorated functions, and every question that a rule asks is one.
"""

import gc
import importlib.machinery
import os
import random
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType
from typing import Any

import libcst as cst
import pytest
from _pytest.runner import runtestprotocol
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

from cds_service.facts import Limits
from cds_service.quantity import Quantity

ROOT = Path(__file__).resolve().parents[1]
CODE = [
    *sorted((ROOT / "hooks").rglob("*.py")),
    *(ROOT / "cds_service" / f"{name}.py" for name in ("facts", "quantity", "dates", "prefetch")),
]
LIMITS = [
    ROOT / "hooks" / "shared" / "limits.toml",
    *sorted((ROOT / "hooks").glob("*/service.toml")),
]
SECONDS = 120  # for one mutant; one that takes longer hangs, and is noticed
ENOUGH = 60  # seconds of passing tests, after which nobody will notice


@dataclass(frozen=True, slots=True)
class Place:
    """What a mutant changes: a function of a file, or a limit by its name."""

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: where, what it reads like, and how to make it in this process."""

    place: Place
    line: int
    says: str
    apply: Callable[[], None]


# -- changes of the code -----------------------------------------------------------------------


class _AlsoDecorated(MutationVisitor):
    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return super()._skip_node_and_children(node)


def mutants_of_code(path: Path) -> Iterator[Mutant]:
    """Every change that mutmut knows for the functions of a file."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text("utf-8")))
    visitor = _AlsoDecorated(mutation_operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)
    owners = {
        id(method): found.name.value
        for found in module.body
        if isinstance(found, cst.ClassDef)
        for method in found.body.body
    }
    for mutation in visitor.mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, cst.FunctionDef):
            continue
        owner = owners.get(id(function))
        name = f"{owner}.{function.name.value}" if owner else function.name.value
        old, new = mutation.original_node, mutation.mutated_node
        yield Mutant(
            place=Place(path.relative_to(ROOT).as_posix(), name),
            line=positions[old].start.line,
            says=f"{_one_line(old, module)} -> {_one_line(new, module)}",
            apply=_Replacing(path, name, module, old, new),
        )


def _one_line(node: cst.CSTNode, module: cst.Module) -> str:
    return " ".join(module.code_for_node(node).split())


@dataclass(frozen=True, slots=True)
class _Replacing:
    """Gives every live copy of a function, and every one imported later, the changed code."""

    path: Path
    name: str
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    def __call__(self) -> None:
        changed_module = deep_replace(self.module, self.old, self.new)
        assert isinstance(changed_module, cst.Module)
        changed = compile(changed_module.code, str(self.path), "exec", dont_inherit=True)
        _import_as(self.path, changed)
        live = [x for x in gc.get_objects() if isinstance(x, FunctionType) and self._is(x)]
        namespace: dict[str, Any] = {"__name__": live[0].__module__, "__file__": str(self.path)}
        exec(changed, namespace)
        found: Any = namespace
        for part in self.name.split("."):
            found = found[part] if isinstance(found, dict) else vars(found)[part]
        new = _bare(found)
        for function in live:
            function.__code__ = new.__code__
            function.__defaults__, function.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
        for module in [
            x for x in sys.modules.values() if getattr(x, "__file__", "") == str(self.path)
        ]:
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()

    def _is(self, function: FunctionType) -> bool:
        code = function.__code__
        return code.co_qualname == self.name and code.co_filename == str(self.path)


def _import_as(path: Path, code: CodeType) -> None:
    """From here on an import of the file gets other code."""
    read = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> CodeType | None:
        return code if loader.path == str(path) else read(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]


def _bare(found: Any) -> FunctionType:
    """The function inside a property, a cache or a question."""
    while not isinstance(found, FunctionType) or hasattr(found, "__wrapped__"):
        found = next(
            x for name in ("__wrapped__", "fget", "__func__") if (x := getattr(found, name, None))
        )
    return found


# -- changes of the content --------------------------------------------------------------------


def mutants_of_limits(path: Path) -> Iterator[Mutant]:
    """Each limit of a file one unit up and one unit down, a unit being its last decimal place."""
    text = path.read_text("utf-8")
    found = tomllib.loads(text, parse_float=Decimal)
    for name, row in found.get("limits", found).items():
        value = Decimal(row["value"])
        step = Decimal((0, (1,), min(0, int(value.as_tuple().exponent))))
        line = next(
            n for n, x in enumerate(text.splitlines(), 1) if x.split("=")[0].strip() == name
        )
        for moved in (value + step, value - step):
            yield Mutant(
                Place(path.relative_to(ROOT).as_posix(), name),
                line,
                f"{name}: {value} -> {moved} {row['unit']}",
                _Moving(name, Quantity(moved, row["unit"])),
            )


@dataclass(frozen=True, slots=True)
class _Moving:
    """Moves a limit in all content that is loaded or will be."""

    name: str
    moved: Quantity

    def __call__(self) -> None:
        begin, name, moved = Limits.__init__, self.name, self.moved

        def init(limits: Limits, values: dict[str, Quantity]) -> None:
            begin(limits, {**values, name: moved} if name in values else values)

        Limits.__init__ = init  # type: ignore[method-assign, assignment]
        for limits in [x for x in gc.get_objects() if isinstance(x, Limits)]:
            if name in limits.values:
                limits.values = MappingProxyType({**limits.values, name: moved})


# -- which tests reach what --------------------------------------------------------------------


@dataclass(slots=True)
class _Reached:
    """The tests that reach each place, with how long each takes."""

    wanted: frozenset[Place]
    tests: dict[Place, list[pytest.Item]] = field(default_factory=dict)
    seconds: dict[pytest.Item, float] = field(default_factory=dict)
    _seen: set[Place] = field(default_factory=set)
    _known: dict[CodeType, Place | None] = field(default_factory=dict)

    def watch(self, frame: Any, event: str, _: object) -> None:
        """Notes the function that is entered (a profile function of sys.setprofile)."""
        if event != "call":
            return
        code = frame.f_code
        if code not in self._known:
            path = Path(code.co_filename)
            file = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            here = Place(file, code.co_qualname.split(".<locals>")[0])
            self._known[code] = here if here in self.wanted else None
        if (place := self._known[code]) is not None:
            self._seen.add(place)

    def read(self, limit: str) -> None:
        """Notes that a limit was read."""
        self._seen |= {place for place in self.wanted if place.name == limit}

    def run(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        """Runs one test under the profile; whether it passed."""
        self._seen = set()
        began = time.perf_counter()
        sys.setprofile(self.watch)
        try:
            passed = _passes(item, following)
        finally:
            sys.setprofile(None)
        self.seconds[item] = time.perf_counter() - began
        for place in self._seen if passed else ():
            self.tests.setdefault(place, []).append(item)
        return passed

    def of(self, place: Place) -> list[pytest.Item]:
        """The tests that reach a place, the quickest first."""
        return sorted(self.tests.get(place, ()), key=self.seconds.__getitem__)


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=following)
    return not any(x.failed for x in reports)


# -- the run -----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutants")
    group.addoption("--only", action="append", default=[], help="a file's path, or part of it")
    group.addoption("--sample", type=float, default=1.0, help="this share of the mutants")
    group.addoption("--seed", type=int, default=0, help="which share; 0 is always the same one")
    group.addoption("--at-once", type=int, default=os.cpu_count() or 1, help="processes")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of pytest's own loop: each test once to see what it reaches, then every mutant."""
    mutants = _chosen(session.config)
    reached = _Reached(frozenset(x.place for x in mutants))
    _note_limits(reached)
    items = session.items
    print(f"mutmut {version('mutmut')}: {len(mutants)} mutants; {len(items)} tests run first")
    for item, following in zip(items, [*items[1:], None], strict=True):
        if not reached.run(item, following):
            print(f"left out, does not pass here: {item.nodeid}")
    survivors = _survivors(mutants, reached, session.config.getoption("--at-once"))
    _report(mutants, survivors)
    return True


def _chosen(config: pytest.Config) -> list[Mutant]:
    only = config.getoption("--only")
    wanted = [x for x in (*CODE, *LIMITS) if not only or any(part in str(x) for part in only)]
    found = [
        mutant
        for path in wanted
        for mutant in (mutants_of_code(path) if path.suffix == ".py" else mutants_of_limits(path))
    ]
    share = round(len(found) * config.getoption("--sample"))
    kept = random.Random(config.getoption("--seed")).sample(range(len(found)), share)
    return [found[n] for n in sorted(kept)]


def _note_limits(reached: _Reached) -> None:
    get = Limits.__getattr__

    def noting(limits: Limits, name: str) -> Quantity:
        reached.read(name)
        return get(limits, name)

    Limits.__getattr__ = noting  # type: ignore[method-assign]


def _survivors(mutants: Sequence[Mutant], reached: _Reached, at_once: int) -> list[Mutant]:
    """The mutants that no test noticed; each is made and tried in a process of its own."""
    gc.collect()
    gc.freeze()
    running: dict[int, Mutant] = {}
    survivors: list[Mutant] = []

    def wait() -> None:
        pid, status = os.wait()
        mutant = running.pop(pid)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            survivors.append(mutant)
            print(f"survives: {_said(mutant)}", flush=True)

    for number, mutant in enumerate(mutants):
        if len(running) == at_once:
            wait()
        if number % 200 == 0:
            print(f"{number} of {len(mutants)}, {len(survivors)} survive", flush=True)
        pid = os.fork()
        if pid == 0:
            os._exit(_try(mutant, reached.of(mutant.place)))
        running[pid] = mutant
    while running:
        wait()
    return sorted(survivors, key=lambda x: (x.place.file, x.line))


def _try(mutant: Mutant, items: Sequence[pytest.Item]) -> int:
    """In a process of its own: 0 when every test that reaches the mutant passes."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silence, stream)
    signal.alarm(SECONDS)  # its default is to end the process: the mutant is noticed
    gc.unfreeze()
    try:
        mutant.apply()
        ends = time.monotonic() + ENOUGH
        for item, following in zip(items, [*items[1:], None], strict=True):
            if not _passes(item, following):
                return 1
            if time.monotonic() > ends:
                break
    except BaseException:  # what the change broke beyond any test
        return 1
    return 0


def _said(mutant: Mutant) -> str:
    return f"{mutant.place.file}:{mutant.line} {mutant.place.name}: {mutant.says}"


def _report(mutants: Sequence[Mutant], survivors: Sequence[Mutant]) -> None:
    made = Counter(x.place.file for x in mutants)
    left = Counter(x.place.file for x in survivors)
    width = max((len(x) for x in made), default=0)
    print("\nmade  left")
    for file, count in sorted(made.items()):
        print(f"{count:4}  {left[file]:4}  {file:{width}}")
    share = len(survivors) / max(len(mutants), 1)
    print(f"{len(mutants):4}  {len(survivors):4}  together, {share:.1%} survive")
    for mutant in survivors:
        print(_said(mutant))

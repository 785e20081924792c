"""Would a test notice? Changes one thing in the code, or one limit of the content by one unit, and
runs the tests that reach it; `make mutants` prints what no test noticed.

A pytest plugin. mutmut makes the changes; it is run from here because mutmut itself passes over
decorated functions, and every question that a rule asks is one. The mutants come in an order drawn
by the seed, so that a run which is stopped has measured an honest sample.
"""

import gc
import importlib.machinery
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MappingProxyType
from typing import Any

import libcst as cst
import pytest
from _pytest.runner import runtestprotocol
from libcst.metadata import (
    CodeRange,
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
)
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
SECONDS = 120  # for a mutant that passes no test; one that takes longer hangs, and is noticed
ENOUGH = 15.0  # seconds of passing tests; who survives them is tried once more, with all
ALL = 600.0
SLOW = 2  # seconds: tests that take longer come last
UNNOTICED = 0  # how the process of a mutant ends; anything else is noticed
LOAD = """
import sys
from pathlib import Path
from cds_service.loading import load_content
load_content(Path(sys.argv[1]))
"""

Line = tuple[str, int]  # a file below the root, and a line of it


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: of what, which lines reach it, what it reads like, and how to make it in this
    process; `refused` says whether the server would not even start with it.
    """

    file: str
    line: int
    name: str
    reached_by: frozenset[Line]
    says: str
    apply: Callable[[], None]
    refused: Callable[[], bool] = lambda: False


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
    parents = wrapper.resolve(ParentNodeProvider)
    file = path.relative_to(ROOT).as_posix()
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
        replacing = _Replacing(path, name, module, old, new)
        yield Mutant(
            file,
            positions[old].start.line,
            name,
            frozenset((file, line) for line in _lines(old, positions, parents)),
            f"{_one_line(old, module)} -> {_one_line(new, module)}",
            replacing,
            replacing.is_refused,
        )


def _lines(
    node: cst.CSTNode,
    positions: Mapping[cst.CSTNode, CodeRange],
    parents: Mapping[cst.CSTNode, cst.CSTNode],
) -> range:
    """From the start of the statement that holds a node to the node's end."""
    statement = node
    while not isinstance(statement, cst.BaseCompoundStatement | cst.SimpleStatementLine):
        statement = parents[statement]
    first: cst.CSTNode = statement
    if isinstance(statement, cst.FunctionDef) and statement.decorators:
        first = statement.decorators[0]  # where Python says that a decorated function begins
    return range(positions[first].start.line, positions[node].end.line + 1)


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

    def text(self) -> str:
        """The file with the change."""
        changed = deep_replace(self.module, self.old, self.new)
        assert isinstance(changed, cst.Module)
        return changed.code

    def is_refused(self) -> bool:
        """Whether content with the changed file is not loaded."""
        content = ROOT / "hooks"
        if not self.path.is_relative_to(content):
            return False
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "hooks"
            shutil.copytree(content, copy, ignore=shutil.ignore_patterns("__pycache__"))
            (copy / self.path.relative_to(content)).write_text(self.text(), "utf-8")
            command = [sys.executable, "-c", LOAD, str(copy)]
            ended = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.DEVNULL)
            return ended.returncode != 0

    def __call__(self) -> None:
        changed = compile(self.text(), str(self.path), "exec", dont_inherit=True)
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
    file = path.relative_to(ROOT).as_posix()
    found = tomllib.loads(text, parse_float=Decimal)
    for name, row in found.get("limits", found).items():
        value = Decimal(row["value"])
        step = Decimal((0, (1,), min(0, int(value.as_tuple().exponent))))
        line = next(
            n for n, x in enumerate(text.splitlines(), 1) if x.split("=")[0].strip() == name
        )
        for moved in (value + step, value - step):
            yield Mutant(
                file,
                line,
                name,
                frozenset({(file, line)}),
                f"{value} -> {moved} {row['unit']}",
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
    """The tests that reach each line, with how long each takes and how often each noticed a change
    in which file.
    """

    items: Sequence[pytest.Item]
    files: frozenset[str]
    limits: Mapping[str, frozenset[Line]]
    tests: dict[Line, list[int]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    noticed: Counter[tuple[str, int]] = field(default_factory=Counter)
    _seen: set[Line] = field(default_factory=set)
    _known: dict[CodeType, str] = field(default_factory=dict)

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        """Notes the lines of our files (a trace function of sys.settrace)."""
        code = frame.f_code
        if (file := self._known.get(code)) is None:
            path = Path(code.co_filename)
            inside = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
            file = self._known[code] = inside if inside in self.files else ""
        if not file:
            return None
        self._seen.add((file, frame.f_lineno))
        return self.trace

    def read(self, limit: str) -> None:
        """Notes that a limit was read."""
        self._seen |= self.limits.get(limit, frozenset())

    def run(self, number: int) -> bool:
        """Runs one test under the trace; whether it passed."""
        self._seen = set()
        began = time.perf_counter()
        sys.settrace(self.trace)
        try:
            passed = self.passes(number)
        finally:
            sys.settrace(None)
        self.seconds[number] = time.perf_counter() - began
        for line in self._seen if passed else ():
            self.tests.setdefault(line, []).append(number)
        return passed

    def passes(self, number: int, following: int | None = None) -> bool:
        """Runs one test; `following`, the next one if not this one's neighbour, tells pytest
        which fixtures to keep.
        """
        after = number + 1 if following is None else following
        nextitem = self.items[after] if after < len(self.items) else None
        reports = runtestprotocol(self.items[number], log=False, nextitem=nextitem)
        return not any(x.failed for x in reports)

    def of(self, mutant: Mutant) -> list[int]:
        """The tests that reach a mutant: first those that noticed most in its file, last the
        slow ones, the others in any order.
        """
        reaching = sorted({n for line in mutant.reached_by for n in self.tests.get(line, ())})
        random.Random(len(reaching)).shuffle(reaching)
        reaching.sort(key=lambda n: (-self.noticed[mutant.file, n], self.seconds[n] > SLOW))
        return reaching


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
    limits: dict[str, frozenset[Line]] = {}
    for x in mutants:
        if x.file.endswith(".toml"):
            limits[x.name] = limits.get(x.name, frozenset()) | x.reached_by
    reached = _Reached(session.items, frozenset(x.file for x in mutants), limits)
    _note_limits(reached)
    print(f"mutmut {version('mutmut')}: {len(mutants)} mutants")
    print(f"{len(session.items)} tests run first, to see what they reach", flush=True)
    for number, item in enumerate(session.items):
        if not reached.run(number):
            print(f"left out, does not pass here: {item.nodeid}")
    at_once = session.config.getoption("--at-once")
    survivors = _survivors(mutants, reached, at_once, ENOUGH)
    print(f"{len(survivors)} survive so far and are tried again, with every test that reaches them")
    survivors = _survivors(survivors, reached, at_once, ALL)
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
    return random.Random(config.getoption("--seed")).sample(found, share)


def _note_limits(reached: _Reached) -> None:
    get = Limits.__getattr__

    def noting(limits: Limits, name: str) -> Quantity:
        reached.read(name)
        return get(limits, name)

    Limits.__getattr__ = noting  # type: ignore[method-assign]


def _survivors(
    mutants: Sequence[Mutant], reached: _Reached, at_once: int, enough: float
) -> list[Mutant]:
    """The mutants that no test noticed within so many seconds; each is made and tried in a process
    of its own.
    """
    gc.collect()
    gc.freeze()
    running: dict[int, Mutant] = {}
    survivors: list[Mutant] = []
    noticing, telling = os.pipe()
    os.set_blocking(noticing, False)

    def wait() -> None:
        pid, status = os.wait()
        mutant = running.pop(pid)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == UNNOTICED:
            survivors.append(mutant)
            print(f"survives: {_said(mutant)}", flush=True)
        _learn(reached, noticing)

    for tried, mutant in enumerate(mutants):
        if len(running) == at_once:
            wait()
        if tried % 100 == 0:
            print(f"{tried} of {len(mutants)} tried, {len(survivors)} survive", flush=True)
        pid = os.fork()
        if pid == 0:
            os._exit(_try(mutant, reached, telling, enough))
        running[pid] = mutant
    while running:
        wait()
    return sorted(survivors, key=lambda x: (x.file, x.line))


_NOTICED = struct.Struct("=I200s")  # which test, in which file


def _learn(reached: _Reached, noticing: int) -> None:
    """Counts which tests noticed a change, so that they come first for the next one."""
    while True:
        try:
            number, file = _NOTICED.unpack(os.read(noticing, _NOTICED.size))
        except BlockingIOError:
            return
        reached.noticed[file.rstrip(b"\0").decode(), number] += 1


def _try(mutant: Mutant, reached: _Reached, telling: int, enough: float) -> int:
    """In a process of its own: UNNOTICED when every test that reaches the mutant passes, and the
    server would start with it.
    """
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(silence, stream)
    signal.alarm(SECONDS + int(enough))  # its default is to end the process: the mutant is noticed
    gc.unfreeze()
    numbers = reached.of(mutant)
    try:
        mutant.apply()
        ends = time.monotonic() + enough
        for number, following in zip(numbers, [*numbers[1:], len(reached.items)], strict=True):
            if not reached.passes(number, following):
                os.write(telling, _NOTICED.pack(number, mutant.file.encode()))
                return 1
            if time.monotonic() > ends:
                break
        return int(mutant.refused())
    except BaseException:  # what the change broke beyond any test
        return 1


def _said(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line} {mutant.name}: {mutant.says}"


def _report(mutants: Sequence[Mutant], survivors: Sequence[Mutant]) -> None:
    made = Counter(x.file for x in mutants)
    left = Counter(x.file for x in survivors)
    width = max((len(x) for x in made), default=0)
    print("\nmade  left")
    for file, count in sorted(made.items()):
        print(f"{count:4}  {left[file]:4}  {file:{width}}")
    share = len(survivors) / max(len(mutants), 1)
    print(f"{len(mutants):4}  {len(survivors):4}  together, {share:.1%} survive")
    for mutant in survivors:
        print(_said(mutant))

"""The part of docs/performance.md that a bench writes: what it was taken with, goals, tables."""

from collections.abc import Callable, Iterator, Sequence

from bench.figures import Figures, line_through
from bench.load import Run
from bench.plot import AT
from bench.servers import DICTS, FLOOR, OBJECTS, OURS, TARGETS

# What DESIGN asks for: how many times the throughput of whom, on which chart.
GOALS = (
    ("typical", FLOOR, 0.7),
    ("large", FLOOR, 1.0),
    ("typical", OBJECTS, 25.0),
    ("large", OBJECTS, 25.0),
    ("typical", DICTS, 5.0),
    ("large", DICTS, 4.0),
)
P99, COLD_START = 25.0, 1.5  # milliseconds, seconds; that of memory is the soak's


def page(figures: Figures) -> str:
    """The text between the marks."""
    parts = [
        _taken(figures),
        _goals(figures),
        "![Throughput and cost](performance.svg)\n",
        _ratios(figures),
        _starts(figures),
        _phases(figures),
        _costs(figures),
        _fetched(figures),
        _tables(figures),
    ]
    return "\n".join(parts)


def _taken(figures: Figures) -> str:
    versions = ", ".join(f"{name} {x}" for name, x in figures.versions.items())
    text = (
        f"Measured on {figures.day} in {figures.minutes:.0f} minutes, {figures.seconds} s a run,"
        f" on {figures.machine}; {versions}.\n"
    )
    if figures.left_out:
        text += f"\n{figures.left_out} runs were left out: the time was over.\n"
    failed = [x for x in (*figures.runs, *figures.fetched) if x.errors]
    for x in failed:
        where = f"{x.target}, {x.workers} worker(s), {x.payload}, {x.connections} connections"
        text += f"\n**{x.errors} calls failed: {where}.**\n"
    return text


def _goals(figures: Figures) -> str:
    lines = ["### Goals\n", "| goal | measured | |", "|---|---:|---|"]
    for size, other, least in GOALS:
        found = figures.ratio(OURS.name, other.name, 1, f"{size}, firing", AT)
        goal = f"at least {least:g} x {other.name}, {size} chart"
        lines.append(_goal(goal, found, "", found is not None and found >= least))
    run = figures.run(OURS.name, 1, "typical, firing", AT)
    slowest = None if run is None else run.p99
    goal = f"99 of 100 typical charts within {P99:.0f} ms"
    lines.append(_goal(goal, slowest, " ms", slowest is not None and slowest < P99))
    [start] = [x for x in figures.starts if (x.target, x.workers) == (OURS.name, 1)]
    reached = start.typical < COLD_START
    lines.append(_goal(f"first answer within {COLD_START} s", start.typical, " s", reached))
    return "\n".join([*lines, ""])


def _goal(goal: str, found: float | None, unit: str, reached: bool) -> str:
    said = "not measured" if found is None else f"{number(found)}{unit}"
    return f"| {goal} | {said} | {'reached' if reached else '**not reached**'} |"


def _ratios(figures: Figures) -> str:
    others = (FLOOR, OBJECTS, DICTS)
    lines = [
        "### Throughput of cds-service as a multiple\n",
        f"| chart | workers | {' | '.join(f'of {x.name}' for x in others)} |",
        f"|---|---:|{'---:|' * len(others)}",
    ]
    for workers in sorted({x.workers for x in figures.runs}):
        for payload in figures.kilobytes:
            found = [figures.ratio(OURS.name, x.name, workers, payload, AT) for x in others]
            lines.append(f"| {payload} | {workers} | {' | '.join(map(_or_dash, found))} |")
    return "\n".join([*lines, f"\nAt {AT} connections.\n"])


def _starts(figures: Figures) -> str:
    lines = [
        "### Cold start and memory\n",
        "| | workers | start to first answer, s | most memory of a worker, MB |",
        "|---|---:|---:|---:|",
    ]
    for x in figures.starts:
        starts = f"{x.typical:.2f} ({min(x.seconds):.2f} to {max(x.seconds):.2f})"
        lines.append(f"| {x.target} | {x.workers} | {starts} | {x.megabytes:.0f} |")
    return "\n".join([*lines, ""])


def _phases(figures: Figures) -> str:
    """What a call's time goes into, by the server's own metrics."""
    if not figures.phases:
        return ""
    names = list(next(iter(figures.phases.values())))
    lines = [
        "### Where the time of a call goes\n",
        f"| chart | {' | '.join(f'{x}, ms' for x in names)} | around, ms |",
        f"|---|{'---:|' * (len(names) + 1)}",
    ]
    for payload, found in figures.phases.items():
        run = figures.run(OURS.name, 1, payload, 1)
        around = "-" if run is None else number(max(0.0, 1000 / run.rate - found["total"]))
        lines.append(f"| {payload} | {' | '.join(number(found[x]) for x in names)} | {around} |")
    note = (
        "\nBy `cds_hook_seconds`, one connection. *total* is the whole call, with what lies between"
        " the phases; *around* is what a call takes beside it: server, client, Flask before and"
        " after.\n"
    )
    return "\n".join([*lines, note])


def _costs(figures: Figures) -> str:
    if len(figures.costs) < 2:
        return ""
    lines = [
        "### Cost by size of chart\n",
        "| observations | kB | cds-service, ms | floor, ms |",
        "|---:|---:|---:|---:|",
    ]
    for x in figures.costs:
        kilobytes = f"{x.kilobytes:,.0f}"
        lines.append(f"| {x.observations:,} | {kilobytes} | {number(x.ours)} | {number(x.floor)} |")
    line = line_through(figures.costs)
    note = (
        f"\nComputing a call. The straight line through it: {number(line.fixed)} ms and"
        f" {number(line.per_thousand)} ms for every thousand observations (R² {line.fits:.4f})."
        f" A worker then held {figures.megabytes_after_costs:.0f} MB at most.\n"
    )
    return "\n".join([*lines, note])


def _fetched(figures: Figures) -> str:
    lines = [
        "### Nothing sent, all fetched\n",
        "The typical chart from a FHIR server of this machine that takes 5 ms for each answer.\n",
        "| workers | connections | calls a second | p50, ms | p95, ms | p99, ms | computing, ms |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for x in figures.fetched:
        cells = map(number, (x.rate, x.p50, x.p95, x.p99, x.cpu))
        lines.append(f"| {x.workers} | {x.connections} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _tables(figures: Figures) -> str:
    def latency(run: Run) -> str:
        return " / ".join(map(number, (run.p50, run.p95, run.p99)))

    sections = (
        ("Calls a second", lambda run: number(run.rate)),
        ("Latency: p50 / p95 / p99, ms", latency),
        ("Computing a call in all workers, ms", lambda run: number(run.cpu)),
    )
    return "\n".join(_table(figures, title, cell) for title, cell in sections)


def _table(figures: Figures, title: str, cell: Callable[[Run], str]) -> str:
    lines = [
        f"### {title}\n",
        f"| chart | workers | connections | {' | '.join(x.name for x in TARGETS)} |",
        f"|---|---:|---:|{'---:|' * len(TARGETS)}",
    ]
    lines += _rows(figures, sorted({(x.workers, x.connections) for x in figures.runs}), cell)
    return "\n".join([*lines, ""])


def _rows(
    figures: Figures, shapes: Sequence[tuple[int, int]], cell: Callable[[Run], str]
) -> Iterator[str]:
    for payload in figures.kilobytes:
        for workers, connections in shapes:
            runs = [figures.run(x.name, workers, payload, connections) for x in TARGETS]
            cells = " | ".join("-" if x is None else cell(x) for x in runs)
            yield f"| {payload} | {workers} | {connections} | {cells} |"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def number(value: float) -> str:
    """A figure with as many digits as it is worth: three at most, and thousands in groups."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

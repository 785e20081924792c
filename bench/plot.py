"""The plot of docs/performance.md: throughput by size of chart, and cost by number of results."""

from bench.figures import Figures, line_through
from bench.payloads import SIZES
from bench.servers import FLOOR, TARGETS
from bench.svg import Panel, Scale, document, legend, up_to

AT = 8  # connections: enough for one worker to be never without work


def plot(figures: Figures) -> str:
    """The SVG."""
    elements = [*_throughput(figures)]
    if len(figures.costs) > 1:
        elements += _costs(figures)
    elements += legend([x.name for x in TARGETS], 66, 372, 210)
    says = "Throughput of four servers by size of chart; computing by number of observations"
    return document(900, 390, says, elements)


def _throughput(figures: Figures) -> list[str]:
    rates = {
        target: [
            (n, run.rate)
            for n, size in enumerate(SIZES)
            if (run := figures.run(target.name, 1, f"{size.name}, firing", AT)) and run.rate > 0
        ]
        for target in TARGETS
    }
    found = [rate for points in rates.values() for _, rate in points] or [1.0]
    low, high = min(found) / 1.5, max(found) * 1.5
    title = f"Calls a second, one worker, {AT} connections"
    panel = Panel(title, Scale(-0.3, 3.3, 60, 430), Scale(low, high, 300, 50, True), "chart")
    for n, target in enumerate(TARGETS):
        panel.line(rates[target], n, dashed=target is FLOOR)
        panel.marks(rates[target], n)
    sizes = [
        (n, f"{x.name}, {figures.kilobytes.get(f'{x.name}, firing', 0):.0f} kB")
        for n, x in enumerate(SIZES)
    ]
    return list(panel.svg(sizes))


def _costs(figures: Figures) -> list[str]:
    costs, line = figures.costs, line_through(figures.costs)
    most = max(x.observations for x in costs)
    high = up_to(max(max(x.ours, x.floor) for x in costs))
    title = "Computing a call, ms, and its line"
    panel = Panel(title, Scale(0, most, 510, 860), Scale(0, high, 300, 50), "observations")
    panel.line([(0, max(line.fixed, 0)), (most, line.fixed + line.per_thousand * most / 1000)], 1)
    panel.marks([(x.observations, x.ours) for x in costs], 1)
    panel.line([(x.observations, x.floor) for x in costs], 0, dashed=True)
    panel.marks([(x.observations, x.floor) for x in costs], 0)
    return list(panel.svg())

"""The part of docs/testing.md that a soak writes, and the plot of its memory."""

from bench.faults import FAULTS
from bench.page import number
from bench.soak_report import MEMORY, Report
from bench.svg import Panel, Scale, document, up_to

_COLOURS = 4


def page(report: Report) -> str:
    """The text between the marks."""
    passed = "passed" if not report.faults else "**not passed**"
    lines = [
        f"{report.calls:,} calls in {report.minutes:.0f} minutes on {report.day}: {passed}."
        f" On {report.made_with}.\n",
        *(f"* {x}" for x in report.faults),
        "\n| fault | s | answered as owed | else | shown by | rose by | marred after its end, s |",
        "|---|---:|---:|---|---|---:|---:|",
    ]
    for x in report.borne:
        marred = ", ".join(f"{n} x {what}" for what, n in sorted(x.marred.items())) or "-"
        lasted = x.happened.ended - x.happened.began
        cells = (f"{lasted:.0f}", f"{x.owed:,}", marred, x.happened.metric)
        ends = (f"{x.happened.shown:,.0f}", f"{x.recovered:.1f}")
        lines.append(f"| {x.happened.name} | {' | '.join((*cells, *ends))} |")
    lines += [
        "\n| worker | alive, s | peak, MB | at its end, MB | a minute once warm, MB |",
        "|---:|---:|---:|---:|---:|",
    ]
    for worker in report.workers:
        alive = worker.samples[-1][0] - worker.samples[0][0]
        slope = "-" if worker.slope is None else f"{worker.slope:+.2f}"
        cells = (f"{alive:.0f}", number(worker.peak), number(worker.last), slope)
        lines.append(f"| {worker.number} | {' | '.join(cells)} |")
    return "\n".join([*lines, "\n![Memory of each worker over the soak](soak.svg)"])


def plot(report: Report) -> str:
    """The SVG: megabytes of each worker over minutes, the faults as bands."""
    highest = max([MEMORY, *(held for x in report.workers for _, held in x.samples)])
    panel = Panel(
        f"Megabytes of each worker; {MEMORY:.0f} is the limit",
        Scale(0, report.minutes, 50, 870),
        Scale(0, up_to(1.05 * highest), 300, 50),
        "minutes",
    )
    for x in report.borne:
        first, last = ((at - report.began) / 60 for at in (x.happened.began, x.happened.ended))
        panel.band(first, last, x.happened.name)
    panel.line([(0, MEMORY), (report.minutes, MEMORY)], 0, dashed=True)
    for worker in report.workers:
        points = [(at / 60, held) for at, held in worker.samples]
        panel.line(points, 1 + (worker.number - 1) % (_COLOURS - 1))
    says = f"Memory of the workers while {len(FAULTS)} faults were injected"
    return document(900, 350, says, list(panel.svg()))

"""Pages of which a command writes one part, between two marks; the rest is written by hand."""

from pathlib import Path


def rewrite(page: Path, command: str, text: str) -> None:
    """Puts the text between the marks of a command; raises ValueError when the page lacks them."""
    before, mark, rest = page.read_text("utf-8").partition(_begin(command))
    _, end, after = rest.partition(_end(command))
    if not mark or not end:
        raise ValueError(f"{page.name} has no part that {command} writes")
    page.write_text(f"{before}{mark}\n{text.strip()}\n\n{end}{after}", "utf-8")


def _begin(command: str) -> str:
    return f"<!-- from here on written by {command} -->\n"


def _end(command: str) -> str:
    return f"<!-- up to here, {command} -->"

"""What the cards and explanations of every vignette say, to the letter, as a short digest each: no
word of a card changes unseen.

`make words` writes tests/data/vignette_words.txt, and the responses of fixtures/exchanges; the diff
names the rows to look at, with `cds-service check --explain ID`.
"""

import hashlib
import json
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "data" / "vignette_words.txt"


def digest(cards: list[dict[str, Any]], explained: dict[str, Any]) -> str:
    """A digest of the cards but for their uuids and the content's version, and of the explanation:
    verdicts, data and series.
    """
    for card in cards:
        card["detail"] = card["detail"].rpartition(" · content ")[0]
    seen = {"cards": _without_uuids(cards)}
    seen |= {name: explained[name] for name in ("verdicts", "series", "data")}
    written = json.dumps(seen, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def _without_uuids(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: _without_uuids(x) for name, x in found.items() if name != "uuid"}
    return [_without_uuids(x) for x in found] if isinstance(found, list) else found


@cache
def recorded() -> dict[str, str]:
    """The digest of each row, by its id."""
    lines = FILE.read_text("utf-8").splitlines()
    return dict(line.split(" ") for line in lines)


def main() -> None:
    """Writes the file, and the response of every exchange that is answered otherwise by now."""
    from tests.test_exchanges import NAMES, write_response
    from tests.test_vignettes import families, vignettes_of_family, what_is_said

    for name in NAMES:
        write_response(name)
    lines = []
    for family in families():
        as_of: date = vignettes_of_family(family.name)[0]
        for vignette in vignettes_of_family(family.name)[1]:
            lines.append(f"{vignette.id} {what_is_said(family, vignette, as_of)}\n")
    FILE.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()

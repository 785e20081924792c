"""What `demo --once` prints: cards first, one silence explained, and who got what."""

import json
import re
import subprocess

import pytest
from rich.cells import cell_len

from tests.conftest import NAMES, PATIENTS
from tests.loopback import ROOT, clean_environment, command, free_port

CHARTS = {x: json.loads((PATIENTS / f"{x}.json").read_text("utf-8")) for x in NAMES}
EXPECTED = {name: x["expect"] for name, x in CHARTS.items()} | {
    f"{name}, {order['hook']}": order["expect"]
    for name, x in CHARTS.items()
    for order in x.get("orders", ())
}
SPEAKING = sorted(x for x in EXPECTED if EXPECTED[x])
SILENT = sorted(x for x in EXPECTED if not EXPECTED[x])
NARROW = 64  # the longest topic fits beside the longest name


@pytest.fixture(scope="module")
def said() -> str:
    result = subprocess.run(
        command("demo", "--once", "--port", str(free_port())),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment(COLUMNS=str(NARROW)),
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def headings(said: str) -> list[str]:
    return re.findall(r"^─+ (.+?) ─+$", said, re.M)


def test_cards_come_first_and_the_most_telling_one_before_all(said: str) -> None:
    found = headings(said)
    assert found[0] == "low-alp-persistent"
    assert sorted(found[: len(SPEAKING)]) == SPEAKING
    assert found[len(SPEAKING) + 1 :] == ["No card either", "Who got what"]


def test_a_card_is_shown_whole_once_for_each_topic(said: str) -> None:
    topics = [(x.split()[0], name.partition(", ")[2]) for name in SPEAKING for x in EXPECTED[name]]
    assert said.count("Override reasons:") == len(set(topics))
    assert said.count("The rest as on the first card") == len(topics) - len(set(topics))


def test_one_silent_patient_is_explained_and_every_other_has_a_line(said: str) -> None:
    explained = headings(said)[len(SPEAKING)]
    assert said.count("Verdicts ─") == 1
    others = said.partition("No card either")[2].partition("Who got what")[0]
    found = re.findall(r"^([a-z][\w-]+(?:, [\w-]+)?): ", others, re.M)
    assert sorted(found) == [x for x in SILENT if x != explained]


def test_it_closes_with_the_cards_of_every_patient(said: str) -> None:
    entries: list[tuple[str, str]] = []
    for line in said.partition("Who got what")[2].splitlines()[2:]:
        name, rest = line[:27].rstrip(), line[27:].strip()
        if name[:1].strip():
            entries.append((name, rest))
        else:
            last, before = entries.pop()
            hook = name.strip()
            entries.append((f"{last}, {hook}" if hook else last, f"{before} {rest}".strip()))
    rows = dict(entries)
    assert sorted(rows) == sorted(EXPECTED)
    for name, cards in rows.items():
        assert cards == ", ".join(EXPECTED[name]) or (not EXPECTED[name] and "none (" in cards)


def test_it_fits_a_narrow_window_and_names_no_url_that_is_gone(said: str) -> None:
    lines = said.splitlines()
    assert "http" not in said
    assert max(cell_len(x) for x in lines if not x.startswith("content ")) <= NARROW
    assert len(lines) < 1200

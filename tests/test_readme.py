"""The README is true: what it tells to type works, and what it quotes stands where it says."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from cds_service.cli import group
from cds_service.config import Settings, read_settings
from cds_service.errors import ContentError
from cds_service.loading import load_content
from tests.loopback import ROOT

TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


def typed(program: str) -> Iterator[list[str]]:
    """The arguments of every command of a program, in order."""
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == program:
                yield [x for x in words[1:] if x != "&"]


COMMANDS = list(typed(".venv/bin/cds-service"))


def test_it_is_short_and_shows_a_request_and_its_card_at_once() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 120
    start = "\n".join(lines[:30])
    assert "request.json" in start and '{"cards": [' in start


def test_a_block_to_type_can_be_pasted_as_a_whole() -> None:
    assert blocks("sh")
    for block in blocks("sh"):
        assert not re.search(r"^\s*[$#>] ", block, re.M)
        if re.search(r"&$", block, re.M):  # a server in the background is waited for and ended
            assert "--retry-connrefused" in block and "kill $!" in block


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_exists_with_its_options(arguments: list[str]) -> None:
    told = CliRunner().invoke(group, [arguments[0], "--help"])
    assert told.exit_code == 0
    assert [x for x in arguments if x.startswith("--") and x not in told.stdout] == []


@pytest.mark.parametrize("arguments", [x for x in COMMANDS if x[0] != "serve"], ids=" ".join)
def test_every_command_that_ends_does_what_it_should(arguments: list[str]) -> None:
    told = CliRunner().invoke(group, [str(ROOT / x) if ".json" in x else x for x in arguments])
    assert told.exit_code == 0, told.output


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = {x[0] for x in typed("make")} | set(re.findall(r"`make ([a-z]+)", TEXT))
    assert "demo" in named and named <= targets
    for option in re.findall(r"ARGS=\"?(--\w+)", TEXT):
        assert option in CliRunner().invoke(group, ["demo", "--help"]).stdout


def card() -> dict[str, Any]:
    """The card of the example, as evaluate gives it."""
    [arguments] = [x for x in COMMANDS if x[0] == "evaluate"]
    told = CliRunner().invoke(group, [str(ROOT / x) if ".json" in x else x for x in arguments])
    [found] = json.loads(told.stdout)["cards"]
    return dict(found)


def test_the_example_is_answered_with_the_card_that_is_shown() -> None:
    [shown] = [x for x in blocks("") if '"cards"' in x]
    shown, found = " ".join(shown.split()), card()
    assert f'{{"cards": [{{"summary": "{found["summary"]}"' in shown
    assert f'"indicator": "{found["indicator"]}"' in shown
    assert f'"source": {{"label": "{found["source"]["label"]}"' in shown
    assert f'"suggestions": [{{"label": "{found["suggestions"][0]["label"]}"' in shown


def test_the_values_that_the_example_is_said_to_have_are_in_it() -> None:
    request = json.loads(
        (ROOT / "fixtures/exchanges/low-alp-persistent/request.json").read_text("utf-8")
    )
    results = [x["resource"] for x in request["prefetch"]["alp"]["entry"]]
    told = re.findall(r"(\d+) U/L\s+on\s+(\d{4}-\d\d-\d\d)", TEXT)
    held = [(str(x["valueQuantity"]["value"]), x["effectiveDateTime"]) for x in results]
    assert told == held


def test_every_quoted_line_stands_in_its_file_as_it_is_quoted() -> None:
    [quoted] = [x for x in blocks("") if x.startswith("hooks/")]
    for line in quoted.splitlines():
        file, text = line.split(maxsplit=1)
        assert text in (ROOT / file).read_text("utf-8"), line


def test_the_site_file_that_is_shown_loads_and_changes_what_it_names(tmp_path: Path) -> None:
    [shown] = blocks("toml")
    site = tmp_path / "site.toml"
    site.write_text(shown, "utf-8")
    changed = {x.key for x in load_content(ROOT / "hooks", site).overrides}
    assert changed == {
        *("limits.very_low", "codes.obs-ggt", "orders.ggt", "orders.phosphate"),
        "prefetch.our-labs",
    }


def test_the_settings_are_those_of_the_code_with_their_defaults() -> None:
    pages = [(ROOT / "docs" / x).read_text("utf-8") for x in ("security.md", "audit.md")]
    rows = re.findall(r"^\| `(CDS_\w+)` \| .+ \| (.+) \|$", "".join((TEXT, *pages)), re.M)
    with pytest.raises(ContentError) as refused:
        read_settings({"CDS_X": "1"})
    assert [x for x, _ in rows] != []
    assert sorted({x for x, _ in rows}) == sorted(
        re.findall(r"CDS_[A-Z_]+", refused.value.why.partition("there are")[2])
    )
    for name, shown in rows:
        if re.fullmatch(r"`[\d*]+`", shown):
            assert read_settings({name: shown.strip("`")}) == Settings()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(?:GET )?(/[a-z./-]*)`", TEXT))))
def test_every_path_that_is_named_is_there(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code in (200, 405)  # 405: it is there, and wants a POST


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", TEXT))
def test_every_file_that_is_linked_exists(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_recipe_for_the_sandbox_names_a_patient_that_gets_a_card() -> None:
    [name] = re.findall(r"\*Change Patient\* → `([\w-]+)`", TEXT)
    chart = json.loads((ROOT / "fixtures" / "patients" / f"{name}.json").read_text("utf-8"))
    assert chart["expect"] == ["lowAlpPersistent warning"]


def test_every_module_is_placed_in_the_architecture() -> None:
    said = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    modules = {x.stem for x in (ROOT / "cds_service").glob("*.py")} - {"__init__", "__main__"}
    assert sorted(x for x in modules if not re.search(rf"\b{x}\b", said)) == []

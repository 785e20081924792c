"""docs/operations.md says how to back a store up and restore it: its commands, as they stand there,
while a server answers.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.databases import Databases
from tests.exchanges import SERVICE
from tests.loopback import ROOT, ended, running

TEXT = (ROOT / "docs" / "operations.md").read_text("utf-8")
SECTION = TEXT.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.M | re.S)
OF_KIND = {"sqlite": COMMANDS[:2], "postgresql": COMMANDS[2:]}


def run(command: str, folder: Path, path: str, **environ: str) -> None:
    """Runs a command of the page; fails with what it says."""
    done = subprocess.run(
        ["bash", "-eu", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def report(url: str, card: str) -> None:
    item = {"card": card, "outcome": "overridden", "outcomeTimestamp": "2026-05-04T09:31:07Z"}
    answer = requests.post(
        f"{url}{SERVICE}/feedback",
        json.dumps({"feedback": [item]}),
        headers={"Content-Type": "application/json"},
        timeout=20,
    )
    assert answer.json() == {"stored": 1, "repeated": 0}


def heard(store: str) -> set[str]:
    """The cards that a store has feedback about."""
    told = ended("report", "--feedback", "--format", "json", CDS_STORE=store)
    assert told.returncode == 0, told.stderr
    return {str(x["card"]) for x in json.loads(told.stdout)}


def test_the_page_has_a_backup_and_a_restore_for_each_kind_of_store() -> None:
    assert [len(x) for x in OF_KIND.values()] == [2, 2] and len(COMMANDS) == 4


def test_what_was_kept_until_the_backup_is_there_after_the_restore(
    databases: Databases, tmp_path: Path
) -> None:
    backup, restore = OF_KIND[databases.kind]
    cluster = databases.cluster
    path = str(Path(sys.executable).parent) + (f"{os.pathsep}{cluster.binaries}" if cluster else "")
    store = databases.migrated()

    def names(url: str) -> dict[str, str]:
        return {"STORE": url.removeprefix("sqlite:///"), "DATABASE": url}

    with running("--workers", "2", CDS_STORE=store) as server:
        report(server.url, "before")
        run(backup, tmp_path, path, **names(store))
        report(server.url, "since")
    assert heard(store) == {"before", "since"}

    restored = store if cluster is None else cluster.new_database()
    run(restore, tmp_path, path, **names(restored))
    assert heard(restored) == {"before"}
    with running(CDS_STORE=restored) as server:
        report(server.url, "after")
    assert heard(restored) == {"before", "after"}
    if cluster is None:
        assert Path(names(store)["STORE"]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`deploy/([\w./-]+)`", TEXT))))
def test_every_file_of_deploy_that_the_page_names_is_there(name: str) -> None:
    assert (ROOT / "deploy" / name).exists()

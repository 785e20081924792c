"""docs/security.md can be walked: from the page alone a reader mints keys and a token, calls the
protected server, posts feedback, sees it in the report, and rotates the key.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import ROOT, clean_environment, free_port

requirement = pytest.mark.requirement
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.M | re.S)


@requirement("JWT-04", "SEC-02")
def test_the_first_day_of_the_page_can_be_walked(tmp_path: Path) -> None:
    [clients] = blocks("toml")
    steps = blocks("sh")
    assert len(steps) == 5
    ports = {"8000": str(free_port()), "8001": str(free_port())}

    def here(text: str) -> str:
        return re.sub(r"\b800[01]\b", lambda x: ports[x[0]], text)

    (tmp_path / "clients.toml").write_text(here(clients), "utf-8")
    without = (
        f"curl -s -o /dev/null -w '%{{http_code}}\\n' -d {{}} http://127.0.0.1:{ports['8000']}"
    )
    script = here("\n".join([*steps[:2], f"{without}/explain/alp-review", *steps[2:], "wait"]))
    environ = clean_environment()
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-eu", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environ,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own session, and nobody else's
            process.wait(20)
    assert re.findall(r"^\d{3}$", said, re.M) == ["401", "200", "200"], said
    assert said.count('"verdicts"') == 2
    assert '{"stored":1,"repeated":0}' in said
    [reported] = [x for x in said.splitlines() if "a-card-of-yesterday" in x]
    assert "overridden" in reported and "later" in reported
    assert "trusts Main EHR (https://ehr.example), ES384 RS384, keys: http://127.0.0.1" in said
    assert len(list((tmp_path / "ehr").glob("private-*.json"))) == 2


def test_every_word_of_the_log_and_every_key_of_the_file_is_explained() -> None:
    engine = ROOT / "cds_service"
    source = (engine / "auth.py").read_text("utf-8")
    words = set(re.findall(r'_Refused\(\s*"([\w-]+)"', source))
    words |= set(re.findall(r'^ +\("([\w-]+)", ', source, re.M))
    words |= set(re.findall(r'_read\(\w+, payload, "([\w-]+)"\)', source))
    words |= set(re.findall(r'"([\w-]+)" if keys\.keys else "([\w-]+)"', source)[0])
    table = TEXT.partition("| word | what |")[2].partition("\n\n")[0]
    said = {
        x for row in table.splitlines()[2:] for x in re.findall(r"`([\w-]+)`", row.split("|")[1])
    }
    assert said == words and len(words) > 15
    clients = (engine / "clients.py").read_text("utf-8")
    for name, title in (("_ClientRow", "[[client]]"), ("_FhirServerRow", "[[client.fhir_server]]")):
        body = clients.partition(f"class {name}")[2].partition("\n\n\n")[0]
        keys = set(re.findall(r"^    (\w+): ", body, re.M)) - {"fhir_server"}
        table = TEXT.partition(f"| key of `{title}`")[2].partition("\n\n")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == keys

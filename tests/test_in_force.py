"""`cds-service config`: what is in force and where it comes from, without its secrets; and names
that are no settings of ours.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_service.cli import group
from cds_service.config import MEMBERS, Settings, is_service_link, read_settings
from cds_service.errors import ContentError
from cds_service.in_force import masked
from tests.loopback import ROOT, ended
from tests.trust import Key, client_row, key_set, settings_in

SECRET = b"Zyxmark secret of thirty-two bytes"


def config(environ: dict[str, str], *arguments: str, columns: int = 80) -> Result:
    environ = {"COLUMNS": str(columns), **environ}
    return CliRunner().invoke(group, ["config", *arguments], env=environ)


def told(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    found = config(environ, "--json", *arguments)
    assert found.exit_code == 0, (found.output, found.exception)
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def setting(said: dict[str, Any], name: str) -> tuple[str, str]:
    [found] = [x for x in said["settings"] if x["name"] == name]
    return found["value"], found["origin"]


@pytest.fixture
def hospital(tmp_path: Path) -> dict[str, str]:
    """The environment of a hospital's server, with something of everything."""
    (tmp_path / "keys.json").write_bytes(key_set(Key()))
    rows = [
        client_row("https://ehr.example", keys="keys.json", failures="quiet", rate="20/second"),
        client_row(
            "https://two.example",
            keys="keys.json",
            modes={"*": "shadow", "lowAlpPersistent": "on"},
        ),
    ]
    found = settings_in(tmp_path, rows)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "site.toml").write_text(
        '[limits]\nvery_low = 20\n[modes]\npagetAlpReview = "off"\nextremeAlp = "off"\n', "utf-8"
    )
    return {
        **found,
        "CDS_SITE_FILE": str(tmp_path / "site.toml"),
        "CDS_STORE": "postgresql://cds:Zyxmark@db/cds?sslpassword=Zyxmark",
        "CDS_HTTPS_PROXY": "http://user:Zyxmark@proxy:3128",
        "CDS_TOPIC_MODES": "lowAlpUnconfirmed=shadow extremeAlp=on",
    }


def test_every_setting_is_told_with_its_value_and_origin(hospital: dict[str, str]) -> None:
    said = told(hospital)
    assert [x["name"] for x in said["settings"]] == [*MEMBERS]
    assert setting(said, "CDS_ANSWER_SECONDS") == ("10", "default")
    assert setting(said, "CDS_FHIR_SERVERS") == ("none", "default")
    assert setting(said, "CDS_PEER_RATE") == ("off", "environment")
    assert setting(said, "CDS_CLIENTS_FILE") == (hospital["CDS_CLIENTS_FILE"], "environment")
    assert setting(said, "CDS_PUBLIC_URL") == (hospital["CDS_PUBLIC_URL"], "environment")
    assert setting(said, "CDS_OPEN") == ("0", "default")
    assert said["lacking"] == [] and said["ignored"] == []


@pytest.mark.parametrize("name", [x for x in MEMBERS if not x.endswith("FILE")])
def test_what_is_told_of_a_setting_can_be_set(name: str) -> None:
    value, _ = setting(told({}), name)
    if value != "none":
        assert read_settings({name: value}) == Settings()


def test_secrets_are_not_shown(hospital: dict[str, str]) -> None:
    said = told(hospital)
    assert setting(said, "CDS_STORE")[0] == "postgresql://cds:***@db/cds?sslpassword=***"
    assert setting(said, "CDS_HTTPS_PROXY")[0] == "http://user:***@proxy:3128"
    file = hospital["CDS_PATIENT_SECRET_FILE"]
    assert setting(said, "CDS_PATIENT_SECRET_FILE")[0] == f"{len(SECRET)} bytes from {file}"
    assert "Zyxmark" not in json.dumps(said) and "Zyxmark" not in config(hospital).stdout


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_no_password_of_whatever_signs_is_shown(password: str) -> None:
    assert masked(f"postgresql://cds:<{password}>@db/cds") == "postgresql://cds:***@db/cds"


def test_clients_and_what_is_agreed_with_them_are_listed(hospital: dict[str, str]) -> None:
    one, two = told(hospital)["clients"]
    assert one == {
        **{"name": "ehr.example", "issuer": "https://ehr.example"},
        **{"failures": "quiet", "rate": "20/second", "modes": {}},
    }
    assert (two["failures"], two["rate"]) == ("strict", "any")
    assert two["modes"] == {"*": "shadow", "lowAlpPersistent": "on"}
    page = config(hospital).stdout
    assert "ehr.example (https://ehr.example)\n  failures: quiet\n  rate: 20/second\n" in page


def test_each_topic_is_told_with_who_switched_it(hospital: dict[str, str]) -> None:
    said = told(hospital, "--topic-mode", "lowAlpPersistent=off")
    modes = {x["topic"]: (x["mode"], x["origin"]) for x in said["topics"]}
    assert modes["lowAlpPersistent"] == ("off", "command line")
    assert modes["lowAlpUnconfirmed"] == ("shadow", "CDS_TOPIC_MODES")
    assert modes["extremeAlp"] == ("on", "CDS_TOPIC_MODES")
    assert modes["pagetAlpReview"] == ("off", "site file")
    assert modes["bonePainWithoutMyelomaScreen"] == ("shadow", "content")
    value, origin = setting(said, "CDS_TOPIC_MODES")
    assert value.split()[-1] == "lowAlpPersistent=off" and origin == "environment, command line"
    everything = {x["origin"] for x in told(hospital, "--topic-mode", "*=on")["topics"]}
    assert everything == {"command line"}


@pytest.mark.parametrize(
    ("environ", "asked", "mode"),
    [
        ("lowAlpPersistent=on *=off", "lowAlpPersistent=shadow", "shadow"),
        ("lowAlpPersistent=on", "*=off", "off"),
        ("*=off", "lowAlpPersistent=on", "on"),
    ],
)
def test_the_command_line_goes_before_the_environment(environ: str, asked: str, mode: str) -> None:
    said = told({"CDS_TOPIC_MODES": environ}, "--topic-mode", asked)
    [found] = [x for x in said["topics"] if x["topic"] == "lowAlpPersistent"]
    assert (found["mode"], found["origin"]) == (mode, "command line")


def test_what_the_site_file_changes_is_listed_beside_what_ships(hospital: dict[str, str]) -> None:
    changes = {x["key"]: (x["here"], x["shipped"]) for x in told(hospital)["site"]}
    assert changes["limits.very_low"] == ("20 U/L", "25 U/L")
    assert changes["modes.pagetAlpReview"] == ("off", "on")
    assert "limits.very_low is 20 U/L (shipped: 25 U/L)" in config(hospital).stdout


def test_without_clients_it_says_what_is_lacking_and_for_the_open_server_nothing() -> None:
    lacking = ["CDS_CLIENTS_FILE", "CDS_PUBLIC_URL", "CDS_PATIENT_SECRET_FILE"]
    assert told({})["lacking"] == lacking
    assert all(x in config({}).stdout.rpartition("serve would not start")[2] for x in lacking)
    opened = told({}, "--open")
    assert opened["lacking"] == [] and setting(opened, "CDS_OPEN") == ("1", "command line")
    assert setting(opened, "CDS_STORE") == ("a temporary file", "default")
    assert setting(told({"CDS_OPEN": "1"}), "CDS_OPEN") == ("1", "environment")


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_it_fits_the_window_and_nothing_in_it_steers_the_terminal(
    hospital: dict[str, str], columns: int
) -> None:
    hospital["CDS_CORS_ORIGINS"] = "https://a\x1b[2J.example"
    found = config(hospital, columns=columns)
    assert found.exit_code == 0 and "\x1b" not in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= columns


def test_what_is_wrong_is_one_sentence_and_exit_code_2(hospital: dict[str, str]) -> None:
    for change, said in (
        ({"CDS_CLIENT_FILE": "x"}, "did you mean CDS_CLIENTS_FILE?"),
        ({"CDS_PEER_RATE": "often"}, "CDS_PEER_RATE: does not fit: must be like 50/second"),
        ({"CDS_CLIENTS_FILE": str(ROOT / "README.md")}, "README.md: is not TOML"),
    ):
        result = ended("config", **{**hospital, **change})
        assert result.returncode == 2 and said in result.stderr
        assert result.stderr.startswith("cds-service: ") and result.stdout == ""


# -- names that Kubernetes sets ----------------------------------------------------------------


def links(service: str) -> dict[str, str]:
    """What Kubernetes sets in every container for a Service of one named port."""
    name, port, address = service.upper().replace("-", "_"), "8000", "10.96.0.7"
    one = f"{name}_PORT_{port}_TCP"
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": port,
        f"{name}_SERVICE_PORT_HTTP": port,
        f"{name}_SERVICE_PORT_HTTP_METRICS": port,
        f"{name}_PORT": f"tcp://{address}:{port}",
        one: f"tcp://{address}:{port}",
        f"{one}_PROTO": "tcp",
        f"{one}_PORT": port,
        f"{one}_ADDR": address,
        f"{name}_PORT_53_UDP": f"udp://{address}:53",
        f"{name}_PORT_53_UDP_ADDR": "fd00::a",
    }


@pytest.mark.parametrize("service", ["cds", "cds-hooks", "cds-service", "cds-store", "cds-2-port"])
def test_what_kubernetes_sets_for_a_service_is_passed_over(service: str) -> None:
    found = {**links(service), "CDS_FETCH_SECONDS": "3"}
    assert read_settings(found) == Settings(fetch_seconds=3)
    assert told(links(service))["ignored"] == sorted(links(service))
    assert all(x in " ".join(config(found, columns=400).stdout.split()) for x in links(service))


def test_none_of_our_names_is_one_that_kubernetes_could_set() -> None:
    names = [*MEMBERS, "CDS_DEMO_URL", "CDS_DEMO_PAGE_SIZE"]
    values = {*links("cds").values(), "53", "udp", "sctp"}
    assert [x for x in names for value in values if is_service_link(x, value)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CDS_PORT", "8000"),
        ("CDS_SERVICE_HOST", "cds.example"),
        ("CDS_SERVICE_PORT", "http"),
        ("CDS_SERVICE_URL", "tcp://10.96.0.7:8000"),
        ("CDS_PORT_TCP", "tcp://10.96.0.7:8000"),
        ("CDS_port", "tcp://10.96.0.7:8000"),
        ("CDSX_PORT", ""),
    ],
)
def test_a_name_of_that_kind_with_a_value_of_ones_own_is_refused(name: str, value: str) -> None:
    if name.startswith("CDS_"):
        with pytest.raises(ContentError, match=name):
            read_settings({name: value})
    assert not is_service_link(name, value)

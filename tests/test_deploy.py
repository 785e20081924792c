"""What is in deploy/ is valid by the schemas of those who read it, and says nothing that the
service does not know.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from click import Context

from cds_service.cli import group
from cds_service.clients import read_clients
from cds_service.config import MEMBERS, read_settings
from cds_service.errors import ContentError
from cds_service.loading import load_content
from cds_service.metrics import Metrics
from cds_service.serving import SECONDS_TO_END
from tests.loopback import ROOT, running

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
ALERT_TESTS = sorted((DEPLOY / "prometheus").glob("*_test.yaml"))
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
OPERATIONS = ROOT / "docs" / "operations.md"
OLDEST = "1.28"  # of the versions of Kubernetes that the manifests are for
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

Json = dict[str, Any]


def run(*command: str | Path) -> str:
    """What a tool says; fails with it when it finds a fault."""
    said = subprocess.run(
        [*map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert said.returncode == 0, said.stdout
    return said.stdout


@cache
def known_settings() -> frozenset[str]:
    with pytest.raises(ContentError) as refused:
        read_settings({"CDS_X": "1"})
    return frozenset(re.findall(r"CDS_[A-Z_]+", refused.value.why.partition("there are")[2]))


# -- compose -----------------------------------------------------------------------------------


@cache
def services() -> Json:
    found: Json = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return found


def test_the_compose_file_is_one() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    run(tool, "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_what_the_compose_file_refers_to_is_in_it() -> None:
    whole = yaml.safe_load(COMPOSE.read_text("utf-8"))
    for one in services().values():
        assert set(one["networks"]) <= set(whole["networks"])
        assert set(one.get("depends_on", ())) <= set(services())
        named = {x.partition(":")[0] for x in one["volumes"]}
        assert {x for x in named if not x.startswith(".")} <= set(whole["volumes"])


def test_what_compose_sets_is_a_setting() -> None:
    set_there = {x for one in services().values() for x in one.get("environment", {})}
    assert {x for x in set_there if x.startswith("CDS_")} <= known_settings()
    assert "CDS_STORE" in set_there


def test_the_service_is_told_of_its_proxy() -> None:
    """Else the limit of a peer would be one limit of all that come through nginx."""
    proxies = services()["cds-service"]["environment"]["CDS_PROXIES"]
    assert proxies == services()["nginx"]["networks"]["inside"]["ipv4_address"] + "/32"
    [pod] = [x for kind, x in pods() if kind == "Deployment"]
    [server] = [x for x in pod["containers"] if x["name"] == "cds-service"]
    assert {"name": "CDS_PROXIES", "value": "127.0.0.1/32"} in server["env"]


def test_compose_opens_https_to_the_world_and_numbers_to_its_host_alone() -> None:
    ports = {name: one["ports"] for name, one in services().items() if "ports" in one}
    assert ports == {"nginx": ["443:8443"], "cds-service": ["127.0.0.1:9464:9464"]}


@pytest.mark.parametrize("name", ["nginx", "cds-service", "migrate"])
def test_a_container_of_ours_is_read_only_and_nobody(name: str) -> None:
    one = services()[name]
    assert one["read_only"] and one["cap_drop"] == ["ALL"] and not one["user"].startswith("0")
    assert one["security_opt"] == ["no-new-privileges:true"]


def test_the_image_is_that_of_this_version() -> None:
    images = {one["image"] for one in services().values()} | {
        x["image"] for _, pod in pods() for x in pod["containers"]
    }
    assert {x.rpartition("/")[2] for x in images if "cds-service" in x} == {
        f"cds-service:{VERSION}"
    }
    assert all(re.search(r":\d", x) for x in images)


# -- Kubernetes --------------------------------------------------------------------------------


@cache
def objects() -> tuple[Json, ...]:
    return tuple(x for path in MANIFESTS for x in yaml.safe_load_all(path.read_text("utf-8")))


def pods() -> Iterator[tuple[str, Json]]:
    """The pods of all objects, by kind."""
    for one in objects():
        if "template" in one["spec" if "spec" in one else "metadata"]:
            yield one["kind"], one["spec"]["template"]["spec"]


def test_the_manifests_are_all_there() -> None:
    assert sorted(x["kind"] for x in objects()) == [
        *("ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget", "Service"),
    ]


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("kind", sorted(x["kind"] for x in objects()))
def test_a_manifest_is_what_kubernetes_takes(kind: str, version: str) -> None:
    [one] = [x for x in objects() if x["kind"] == kind]
    kubernetes_validate.validate(one, version, strict=True)


def test_the_settings_of_pods_can_be_read(tmp_path: Path) -> None:
    [settings] = [x for x in objects() if x["kind"] == "ConfigMap"]
    for name, text in settings["data"].items():
        (tmp_path / name).write_text(text, "utf-8")
    [client] = read_clients(tmp_path / "clients.toml", ())
    assert client.fhir_servers
    assert load_content(ROOT / "hooks", tmp_path / "site.toml").overrides == ()


def test_a_manifest_with_a_word_misspelt_would_be_found() -> None:
    [one] = [x for x in objects() if x["kind"] == "Deployment"]
    wrong = {**one, "spec": {**one["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST, strict=True)


@pytest.mark.parametrize(("kind", "pod"), list(pods()), ids=[x for x, _ in pods()])
def test_a_pod_is_nobody_and_can_change_nothing(kind: str, pod: Json) -> None:
    assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
        for variable in container.get("env", []):
            assert variable["name"] in known_settings()


def test_a_pod_has_time_to_end() -> None:
    [pod] = [x for kind, x in pods() if kind == "Deployment"]
    for container in pod["containers"]:
        waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert pod["terminationGracePeriodSeconds"] >= waits + SECONDS_TO_END + 5


def test_the_store_of_pods_is_a_secret_and_no_file() -> None:
    for _, pod in pods():
        [store] = [
            x for one in pod["containers"] for x in one.get("env", ()) if x["name"] == "CDS_STORE"
        ]
        assert store["valueFrom"]["secretKeyRef"]["key"] == "store"


# -- alerts and dashboard ----------------------------------------------------------------------


def promtool(*arguments: str | Path) -> str:
    """What promtool says; skips without it."""
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return run(binary, *arguments)


@cache
def alerts() -> dict[str, Json]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return {x["alert"]: x for group in groups for x in group["rules"] if "alert" in x}


def expressions() -> list[str]:
    """What alerts and dashboard ask of Prometheus."""
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    asked = [x["expr"] for group in groups for x in group["rules"]]
    return asked + [x["expr"] for panel in panels for x in panel.get("targets", ())]


def test_the_rules_are_rules() -> None:
    promtool("check", "rules", ALERTS)


@pytest.mark.parametrize("path", ALERT_TESTS, ids=lambda x: x.stem)
def test_each_alert_fires_when_it_should_and_not_otherwise(path: Path) -> None:
    promtool("test", "rules", path)


def test_each_alert_is_tried_both_ways() -> None:
    tried = [
        (x["alertname"], bool(x["exp_alerts"]), len(group["input_series"]))
        for path in ALERT_TESTS
        for group in yaml.safe_load(path.read_text("utf-8"))["tests"]
        for x in group["alert_rule_test"]
    ]
    assert {name for name, fires, _ in tried if fires} == set(alerts())
    # Quiet altogether, or for one of two series.
    assert {name for name, fires, series in tried if not fires or series > 1} == set(alerts())


def test_each_alert_leads_to_a_section_of_the_operator_s_page() -> None:
    text = OPERATIONS.read_text("utf-8")
    sections = {
        re.sub(r"[^a-z0-9 -]", "", x.lower()).replace(" ", "-")
        for x in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for name, alert in alerts().items():
        page, _, section = alert["annotations"]["runbook"].partition("#")
        assert page == "docs/operations.md" and section in sections, name
        assert f"`{name}`" in text, name


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    exposed = {
        x if kind == "gauge" else f"{x}_{end}"
        for family in Metrics().registry.collect()
        for x, kind in [(family.name, family.type)]
        for end in {"counter": ("total",), "histogram": ("bucket", "sum", "count")}.get(kind, ("",))
    }
    asked = {x for text in expressions() for x in re.findall(r"\bcds_\w+", text)}
    assert "cds_hook_requests_total" in asked and sorted(asked - exposed) == []


def test_the_dashboard_asks_what_prometheus_understands(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{n}", "expr": text.replace("$__rate_interval", "5m")}
        for n, text in enumerate(expressions())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": rules}]}), "utf-8")
    promtool("check", "rules", path)


def test_the_dashboard_s_panels_lie_side_by_side() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({x["id"] for x in board["panels"]}) == len(board["panels"])


def test_prometheus_can_read_what_a_server_exposes() -> None:
    with running() as server:
        text = requests.get(f"{server.url}/metrics", timeout=20).text
    assert "cds_audit_failures_total 0.0" in text  # so that the first one is an increase
    binary = shutil.which("promtool")
    if binary is not None:
        said = subprocess.run(
            [binary, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
        )
        assert said.returncode == 0, said.stderr


# -- what is installed -------------------------------------------------------------------------


def test_the_bill_of_materials_lists_what_runs_and_not_what_tests(tmp_path: Path) -> None:
    installed = ("-o", ".venv/.installed-for")  # what runs these tests is not to be renewed by them
    run("make", *installed, "sbom", f"SBOM={tmp_path / 'sbom.json'}")
    found = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    names = {x["name"].lower() for x in found["components"]}

    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "cds-service"
    assert {"flask", "granian", "psycopg-binary", "pyjwt", "fhir.resources"} <= names
    assert not {"pytest", "mypy", "ruff", "hypothesis", "pip", "gunicorn"} & names
    assert all(x.get("licenses") for x in found["components"] if x["name"] == "Flask")


# -- a host without containers -----------------------------------------------------------------

SYSTEMD = DEPLOY / "systemd"


def test_each_change_for_nginx_of_the_host_changes_something() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    shipped = (DEPLOY / "nginx" / "nginx.conf").read_text("utf-8")
    changes = re.findall(r"-e 's#([^#]+)#[^#]+#'", page)
    assert len(changes) == 5
    assert [x for x in changes if not re.search(x, shipped, re.MULTILINE)] == []


def test_the_settings_of_the_unit_are_settings_and_hold_all_that_is_needed() -> None:
    text = (SYSTEMD / "cds-service.env").read_text("utf-8")
    names = re.findall(r"^(\w+)=.", text, re.MULTILINE)
    assert sorted(set(names)) == sorted(names) and set(names) <= set(MEMBERS)
    assert {"CDS_PUBLIC_URL", "CDS_CLIENTS_FILE", "CDS_PATIENT_SECRET_FILE"} <= set(names)


@pytest.mark.parametrize("unit", ["cds-service.service", "cds-service-purge.service"])
def test_a_unit_runs_a_command_that_there_is(unit: str) -> None:
    text = (SYSTEMD / unit).read_text("utf-8")
    [(name, arguments)] = re.findall(r"^ExecStart=\S+/cds-service (\w+) (.+)$", text, re.MULTILINE)
    command = group.get_command(Context(group), name)
    assert command is not None
    command.make_context(name, shlex.split(arguments), resilient_parsing=True)
    known = {x for option in command.params for x in option.opts}
    assert {x for x in arguments.split() if x.startswith("--")} <= known

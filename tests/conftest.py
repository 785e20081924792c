"""What several test files share: the application under a fixed clock, and the fixture patients
behind a FHIR server of this machine.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, BrowserContext, Page
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings, fixtures_dir
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient, load_patients
from tests.browser import Seen, chromium, tab, warm_window
from tests.databases import KINDS, Cluster, Databases, cluster
from tests.exchanges import TODAY, now, resolved
from tests.invariants import faults
from tests.loopback import FhirServer, Running, serving

PATIENTS = fixtures_dir() / "patients"
NAMES = sorted(path.stem for path in PATIENTS.glob("*.json"))
_ROW = re.compile(r"[A-Z]{3}-\d\d\Z")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds",
        type=int,
        default=2,
        help="How many servers are killed under load, each after some of its workers.",
    )
    parser.addoption(
        "--each-relation",
        action="store_true",
        help="Let the vignettes meet the changes of test_metamorphic one by one.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A misspelt row of the checklist would claim nothing."""
    for item in items:
        for mark in item.iter_markers("requirement"):
            wrong = [x for x in mark.args if not _ROW.match(x)]
            assert mark.args and not wrong, f"{item.nodeid}: no row of the checklist: {wrong}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that names a `fixture_patient` runs for each of them."""
    if "fixture_patient" in metafunc.fixturenames:
        metafunc.parametrize("fixture_patient", NAMES, indirect=True)


class CheckedClient(FlaskClient):
    """A client that finds out every answer which breaks a rule that all answers keep."""

    def open(
        self, *args: Any, buffered: bool = False, follow_redirects: bool = False, **kwargs: Any
    ) -> TestResponse:
        answer = super().open(*args, buffered=buffered, follow_redirects=follow_redirects, **kwargs)
        asked = answer.request
        found = faults(
            asked.method, asked.path, answer.status_code, dict(answer.headers), answer.data
        )
        assert not found, f"{asked.method} {asked.path}: {found}"
        return answer


@pytest.fixture(scope="session", autouse=True)
def _every_answer_is_checked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "test_client_class", CheckedClient)
        yield


@pytest.fixture(scope="session")
def open_app() -> Flask:
    """The open server with no FHIR server allowed."""
    return create_app(Settings(open=True), now=now)


@pytest.fixture
def client(open_app: Flask) -> FlaskClient:
    return open_app.test_client()


@pytest.fixture(scope="session")
def templates(open_app: Flask) -> dict[str, str]:
    """The prefetch templates of alp-review, as discovery gives them."""
    answer = open_app.test_client().get("/cds-services").get_json()
    found: dict[str, str] = answer["services"][0]["prefetch"]
    return found


@pytest.fixture(scope="session")
def patients() -> dict[str, FixturePatient]:
    """The fixture patients by name, on the day of the tests."""
    return {str(x.patient["id"]): x for x in load_patients(PATIENTS, TODAY)}


@pytest.fixture
def fixture_patient(
    request: pytest.FixtureRequest, patients: dict[str, FixturePatient]
) -> FixturePatient:
    return patients[request.param]


@pytest.fixture(scope="session")
def _fhir(patients: dict[str, FixturePatient]) -> Iterator[FhirServer]:
    bundles = [x.bundle for x in patients.values()]
    with serving(lambda base: FhirEndpoint(bundles, base, page_size=2)) as server:
        yield server


@pytest.fixture
def fhir(_fhir: FhirServer) -> Iterator[FhirServer]:
    """The fixture patients behind HTTP, two resources to a page; as new for every test."""
    _fhir.reset()
    yield _fhir
    _fhir.reset()


@pytest.fixture(scope="session")
def fetching_app(_fhir: FhirServer) -> Flask:
    """The open server that may read the FHIR server, and takes its time."""
    return create_app(Settings(open=True, fhir_servers=(_fhir.base,), fetch_seconds=20), now=now)


@pytest.fixture
def fetching(fetching_app: Flask) -> FlaskClient:
    return fetching_app.test_client()


@pytest.fixture(scope="session")
def impatient_app(_fhir: FhirServer) -> Flask:
    """The same with half a second to read."""
    return create_app(Settings(open=True, fhir_servers=(_fhir.base,), fetch_seconds=0.5), now=now)


@pytest.fixture
def impatient(impatient_app: Flask) -> FlaskClient:
    return impatient_app.test_client()


Whole = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def whole(patients: dict[str, FixturePatient], templates: dict[str, str]) -> Whole:
    """A patient's request with every key prefetched, made by the templates as a client does."""
    bundles = [x.bundle for x in patients.values()]
    endpoint = FhirEndpoint(bundles, "https://hospital.example/fhir")

    @cache
    def text(name: str) -> bytes:
        return json.dumps(
            {
                "hook": "patient-view",
                "hookInstance": "5a6f0f5e-7a39-4f0b-9f0c-1f1d0e7f9a11",
                "context": {"userId": "Practitioner/dr1", "patientId": name, "encounterId": "e1"},
                "prefetch": {key: resolved(endpoint, x, name) for key, x in templates.items()},
            }
        ).encode()

    def make(name: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(text(name))
        return body

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a file: while it runs, its event loop is in the way of others."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def window(browser: Browser, server: Running) -> Iterator[BrowserContext]:
    """Where the pages of a file's server are shown."""
    with warm_window(browser, server.url) as made:
        yield made


@pytest.fixture
def seen(window: BrowserContext, server: Running) -> Iterator[Seen]:
    """A page of the server, and what it does beside being shown."""
    with tab(window, server.url) as made:
        yield made


@pytest.fixture
def page(seen: Seen) -> Page:
    return seen.page


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL cluster of the tests' own; skips where there is no PostgreSQL."""
    with cluster() as started:
        yield started


@pytest.fixture(scope="session", params=KINDS)
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Databases:
    """Databases of each kind, one after the other."""
    folder = tmp_path_factory.mktemp("stores")
    if request.param == "sqlite":
        return Databases("sqlite", folder)
    return Databases("postgresql", folder, request.getfixturevalue("postgresql"))

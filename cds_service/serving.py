"""Runs the server: checks everything once in the parent, then starts the workers, each with the
same settings.
"""

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from flask import Flask
from granian import Granian
from granian.constants import Interfaces

from cds_service.app import create_app
from cds_service.config import fixtures_dir, read_settings
from cds_service.fhir_endpoint import FhirEndpoint, load_patients

# A worker's threads. One is taken for as long as a caller takes to send a body, so there are more
# than calls are answered at once (app.AT_ONCE); those that idle end by themselves.
THREADS = 64


def application() -> Flask:
    """The WSGI application of one worker, by the environment that its parent set."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    settings = read_settings()
    demo = None
    if settings.demo_url:
        patients = load_patients(fixtures_dir() / "patients", datetime.now(UTC).date())
        bundles = (patient.bundle for patient in patients)
        demo = FhirEndpoint(bundles, f"{settings.demo_url}/fhir", settings.demo_page_size)
    return create_app(settings, demo=demo)


def run(host: str, port: int, workers: int, environ: Mapping[str, str]) -> None:
    """Serves until it is told to stop; `environ` is added to the workers' environment."""
    os.environ.update(environ)
    Granian(
        "cds_service.serving:application",
        factory=True,
        interface=Interfaces.WSGI,
        address=host,
        port=port,
        workers=workers,
        blocking_threads=THREADS,
        websockets=False,
        log_enabled=False,
        respawn_failed_workers=True,
    ).serve()

"""Tells audit, metrics and log of each request, once its answer is known and before it is sent; and
whoever asks, whether the store can be written to.
"""

import logging
import math
import time
from threading import Lock

from msgspec import Struct

from cds_service.audit import AuditFile, event_of
from cds_service.call_record import CallRecord
from cds_service.config import Settings
from cds_service.content import Content
from cds_service.errors import StoreDown
from cds_service.metrics import Metrics
from cds_service.store import Store

CALLS = ("service", "explain", "feedback")  # those of a patient, or of what a user answered
SECONDS_BETWEEN_WRITES = 1.0
log = logging.getLogger("cds_service")


class Observing(Struct, frozen=True):
    """Takes the records of one process's requests."""

    settings: Settings
    content: Content
    metrics: Metrics

    def count(self, record: CallRecord) -> None:
        """Counts and audits a request of a patient or of feedback, others not."""
        if record.route not in CALLS:
            return
        self.metrics.count(record)
        if not self.settings.audit_file:
            return
        about, site = self.content.about, self.settings.public_url
        software = f"cds-service {self.content.software_version}"
        event = event_of(record, software, f"{about.version} {self.content.hash}", site)
        try:
            AuditFile(self.settings.audit_file).write(event)
        except OSError as error:  # a card is worth more than its record
            self.metrics.audit_failed()
            log.error("audit record lost", extra={"reason": error.strerror or str(error)})

    def say(self, record: CallRecord) -> None:
        """Logs a request; its path is not in the line, nor anything else that a client wrote."""
        said = {
            "request_id": record.request_id,
            "route": record.route,
            "service": record.service,
            "client": record.caller.name,
            "status": record.status,
            "outcome": record.outcome(),
            "milliseconds": round(record.seconds["total"] * 1000, 1),
        }
        if record.refused:
            why = {"request_id": record.request_id, "reason": record.refused}
            whose = {"client": record.refused_for} if record.refused_for else {}
            log.warning("token refused", extra=why | whose)
        for operation in record.store_failures:
            reason = f"{operation}: {record.why or 'not read'}"
            why = {"request_id": record.request_id, "reason": reason}
            log.warning("the store was not there", extra=why)
        log.info("answered", extra={name: value for name, value in said.items() if value != ""})


class Readiness:
    """Whether the store takes a write, tried at most once a second: anybody may ask."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._lock = Lock()
        self._tried_at = -math.inf
        self._down: StoreDown | None = None

    def check(self) -> None:
        """Raises StoreDown when it does not."""
        with self._lock:
            if time.monotonic() - self._tried_at >= SECONDS_BETWEEN_WRITES:
                self._down = self._try()
                self._tried_at = time.monotonic()
            if self._down is not None:
                raise self._down

    def _try(self) -> StoreDown | None:
        try:
            self._store.check_writable()
        except StoreDown as down:
            self._metrics.store_failed("ready")
            return down
        self._metrics.store_works()
        return None

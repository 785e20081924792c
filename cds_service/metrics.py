"""Metrics for Prometheus: counted once a request, from its record, over all workers of a server.

No label holds anything of a patient, a user or a token.
"""

import os
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from socketserver import ThreadingMixIn
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from cds_service.call_record import CallRecord
from cds_service.feedback import named_reason

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where the workers of a server keep what they have counted
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NOT_EVALUABLE = ("data-missing", "data-unusable")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OFF = "off"
OPEN = "open"  # the client of the open server


class Metrics:
    """What one process counts. The workers of a server count in files of one folder, named by
    PROMETHEUS_MULTIPROC_DIR before the first is made; without it a process counts for itself.
    """

    def __init__(self, reasons: Container[str] = ()) -> None:
        from prometheus_client import CollectorRegistry  # the folder must be known by now

        self._reasons = reasons
        self.registry = CollectorRegistry()
        self._add_calls()
        self._add_content()
        self._add_faults()
        self._started.inc()

    def _counter(self, name: str, says: str, *labels: str) -> Any:
        from prometheus_client import Counter

        return _quick(Counter(name, says, labels, registry=self.registry))

    def _gauge(self, name: str, says: str, *labels: str) -> Any:
        from prometheus_client import Gauge

        return Gauge(name, says, labels, registry=self.registry, multiprocess_mode="mostrecent")

    def _histogram(self, name: str, says: str, *labels: str) -> Any:
        from prometheus_client import Histogram

        return _quick(Histogram(name, says, labels, registry=self.registry, buckets=SECONDS))

    def _add_calls(self) -> None:
        counter, histogram = self._counter, self._histogram
        self._requests = counter(
            "cds_hook_requests",
            "Requests to services, explanations and feedback, by what they were answered with.",
            *("service", "client", "outcome"),
        )
        self._seconds = histogram("cds_hook_seconds", "Time of a service call.", "phase")
        self._keys = counter(
            "cds_prefetch_keys",
            "Prefetch keys of service calls, by what became of them.",
            *("service", "client", "key", "state"),
        )
        self._fetches = histogram("cds_fhir_fetch_seconds", "Time of reading a FHIR server.")
        self._feedback = counter(
            "cds_feedback",
            "Feedback items taken in; a reason that is none of ours is other.",
            *("service", "outcome", "reason"),
        )

    def _add_content(self) -> None:
        counter = self._counter
        self._cards = counter("cds_cards", "Cards given.", "service", "rule", "indicator")
        self._suppressed = counter(
            "cds_suppressed", "Topics whose conditions held, and what kept them.", "rule", "reason"
        )
        self._not_evaluable = counter(
            "cds_not_evaluable", "Topics that lacked usable data.", "rule", "reason"
        )
        self._content = self._gauge("cds_content_info", "The content in use.", "version", "hash")

    def _add_faults(self) -> None:
        counter = self._counter
        self._refused = counter("cds_jwt_rejected", "Tokens refused.", "reason")
        self._limited = counter("cds_limited", "Requests over a limit, by whose.", "by")
        self._not_evaluated = counter(
            "cds_not_evaluated",
            "Calls of quiet clients that would have been errors.",
            *("service", "client", "reason"),
        )
        self._fetch_failures = counter(
            "cds_fhir_fetch_failures", "Queries that a FHIR server did not answer.", "reason"
        )
        self._audit_failures = counter("cds_audit_failures", "Audit records that are lost.")
        self._store_failures = counter(
            "cds_store_failures", "What the store was needed for and could not do.", "operation"
        )
        self._dropped = counter("cds_issued_dropped", "Cards that the store never got.")
        self._started = counter("cds_workers_started", "Workers that were started, first or anew.")
        self._writable = self._gauge("cds_store_writable", "Whether the store took what it got.")

    # -- counting ------------------------------------------------------------------------------

    def content(self, version: str, digest: str) -> None:
        """Says which content answers."""
        self._content.labels(version, digest).set(1)

    def count(self, record: CallRecord) -> None:
        """Counts a request that was answered."""
        client = record.caller.name or OPEN
        if record.refused:
            client = ""
            self._refused.labels(record.refused).inc()
        self._requests.labels(record.service, client, record.outcome()).inc()
        for operation in record.store_failures:
            self.store_failed(operation)
        for item in record.feedback if record.status == 200 else ():
            self._feedback.labels(record.service, item.outcome, self._reason(item)).inc()
        if record.limited:
            self._limited.labels(record.limited).inc()
        if record.route == "service":
            self._count_call(record, client)

    def _reason(self, item: Any) -> str:
        named = named_reason(item.system, item.reason)
        return named if not named or named in self._reasons else "other"

    def _count_call(self, record: CallRecord, client: str) -> None:
        for phase, seconds in record.seconds.items():
            self._seconds.labels(phase).observe(seconds)
        for key in record.keys:
            state = key.by if key.state == "answered" else key.state
            self._keys.labels(record.service, client, key.key, state).inc()
        for topic, verdict, by, code, _ in record.outcomes:
            if verdict == "suppressed" and by != OFF:  # which is not looked at
                self._suppressed.labels(topic, by).inc()
            elif verdict in NOT_EVALUABLE:
                self._not_evaluable.labels(topic, code).inc()
        for card in record.cards if record.status == 200 else ():
            self._cards.labels(record.service, card.topic, card.indicator).inc()
        for seconds in record.fetches:
            self._fetches.observe(seconds)
        for why in record.fetch_failures:
            self._fetch_failures.labels(why).inc()
        if record.outcome() == "not-evaluated":
            self._not_evaluated.labels(record.service, client, record.error).inc()

    def audit_failed(self) -> None:
        """Counts an audit record that could not be written."""
        self._audit_failures.inc()

    def store_failed(self, operation: str) -> None:
        """Counts what the store could not do."""
        self._store_failures.labels(operation).inc()
        self._writable.set(0)

    def store_works(self) -> None:
        """Says that the store took what it got."""
        self._writable.set(1)

    def dropped(self, cards: int) -> None:
        """Counts cards that found no room while the store was down."""
        self._dropped.inc(cards)

    def text(self) -> bytes:
        """Everything counted by all workers, in the text format of Prometheus."""
        from prometheus_client import generate_latest

        return generate_latest(_over_all_workers() if os.environ.get(FOLDER) else self.registry)


def _quick(metric: Any) -> Any:
    """The metric, which remembers the child of each combination of labels: there are no more of
    them than the library keeps anyhow, and a call counts some thirty.
    """
    metric.labels = cache(metric.labels)
    return metric


def _over_all_workers() -> Any:
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


# -- in the process above the workers ----------------------------------------------------------


@contextmanager
def counted_together() -> Iterator[None]:
    """Workers that start inside the block count in one folder, which begins empty; it is the one
    that PROMETHEUS_MULTIPROC_DIR names, else one that goes with the block.
    """
    if given := os.environ.get(FOLDER):
        Path(given).mkdir(parents=True, exist_ok=True)
        for old in Path(given).glob("*.db"):
            old.unlink()
        yield
        return
    with TemporaryDirectory(prefix="cds-service-metrics-") as folder:
        os.environ[FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER]


class Exposed(ThreadingMixIn, WSGIServer):
    """Serves the metrics of all workers at an address of their own; raises OSError when it cannot
    be had. It answers once it is started, so that no thread is there when workers are forked.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        from prometheus_client import make_wsgi_app

        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Silent)
        self.set_app(make_wsgi_app(_over_all_workers()))

    def start(self) -> None:
        """Answers from here on, in a thread of its own."""
        Thread(target=self.serve_forever, daemon=True).start()


class _Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: who scrapes, scrapes every few seconds."""

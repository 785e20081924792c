"""gunicorn instead of granian, behind nginx.conf:

gunicorn --config deploy/gunicorn.conf.py 'cds_service.serving:application()'

Settings are the same CDS_ variables. `cds-service migrate` comes first: only `serve` brings a
SQLite store up to date by itself. For /metrics over all workers PROMETHEUS_MULTIPROC_DIR names an
empty folder.
"""

import os
from typing import Any

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"  # a sync worker would be ended in the midst of a slow answer
threads = 32  # one is computed at a time; the others wait for a FHIR server or for their turn
timeout = 60
graceful_timeout = 8
keepalive = 15  # longer than nginx keeps a connection, so that nginx closes it first
limit_request_line = 8190
limit_request_field_size = 32_768  # a token may be 16,000 characters
accesslog = None  # nginx has it, without what a caller wrote into a URL
worker_tmp_dir = "/dev/shm"  # its heartbeat must not wait for a disk


def child_exit(server: Any, worker: Any) -> None:
    """Takes a worker that has ended out of the numbers of /metrics."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)

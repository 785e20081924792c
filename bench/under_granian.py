"""python -m bench.under_granian TARGET wsgi|asgi PORT WORKERS THREADS: any application under the
server that the product runs under, with the settings of cds_service.serving.

It runs in either virtual environment, so it imports nothing of ours.
"""

import sys

from granian import Granian
from granian.constants import Interfaces

SECONDS_TO_END = 3  # a worker may miss the signal while it starts


def serve(target: str, interface: str, port: int, workers: int, threads: int) -> None:
    """Serves until it is told to stop."""
    Granian(
        target,
        factory=True,
        interface=Interfaces(interface),
        address="127.0.0.1",
        port=port,
        workers=workers,
        # Under asgi an application has one loop in one thread.
        blocking_threads=threads if interface == "wsgi" else None,
        websockets=False,
        log_enabled=False,
        workers_kill_timeout=SECONDS_TO_END,
    ).serve()


if __name__ == "__main__":
    asked, kind, *numbers = sys.argv[1:]
    serve(asked, kind, *map(int, numbers))

"""python -m bench.one_caller TARGET PAYLOAD CALLS: so many calls, one after the other, of an
application in this very process.

What is written to the store later, by a thread of its own, is none of it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from io import BytesIO
from typing import Any

from flask import Flask
from werkzeug.test import create_environ, run_wsgi_app

from bench import floor
from bench.payloads import payloads
from bench.servers import FLOOR, PATH
from cds_service import issued, serving
from cds_service.config import read_settings
from cds_service.standing import opened

_NEVER = 1e6  # seconds
_HERE = "http://127.0.0.1:8000"


def caller(app: Flask, body: bytes) -> Callable[[], None]:
    """What sends the body once; it raises ValueError when the answer is no 200."""
    sent: dict[str, Any] = create_environ(
        PATH, _HERE, method="POST", content_type="application/json"
    )
    sent["CONTENT_LENGTH"] = str(len(body))

    def call() -> None:
        answer, status, _ = run_wsgi_app(app, {**sent, "wsgi.input": BytesIO(body)}, buffered=True)
        if status != "200 OK":
            raise ValueError(f"answered {status}: {b''.join(answer)[:500]!r}")

    return call


@contextmanager
def application(target: str) -> Iterator[Flask]:
    """The floor, or the product as the open server has it."""
    if target == FLOOR.name:
        yield floor.application()
        return
    issued.SECONDS_TO_WAIT = _NEVER
    with opened(read_settings({})) as standing:
        os.environ.update(standing.environ, CDS_PUBLIC_URL=_HERE)
        yield serving.application()


def main() -> None:
    """Ends with 1 when an answer is wrong."""
    target, named, calls = sys.argv[1:]
    [payload] = [x for x in payloads(date.today()) if x.name == named]
    ended = 1
    try:
        with application(target) as app:
            call = caller(app, payload.body)
            for _ in range(int(calls)):
                call()
        ended = 0
    except ValueError as error:
        print(error, file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(ended)  # without waiting for the thread that never writes


if __name__ == "__main__":
    main()

"""Log lines: JSON on standard error, made only of fields of a list, so that nothing of a patient or
a token can be in one.

What a library says is left out, since it may quote anything; where it said so is not.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

OURS = "cds_service"
# What a line may hold beside its time, level and event: nothing that comes from a body, a query or
# a token. `client` is as the clients file has it, `request_id` of a narrow alphabet, `url` one of
# our own settings.
FIELDS = (
    *("request_id", "route", "service", "client", "status", "outcome", "milliseconds"),
    *("reason", "error", "places", "url", "dropped"),
)
LEVELS = ("debug", "info", "warning", "error")


class JsonLines(logging.Formatter):
    """One JSON object a line; of a foreign logger its level and place only."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        if record.name.split(".")[0] == OURS:
            line["event"] = str(record.msg)
            given = vars(record)
            line |= {name: given[name] for name in FIELDS if name in given}
        else:
            line["event"] = "said by a library"
            line["places"] = [f"{record.name}:{Path(record.pathname).name}:{record.lineno}"]
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["places"] = places(record.exc_info[2])
        return msgspec.json.encode(line).decode()


def places(trace: TracebackType | None) -> list[str]:
    """Where an exception came from, outermost first; what it says may quote what it failed on."""
    frames = traceback.extract_tb(trace)
    return [f"{Path(x.filename).name}:{x.lineno} {x.name}" for x in frames]


def write_logs(level: str) -> None:
    """From here on every logger, warning and uncaught exception of this process writes JSON lines
    on standard error, from that level upwards.
    """
    to_stderr = logging.StreamHandler()
    to_stderr.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [to_stderr]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _logging_uncaught(sys.excepthook)
    threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_traceback)
    sys.unraisablehook = lambda given: _uncaught(given.exc_type, given.exc_traceback)


_Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def _logging_uncaught(shown_by: _Hook) -> _Hook:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, Exception):
            _uncaught(kind, trace)
        else:  # an interrupt ends a process as ever
            shown_by(kind, error, trace)

    return hook


def _uncaught(kind: type[BaseException] | None, trace: TracebackType | None) -> None:
    if kind is not None and issubclass(kind, Exception):
        error = {"error": kind.__name__, "places": places(trace)}
        logging.getLogger(OURS).error("uncaught", extra=error)

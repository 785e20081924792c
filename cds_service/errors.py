"""Every error this server answers with: its HTTP status, its FHIR issue code, and a sentence
without patient data.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CdsError(Exception):
    """An answer other than 200. `text` is for people; `diagnostics` names what was wrong, never a
    value; `retry_after` is when to ask again, None where that would not help.
    """

    status = 500
    code = "exception"
    retry_after: int | None = None  # seconds

    def __init__(self, text: str, diagnostics: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.diagnostics = diagnostics


class NotJson(CdsError):
    """The body is not one JSON object."""

    status = 400
    code = "structure"


class NotAuthenticated(CdsError):
    """The caller has not shown who it is; the answer never says why, `word` does to ourselves, and
    `client` which of ours it says it is.
    """

    status = 401
    code = "login"

    def __init__(self, word: str = "", client: str = "") -> None:
        super().__init__("Unauthorized")
        self.word = word
        self.client = client


class NotAllowed(CdsError):
    """The caller may not ask here: the open server answers its own machine only."""

    status = 403
    code = "forbidden"


class UnknownService(CdsError):
    """No service has that id."""

    status = 404
    code = "not-found"


class UnknownTopic(CdsError):
    """No topic has that code."""

    status = 404
    code = "not-found"


class UnknownPatient(CdsError):
    """No fixture patient has that id."""

    status = 404
    code = "not-found"


class UnknownPage(CdsError):
    """There is no page here; the open server has some."""

    status = 404
    code = "not-found"


class DataUnobtainable(CdsError):
    """Required data was neither sent nor could be fetched; `keys` names the prefetch keys."""

    status = 412
    code = "incomplete"

    def __init__(self, keys: tuple[str, ...], diagnostics: str) -> None:
        super().__init__("Required patient data could not be obtained.", diagnostics)
        self.keys = keys


class TooLarge(CdsError):
    """The body is over the limit."""

    status = 413
    code = "too-long"


class WrongMediaType(CdsError):
    """The body is not declared as JSON."""

    status = 415
    code = "not-supported"


class BrokenRequest(CdsError):
    """The body is JSON and breaks CDS Hooks."""

    status = 422
    code = "invalid"


class TooOften(CdsError):
    """The caller calls more often than it may; `seconds` until it may again."""

    status = 429
    code = "throttled"

    def __init__(self, text: str, rate: str, seconds: int) -> None:
        super().__init__(text, f"at most {rate}")
        self.retry_after = seconds


class Overloaded(CdsError):
    """The time for an answer is over: its turn did not come, or the chart took too long."""

    status = 503
    code = "throttled"
    retry_after = 1


class StoreDown(CdsError):
    """The store is needed for this answer and cannot be reached."""

    status = 503
    code = "transient"
    retry_after = 10


class ContentError(Exception):
    """A content or site file is wrong; stops the server at start-up. The sentence names file and
    key.
    """

    def __init__(self, file: str, key: str, why: str) -> None:
        super().__init__(file, key, why)
        self.file = file
        self.key = key
        self.why = why

    def __str__(self) -> str:
        return ": ".join(x for x in (self.file, self.key, self.why) if x)


class CannotServe(Exception):
    """The server cannot start where it was told to; the sentence says why."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest to a misspelt one, as the end of a sentence; "" for none."""
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""

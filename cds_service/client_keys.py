"""The keys of a client that publishes them: fetched from its `jku`, kept for an hour, looked for
anew when a token names one that is not among them.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from threading import Condition, Thread

import requests
from msgspec import Struct
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from cds_service.jwks import NO_KEYS, KeySet, read_key_set

FETCH_SECONDS = 3.0
MAX_BYTES = 100_000
MAX_AGE = 3600.0
MAX_AGE_ON_ERROR = 24 * 3600.0  # while the client's server cannot be read
SECONDS_BETWEEN_LOOKS = 60.0  # for a key that is not among them
SECONDS_UNTIL_RETRY = 10.0
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}
log = logging.getLogger("cds_service")


class Ways(Struct, frozen=True):
    """How this machine reaches others: authorities to trust instead of the public ones, a proxy."""

    ca_bundle: Path | None = None
    https_proxy: str = ""


class PublishedKeys:
    """The key set behind one URL; any number of threads may ask at once, one of them fetches."""

    def __init__(self, url: str, ways: Ways, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._ways = ways
        self._clock = clock
        self._changed = Condition()
        self._fetching = False
        self._wait_until = 0.0  # of time.monotonic
        self._keys = NO_KEYS
        self._fetched_at = self._failed_at = self._looked_at = float("-inf")

    def with_key(self, kid: str) -> KeySet:
        """The current keys, fetched anew when they are old or the id is not among them; none when
        they cannot be had.
        """
        with self._changed:
            if self._wants(kid):
                self._look()
            while self._fetching and not (self._is_fresh() and self._keys.has(kid)):
                if not self._changed.wait(self._wait_until - time.monotonic()):
                    break
            is_usable = self._clock() - self._fetched_at < MAX_AGE_ON_ERROR
            return self._keys if is_usable else NO_KEYS

    def _is_fresh(self) -> bool:
        return self._clock() - self._fetched_at < MAX_AGE

    def _wants(self, kid: str) -> bool:
        now = self._clock()
        if self._fetching or now - self._failed_at < SECONDS_UNTIL_RETRY:
            return False
        if not self._is_fresh():
            return True
        return not self._keys.has(kid) and now - self._looked_at >= SECONDS_BETWEEN_LOOKS

    def _look(self) -> None:
        """Starts a fetch in a thread of its own: whoever waits for it need not wait to its end."""
        if self._is_fresh():
            self._looked_at = self._clock()
        self._fetching = True
        self._wait_until = time.monotonic() + FETCH_SECONDS
        Thread(target=self._fetch, daemon=True).start()

    def _fetch(self) -> None:
        found: KeySet | None = None
        try:
            found = read_key_set(_get(self._url, self._ways))
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            log.warning("keys cannot be had", extra={"url": self._url, "reason": _why(error)})
        finally:
            with self._changed:
                self._fetching = False
                if found is None:
                    self._failed_at = self._clock()
                else:
                    self._keys, self._fetched_at = found, self._clock()
                self._changed.notify_all()
        for why in found.refused if found is not None else ():
            log.warning("key left out", extra={"url": self._url, "reason": why})


def _get(url: str, ways: Ways) -> bytes:
    """The body of a 200; raises ValueError for another answer, or one that is too long or slow."""
    ends = time.monotonic() + FETCH_SECONDS
    request = requests.Request("GET", url, headers=_ASKED).prepare()
    # An adapter of its own: nothing comes from the environment, and no redirect is followed.
    with (
        closing(HTTPAdapter(max_retries=0)) as http,
        http.send(
            request,
            stream=True,
            timeout=FETCH_SECONDS,
            verify=str(ways.ca_bundle) if ways.ca_bundle else True,
            proxies={"https": ways.https_proxy} if ways.https_proxy else None,
        ) as answer,
    ):
        if answer.status_code != requests.codes.ok:
            raise _Unusable(f"HTTP {answer.status_code}")
        body = b""
        while part := answer.raw.read1(MAX_BYTES):
            body += part
            if len(body) > MAX_BYTES:
                raise _Unusable(f"over {MAX_BYTES} bytes")
            if time.monotonic() > ends:
                raise _Unusable(f"not there within {FETCH_SECONDS:.0f} s")
        return body


class _Unusable(ValueError):
    """An answer that is no key set; the text says why, in our words."""


def _why(error: Exception) -> str:
    """In our own words or by its kind: what the other end says is not for the log."""
    return str(error) if type(error) in (ValueError, _Unusable) else type(error).__name__

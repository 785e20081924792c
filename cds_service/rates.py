"""How often somebody may call: each worker counts for itself, in memory, over a moving window."""

import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from msgspec import Struct

from cds_service.addresses import Address, Network
from cds_service.errors import TooOften

MOST_CALLS = 100_000  # of one rate: each is remembered for as long as it counts
MOST_KEYS = 10_000  # that are counted at once; more, and who called longest ago counts as new
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_RATE = re.compile(r"([1-9]\d{0,5})/(second|minute|hour)\Z")
_WITH_PORT = re.compile(r"(?:\[(.+)\]|([\d.]+))(?::\d+)?\Z")


class Rate(Struct, frozen=True):
    """So many calls in any second, minute or hour."""

    calls: int
    per: str

    def __str__(self) -> str:
        return f"{self.calls}/{self.per}"

    @property
    def seconds(self) -> int:
        """How long a call counts."""
        return _SECONDS[self.per]


def rate_of(text: str) -> Rate:
    """The rate of a text such as 1200/minute; raises ValueError."""
    found = _RATE.match(text)
    if found is None or int(found[1]) > MOST_CALLS:
        raise ValueError(f"must be like 50/second, 1200/minute or 9000/hour, at most {MOST_CALLS}")
    return Rate(int(found[1]), found[2])


class Window:
    """The latest calls of each key under a rate; any number of threads may ask at once."""

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._calls: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, key: str) -> float:
        """The seconds until there is room for one more call, 0 when there is."""
        with self._lock:
            return self._wait(key, self._clock())

    def count(self, key: str) -> None:
        """Notes a call, whether there is room or not."""
        with self._lock:
            self._count(key, self._clock())

    def take(self, key: str) -> float:
        """Notes a call if there is room; else the seconds until there is, and 0 when there was."""
        with self._lock:
            now = self._clock()
            wait = self._wait(key, now)
            if not wait:
                self._count(key, now)
            return wait

    def _wait(self, key: str, now: float) -> float:
        calls = self._calls.get(key)
        if calls is None or len(calls) < self.rate.calls:
            return 0.0
        return max(0.0, calls[0] + self.rate.seconds - now)

    def _count(self, key: str, now: float) -> None:
        self._calls.setdefault(key, deque(maxlen=self.rate.calls)).append(now)
        self._calls.move_to_end(key)
        over = now - self.rate.seconds
        while next(iter(self._calls.values()))[-1] <= over or len(self._calls) > MOST_KEYS:
            self._calls.popitem(last=False)


class Limits:
    """How often peers and clients may call; None, or no rate for an issuer: as often as they like.

    `proxies` are the networks that are believed when they say whom they call for.
    """

    def __init__(
        self,
        of_peers: Rate | None,
        of_clients: Mapping[str, Rate],
        proxies: Iterable[Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = None if of_peers is None else Window(of_peers, clock)
        self._clients = {issuer: Window(rate, clock) for issuer, rate in of_clients.items()}
        self._proxies = tuple(proxies)

    def admit_peer(self, address: str, forwarded: str) -> None:
        """Counts a call by its peer; raises TooOften. `forwarded` is X-Forwarded-For."""
        if self._peers is None:
            return
        wait = self._peers.take(peer_of(address, forwarded, self._proxies))
        if wait:
            raise TooOften("This address calls too often.", str(self._peers.rate), math.ceil(wait))

    def check_client(self, issuer: str) -> None:
        """Raises TooOften when the client may not call now; counts nothing."""
        window = self._clients.get(issuer)
        if window is not None and (wait := window.wait(issuer)):
            raise TooOften("This client calls too often.", str(window.rate), math.ceil(wait))

    def count_client(self, issuer: str) -> None:
        """Counts a call of the client."""
        window = self._clients.get(issuer)
        if window is not None:
            window.count(issuer)


def peer_of(address: str, forwarded: str, proxies: Iterable[Network]) -> str:
    """Whom a call is counted under: who called, of an IPv6 address the network of 64 bits that it
    lies in.
    """
    peer = address_of(address, forwarded, proxies)
    known = _address(peer)
    if isinstance(known, IPv6Address):
        return str(ip_network((int(known), 64), strict=False))
    return peer


def address_of(address: str, forwarded: str, proxies: Iterable[Network]) -> str:
    """The address that called or, where that is a proxy's, the one that the proxy says it was
    called by.
    """
    peer = _address(address)
    for hop in reversed(forwarded.split(",")):
        if peer is None or not any(peer in x for x in proxies):
            break
        said = _address(hop)
        if said is None:  # whoever does not say for whom it calls calls for itself
            break
        peer = said
    return address if peer is None else str(peer)


def _address(text: str) -> Address | None:
    """The address of a text, with or without a port; None when there is none in it."""
    found = _WITH_PORT.match(text.strip())
    try:
        address = ip_address(found[1] or found[2] if found else text.strip())
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

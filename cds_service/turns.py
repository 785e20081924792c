"""Who may go on: calls are computed one after the other, in the order in which they came, and only
so many of them wait for the same thing at once.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import TIMEOUT_MAX, BoundedSemaphore, Lock

from cds_service.errors import Overloaded


class Turns:
    """The line of a worker's calls. Python computes one thing at a time: calls that compete for it
    all end late, while in a line each waits only for those before it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_taken = False
        # One for each that waits, locked until its turn; who comes back goes first.
        self._back: deque[Lock] = deque()
        self._new: deque[Lock] = deque()

    def take(self, seconds: float) -> None:
        """Waits until all who came before have had their turn; raises Overloaded when this one's
        has not come within `seconds`.
        """
        own = self._stand_in(self._new)
        if own is None or own.acquire(timeout=min(seconds, TIMEOUT_MAX)):
            return
        with self._lock:
            if own in self._new:  # else it was handed over in just that moment
                self._new.remove(own)
                raise Overloaded("The server is busy.")

    def give(self) -> None:
        """Ends the turn that was taken; the next in line has it at once."""
        with self._lock:
            line = self._back or self._new
            if line:
                line.popleft().release()
            else:
                self._is_taken = False

    def take_again(self) -> None:
        """Waits for a turn that was given for the time of waiting for something elsewhere: only for
        the one who has it, and for others who came back before.
        """
        own = self._stand_in(self._back)
        if own is not None:
            own.acquire()

    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._back) + len(self._new)

    def _stand_in(self, line: "deque[Lock]") -> "Lock | None":  # in Python 3.11 Lock is a function
        """What opens once the turn has come; None when it is there already."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return None
            own = Lock()
            own.acquire()
            line.append(own)
            return own


class Room:
    """Places for a few at once; some more may wait until one is free."""

    def __init__(self, places: int, waiting: int) -> None:
        self._places = BoundedSemaphore(places)
        self._with_waiting = BoundedSemaphore(places + waiting)

    @contextmanager
    def place(self, seconds: float) -> Iterator[None]:
        """Has a place for the block; raises Overloaded when too many wait, or when none is free
        within `seconds`.
        """
        if not self._with_waiting.acquire(blocking=False):
            raise Overloaded("The server is busy.")
        try:
            if not self._places.acquire(timeout=min(seconds, TIMEOUT_MAX)):
                raise Overloaded("The server is busy.")
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._with_waiting.release()

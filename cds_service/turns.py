"""Turns: calls are computed one after the other, in the order in which they came."""

from collections import deque
from threading import TIMEOUT_MAX, Lock

from cds_service.errors import Overloaded


class Turns:
    """The line of a worker's calls. Python computes one thing at a time: calls that compete for it
    all end late, while in a line each waits only for those before it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_taken = False
        self._waiting: deque[Lock] = deque()  # one for each that waits, locked until its turn

    def take(self, seconds: float) -> None:
        """Waits until all who came before have had their turn; raises Overloaded when this one's
        has not come within `seconds`.
        """
        own = self._stand_in_line(first=False)
        if own is None or own.acquire(timeout=min(seconds, TIMEOUT_MAX)):
            return
        with self._lock:
            if own in self._waiting:  # else it was handed over in just that moment
                self._waiting.remove(own)
                raise Overloaded("The server is busy.")

    def give(self) -> None:
        """Ends the turn that was taken; the next in line has it at once."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False

    def take_again(self) -> None:
        """Waits, before all who stand in line, for a turn that was given for the time of waiting
        for something elsewhere.
        """
        own = self._stand_in_line(first=True)
        if own is not None:
            own.acquire()

    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def _stand_in_line(self, *, first: bool) -> "Lock | None":  # in Python 3.11 a function
        """What opens once the turn has come; None when it is there already."""
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return None
            own = Lock()
            own.acquire()
            if first:
                self._waiting.appendleft(own)
            else:
                self._waiting.append(own)
            return own

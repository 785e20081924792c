"""Work in a process of its own, at the same time as the rest; what it imports is not there in the
workers, which are forked from this process.
"""

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cds_service.errors import CannotServe, CdsError, ContentError

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Apart:
    """A piece of work that has begun in a process of its own. What it is given is a function that
    waits for what it is to be told.
    """

    def __init__(self, work: Callable[[Callable[[], Any]], object]) -> None:
        forked = multiprocessing.get_context("fork")
        self._here, there = forked.Pipe()
        ends = self._here, there
        self._process = forked.Process(target=_run, args=(work, *ends), daemon=True)
        # A signal in the midst of a fork would be lost: Python ignores what is raised there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()

    def tell(self, what: Any) -> None:
        """Tells the work what it may wait for."""
        with suppress(BrokenPipeError):  # it has ended: `wait` says why
            self._here.send(what)

    def wait(self) -> None:
        """Returns once the work is done; raises what it raised, and CannotServe where it ended
        without a word, or with a defect.
        """
        try:
            error = pickle.loads(self._here.recv_bytes())
        except EOFError:
            raise CannotServe("what is done before the start did not come to its end") from None
        finally:
            self._process.join()
            self._here.close()
        if error is not None:
            raise error


def _run(
    work: Callable[[Callable[[], Any]], object], parents: Connection, here: Connection
) -> None:
    parents.close()  # so that a parent that ends is noticed
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        work(here.recv)
        said = pickle.dumps(None)
    except EOFError:
        return
    except (CdsError, ContentError, CannotServe) as error:
        said = pickle.dumps(error)
    with suppress(BrokenPipeError):  # nobody waits any more
        here.send_bytes(said)

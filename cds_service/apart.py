"""Work in a process of its own: what it has to import is not there in the workers, which are forked
from this one.
"""

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection

from cds_service.errors import CannotServe, CdsError, ContentError

_ENDING = (signal.SIGTERM, signal.SIGINT)


class Apart:
    """A piece of work that has begun in a process of its own."""

    def __init__(self, work: Callable[[], object]) -> None:
        forked = multiprocessing.get_context("fork")
        self._outcome, sent = forked.Pipe(duplex=False)
        self._process = forked.Process(target=_run, args=(work, sent), daemon=True)
        # A signal in the midst of a fork would be lost: Python ignores what is raised there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sent.close()

    def wait(self) -> None:
        """Returns once the work is done; raises what it raised, and CannotServe where it ended
        without a word, or with a defect.
        """
        try:
            error = pickle.loads(self._outcome.recv_bytes())
        except EOFError:
            raise CannotServe("what is done before the start did not come to its end") from None
        finally:
            self._process.join()
            self._outcome.close()
        if error is not None:
            raise error


def _run(work: Callable[[], object], sent: Connection) -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        work()
        said = pickle.dumps(None)
    except (CdsError, ContentError, CannotServe) as error:
        said = pickle.dumps(error)
    sent.send_bytes(said)

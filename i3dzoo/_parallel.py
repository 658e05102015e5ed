"""Work spread over processes, with a bounded amount of it in flight."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from i3dzoo.errors import I3DZooError

__all__ = ["cores", "is_main", "run"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many processors this process may use."""
    with contextlib.suppress(AttributeError):  # macOS and Windows have no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_main() -> bool:
    """Say whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def run(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Generator[tuple[Item, Result], None, None]:
    """Yield (item, function(item)) as they are done, in any order; in order where `jobs` is 1.

    Processes are spawned, not forked: PyTorch and OpenCV hold threads that a fork would lose. At
    most two items a process are in flight, so nothing piles up where the caller is slow. An
    exception of `function` is raised here, and what has not begun by then is not begun. Ctrl-C
    and SIGTERM end the processes at once, without a word of theirs.

    Args:
        function: Picklable, as are items and results; `jobs` of 1 runs it in this process.
        items: What to work on.
        jobs: Number of processes.

    Raises:
        I3DZooError: A process was killed, most likely for lack of memory.
    """
    if jobs <= 1:
        for item in items:
            yield item, function(item)
        return
    pending: dict[Future[Result], Item] = {}
    remaining = iter(items)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
    try:
        with _deaf():
            for item in itertools.islice(remaining, 2 * jobs):
                pending[pool.submit(function, item)] = item
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                finished = pending.pop(future)
                for item in itertools.islice(remaining, 1):
                    pending[pool.submit(function, item)] = item
                yield finished, future.result()
    except (KeyboardInterrupt, SystemExit):
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    except BrokenProcessPool as error:
        raise I3DZooError(
            "a worker process was killed, most likely for lack of memory; "
            "run the command again with fewer --jobs: what is done is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that begin here not hear Ctrl-C: it is sent to all, and the first one acts."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals cannot be set
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

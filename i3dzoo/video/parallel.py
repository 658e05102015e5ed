"""Run a function on many items in worker processes."""

import contextlib
import signal
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from i3dzoo.errors import I3DZooError, OutputError
from i3dzoo.files.temporary import remove_abandoned

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes in this block that Ctrl-C does not reach; their parent ends them.

    They inherit that SIGINT is blocked. To ignore it would be too late: they first import.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def parallel_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int | None,
    folders: Iterable[Path] = (),
) -> Generator[Result, None, None]:
    """Yield the results of a picklable function as they are ready; `jobs` None uses all processors.

    Errors of the function are raised here. Ctrl-C, SIGTERM and closing the generator kill the
    workers, and remove what they have begun to write from `folders`.
    """
    if jobs == 1:
        yield from map(function, items)
        return
    import joblib

    pool = joblib.Parallel(
        jobs or joblib.cpu_count(),
        return_as="generator_unordered",
        batch_size=1,
        # of Windows; elsewhere, workers inherit that it is blocked
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
        idle_worker_timeout=5,  # seconds; also ends the workers of a killed process
    )
    with interrupts_blocked():
        results = pool(joblib.delayed(function)(item) for item in items)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close it with a warning
            yield result
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tasks were cancelled
            results.close()
        for folder in folders:
            remove_abandoned(folder, again=True)
        raise
    except BrokenProcessPool as error:
        raise I3DZooError(
            "a worker process was killed, probably for lack of memory; run the command again "
            "with fewer --jobs to continue"
        ) from error
    except OSError as error:
        if isinstance(error, I3DZooError) or error.__cause__ is not None:  # of the function
            raise
        raise OutputError(
            f"the worker processes cannot exchange data: {error.strerror or error}; free some "
            "space in /dev/shm and in the folder for temporary files, or use --jobs 1"
        ) from error

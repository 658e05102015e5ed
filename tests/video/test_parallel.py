"""Work in processes: all results, and what happens to processes that are killed."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from i3dzoo.errors import I3DZooError
from i3dzoo.files.temporary import temporary_file
from i3dzoo.video.parallel import parallel_map


def square(number: int) -> int:
    """Square a number."""
    return number * number


def fail_at_three(number: int, kill: bool = False) -> int:
    """Raise an error, or be killed as the kernel kills a process that takes too much memory."""
    if number == 3 and kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3:
        raise ValueError("three")
    return number


@pytest.mark.parametrize("jobs", [1, 2])
def test_results(jobs: int) -> None:
    """Every item gives one result, whatever the number of processes."""
    assert sorted(parallel_map(square, range(20), jobs)) == [n * n for n in range(20)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors(jobs: int) -> None:
    """An error of the function is raised in this process."""
    with pytest.raises(ValueError, match="three"):
        list(parallel_map(fail_at_three, range(20), jobs))


def begin(folder: Path, number: int) -> None:
    """Write a file slowly, but for the first."""
    with temporary_file(folder / f"{number}.txt"):
        time.sleep(60 if number else 0)


def test_what_killed_workers_began_is_removed(tmp_path: Path) -> None:
    """Closing the generator kills the workers, and leaves no temporary file in their folders."""
    results = parallel_map(partial(begin, tmp_path), range(3), 2, [tmp_path])
    next(results)
    while not list(tmp_path.glob(".*.part")):
        time.sleep(0.01)
    results.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_worker() -> None:
    """A worker that is killed is an error that says what to do, not a wait without end."""
    with pytest.raises(I3DZooError, match=r"a worker process was killed.*fewer --jobs"):
        list(parallel_map(partial(fail_at_three, kill=True), range(20), 2))

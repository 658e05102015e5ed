"""Other processes: that hold files, are stopped or killed in the middle, or work together."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from i3dzoo.distributed import destroy_process_group

# Its processes have imported these modules, which takes five seconds, when they start.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["helpers.training_runs", "accelerate", "torch._dynamo"])

_HOLD = """
import sys
from pathlib import Path
from i3dzoo import files
from i3dzoo.files import exclusive
output = Path(sys.argv[2])
block = getattr(exclusive, sys.argv[1], None) or getattr(files, sys.argv[1])
with block(output) as file:
    if sys.argv[1] == "atomic_write":
        file.write(b"half")
        file.flush()
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(what: str, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process inside `atomic_write` or `exclusive` until it is killed.

    It leaves the block in an orderly way where the test does not kill it.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, what, str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.communicate()


@contextlib.contextmanager
def stopped(*arguments: object, at: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command of i3dzoo, and stop it when it holds a lock, whose file then has its number.

    It is continued after the block, and must succeed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "i3dzoo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        deadline = time.monotonic() + 120
        locked = ""
        while not locked and process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                locked = at.read_text()
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        try:
            assert locked.startswith(f"process {process.pid} on")
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            _, error = process.communicate()
        assert process.returncode == 0, error


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function in a process of its own, which inherits nothing, and can be killed."""
    process = CONTEXT.Process(target=_run, args=({**os.environ}, function, arguments))
    process.start()
    return process


def as_ranks(function: Callable[..., Any], *arguments: object, world: int = 2) -> list[Any]:
    """Run a function in several processes at once, with the variables that torchrun sets.

    Returns what it returns in each process, or raises what it raises in the first of them.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world))
    receivers, processes = [], []
    for rank in range(world):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        variables = {**os.environ, **common, **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))}
        words = (variables, _as_rank, (sender, function, arguments))
        processes.append(CONTEXT.Process(target=_run, args=words))
        processes[-1].start()
        sender.close()
        receivers.append(receiver)
    results = [receiver.recv() for receiver in receivers]
    for process in processes:
        process.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert [process.exitcode for process in processes] == [0] * world
    return results


def _run(
    variables: dict[str, str], function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    function(*arguments)


def _as_rank(
    sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    try:
        result = function(*arguments)
        destroy_process_group()
        sender.send(result)
    except BaseException as error:
        sender.send(error)
        raise

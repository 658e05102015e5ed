"""A fork server: it has imported i3dzoo, and forks a process for each mutant.

It is a program of its own, `python -m fuzz.server FOLDER`. Each line of standard input is the name
of a kind and the number of a mutant; each line of standard output is the outcome.
"""

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from fuzz import bad_commands
from fuzz.box import Box
from fuzz.kind import Kind
from fuzz.verdict import SECRET, Limits, Run, judge
from i3dzoo.cli import main as main_of_i3dzoo
from i3dzoo.cli._exit import run as run_command

if TYPE_CHECKING:
    from helpers.hub_state import Hub

    from fuzz.shared import Shared

_TESTS = Path(__file__).parents[1]
_LATE = """accelerate av encodings.cp437 h5py huggingface_hub huggingface_hub._commit_api jinja2
matplotlib.backends.backend_svg matplotlib.pyplot onnxruntime PIL.GifImagePlugin rich.console
torch._dynamo torch.profiler"""
"""What commands import only when they need it."""
_NO_HUGE_PAGES = 41  # PR_SET_THP_DISABLE of Linux


class ForkServer:
    """A client of a fork server."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        limits = limits or Limits()
        paths = [str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.server", str(folder), json.dumps(vars(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "OMP_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "",  # or every process compiles all that it imports
                # with memory in huge pages, a fork takes half the time
                "PYTHONMALLOC": "malloc",
                "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
            },
        )

    def run(self, kind: str, number: int | None) -> dict[str, Any]:
        """Run a mutant, or the seed itself if there is no number; return the outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([kind, number]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended on {kind} {number}")
        outcome: dict[str, Any] = json.loads(line)
        return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Server:
    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.box = Box(folder / "box")
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.seed_memory: dict[str, int] = {}
        self.hubs: dict[str, Hub] = {}
        os.environ |= {
            "HOME": str(self.box.home),
            "TMPDIR": str(self.box.tmp),
            "I3DZOO_CACHE": str(self.box.home / "i3dzoo"),
            "HF_HOME": str(self.box.home / "hf"),
            "HF_ENDPOINT": self.address,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": SECRET,
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "120",
            "MPLBACKEND": "agg",
            "I3DZOO_ENGINE": "torch",  # none is measured
        }

    @cached_property
    def kinds(self) -> tuple[Mapping[str, Kind], "Shared"]:
        """All kinds and what they share, once everything that their commands need is imported."""
        _import_all()
        from fuzz.kinds import KINDS
        from fuzz.shared import Shared

        return KINDS, Shared(self.folder / "shared")

    def run(self, name: str, number: int | None) -> dict[str, Any]:
        kinds, shared = (bad_commands.KINDS, None) if name in bad_commands.KINDS else self.kinds
        kind = kinds[name]
        seed = self.folder / "seeds" / name.replace(" ", "_")
        if not seed.exists():
            seed.mkdir(parents=True)
            with contextlib.redirect_stdout(sys.stderr):
                for word in kind.command if shared else ():
                    shared.make(word)
                kind.build(seed, shared)
                if kind.hub:
                    self.hubs[name] = self._publish(seed)
        if name not in self.seed_memory:
            self.box.fill(seed)
            outcome = judge(self._fork(kind, None, 0, self.limits.memory))
            if outcome.verdict == "escape" or outcome.run.code != kind.code:
                reason = f"the seed itself: {outcome.reason or outcome.run.err[-500:]}"
                return dataclasses.replace(outcome, verdict="escape", reason=reason).to_dict()
            self.seed_memory[name] = outcome.run.memory
            if number is None:
                return outcome.to_dict()
        size = self._fill(kind, seed, number)
        limit = self.seed_memory[name] + 2 * size + self.limits.memory
        return judge(self._fork(kind, number, size, limit)).to_dict()

    def _fill(self, kind: Kind, seed: Path, number: int | None) -> int:
        """Make a mutant in the box; return the size of the damaged file."""
        if number is None or kind.hub in ("answers", "headers"):
            self.box.fill(seed)
            return 1 << 20
        generator = generator_of(kind.name, number)
        pattern = generator.choice(list(kind.mutators))
        path = generator.choice(sorted(p for p in seed.glob(pattern) if p.is_file()))
        content = kind.mutators[pattern](path.read_bytes(), generator)
        self.box.fill(seed, path.relative_to(seed), content)
        return len(content)

    def _fork(self, kind: Kind, number: int | None, size: int, limit: int) -> Run:
        base = _memory("RssAnon")
        streams = [self.folder / "out.txt", self.folder / "err.txt"]
        for stream in streams:
            stream.write_bytes(b"")
        start = time.monotonic()
        gc.freeze()  # a collection in the child would copy the pages of all objects
        child = os.fork()
        if not child:
            self._child(kind, number, size)
        _wait(child, start, self.limits.wall)
        _, status, usage = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what it has started and not waited for
        code = os.waitstatus_to_exitcode(status)
        out, err = (stream.read_bytes()[: 1 << 22].decode("utf-8", "surrogateescape")
                    for stream in streams)  # fmt: skip
        for stream in streams:
            stream.unlink()
        return Run(
            code=code,
            out=out[-100_000:],
            err=err[-100_000:],
            seconds=usage.ru_utime + usage.ru_stime,
            wall=time.monotonic() - start,
            memory=usage.ru_maxrss * 1024 - base,
            memory_limit=limit,
            limits=self.limits,
            changed=self.box.changed(),
            left=self.box.left(code != 0, kind.partial),
        )

    def _child(self, kind: Kind, number: int | None, size: int) -> NoReturn:
        code = 70
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(_NO_HUGE_PAGES, 1, 0, 0, 0)  # only the server has them
            os.chdir(self.box.work)
            for descriptor, path in ((0, "/dev/null"), (1, "out.txt"), (2, "err.txt")):
                handle = os.open(self.folder / path, os.O_RDWR | os.O_APPEND)
                os.dup2(handle, descriptor)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for ever
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for ever
            os.environ |= dict(kind.environment)
            space = _memory("VmSize") + 2 * size + self.limits.address_space
            resource.setrlimit(resource.RLIMIT_AS, (space, space))
            seconds = int(self.limits.acceptance) + 2
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with self._hub(kind, number):
                shared = self.folder / "shared"
                code = _command([word.format(shared=shared) for word in kind.command])
        except BaseException:  # the verdict finds the traceback
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(code)

    @contextlib.contextmanager
    def _hub(self, kind: Kind, number: int | None) -> Iterator[None]:
        if kind.hub is None:
            yield
            return
        from fuzz.hub import serve

        hub = self._publish(self.box.work) if kind.hub == "files" else self.hubs[kind.name]
        generator = None if number is None else generator_of(kind.name, number)
        with serve(self.socket, hub, kind.hub, generator):
            yield

    def _publish(self, folder: Path) -> "Hub":
        from fuzz.hub import publish

        return publish(folder / "repository", self.folder / "shared" / "hub", self.address)


def _command(words: list[str]) -> int:
    """Run a command, or a function as commands are run; return the exit code."""
    sys.argv = ["i3dzoo", *words]
    if ":" in words[0]:
        module, _, name = words[0].partition(":")
        function = getattr(importlib.import_module(module), name)
        return run_command(lambda: function(*map(Path, words[1:])), words)
    try:
        main_of_i3dzoo(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else bool(stop.code)


def generator_of(kind: str, number: int) -> random.Random:
    """Return the generator of a mutant."""
    return random.Random(f"{kind} {number}")  # noqa: S311 - seeded damage needs no secrets


def _wait(child: int, start: float, seconds: float) -> None:
    """Wait for the end of a child, and kill it and its children if that takes too long."""
    descriptor = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(1000 * max(0, start + seconds - time.monotonic())):
            os.killpg(child, signal.SIGKILL)
            time.sleep(0.01)  # the wall time is over the limit
    finally:
        os.close(descriptor)


def _memory(key: str) -> int:
    """Return a size of this process in bytes, as /proc names it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def _import_all() -> None:
    """Import what commands import, so that no child has to."""
    import torch

    torch.set_num_threads(1)
    import pkgutil

    import i3dzoo

    for module in pkgutil.walk_packages(i3dzoo.__path__, "i3dzoo."):
        if not re.search("tensorrt|openvino|triton|i3dzoo.app|_child|__main__", module.name):
            importlib.import_module(module.name)
    for name in _LATE.split():
        importlib.import_module(name)


def main() -> None:
    """Run the server."""
    folder = Path(sys.argv[1]).resolve()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    server = _Server(folder, Limits(**json.loads(sys.argv[2])))
    for line in sys.stdin:
        kind, number = json.loads(line)
        outcome = server.run(kind, number)
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

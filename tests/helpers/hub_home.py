"""A computer that uses the tests' Hub, and a checkpoint to push."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from helpers.hub_server import SIGNATURE, Hub

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import labels
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input
from i3dzoo.formats._protobuf import encode_bytes
from i3dzoo.network.architecture import canonical_shapes
from i3dzoo.onnx.description import describe
from i3dzoo.onnx.options import ExportOptions

ALICE, READER, STRANGER = "hf_aliceWrites", "hf_aliceReads", "hf_bobWrites"
NAME = "alice/i3d"


class Home:
    """A computer that uses the Hub: caches, token, command line."""

    def __init__(self, folder: Path, hub: Hub, token: str | None = None) -> None:
        self.folder = folder
        self.log = ""  # standard error of the last shell: what libraries log
        self.environment = {
            **{
                key: os.environ[key]
                for key in ("PATH", "PYTHONPATH", "TMPDIR")
                if key in os.environ
            },
            "HOME": str(folder),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.address,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "I3DZOO_CACHE": str(folder / "i3dzoo"),
        }
        if token:
            self.environment["HF_TOKEN"] = token

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start the command line, or Python code after `-c`."""
        program = [] if arguments[0] == "-c" else ["-m", "i3dzoo"]
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | environment,
            cwd=self.folder,
        )

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, and check that it prints no token and no signature."""
        with self.start(*arguments, **environment) as child:
            out, err = child.communicate(timeout=60)
        done = subprocess.CompletedProcess(arguments, child.returncode, out, err)
        for token in (ALICE, READER, STRANGER, SIGNATURE, environment.get("HF_TOKEN", ALICE)):
            assert token not in out + err
        return done

    def ok(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line, and expect success."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def fails(self, *arguments: object, **environment: str) -> str:
        """Run the command line, expect a failure with one error message, and return it."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("i3dzoo: ")
        return last

    @contextlib.contextmanager
    def shell(self, **environment: str) -> Iterator["Shell"]:
        """Run commands one after another in one child process, which prints no token."""
        log = self.folder / "log.txt"  # a pipe that nobody reads would be full
        code = f"import os; os.dup2(os.open({str(log)!r}, os.O_CREAT | os.O_RDWR), 2)\n{SHELL}"
        with self.start("-c", code, **environment) as child:
            try:
                yield Shell(child)
            finally:
                child.communicate(timeout=60)
        self.log = log.read_text()
        for token in (ALICE, READER, STRANGER, SIGNATURE):
            assert token not in self.log

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a commit in the Hub's cache."""
        return self.folder / "hf" / "hub" / "models--alice--i3d" / "snapshots" / commit


SHELL = """
import contextlib, io, json, sys
from pathlib import Path
import huggingface_hub.utils.logging  # its handler keeps the standard error of the process
huggingface_hub.utils.disable_progress_bars()
from i3dzoo import hub
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input
from i3dzoo.cli import main
from i3dzoo.cli._exit import run

metadata = Metadata("rgb", 0, None, default_input("rgb"), Source("canonical", "0" * 64))

def push(folder, repository, tag):
    names = [path.name for path in Path(folder).iterdir()]
    package = hub.Package(Path(folder), tuple((name, 1, "") for name in names), "", "MIT", metadata)
    print(hub.push(package, repository, tag=tag).url)

for line in sys.stdin:
    arguments = json.loads(line)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            if arguments[0] == "push files":
                code = run(lambda: push(*arguments[1:]), [])
            else:
                try:
                    main(arguments)
                except SystemExit as stop:
                    code = stop.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Shell:
    """A child process that runs commands; `push files FOLDER NAME TAG` pushes files as they are."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command; return its exit code, standard output and standard error."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{json.dumps([*map(str, arguments)])}\n")
        self.child.stdin.flush()
        code, out, err = json.loads(self.child.stdout.readline())
        for token in (ALICE, READER, STRANGER, SIGNATURE):
            assert token not in out + err
        return code, out, err


def constants(classes: int = 51, value: float = 0.5) -> Checkpoint:
    """Return a checkpoint of constants, whose history says that it was fine-tuned."""
    tensors = {
        name: np.full(shape, 1 if name.endswith("bn.weight") else value, "f2")
        for name, shape in canonical_shapes(classes).items()
    }
    names = labels("hmdb51") if classes == 51 else tuple(f"class {n}" for n in range(classes))
    base = "rgb_scratch"
    history = (
        HistoryStep(operation="head", base_model=base, head="fresh", classes=classes, seed=0),
        HistoryStep(
            operation="finetune",
            base_model=base,
            dataset="hmdb51",
            split="1",
            recipe="small",
            protocol="center",
            metrics={"top1": 0.7},
        ),
    )
    source, spec = Source("canonical", "0" * 64), default_input("rgb")
    metadata = Metadata("rgb", classes, names, spec, source, history=history, base=base)
    return Checkpoint(tensors, metadata)


def onnx_of(checkpoint: Checkpoint) -> bytes:
    """Return an ONNX file without a graph, with the metadata of an export of a checkpoint."""
    texts = describe([checkpoint], ExportOptions())
    pairs = (encode_bytes(1, k.encode()) + encode_bytes(2, v.encode()) for k, v in texts.items())
    return b"".join(encode_bytes(14, pair) for pair in pairs)


STEPS = """
import json, os, sys
from pathlib import Path
from i3dzoo import hub
from i3dzoo.errors import I3DZooError

class Printer:
    def start(self, description, total, unit="bytes"): pass
    def update(self, done): pass
    def message(self, text): print(text)

def pull(address, **options):
    try:
        print(hub.pull(hub.parse(address), progress=Printer(), **options).commit)
    except I3DZooError as error:
        print(f"{type(error).__name__}: {error}")

def flip(path, at=-1):
    path = Path(path).resolve()
    status, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

def write(path, text):
    Path(path).resolve().write_text(text)

for action, argument, options in json.loads(sys.argv[1]):
    {"pull": pull, "flip": flip, "write": write}[action](argument, **options)
"""


def steps(home: Home, *actions: tuple[str, object, dict[str, object]], **env: str) -> list[str]:
    """Take steps in one child process, and return the lines that it prints."""
    named = json.dumps(actions, default=str)
    return home.ok("-c", STEPS, named, **env).stdout.splitlines()


def pull(address: str = NAME, **options: object) -> tuple[str, object, dict[str, object]]:
    """Return a step that pulls."""
    return "pull", address, options


def match(lines: list[str], *expected: str) -> None:
    """Compare lines with patterns."""
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), (line, pattern)

"""A computer that talks to the tests' Hub, and what it pushes there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from i3dzoo.architecture import canonical_shapes
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.export.describe import EXPORT, digest
from i3dzoo.formats._protobuf import encode_bytes
from i3dzoo.labels import labels
from i3dzoo.metadata import Metadata, Source, default_input

from .hub_server import SIGNATURE, Hub

__all__ = [
    "ALICE",
    "NAME",
    "READER",
    "STRANGER",
    "Home",
    "constants",
    "match",
    "onnx_of",
    "pull",
    "steps",
]

ALICE, READER, STRANGER = "hf_aliceWrites", "hf_aliceReads", "hf_bobWrites"
NAME = "alice/i3d"


class Home:
    """A computer that talks to the Hub: its caches, its token, its command line."""

    def __init__(self, folder: Path, hub: Hub, token: str | None = None) -> None:
        self.folder = folder
        self.environment = {
            **{key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
            "HOME": str(folder),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.address,
            "HF_HUB_DISABLE_XET": "1",
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
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | environment,
            cwd=self.folder,
        )

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end; whatever happens, no token and no signature is printed."""
        with self.start(*arguments, **environment) as child:
            out, err = child.communicate(timeout=60)
        done = subprocess.CompletedProcess(arguments, child.returncode, out, err)
        for token in (ALICE, READER, STRANGER, SIGNATURE, environment.get("HF_TOKEN", ALICE)):
            assert token not in out + err
        return done

    def ok(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it, and expect success."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def fails(self, *arguments: object, **environment: str) -> str:
        """Run it, expect one sentence of failure and nothing on standard output; return it."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("i3dzoo: ")
        return last

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a commit in the Hub's cache."""
        return self.folder / "hf" / "hub" / "models--alice--i3d" / "snapshots" / commit


def constants(classes: int = 51, value: float = 0.5) -> Checkpoint:
    """Return a checkpoint whose tensors are constants, fine-tuned from rgb_scratch as it says."""
    tensors = {
        name: np.full(shape, 1 if name.endswith("bn.weight") else value, "f2")
        for name, shape in canonical_shapes(classes).items()
    }
    names = labels("hmdb51") if classes == 51 else tuple(f"class {n}" for n in range(classes))
    history = (
        f"head fresh for {classes} classes, seed 0, on rgb_scratch",
        "fine-tuned on hmdb51 split 1 by 'small', top-1 0.7 (center)",
    )
    source = Source("canonical", "0" * 64)
    metadata = Metadata(
        "rgb",
        classes,
        names,
        default_input("rgb"),
        source,
        history=history,
        base="rgb_scratch",
    )
    return Checkpoint(tensors, metadata)


def onnx_of(checkpoint: Checkpoint) -> bytes:
    """Return an ONNX file without a graph, which says that it was exported from a checkpoint."""
    text = json.dumps({"weights_crc32c": {checkpoint.metadata.stream: digest(checkpoint)}})
    pair = encode_bytes(1, EXPORT.encode()) + encode_bytes(2, text.encode())
    return encode_bytes(14, pair)


STEPS = """
import json, os, sys
from pathlib import Path
from i3dzoo import hub
from i3dzoo.errors import I3DZooError

class Aloud:
    def start(self, name, total): pass
    def update(self, done): pass
    def say(self, remark): print(remark)

def pull(address, **options):
    try:
        print(hub.pull(hub.parse(address), progress=Aloud(), **options).commit)
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
    """Take steps in one child process and return what it says."""
    named = json.dumps(actions, default=str)
    return home.ok("-c", STEPS, named, **env).stdout.splitlines()


def pull(address: str = NAME, **options: object) -> tuple[str, object, dict[str, object]]:
    """Return the step of pulling."""
    return "pull", address, options


def match(lines: list[str], *expected: str) -> None:
    """Compare what was said with patterns, line by line."""
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), (line, pattern)

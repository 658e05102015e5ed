"""Writing run.json: what was run, on what, and by which command."""

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from i3dzoo import __version__
from i3dzoo._files import atomic_write
from i3dzoo.training.run_files import RUN

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["environment", "is_finished", "write_run"]


def write_run(folder: Path, document: dict[str, Any], *, resumed: bool, finished: bool) -> None:
    """Write run.json.

    Args:
        folder: The run's.
        document: What was run, but for times.
        resumed: Whether the run was begun before: it keeps its first command and its start, and
            other commands that went on with it are listed.
        finished: Whether it has come to its end.

    Raises:
        OutputError: It cannot be written.
    """
    path, now = folder / RUN, time.strftime("%Y-%m-%dT%H:%M:%S%z")
    document = {**document, "started": now}
    if resumed and path.exists():
        earlier = json.loads(path.read_text("utf-8"))
        later = [*earlier.get("resumed", []), document["command"]]
        others = [each for each in later if each != earlier["command"]]
        document |= {"command": earlier["command"], "started": earlier["started"]}
        if others:
            document["resumed"] = [
                each for at, each in enumerate(others) if each not in others[:at]
            ]
    if finished:
        document["finished"] = now
    with atomic_write(path) as file:
        file.write(json.dumps(document, indent=2).encode())


def is_finished(folder: Path) -> bool:
    """Say whether a folder holds a run that came to its end."""
    path = folder / RUN
    return path.exists() and "finished" in json.loads(path.read_text("utf-8"))


def environment(accelerator: "Accelerator") -> dict[str, str]:
    """Return the versions and devices that a run depends on."""
    from accelerate import __version__ as accelerate_version

    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    found = {
        "i3dzoo": __version__,
        "PyTorch": torch.__version__,
        "accelerate": accelerate_version,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "device": f"{accelerator.num_processes} x {name}",
    }
    if device.type == "cuda":
        found["CUDA"] = str(torch.version.cuda)
        found["cuDNN"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call] # torch has no types here
    return found

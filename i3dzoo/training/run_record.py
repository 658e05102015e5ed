"""Where a run begins, and its run.json: what was run, on what, and by which command."""

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from i3dzoo import __version__
from i3dzoo._files import atomic_write
from i3dzoo.errors import FormatError, OutputError
from i3dzoo.training import state
from i3dzoo.training.run_files import RUN

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["environment", "where_to_begin", "write_run"]


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
        FormatError: The earlier one is damaged.
    """
    path, now = folder / RUN, time.strftime("%Y-%m-%dT%H:%M:%S%z")
    document = {**document, "started": now}
    if resumed and path.exists():
        earlier = _read(path)
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


def where_to_begin(folder: Path, resume: bool | Path, remarks: list[str]) -> Path | None:
    """Return the checkpoint to go on from, or None for a new run.

    Args:
        folder: The run's.
        resume: Go on from the folder's newest checkpoint, or from this one.
        remarks: Takes what there is to say of it.

    Raises:
        OutputError: The folder holds a run that is not to be, or cannot be, gone on with.
        FormatError: Its run.json is damaged.
    """
    if isinstance(resume, Path):
        return resume
    found = state.latest(folder)
    if not resume and (found or any(folder.glob("*.safetensors"))):
        raise OutputError(
            f"{folder}: holds a run; pass --resume to go on with it, or name another folder"
        )
    if resume and found is None and _is_finished(folder):
        raise OutputError(
            f"{folder}: holds a run whose checkpoint was not kept (--keep best), so it cannot "
            "be gone on with; name another folder"
        )
    if resume and found is None:
        remarks.append(f"{folder}: holds no checkpoint yet, so the run begins")
    return found


def _is_finished(folder: Path) -> bool:
    path = folder / RUN
    return path.exists() and "finished" in _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found["command"], list) and isinstance(found["started"], str):
            return dict(found)
        reason = "command or started is of another type"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    raise FormatError(
        f"{path}: is no record of a run ({reason}); remove it to go on without its first command"
    )


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

"""Parse the name of a device, and check that this machine has it.

Parsing imports no PyTorch, so the command line can refuse a name at once.
"""

import os
import re
from typing import TYPE_CHECKING, Final

from i3dzoo.errors import OptionError

if TYPE_CHECKING:
    import torch

Device = str
"""`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` is CUDA if PyTorch finds a GPU, else the CPU."""

_NAMES: Final = ("auto", "cpu", "cuda", "mps")
_FORM: Final = re.compile(rf"{'|'.join(_NAMES)}|cuda:(0|[1-9][0-9]{{0,2}})")


def parse_device(name: str) -> Device:
    """Return the name of a device if it is one; whether this machine has it is not checked.

    Raises:
        OptionError: It is not `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """
    if not _FORM.fullmatch(name):
        raise OptionError(
            f"{name!r} is not a device; expected auto, cpu, cuda, cuda:N (the GPU with number N, "
            "from 0) or mps"
        )
    return name


def suggested_devices() -> tuple[str, ...]:
    """Return names of devices to complete; this machine need not have them all."""
    return (*_NAMES, "cuda:0", "cuda:1")


def choose_device(name: Device = "auto") -> "torch.device":
    """Return the device of a name, which becomes the current GPU if the name has a number.

    `auto` is CUDA if PyTorch finds a GPU, and else the CPU; it is never `mps`, which must be named.

    Raises:
        OptionError: This is not the name of a device, this machine does not have it, or each
            process of a launcher would take the same GPU.
    """
    import torch

    parse_device(name)
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if cuda else 0
    there = {
        "cpu": True,
        "cuda": (device.index or 0) < count,
        "mps": torch.backends.mps.is_available(),
    }
    if not there[device.type]:
        found = describe_devices()
        remedy = "--device cpu" if found.startswith("only") else "one of these"
        raise OptionError(f"there is no device {name!r}; PyTorch finds {found}; use {remedy}")
    if name not in ("cpu", "cuda") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError(
            f"{name!r} is one device, but there are several processes, each with a GPU of its own; "
            "use --device cuda, and CUDA_VISIBLE_DEVICES to choose the GPUs"
        )
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def describe_devices() -> str:
    """Return the devices of this machine in words, such as `cpu and cuda:0 (NVIDIA H100)`."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(count)]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    *others, last = ["cpu", *gpus, *mps]
    if others:
        return f"{', '.join(others)} and {last}"
    missing = "no CUDA device" if torch.version.cuda else "this PyTorch is built without CUDA"
    return f"only {last} ({missing})"

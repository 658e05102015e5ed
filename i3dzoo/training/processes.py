"""What the processes of one run tell each other."""

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["gathered", "leave", "shared"]

Value = TypeVar("Value")


def gathered(own: list[Any], accelerator: "Accelerator") -> list[Any]:
    """Return what all processes have, on each of them."""
    if accelerator.num_processes == 1:
        return own
    from accelerate.utils import gather_object

    return list(gather_object(own))


def shared(value: Value, accelerator: "Accelerator") -> Value:
    """Return what the main process has, on every process, whichever machine it is on."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    held = [value]
    broadcast_object_list(held)
    return held[0]


def leave() -> None:
    """Leave the group of processes that a launcher started, if there is one; NCCL wants it so."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

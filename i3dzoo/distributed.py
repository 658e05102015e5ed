"""Ranks of a distributed run, and the exchange of objects between its processes."""

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from i3dzoo.devices import Device, choose_device
from i3dzoo.errors import DependencyError, OptionError

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that torchrun or `accelerate launch` started; by default this process alone.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def join(cls, device: Device = "auto") -> "ProcessGroup":
        """Join the group that the launcher's environment variables describe.

        Args:
            device: As in `i3dzoo.devices`: `auto` uses GPUs if there are any, one for each
                process; `cpu` uses none.

        Raises:
            OptionError: This machine does not have the device, or it is for one process only.
            DependencyError: There are several processes, and accelerate is not installed.
        """
        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        if alone and device in ("auto", "cpu"):  # nothing to check, so PyTorch is not imported
            return cls()
        cpu = choose_device(device).type == "cpu"
        if alone:
            return cls()

        try:
            from accelerate import PartialState
        except ImportError as error:
            raise DependencyError(
                "several processes need accelerate: pip install 'i3dzoo[train]'"
            ) from error
        # DistributedDataParallel imports it. Imported after the group is made, it keeps the group,
        # and so the group's threads, until the interpreter exits, and they may abort the exit.
        import torch._dynamo  # noqa: F401 - for what it does when it is imported

        # on GPUs this also makes the process's own GPU the current one
        state = PartialState(cpu=cpu)
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints, and writes the files of the run."""
        return self.rank == 0

    def gather(self, items: list[T]) -> list[T]:
        """Return the items of all processes, in the order of the ranks, on every process."""
        if self.world_size == 1:
            return items
        from accelerate.utils import gather_object

        return list(gather_object(items))

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value on every process; the others' values do not matter."""
        if self.world_size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list, which jobs work on without knowing of each other.

    Attributes:
        number: Number of the part, from 0.
        count: Number of parts.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard of a text such as `3/16`, which counts from 1.

        Raises:
            OptionError: The text has another form, or there is no such part.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise OptionError(
                f"the shard is {text!r}; expected NUMBER/COUNT, counted from 1, such as 3/16"
            )
        return cls(int(number) - 1, int(count))

    @classmethod
    def of_process(cls) -> "Shard":
        """Return the shard of this process among those of torchrun or `accelerate launch`.

        The processes do not join a group, so none waits for another.
        """
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this part: each item belongs to exactly one."""
        return list(items[self.number :: self.count])


def use_own_gpu() -> None:
    """Make the GPU of this process, of those that a launcher started, the current one."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(rank) % torch.cuda.device_count())


def is_main_process() -> bool:
    """Return whether this process is the main one, before it has joined a group."""
    return os.environ.get("RANK", "0") == "0"


def destroy_process_group() -> None:
    """Destroy the default process group, if there is one; NCCL warns if it is left.

    All processes leave together: a launcher ends the others if one fails as it exits. The threads
    of the group end here, because they may abort a process that is exiting.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        gc.collect()  # frees models in reference cycles, which hold the group


def shard(items: Sequence[int], rank: int, world_size: int) -> list[int]:
    """Return the items of one of `world_size` processes: every item belongs to exactly one."""
    return Shard(rank, world_size).of(items)

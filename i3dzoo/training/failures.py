"""What devices, workers and memory do wrong in the middle of training: in words, with a remedy."""

import contextlib
import traceback
from collections.abc import Callable, Iterator

import torch

from i3dzoo.errors import DeviceError, I3DZooError, TrainingError

__all__ = ["forget_frames", "told"]

_GO_ON = "then go on by the same command with --resume"


@contextlib.contextmanager
def told(where: Callable[[], str]) -> Iterator[None]:
    """Raise what the block meets as an error that says what to do next.

    Args:
        where: Gives the place, such as `step 12`, when it is needed.

    Raises:
        TrainingError: Memory does not suffice, or a process that decodes was killed.
        DeviceError: A GPU, or another process of the run, failed.
    """
    try:
        yield
    except I3DZooError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            f"{where()}: the memory does not suffice; take smaller batches (--set loop.accumulate="
            f", --set evaluation.batch_size=) or fewer processes (--set loop.workers=), {_GO_ON}"
        ) from error
    except RuntimeError as error:
        if found := _explained(error):
            kind, reason = found
            first = str(error).strip().partition("\n")[0]
            raise kind(f"{where()}: {reason} ({first}); {_GO_ON}") from error
        raise


def _explained(error: RuntimeError) -> tuple[type[I3DZooError], str] | None:
    text = str(error)
    if "DataLoader worker" in text:
        return TrainingError, (
            "a process that decodes videos was killed, most likely for lack of memory; take fewer "
            "of them (--set loop.workers=) or more shared memory"
        )
    if "can't allocate memory" in text:
        return TrainingError, "the memory does not suffice; --set loop.accumulate= takes less"
    if isinstance(error, torch.distributed.DistError) or "NCCL" in text or "gloo" in text.lower():
        return DeviceError, "another process of the run failed or cannot be reached; start all anew"
    if "CUDA" in text or "cuDNN" in text or "CUBLAS" in text:
        return DeviceError, "the GPU failed; take one that works"
    return None


def forget_frames(error: BaseException) -> None:
    """Free what the frames of an error hold, such as the activations that filled the memory."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None

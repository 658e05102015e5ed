"""What devices, workers and memory do wrong in the middle of training: in words, with a remedy."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from i3dzoo.errors import DeviceError, I3DZooError, TrainingError

__all__ = ["EVALUATING", "TRAINING", "Advice", "forget_frames", "told"]


@dataclass(frozen=True)
class Advice:
    """What a command has against failures.

    Attributes:
        batch: Options that take fewer clips at once.
        workers: The option for fewer processes that decode.
        again: How to go on.
    """

    batch: str
    workers: str
    again: str


TRAINING = Advice(
    "--set loop.accumulate=, --set evaluation.batch_size=",
    "--set loop.workers=",
    "then go on by the same command with --resume",
)
EVALUATING = Advice(
    "--batch-size", "--workers", "then run the same command again, which goes on where it stopped"
)


@contextlib.contextmanager
def told(where: Callable[[], str], advice: Advice = TRAINING) -> Iterator[None]:
    """Raise what the block meets as an error that says what to do next.

    Args:
        where: Gives the place, such as `step 12`, when it is needed.
        advice: What the command has against it.

    Raises:
        I3DZooError: What a process that decodes raised, in its own words.
        TrainingError: Memory does not suffice, or a process that decodes was killed.
        DeviceError: A GPU, or another process of the run, failed.
    """
    try:
        yield
    except I3DZooError as error:
        # a worker sends its error with a traceback before it: only the sentence is for the user
        caught, kind = str(error), type(error)
        if not caught.startswith("Caught "):
            raise
        name = f"{kind.__module__}.{kind.__qualname__}: "
        raise kind(caught.rpartition(name)[2].strip()) from None
    except (RuntimeError, MemoryError) as error:
        found = _explained(error, advice)
        if found is None:
            raise
        kind, reason = found
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise kind(f"{where()}: {reason} ({first}); {advice.again}") from error


def _explained(error: Exception, advice: Advice) -> tuple[type[I3DZooError], str] | None:
    text = str(error)
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if full or "can't allocate memory" in text:
        return TrainingError, (
            f"the memory does not suffice; take smaller batches ({advice.batch}) or fewer "
            f"processes ({advice.workers})"
        )
    if "DataLoader worker" in text:
        return TrainingError, (
            "a process that decodes videos was killed, most likely for lack of memory; take fewer "
            f"of them ({advice.workers}) or more shared memory"
        )
    if isinstance(error, torch.distributed.DistError) or "NCCL" in text or "gloo" in text.lower():
        return DeviceError, "another process of the run failed or cannot be reached; start all anew"
    if "CUDA" in text or "cuDNN" in text or "CUBLAS" in text:
        return DeviceError, "the GPU failed; take one that works"
    return None


def forget_frames(error: BaseException) -> None:
    """Free what the frames of an error hold, such as the activations that filled the memory."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None

"""Turn CUDA, DataLoader and out-of-memory errors into messages that say what to do."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from i3dzoo.errors import DeviceError, I3DZooError, TrainingError


@dataclass(frozen=True)
class Advice:
    """What a command can do about failures.

    Attributes:
        batch_size: The options that put fewer clips through the network at once.
        workers: The option for fewer processes that decode.
        resume: How to continue after the failure.
    """

    batch_size: str
    workers: str
    resume: str


TRAINING = Advice(
    "--set loop.accumulate=, --set evaluation.batch_size=",
    "--set loop.workers=",
    "then continue with the same command and --resume",
)
EVALUATING = Advice(
    "--batch-size", "--workers", "then run the same command again; it continues where it stopped"
)


@contextlib.contextmanager
def explain_failures(where: Callable[[], str], advice: Advice = TRAINING) -> Iterator[None]:
    """Replace the failures of the block by errors that say what to do next.

    Args:
        where: Returns the place of the failure, such as `step 12`.
        advice: What the command can do about it.

    Raises:
        I3DZooError: A process that decodes raised it; the message is without its traceback.
        TrainingError: The memory is too small, or a process that decodes was killed or could not
            read or write.
        DeviceError: A GPU, or another process of the run, failed.
    """
    try:
        yield
    except I3DZooError as error:
        # a DataLoader worker puts its traceback before the message, which alone is for the user
        text, kind = str(error.args[0] if error.args else ""), type(error)
        if not text.startswith("Caught "):
            raise
        name = f"{kind.__module__}.{kind.__qualname__}: "
        raise kind(text.rpartition(name)[2].strip()) from None
    except OSError as error:  # such as a full disk
        text = str(error).strip()
        if not text.startswith("Caught "):
            raise
        reason = text.rpartition("\n")[2]
        raise TrainingError(
            f"{where()}: a process that decodes videos failed ({reason}); {advice.resume}"
        ) from None
    except (RuntimeError, MemoryError) as error:
        explanation = _explain(error, advice)
        if explanation is None:
            raise
        kind, reason = explanation
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise kind(f"{where()}: {reason} ({first_line}); {advice.resume}") from error


def _explain(error: Exception, advice: Advice) -> tuple[type[I3DZooError], str] | None:
    text = str(error)
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if out_of_memory or "can't allocate memory" in text:
        return TrainingError, (
            f"there is not enough memory; use smaller batches ({advice.batch_size}) or fewer "
            f"processes ({advice.workers})"
        )
    if "DataLoader worker" in text:
        return TrainingError, (
            "a process that decodes videos was killed, most likely because memory ran out; use "
            f"fewer of them ({advice.workers}) or more shared memory"
        )
    if isinstance(error, torch.distributed.DistError) or "NCCL" in text or "gloo" in text.lower():
        return DeviceError, (
            "another process of the run failed or cannot be reached; start all processes again"
        )
    if "CUDA" in text or "cuDNN" in text or "CUBLAS" in text:
        return DeviceError, "the GPU failed; use another one"
    return None


def clear_frames(error: BaseException) -> None:
    """Free what the frames of an error hold, such as the activations that filled the memory."""
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None

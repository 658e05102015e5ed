"""Failures during training stop the run with a message that says what to do next."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.disk import full_disk
from helpers.training_runs import Small, run

from i3dzoo.errors import DependencyError, DeviceError, OutputError, RecipeError, TrainingError
from i3dzoo.training import checkpointing
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.train_step import make_accelerator


def failing(
    monkeypatch: pytest.MonkeyPatch, when: Callable[[torch.Tensor], bool], error: Exception
) -> None:
    """Make the network raise an error of PyTorch for some of its inputs."""
    forward = Small.forward

    def fail(self: Small, x: torch.Tensor) -> torch.Tensor:
        if when(x):
            raise error
        return forward(self, x)

    monkeypatch.setattr(Small, "forward", fail)


def test_out_of_memory_names_the_batch_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller batches are tried, and the setting in the message works."""
    failing(
        monkeypatch, lambda x: len(x) > 2 and torch.is_grad_enabled(), torch.OutOfMemoryError("16")
    )
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "run", ["loop.epochs=1"])
    message = str(caught.value)
    assert "step 0: 8 clips at once do not fit into the GPU's memory; 2 fit: " in message
    setting = re.search(r"--set (loop\.accumulate=\d+) trains on the same batch of 8", message)
    assert setting is not None
    run(tmp_path / "again", ["loop.epochs=1", setting.group(1)])


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            torch.OutOfMemoryError("16"),
            TrainingError,
            "not even one fits: use smaller crops or fewer frames",
        ),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nmore"),
            DeviceError,
            r"step 0: the GPU failed; .* \(CUDA error: unspecified launch failure\); .* --resume",
        ),
        (
            torch.distributed.DistBackendError("NCCL error in: x.cpp:5"),
            DeviceError,
            "step 0: another process of the run failed",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            TrainingError,
            r"step 0: a process that decodes videos was killed.*loop\.workers=",
        ),
        (
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"),
            TrainingError,
            "step 0: there is not enough memory",
        ),
        (
            OSError(
                "Caught OSError in DataLoader worker process 0.\nTraceback (most recent):\n"
                "OSError: [Errno 28] No space left on device: 'a'\n"
            ),
            TrainingError,
            r"^step 0: a process that decodes .*\(OSError: .* No space left on device: 'a'\); then",
        ),
        (RuntimeError("size mismatch"), RuntimeError, "^size mismatch$"),  # keeps its traceback
    ],
)
def test_errors_of_pytorch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    """Errors of PyTorch become a sentence with advice; others are left alone."""
    failing(monkeypatch, lambda _: torch.is_grad_enabled(), error)
    with pytest.raises(kind, match=message):
        run(tmp_path, ["loop.epochs=1"])


def test_out_of_memory_while_evaluating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If memory runs out in an evaluation, the message names its batch size and --resume."""
    failing(monkeypatch, lambda _: torch.is_inference_mode_enabled(), torch.OutOfMemoryError("16"))
    with pytest.raises(TrainingError, match=r"step 2: .*evaluation\.batch_size=.*--resume"):
        run(tmp_path, ["loop.epochs=1"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder, ["loop.epochs=1"])
    return folder


def test_full_disk_while_training(finished: Path, tmp_path: Path) -> None:
    """If metrics.jsonl cannot grow, the run stops with the name of the file and advice."""
    folder = shutil.copytree(finished, tmp_path / "run")
    latest = checkpointing.latest(folder)
    with (
        full_disk((folder / "metrics.jsonl").stat().st_size + 10),
        pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written: it is larger"),
    ):
        run(folder, ["loop.epochs=2"])
    assert checkpointing.latest(folder) == latest


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("loop.batch_size", "8", "4"),
        ("optim.kind", "sgd", "adamw"),
        ("loop.seed", "1234", "5"),
        ("optim.lr", "0.0005", "0.1"),
        ("schedule.kind", "cosine", "constant"),
        ("network.dropout", "0.0", "0.3"),
    ],
)
def test_other_settings_are_not_resumed(finished: Path, key: str, before: str, after: str) -> None:
    """A setting that would change the result is refused by name."""
    message = f"the run has {key} {before}, and it cannot be resumed with {key} {after}; use"
    with pytest.raises(RecipeError, match=message):
        run(finished, ["loop.epochs=2", f"{key}={after}"])


def test_fewer_clips_than_parts(tmp_path: Path) -> None:
    """A dataset that is smaller than a batch is one batch, with at least one clip in each part."""
    position, _ = run(tmp_path, ["loop.batch_size=64", "loop.accumulate=32", "loop.epochs=2"])
    assert position.step == 2


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `train`, the message says how to install it."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(DependencyError, match=r"pip install 'i3dzoo\[train\]'"):
        make_accelerator(Recipe())

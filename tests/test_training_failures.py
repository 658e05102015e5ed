"""What goes wrong in the middle of training stops it in one sentence that says what to do next."""

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from i3dzoo.errors import DeviceError, OutputError, RecipeError, TrainingError
from i3dzoo.training import state
from i3dzoo.training.failures import told

from . import training_runs
from .training_runs import Small, run


def failing(
    monkeypatch: pytest.MonkeyPatch, when: Callable[[torch.Tensor], bool], error: Exception
) -> None:
    """Make the network raise an error as PyTorch would, for some of its inputs."""
    forward = Small.forward

    def fail(self: Small, x: torch.Tensor) -> torch.Tensor:
        if when(x):
            raise error
        return forward(self, x)

    monkeypatch.setattr(training_runs.Small, "forward", fail)


def test_out_of_memory_names_the_batch_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller batches are tried, and what is advised then runs."""
    failing(
        monkeypatch, lambda x: len(x) > 2 and torch.is_grad_enabled(), torch.OutOfMemoryError("16")
    )
    with pytest.raises(TrainingError) as caught:
        run(tmp_path / "run", ["loop.epochs=1"])
    message = str(caught.value)
    assert "step 0: 8 clips at once do not fit into the GPU's memory; 2 do: " in message
    found = re.search(r"--set (loop\.accumulate=\d+) takes the same batch of 8", message)
    assert found is not None
    run(tmp_path / "again", ["loop.epochs=1", found.group(1)])


def test_not_even_one_clip_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one clip is too much, smaller clips are advised."""
    failing(monkeypatch, lambda _: torch.is_grad_enabled(), torch.OutOfMemoryError("16"))
    with pytest.raises(TrainingError, match="not even one does: use smaller crops or fewer frames"):
        run(tmp_path, ["loop.epochs=1"])


def test_out_of_memory_while_evaluating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of a training step, the sizes that matter are named, and how to go on."""
    failing(monkeypatch, lambda _: torch.is_inference_mode_enabled(), torch.OutOfMemoryError("16"))
    with pytest.raises(TrainingError, match=r"step 2: .*evaluation\.batch_size=.*--resume"):
        run(tmp_path, ["loop.epochs=1"])


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nmore"),
            DeviceError,
            (
                r"step 0: the GPU failed; take one that works \(CUDA error: unspecified launch "
                r"failure\); then go on by the same command with --resume"
            ),
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
            "step 0: the memory does not suffice",
        ),
    ],
)
def test_devices_that_fail(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    """PyTorch's own errors become a sentence with what to do."""
    failing(monkeypatch, lambda _: torch.is_grad_enabled(), error)
    with pytest.raises(kind, match=message):
        run(tmp_path, ["loop.epochs=1"])


def test_other_errors_are_left_alone() -> None:
    """A mistake of ours keeps its traceback."""
    with pytest.raises(RuntimeError, match="size mismatch"), told(lambda: "step 1"):
        raise RuntimeError("size mismatch")


def test_full_disk_while_training(tmp_path: Path) -> None:
    """Where the journal cannot grow, the run stops with the file's name and what to do."""
    run(tmp_path, ["loop.epochs=1"])
    size = (tmp_path / "metrics.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written: it is larger"):
            run(tmp_path, ["loop.epochs=2"], state.latest(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state.latest(tmp_path) is not None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loop.batch_size=4", "the run has loop.batch_size 8 and cannot go on with 4; give the"),
        ("optim.kind=adamw", "has optim.kind sgd and cannot go on with adamw"),
        ("loop.seed=5", "has loop.seed 1234 and cannot go on with 5"),
        ("optim.lr=0.1", "has optim.lr 0.0005 and cannot go on with 0.1"),
        ("schedule.kind=constant", "has schedule.kind cosine and cannot go on with constant"),
        ("network.dropout=0.3", "has network.dropout 0.0 and cannot go on with 0.3"),
    ],
)
def test_another_run_is_not_resumed(tmp_path: Path, setting: str, message: str) -> None:
    """What would make it another run is refused by name."""
    run(tmp_path, ["loop.epochs=1"])
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, ["loop.epochs=2", setting], state.latest(tmp_path))


def test_fewer_clips_than_parts(tmp_path: Path) -> None:
    """A set smaller than a batch is one batch, in no more parts than there are clips."""
    result, _ = run(tmp_path, ["loop.batch_size=64", "loop.accumulate=32", "loop.epochs=2"])
    assert result.position.step == 2


@pytest.mark.parametrize("name", ["accelerate", "yaml"])
def test_missing_packages(name: str) -> None:
    """Without the extra `train`, training says how to get it."""
    code = (
        f"import sys; sys.modules[{name!r}] = None;"
        "from i3dzoo.training.engine import make_accelerator;"
        "from i3dzoo.training.recipe import Recipe, load_recipe;"
        f"make_accelerator(Recipe()) if {name!r} == 'accelerate' else load_recipe('smoke')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "DependencyError" in result.stderr
    assert "pip install 'i3dzoo[train]'" in result.stderr

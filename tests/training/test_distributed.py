"""`i3dzoo finetune` with two processes over gloo, after a kill, and on a full disk."""

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run, run_module
from helpers.disk import full_disk
from helpers.processes import start
from helpers.training_runs import SMOKE, finetune, losses

from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.cli import main
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.training import checkpointing


def test_two_processes_give_the_curve_of_one(
    finetuned: Path, motions: Path, rgb_scratch: Path, tmp_path: Path
) -> None:
    """`accelerate launch` with two processes gives the same losses, weights and evaluation."""
    folder = tmp_path / "two"
    result = run_module(
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "i3dzoo", "finetune", "hmdb51", "--data", motions, "--from", rgb_scratch,
        "-o", folder, *SMOKE, "--device", "cpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"  # only the main process prints
    document = json.loads((folder / "run.json").read_text("utf-8"))
    assert document["environment"]["device"].startswith("2 x ")
    assert len(losses(finetuned)) == 3
    assert losses(folder) == pytest.approx(losses(finetuned), rel=1e-4)
    expected = read_checkpoint(finetuned / "last.safetensors").tensors
    for name, tensor in read_checkpoint(folder / "last.safetensors").tensors.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=1e-5)
    assert len(read_predictions(folder / "predictions.jsonl").videos) == 3


LEAVE = """
from pathlib import Path
from torch import nn
from i3dzoo.distributed import destroy_process_group
from i3dzoo.training.recipe import Recipe
from i3dzoo.training.train_step import make_accelerator

def threads():
    return {path.read_text() for path in Path("/proc/self/task").glob("*/comm")}

model = make_accelerator(Recipe(), "cpu").prepare(nn.Linear(3, 3))
cycle = [model]
cycle.append(cycle)
before = threads()
del model, cycle
destroy_process_group()
print(len(before - threads()), threads() - before, any("gloo" in name for name in threads()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_no_thread_is_left_to_abort_the_exit(tmp_path: Path) -> None:
    """`destroy_process_group` ends the threads of gloo, even if a cycle holds the model."""
    script = tmp_path / "leave.py"
    script.write_text(LEAVE, "utf-8")
    result = run_module("torch.distributed.run", "--standalone", "--nproc-per-node=2", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["2 set() False"] * 2


def test_killed_and_resumed_to_the_bit(
    finetuned: Path, motions: Path, rgb_scratch: Path, tmp_path: Path
) -> None:
    """A command that is killed and resumed with --resume writes the same weights."""
    folder = tmp_path / "killed"
    words = ["hmdb51", "--data", motions, "--from", rgb_scratch, "-o", folder, *SMOKE]
    words += ["--set", "loop.save_every=1"]
    process = start(main, ["finetune", *map(str, words), "--device", "cpu"])
    while process.is_alive() and checkpointing.latest(folder) is None:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "last.safetensors").exists()
    result = finetune(*words, "--resume")
    assert result.returncode == 0, result.stderr
    assert losses(folder) == losses(finetuned)
    expected = read_checkpoint(finetuned / "last.safetensors").tensors
    for name, tensor in read_checkpoint(folder / "last.safetensors").tensors.items():
        assert (tensor == expected[name]).all(), name


def test_a_full_disk(
    motions: Path, rgb_scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a full disk, the command names the file, and leaves no partial file."""
    folder = tmp_path / "run"
    words = ["hmdb51", "--data", motions, "--from", rgb_scratch, "-o", folder, *SMOKE]
    with full_disk(10**7):
        code, _, error = run(capsys, "finetune", *words, "--device", "cpu")
    assert code == 1
    assert error.splitlines()[-1].startswith("i3dzoo: ")
    assert "best.safetensors: cannot be written: it is larger than the limit" in error
    assert not [
        path for path in folder.rglob("*") if path.suffix in (".part", ".safetensors", ".pt")
    ]

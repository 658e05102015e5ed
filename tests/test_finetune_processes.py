"""`i3dzoo finetune` by two processes over gloo: the run of one process, and of one killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.training import state
from i3dzoo.training.journal import read_lines
from i3dzoo.training.predictions import read_predictions

from .training_runs import finetune, launch, three_motions

OPTIONS = [
    "--recipe", "smoke", "--set", "augment.frames=9", "--set", "network.batchnorm=frozen",
    "--set", "loop.batch_size=4", "--set", "loop.epochs=1", "--set", "optim.lr=0.001",
    "--set", "optim.head_lr_scale=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three motions, 4 + 1 clips of each: an odd number of test videos for two processes."""
    return three_motions(tmp_path_factory.mktemp("motions"), per_class=5)


@pytest.fixture(scope="module")
def one(data: Path, rgb_scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    result = finetune("hmdb51", "--data", data, "--from", rgb_scratch, "-o", folder, *OPTIONS)
    assert result.returncode == 0, result.stderr
    return folder


def losses(folder: Path) -> list[float]:
    """The training losses of a run."""
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]


def test_two_processes_give_the_curve_of_one(
    one: Path, data: Path, rgb_scratch: Path, tmp_path: Path
) -> None:
    """`accelerate launch` with two: the same batches, losses, weights and evaluation."""
    folder = tmp_path / "two"
    result = launch(
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "i3dzoo", "finetune", "hmdb51", "--data", data, "--from", rgb_scratch,
        "-o", folder, *OPTIONS, "--device", "cpu",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{folder / 'best.safetensors'}\n"  # one of them speaks
    document = json.loads((folder / "run.json").read_text("utf-8"))
    assert document["environment"]["device"].startswith("2 x ")
    assert len(losses(one)) == 3
    assert losses(folder) == pytest.approx(losses(one), rel=1e-4)
    expected = read_checkpoint(one / "last.safetensors").tensors
    for name, tensor in read_checkpoint(folder / "last.safetensors").tensors.items():
        torch.testing.assert_close(
            torch.from_numpy(tensor.copy()),
            torch.from_numpy(expected[name].copy()),
            rtol=1e-3,
            atol=1e-5,
        )
    assert len(read_predictions(folder / "predictions.jsonl").videos) == 3


def test_killed_and_resumed_to_the_bit(
    one: Path, data: Path, rgb_scratch: Path, tmp_path: Path
) -> None:
    """The command killed in the middle and given --resume writes the very same weights."""
    folder = tmp_path / "killed"
    words = ["hmdb51", "--data", data, "--from", rgb_scratch, "-o", folder, *OPTIONS]
    words += ["--set", "loop.save_every=1", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "i3dzoo", "finetune", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and state.latest(folder) is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "last.safetensors").exists()
    result = finetune(*words, "--resume")
    assert result.returncode == 0, result.stderr
    assert losses(folder) == losses(one)
    expected = read_checkpoint(one / "last.safetensors").tensors
    for name, tensor in read_checkpoint(folder / "last.safetensors").tensors.items():
        assert (tensor == expected[name]).all(), name


def test_a_full_disk(data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """The command stops in one sentence that names the file and what to do; no half file is left.

    The limit on the size of files stands for the end of the disk.
    """
    folder = tmp_path / "run"
    words = ["finetune", "hmdb51", "--data", data, "--from", rgb_scratch, "-o", folder, *OPTIONS]
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10**7, 10**7));"
        "from i3dzoo.cli import main; main(sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("i3dzoo: ")
    assert "best.safetensors: cannot be written: it is larger than the limit" in result.stderr
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".part", ".safetensors", ".pt"))]

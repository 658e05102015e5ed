"""The training loop: it learns, it can be killed and resumed, and processes share its work."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from i3dzoo.errors import FormatError, OutputError, RecipeError, TrainingError
from i3dzoo.training import state
from i3dzoo.training.journal import read_lines

from .training_runs import BAD, network, run

RATE = "optim.lr=0.02"
SETTINGS = [RATE, "loop.epochs=3", "loop.save_every=1", "network.dropout=0.5", "network.ema=0.5"]
PROGRAM = Path(__file__).with_name("training_runs.py")


def _start(folder: Path, *arguments: str, world: int = 1) -> subprocess.Popen[bytes]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    launcher = [sys.executable]
    if world > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return subprocess.Popen(
        [*launcher, str(PROGRAM), str(folder), *settings, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def _finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)
    return weights


def _losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "step"]


def _assert_same(killed: Path, whole: Path) -> None:
    """Weights and losses are the same to the bit, and one checkpoint is left."""
    expected = _weights(whole)
    for name, tensor in _weights(killed).items():
        assert torch.equal(tensor, expected[name]), name
    assert _losses(killed) == _losses(whole)
    assert len(list((killed / "checkpoints").iterdir())) == 1


def test_it_learns(tmp_path: Path) -> None:
    """The loss falls and the classes are told apart."""
    result, _ = run(tmp_path, [RATE, "loop.epochs=4"])
    losses = _losses(tmp_path)
    assert len(losses) == 8
    assert losses[-1] < 0.7 * losses[0]
    assert result.position.best >= 0.75  # chance is a half
    assert (tmp_path / "best.json").exists()


def test_kill_and_resume_to_the_bit(tmp_path: Path) -> None:
    """Killed at random moments and resumed, a run ends with the weights of one never killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _finish(_start(whole))
    kills = 0
    for pause in (0.05, 0.35, 0.15):
        process = _start(killed, "--resume")
        step = state.latest(killed)
        while process.poll() is None and state.latest(killed) == step:
            time.sleep(0.005)
        time.sleep(pause)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills
    _finish(_start(killed, "--resume"))
    _assert_same(killed, whole)


def test_killed_in_the_middle_of_a_save(tmp_path: Path) -> None:
    """With half of a checkpoint written, the one before it is whole, and is gone on from."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _finish(_start(whole))
    process = _start(killed, "--die-in-save", "4")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    names = [path.name for path in (killed / "checkpoints").iterdir()]
    found = state.latest(killed)
    assert found is not None
    assert len(names) == 2  # the whole one, and half of the next under another name
    assert state.load(found)[0].step < 4
    _finish(_start(killed, "--resume"))
    _assert_same(killed, whole)


def test_two_processes_are_one_of_twice_the_batch(tmp_path: Path) -> None:
    """Two processes over gloo give the loss curve of one with the same whole batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    # in parts, with a moving average, and with what is frozen unfrozen on the way
    settings = ("network.dropout=0", "loop.accumulate=2", "network.freeze=until:Mixed_4b")
    alike = [word for each in settings for word in ("--set", each)]
    alike += ["--set", "network.unfreeze_epoch=1"]
    _finish(_start(one, *alike))
    _finish(_start(two, *alike, world=2))
    assert _losses(two) == pytest.approx(_losses(one), rel=1e-5)
    assert len(_losses(two)) == 6
    expected = _weights(one)
    for name, tensor in _weights(two).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    for folder in (one, two):
        told = json.loads((folder / "bad.json").read_text())
        assert sorted(told) == sorted(f"bad {number}" for number in BAD)  # each once, of all


def test_synchronised_batchnorm_needs_gpus(tmp_path: Path) -> None:
    """On several CPUs it is refused in a sentence."""
    process = _start(tmp_path, "--set", "network.batchnorm=sync", world=2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert b"RecipeError: network.batchnorm is sync, which PyTorch has for GPUs" in errors


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    """A batch in four parts gives the losses of the batch at once."""
    run(tmp_path / "once", [RATE, "loop.epochs=2"])
    run(tmp_path / "parts", [RATE, "loop.epochs=2", "loop.accumulate=4"])
    assert _losses(tmp_path / "parts") == pytest.approx(_losses(tmp_path / "once"), rel=1e-4)


def test_recomputing_activations_changes_nothing(tmp_path: Path) -> None:
    """Saving memory gives the same losses and the same BatchNorm statistics."""
    settings = ["loop.epochs=1", "network.batchnorm=train"]
    _, once = run(tmp_path / "once", settings)
    _, again = run(tmp_path / "again", [*settings, "loop.checkpoint_activations=true"])
    expected = once.state_dict()
    for name, tensor in again.state_dict().items():
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compiling_changes_nothing(tmp_path: Path) -> None:
    """The compiled network gives the same losses."""
    settings = [RATE, "loop.epochs=1"]
    run(tmp_path / "plain", settings)
    words = [word for each in (*settings, "loop.compile=true") for word in ("--set", each)]
    _finish(_start(tmp_path / "compiled", *words, "--set", "network.dropout=0"))
    assert _losses(tmp_path / "compiled") == pytest.approx(_losses(tmp_path / "plain"), rel=1e-4)


def test_freezing(tmp_path: Path) -> None:
    """What is frozen stays as it was, statistics included, until it is thawed."""
    before = network().state_dict()
    settings = ["network.freeze=until:Mixed_4b", "network.batchnorm=train", "loop.epochs=1"]
    after = run(tmp_path / "frozen", settings)[1].state_dict()
    moved = {name.split(".")[2] for name in after if not torch.equal(before[name], after[name])}
    assert "Mixed_4b" not in moved
    assert "Conv3d_1a_7x7" not in moved
    assert {"Mixed_4c", "Logits"} <= moved
    thawed = run(
        tmp_path / "thawed",
        ["network.freeze=trunk", "network.unfreeze_epoch=1", "loop.epochs=2"],
    )[1].state_dict()
    name = "networks.rgb.Conv3d_1a_7x7.conv.weight"
    assert not torch.equal(thawed[name], before[name])


def test_infinite_loss_stops(tmp_path: Path) -> None:
    """A loss that is not finite stops the run with what to do, and the checkpoint stays."""
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf).*--set optim.lr="):
        run(tmp_path, ["optim.lr=1e30", "loop.epochs=4", "loop.save_every=1"])
    assert state.latest(tmp_path) is not None


def test_impossible_division(tmp_path: Path) -> None:
    """A batch that cannot be divided is refused before anything is done."""
    with pytest.raises(RecipeError, match=r"loop.batch_size is 8; expected a multiple of 1 proc"):
        run(tmp_path, ["loop.accumulate=3"])


def test_corrupt_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that was cut, emptied, or has one wrong bit is refused by name."""
    run(tmp_path, ["loop.epochs=1"])
    path = state.latest(tmp_path)
    assert path is not None
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    content["position"]["waited"] = 1.0
    torch.save(content, other := tmp_path / "other.pt")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # in the midst of weights
    for content, reason in (
        (whole[:1000], "not a zip file"),
        (b"", "not a zip file"),
        (flipped, "the checksum of .* is wrong"),
        (other.read_bytes(), "another version of i3dzoo wrote it"),
    ):
        path.write_bytes(content)
        message = rf"step-\d+\.pt: is no checkpoint of a run, or is corrupt \(.*{reason}\); begin"
        with pytest.raises(FormatError, match=message):
            state.load(path)


def test_full_disk_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    """When a checkpoint cannot be written whole, the one before it is still there."""
    resource = pytest.importorskip("resource")
    run(tmp_path, ["loop.epochs=1"])
    path = state.latest(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            state.save(tmp_path, state.Position(step=99), {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert state.latest(tmp_path) == path
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == [path.name]


def test_journal_is_json(tmp_path: Path) -> None:
    """Each line of the journal is one JSON object, of a step or an epoch."""
    run(tmp_path, [RATE, "loop.epochs=2"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "step", "epoch"] * 2
    assert {"loss", "top1", "lr", "clips_per_second", "data_wait"} <= lines[0].keys()
    assert {"val_loss", "top1", "epoch"} <= lines[2].keys()

"""The training loop learns, resumes after a kill, and divides its work among processes."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers.disk import full_disk
from helpers.processes import as_ranks, start
from helpers.progress import RecordedProgress
from helpers.training_runs import (
    BAD,
    losses,
    network,
    run,
    run_traced,
    run_until_save,
    train_on_noise,
)

from i3dzoo.errors import FormatError, OutputError, RecipeError, TrainingError
from i3dzoo.training import checkpointing

RATE = "optim.lr=0.02"
SETTINGS = [RATE, "loop.epochs=3", "loop.save_every=1", "network.dropout=0.5", "network.ema=0.5"]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)
    return weights


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder, SETTINGS)
    return folder


def _assert_resumes_to(whole: Path, killed: Path) -> None:
    """Assert equal weights and losses, to the bit, and one remaining checkpoint."""
    run(killed, SETTINGS)
    torch.testing.assert_close(_weights(killed), _weights(whole), rtol=0, atol=0)
    assert losses(killed) == losses(whole)
    assert len(list((killed / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["loop.precision=bf16"],
        ["loop.channels_last=true"],
        ["network.batchnorm=sync"],
        ["optim.kind=adamw", "optim.lr=0.005", "optim.head_lr_scale=1"],
        ["optim.nesterov=true"],
    ],
)
def test_it_learns(tmp_path: Path, settings: list[str]) -> None:
    """The loss falls, and the accuracy is above chance, whatever the optimiser and precision."""
    position, _ = run(tmp_path, [RATE, "loop.epochs=4", *settings])
    assert len(losses(tmp_path)) == 8
    assert losses(tmp_path)[-1] < 0.75 * losses(tmp_path)[0]
    assert position.best_top1 >= 0.75  # chance is a half
    assert (tmp_path / "best.json").exists()


def test_kill_and_resume_to_the_bit(whole: Path, tmp_path: Path) -> None:
    """A run that is killed at random moments and resumed ends with the same weights."""
    kills = 0
    for pause in (0.05, 0.35, 0.15):
        process = start(run, tmp_path, SETTINGS)
        step = checkpointing.latest(tmp_path)
        while process.is_alive() and checkpointing.latest(tmp_path) == step:
            time.sleep(0.005)
        time.sleep(pause)
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills
    _assert_resumes_to(whole, tmp_path)


def test_killed_in_the_middle_of_a_save(whole: Path, tmp_path: Path) -> None:
    """If a save is interrupted, the run resumes from the checkpoint before it."""
    process = start(run_until_save, 4, tmp_path, SETTINGS)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    latest = checkpointing.latest(tmp_path)
    assert latest is not None
    # a complete one, and half of the next under another name
    assert len(list(latest.parent.iterdir())) == 2
    assert checkpointing.load(latest)[0].step < 4
    _assert_resumes_to(whole, tmp_path)


def test_two_processes_are_one_of_twice_the_batch(tmp_path: Path) -> None:
    """Two processes over gloo have the loss curve of one process with the same batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    # in parts, with a moving average, and with parts that are unfrozen on the way
    settings = [*SETTINGS, "network.dropout=0", "loop.accumulate=2"]
    settings += ["network.freeze=until:Mixed_4b", "network.unfreeze_epoch=1"]
    run(one, settings)
    as_ranks(train_on_noise, two, settings)
    for folder in (one, two):
        files = json.loads((folder / "bad.json").read_text())
        assert sorted(files) == sorted(f"bad {number}" for number in BAD)  # of both, each once
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert len(losses(two)) == 6
    torch.testing.assert_close(_weights(two), _weights(one), rtol=1e-4, atol=1e-5)


def test_synchronised_batchnorm_needs_gpus(tmp_path: Path) -> None:
    """Several CPUs cannot synchronise BatchNorm."""
    message = "network.batchnorm is sync, which PyTorch supports only on GPUs"
    with pytest.raises(RecipeError, match=message):
        as_ranks(train_on_noise, tmp_path, [*SETTINGS, "network.batchnorm=sync"])


@pytest.mark.parametrize(
    "setting",
    [
        "loop.accumulate=4",
        "loop.checkpoint_activations=true",
        "traced",
        pytest.param(
            "compiled",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler"),
            ],
        ),
    ],
)
def test_the_result_is_the_same_with(tmp_path: Path, setting: str) -> None:
    """Batches in parts, recomputed activations and compilation change no loss and no weights.

    Where it is only traced, torch.compile makes the same graphs, and compiles no code of them.
    """
    settings: tuple[str, ...] = (RATE, "network.dropout=0", "network.ema=null", "loop.epochs=2")
    if setting == "loop.checkpoint_activations=true":
        settings += ("network.batchnorm=train",)  # its statistics are the same, too
    run(tmp_path / "plain", settings)
    if setting in ("traced", "compiled"):  # leaves processes and warnings behind
        function = run_traced if setting == "traced" else run
        process = start(function, tmp_path / "other", [*SETTINGS, *settings, "loop.compile=true"])
        process.join()
        assert process.exitcode == 0
    else:
        run(tmp_path / "other", (*settings, setting))
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    expected = _weights(tmp_path / "plain")
    for name, tensor in _weights(tmp_path / "other").items():
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_freezing(tmp_path: Path) -> None:
    """Frozen parts and their statistics do not change until they are unfrozen."""
    before = network().state_dict()
    settings = ["network.freeze=until:Mixed_4b", "network.batchnorm=train", "loop.epochs=1"]
    after = run(tmp_path / "frozen", settings)[1].state_dict()
    moved = {name.split(".")[2] for name in after if not torch.equal(before[name], after[name])}
    assert "Mixed_4b" not in moved
    assert "Conv3d_1a_7x7" not in moved
    assert {"Mixed_4c", "Logits"} <= moved
    unfrozen = run(
        tmp_path / "unfrozen",
        ["network.freeze=trunk", "network.unfreeze_epoch=1", "loop.epochs=2"],
    )[1].state_dict()
    name = "networks.rgb.Conv3d_1a_7x7.conv.weight"
    assert not torch.equal(unfrozen[name], before[name])


def test_infinite_loss_stops(tmp_path: Path) -> None:
    """A loss that is not finite stops the run with advice; the checkpoint stays."""
    with pytest.raises(TrainingError, match=r"step \d+: the loss is (nan|inf).*--set optim.lr="):
        run(tmp_path, ["optim.lr=1e30", "loop.epochs=4", "loop.save_every=1"])
    assert checkpointing.latest(tmp_path) is not None


def test_impossible_division(tmp_path: Path) -> None:
    """A batch that cannot be divided is refused."""
    with pytest.raises(RecipeError, match=r"loop.batch_size is 8; expected a multiple of 1 proc"):
        run(tmp_path, ["loop.accumulate=3"])


def test_corrupt_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that is truncated, empty, or has a wrong bit is refused by name."""
    run(tmp_path, ["loop.epochs=1"])
    path = checkpointing.latest(tmp_path)
    assert path is not None
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    content["position"]["waited"] = 1.0
    torch.save(content, other := tmp_path / "other.pt")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # within the weights
    for content, reason in (
        (whole[:1000], "not a zip file"),
        (b"", "not a zip file"),
        (flipped, "has CRC32 .* the file is corrupt.*"),
        (other.read_bytes(), "another version of i3dzoo wrote it"),
    ):
        path.write_bytes(content)
        message = rf"step-\d+\.pt: not a checkpoint of a run, or corrupt \(.*{reason}\); start"
        with pytest.raises(FormatError, match=message):
            checkpointing.load(path)


def test_full_disk_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    """If a checkpoint cannot be written completely, the one before it stays."""
    run(tmp_path, ["loop.epochs=1"])
    path = checkpointing.latest(tmp_path)
    state = {"x": torch.zeros(10_000)}
    with full_disk(1000), pytest.raises(OutputError, match="cannot be written"):
        checkpointing.save(tmp_path, checkpointing.Position(step=99), state)
    assert list((tmp_path / "checkpoints").iterdir()) == [path]


def test_metrics_and_messages(tmp_path: Path) -> None:
    """Each step and evaluation is a line of metrics.jsonl; each epoch has two messages."""
    progress = RecordedProgress()
    run(tmp_path, [RATE, "loop.epochs=2"], progress=progress)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["step", "step", "epoch"] * 2
    assert {"loss", "top1", "lr", "clips_per_second", "data_wait"} <= lines[0].keys()
    assert {"val_loss", "top1", "epoch"} <= lines[2].keys()
    for epoch in (1, 2):
        trained, evaluated = progress.messages[2 * epoch - 2 : 2 * epoch]
        step = lines[3 * epoch - 2]
        assert trained == (
            f"epoch {epoch} of 2: loss {step['loss']:.4f}, top-1 {100 * step['top1']:.2f}% of the "
            f"last batch, {step['clips_per_second']:.1f} clips/s, {step['data_wait']:.0%} waiting "
            "for data"
        )
        assert evaluated.startswith(f"epoch {epoch} of 2: validation loss ")

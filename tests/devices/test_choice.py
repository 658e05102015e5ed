"""Names of devices, and what is refused on this machine."""

from pathlib import Path

import pytest
import torch
from click import Option
from helpers.cli import run
from helpers.commands import leaf_commands
from helpers.exported import noisy

from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.cli._parameters import DEVICE
from i3dzoo.devices import choose_device, describe_devices, parse_device, suggested_devices
from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import OptionError

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_names(name: str) -> None:
    """The five forms are accepted as they are."""
    assert parse_device(name) == name


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "0"])
def test_other_names(name: str) -> None:
    """Anything else is refused with the forms that exist."""
    with pytest.raises(OptionError, match=r"expected auto, cpu, cuda, cuda:N .* or mps"):
        parse_device(name)


def test_suggestions_are_names() -> None:
    """What a shell completes is accepted."""
    assert [parse_device(name) for name in suggested_devices()] == [*suggested_devices()]
    assert DEVICE.convert("cuda:1", None, None) == "cuda:1"


@NO_GPU
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_missing_device(name: str) -> None:
    """A device that is not there is refused with those that are."""
    with pytest.raises(
        OptionError, match=rf"'{name}'; PyTorch finds only cpu \(.*use --device cpu"
    ):
        choose_device(name)
    with pytest.raises(OptionError, match="PyTorch finds only cpu"):
        ProcessGroup.join(name)  # before a model is read or trained


@NO_GPU
def test_auto_without_gpu() -> None:
    """Without a GPU, auto is the CPU."""
    assert choose_device() == choose_device("cpu") == torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool = False) -> list[torch.device]:
    """Let PyTorch report devices that are not there; return those that become current."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return chosen


def test_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number chooses a GPU and makes it the current one, and a higher number is refused."""
    current = pretend(monkeypatch, gpus=2)
    assert choose_device() == choose_device("cuda") == torch.device("cuda")
    assert current == []
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]
    with pytest.raises(OptionError, match=r"finds cpu, cuda:0 \(GPU 0\) and cuda:1 \(GPU 1\)"):
        choose_device("cuda:2")


def test_mps_is_never_chosen_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of Apple is used if it is named."""
    pretend(monkeypatch, gpus=0, mps=True)
    assert choose_device().type == "cpu"
    assert choose_device("mps").type == "mps"
    assert describe_devices() == "cpu and mps"


def test_one_device_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a launcher have a GPU each, so a number is refused."""
    pretend(monkeypatch, gpus=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="use --device cuda, and CUDA_VISIBLE_DEVICES"):
        choose_device("cuda:1")
    assert choose_device("cuda").type == "cuda"


MODEL = "x.safetensors"
COMPUTING = {
    "app": [],
    "bench": [MODEL],
    "evaluate": [MODEL, "--data", "clips"],
    "export": [MODEL, "--to", "onnx", "-o", "new.onnx"],
    "features": ["clip.mp4", "--model", MODEL, "-o", "features"],
    "finetune": ["mine", "--data", "clips", "--from", MODEL],
    "fvd": ["clips", "clips", "--model", MODEL],
    "predict": ["clip.mp4", "--model", MODEL],
    "prepare hmdb51": ["clips", "out", "--flow", "torch"],
    "prepare ucf101": ["clips", "out", "--flow", "torch"],
    "prepare videos": ["clips", "out", "--flow", "torch"],
    "tao action_recognition": ["export", "-e", "spec.yaml"],
    "verify": [MODEL, "--against", MODEL, "--numeric"],
}
"""The commands that compute with PyTorch, each with arguments that do so."""
SPEC = """
model: {backbone: i3d, model_type: rgb, input_type: 3d, rgb_seq_length: 64}
dataset: {label_map: {a: 0, b: 1, c: 2, d: 3, e: 4}}
export: {checkpoint: x.safetensors}
"""


def test_commands_that_take_a_device() -> None:
    """Every command that computes has --device, and all have one and the same."""
    found = {
        path: option
        for path, command in leaf_commands()
        for option in command.params
        if option.name == "device"
    }
    assert set(found) == set(COMPUTING)
    assert len({option.help for option in found.values() if isinstance(option, Option)}) == 1


@NO_GPU
@pytest.mark.parametrize("path", COMPUTING)
def test_commands_refuse_devices(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
) -> None:
    """A device that is not there is refused by one sentence, and nonsense as wrong usage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "spec.yaml").write_text(SPEC)
    write_checkpoint(tmp_path / MODEL, noisy("rgb", 5))
    words = [*path.split(), *COMPUTING[path], "--device"]
    for name in ("cuda", "cuda:7", "mps"):
        code, out, err = run(capsys, *words, name)
        assert (code, out) == (2, "")
        refusal = f"there is no device '{name}'; PyTorch finds {describe_devices()}; use --device"
        assert err.splitlines()[-1].startswith(f"i3dzoo: {refusal}")
    code, _, err = run(capsys, *words, "nonsense")
    assert code == 2
    assert "'nonsense' is not a device; expected auto, cpu, cuda, cuda:N" in err

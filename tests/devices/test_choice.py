"""Names of devices, and what is refused on this machine."""

import pytest
import torch

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

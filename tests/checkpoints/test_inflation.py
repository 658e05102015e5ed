"""Networks of images become I3D, and I3D becomes a network of images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import call, fail, run, succeed
from helpers.foreign import write_params
from helpers.images import (
    boring_endpoints,
    image,
    largest_difference,
    randomise,
    torchvision_endpoints,
)
from helpers.torchvision_models import torchvision_models

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.checkpoints.inflation import deflate, inflate
from i3dzoo.errors import ConverterError, FormatError, MappingError, ShapeError, UnknownNameError
from i3dzoo.network.architecture import STEM_WEIGHT, Variant
from i3dzoo.resources import data

NO_TRANSFORM = "torchvision-no-transform"
THIRD = "inception3a.branch3.1.conv.weight"


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The GoogLeNet of torchvision with 7 classes and auxiliary heads, and its state dict."""
    network = torchvision_models().googlenet(
        num_classes=7, transform_input=True, init_weights=False
    )
    randomise(network)
    path = tmp_path_factory.mktemp("googlenet") / "googlenet.pth"
    torch.save(network.state_dict(), path)
    return network, path


def _saved(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("size", "method", "transform"),
    [((64, 64), "average", True), ((75, 54), "center", True), ((61, 47), "average", False)],
)
def test_boring_video(
    networks: tuple[Any, Path], size: tuple[int, int], method: Any, transform: bool
) -> None:
    """Every endpoint is that of torchvision's GoogLeNet, with and without transform_input.

    With single frames in the middle, the ends of the clip are no exception.
    """
    network, path = networks
    network.transform_input = transform
    checkpoint = inflate(path, method, input_preset=None if transform else NO_TRANSFORM)
    pixels = image(*size)
    expected = torchvision_endpoints(network, pixels)
    network.transform_input = True
    assert largest_difference(boring_endpoints(checkpoint, pixels), expected) < 1e-4
    if method == "center":
        for end in (0, 1):
            own = boring_endpoints(checkpoint, pixels, frames=17, at=end)
            assert largest_difference(own, expected) < 1e-4
    if transform:
        wrong = checkpoint.metadata.replace(variant=Variant(pooling="global"))
        other = boring_endpoints(Checkpoint(checkpoint.tensors, wrong), pixels)["Mixed_3b"]
        assert (
            other.shape != expected["Mixed_3b"].shape
            or np.abs(other - expected["Mixed_3b"]).max() > 0.1
        )


def test_description(networks: tuple[Any, Path], caplog: pytest.LogCaptureFixture) -> None:
    """The description has the input, the network and the origin; a remark names the assumption."""
    metadata = inflate(networks[1]).metadata
    assert (metadata.stream, metadata.num_classes, metadata.labels) == ("rgb", 7, None)
    assert metadata.variant == Variant(padding="ceil", pooling="global")
    assert metadata.input.mean == (0.5, 0.5, 0.5)
    assert metadata.source.layout == "images/torchvision"
    assert [step.operation for step in metadata.history] == ["inflate"]
    assert "transform_input" in caplog.text
    assert NO_TRANSFORM in caplog.text
    caplog.clear()
    plain = inflate(networks[1], "center", input_preset=NO_TRANSFORM).metadata
    assert plain.input.mean == (0.485, 0.456, 0.406)
    assert plain.history[0].method == "center"
    assert not caplog.text


def test_flow(networks: tuple[Any, Path]) -> None:
    """Equal channels of flow give the response of a grey image in the first convolution."""
    rgb, flow = inflate(networks[1]), inflate(networks[1], in_channels=2)
    assert (flow.metadata.stream, flow.metadata.input.channels) == ("flow", "xy")
    weight = networks[0].state_dict()["conv1.conv.weight"]
    response = flow.tensors[STEM_WEIGHT].sum(axis=(1, 2))
    np.testing.assert_allclose(response, weight.sum(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(rgb.tensors[STEM_WEIGHT].sum(axis=2), weight.numpy(), atol=1e-6)


@pytest.mark.parametrize("method", ["average", "center"])
def test_deflate(networks: tuple[Any, Path], method: Any) -> None:
    """The sum over time is the network of images again, and torchvision loads it."""
    network, path = networks
    tensors = deflate(inflate(path, method))
    state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    own = torchvision_models().googlenet(
        num_classes=7, aux_logits=False, transform_input=True, init_weights=False
    )
    own.load_state_dict(state)
    for name, tensor in network.state_dict().items():
        if not name.startswith("aux") and tensor.is_floating_point():
            torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-8)


def test_commands(networks: tuple[Any, Path], tmp_path: Path) -> None:
    """Inflate names what it leaves out and what comes next; deflate writes a file to inflate."""
    target = tmp_path / "x.safetensors"
    result = call("inflate", networks[1], target, code=0)
    assert result.stdout == f"{target}\n"
    assert "aux1.conv.conv.weight  ignored" in result.stderr
    assert "num_batches_tracked" not in result.stderr
    assert f"Next: i3dzoo finetune hmdb51 --data FOLDER --from {target}" in result.stderr
    written = read_checkpoint(target)
    assert written.metadata.variant.padding == "ceil"
    back = call("deflate", target, tmp_path / "x.pth", code=0)
    assert back.stdout == f"{tmp_path / 'x.pth'}\n"
    again = inflate(tmp_path / "x.pth").tensors
    for name, array in written.tensors.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-6, atol=1e-8)


def test_json_and_refusals(
    networks: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json prints the mapping; an existing file and other suffixes are refused."""
    target = tmp_path / "x.safetensors"
    arguments = ("inflate", networks[1], target, "--method", "center", "--in-channels", "2")
    document = json.loads(succeed(capsys, *arguments, "--json")[0])
    assert document["metadata"]["stream"] == "flow"
    assert document["tensors"][0]["source"] == "conv1.conv.weight"
    assert "inflated (center)" in document["tensors"][0]["operation"]
    assert "--force" in fail(capsys, *arguments)
    result = call("inflate", networks[1], tmp_path / "x.pt", code=2)
    assert ".safetensors" in result.stderr
    code, out, err = run(capsys, "deflate", target, tmp_path / "x.onnx")
    assert (code, out) == (2, "")
    assert ".pt" in err


def test_other_commands_point_to_inflate(networks: tuple[Any, Path]) -> None:
    """Reading a network of images as I3D is refused, with the command that reads it."""
    with pytest.raises(MappingError, match=r"GoogLeNet of images.*i3dzoo inflate"):
        read_checkpoint(networks[1])
    with pytest.raises(ConverterError, match="i3dzoo inflate reads it"):
        read_checkpoint(networks[1], "images/torchvision")


def test_refusals(networks: tuple[Any, Path], file: Path, tmp_path: Path) -> None:
    """What is not Inception-v1 with BatchNorm is refused, with the key and a reason."""
    state = networks[0].state_dict()
    path = tmp_path / "x.pth"
    with pytest.raises(MappingError, match="is already an I3D network"):
        inflate(file)
    with pytest.raises(UnknownNameError, match=r"'mean'.*average, center"):
        inflate(networks[1], "mean")  # type: ignore[arg-type]
    rest = {name: tensor for name, tensor in state.items() if name != THIRD}
    with pytest.raises(MappingError, match=f"1 missing .{THIRD}"):
        inflate(_saved(path, rest))
    with pytest.raises(ShapeError, match=f"{THIRD} becomes"):
        inflate(_saved(path, {**state, THIRD: torch.zeros(32, 16, 5, 5)}))
    with pytest.raises(FormatError, match="NaN"):
        inflate(_saved(path, {**state, THIRD: state[THIRD] * torch.nan}))
    with pytest.raises(MappingError, match=r"1 unknown .extra"):
        inflate(_saved(path, {**state, "extra.weight": torch.zeros(1)}))
    assert inflate(path, ignore=("extra.*",)).metadata.num_classes == 7


def test_networks_without_batch_norm(tmp_path: Path) -> None:
    """GoogLeNet of Caffe and MXNet is refused for its reason, whatever its names are."""
    path = tmp_path / "bvlc_googlenet.caffemodel"
    path.write_bytes(b"\x0a\x09GoogleNet")
    with pytest.raises(MappingError, match="no BatchNorm"):
        inflate(path)
    state = {"conv1/7x7_s2.weight": torch.zeros(64, 3, 7, 7), "conv1/7x7_s2.bias": torch.zeros(64)}
    with pytest.raises(MappingError, match=r"conv1/7x7_s2\.weight.*torchvision's GoogLeNet"):
        inflate(_saved(tmp_path / "x.pth", state))
    write_params(tmp_path / "x.params", {"arg:conv_weight": np.zeros((64, 3, 7, 7), "f4")})
    with pytest.raises(MappingError, match=r"conv_weight.*torchvision's GoogLeNet"):
        inflate(tmp_path / "x.params")


def test_several_networks_and_float64(
    networks: tuple[Any, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A key chooses the network of images, also behind a prefix; float64 is rounded, and said."""
    state = {name: t.double() for name, t in networks[0].state_dict().items()}
    teacher = {f"backbone.{name}": tensor * 2 for name, tensor in state.items()}
    path = tmp_path / "run.pth"
    torch.save({"student": state, "teacher": teacher}, path)
    with pytest.raises(MappingError, match="--key student"):
        inflate(path)
    checkpoint = inflate(f"{path}#teacher")
    weight = checkpoint.tensors[STEM_WEIGHT]
    assert weight.dtype == "f4"
    twice = 2 * networks[0].state_dict()["conv1.conv.weight"].numpy()
    np.testing.assert_allclose(weight.sum(axis=2), twice, atol=1e-6)
    assert "float64 is rounded" in caplog.text


def test_own_table(networks: tuple[Any, Path], tmp_path: Path) -> None:
    """A table of one's own reads other names; a table of clips is refused, and says where to."""
    text = (data("converters") / "images" / "torchvision.toml").read_text("utf-8")
    own = tmp_path / "mine.toml"
    own.write_text(text.replace('"conv1"', '"stem"'))
    state = {
        name.replace("conv1.", "stem.") if name.startswith("conv1.") else name: tensor
        for name, tensor in networks[0].state_dict().items()
    }
    path = _saved(tmp_path / "x.pth", state)
    assert inflate(path, table=own).metadata.num_classes == 7
    with pytest.raises(ConverterError, match="i3dzoo inflate reads it"):
        read_checkpoint(path, converter=own)
    own.write_text((data("converters") / "piergiaj.toml").read_text("utf-8"))
    with pytest.raises(ConverterError, match="OIHW"):
        inflate(path, table=own)


def test_layouts_of_images_are_written_by_deflate(rgb: Checkpoint, tmp_path: Path) -> None:
    """Convert refuses to write a network of clips in a layout of images."""
    with pytest.raises(MappingError, match="i3dzoo deflate"):
        i3dzoo.write_checkpoint(tmp_path / "x.pth", rgb, "images/torchvision")
    with pytest.raises(UnknownNameError, match="torchvision"):
        deflate(rgb, "caffe")


def test_finetune(networks: tuple[Any, Path], motions: Path, tmp_path: Path) -> None:
    """A fine-tuning run starts from an inflated network, and keeps its padding."""
    from helpers.training_runs import SMOKE, finetune

    target = tmp_path / "x.safetensors"
    i3dzoo.write_checkpoint(target, inflate(networks[1]))
    steps = ("--set", "loop.max_steps=2", "--keep", "last")
    run = ("--data", motions, "--from", target, "-o", tmp_path / "run", *SMOKE, *steps)
    result = finetune("hmdb51", *run)
    assert result.returncode == 0, result.stderr
    metadata = read_checkpoint(tmp_path / "run" / "last.safetensors").metadata
    assert metadata.variant == Variant(padding="ceil", pooling="global")
    assert [step.operation for step in metadata.history] == ["inflate", "head", "finetune"]

"""Other BatchNorm epsilons, padding and pooling, in the network and in its exports."""

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import described, torch_state
from helpers.exported import compare_onnx, pytorch_logits
from helpers.peer_piergiaj import Peer

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import ShapeError
from i3dzoo.network.architecture import Padding, Variant
from i3dzoo.network.i3d import I3D
from i3dzoo.onnx.options import AXES, ExportOptions

VARIANTS = [
    Variant(epsilon=1e-5),
    Variant(padding="symmetric", pooling="global"),
    Variant(padding="symmetric"),
    Variant(padding="ceil"),
]
# each variant with the option that could lose it: a fold, a stem of other convolutions, outputs
OPTIONS = (
    ExportOptions(keep_bn=True),
    ExportOptions(features=True, steps=True),
    ExportOptions(space_to_depth=True),
    ExportOptions(space_to_depth=True, steps=True),
)
FIXED = dict(zip(VARIANTS, OPTIONS, strict=True))


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
def varied(request: pytest.FixtureRequest, rgb: Checkpoint) -> Checkpoint:
    """The small RGB network in another variant; its convolutions do not lose the input."""
    tensors = {n: a * 3 if n.endswith("conv.weight") else a for n, a in rgb.tensors.items()}
    return described(dataclasses.replace(rgb, tensors=tensors), variant=request.param)


@pytest.mark.parametrize("size", [(16, 32, 32), (31, 64, 45)])
def test_equals_an_independent_network(varied: Checkpoint, size: tuple[int, int, int]) -> None:
    """The logits are those of a PyTorch network with this epsilon, padding and pooling."""
    variant = varied.metadata.variant
    peer = Peer(5, 3, variant.epsilon, variant.padding, variant.pooling == "global")
    peer.load_state_dict(torch_state(varied.tensors))
    clips = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = peer.eval()(clips)
    logits = torch.from_numpy(pytorch_logits(varied, clips))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    plain = pytorch_logits(described(varied, variant=Variant()), clips)
    assert abs(plain - expected.numpy()).max() > 20 * (logits - expected).abs().max()


@pytest.mark.parametrize("frames", [13, 16, 23, 64])
@pytest.mark.parametrize(
    "variant", [Variant(), *VARIANTS, Variant(padding="ceil", pooling="global")], ids=str
)
def test_number_of_steps(variant: Variant, frames: int) -> None:
    """A variant knows how many steps the network makes of a clip."""
    with torch.device("meta"):
        model = I3D(3, variant=variant).eval()
        assert model.step_logits(torch.empty(1, 3, frames, 64, 64)).shape[1] == variant.steps(
            frames
        )


@pytest.mark.parametrize(("padding", "frames"), [("same", 9), ("symmetric", 13), ("ceil", 11)])
def test_shortest_clip(padding: Padding, frames: int) -> None:
    """Other padding leaves less of a short clip, and the error says how long it must be."""
    with torch.device("meta"):
        model = I3D(3, variant=Variant(padding=padding)).eval()
        with pytest.raises(ShapeError, match=f"{frames - 1} frames; I3D takes {frames}"):
            model(torch.empty(1, 3, frames - 1, 32, 32))
        assert model(torch.empty(1, 3, frames, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("dynamic", [True, False])
def test_onnx(varied: Checkpoint, dynamic: bool) -> None:
    """ONNX graphs have the variant, and onnxruntime returns PyTorch's numbers."""
    options = ExportOptions(dynamic=AXES) if dynamic else FIXED[varied.metadata.variant]
    engine = compare_onnx([varied], options)
    assert engine.metadata.variant == varied.metadata.variant


@pytest.mark.parametrize("varied", VARIANTS[1::2], ids=str, indirect=True)
def test_torchscript(varied: Checkpoint, tmp_path: Path) -> None:
    """TorchScript has the variant, at sizes that it was not exported for as well."""
    export = i3dzoo.export(varied, tmp_path / "x.ts", "torchscript", dynamic=AXES)
    assert export.parity is not None
    assert all(case.error < 1e-4 * case.largest for case in export.parity.cases)


@pytest.mark.slow
def test_pt2(varied: Checkpoint, tmp_path: Path) -> None:
    """An archive of torch.export has the variant."""
    assert i3dzoo.export(varied, tmp_path / "x.pt2", "pt2").parity is not None

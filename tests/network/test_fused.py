"""The fused form of the network equals the network, on a GPU or in Triton's interpreter.

TRITON_INTERPRET=1 python -m pytest tests/network/test_fused.py runs it on a CPU with Triton
installed; it takes minutes.
"""

import importlib.util
import os
from typing import Any

import pytest
import torch
from helpers.progress import RecordedProgress
from torch import Tensor

from i3dzoo import pretrained
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.errors import OptionError, ShapeError
from i3dzoo.kernels.tiles import TIMED, candidates, find_tile, known_tiles
from i3dzoo.network.architecture import DEEPMIND, ENDPOINTS, POOLED, UNITS, Variant
from i3dzoo.network.fused import GRAPHS, LOGITS, FusedI3D, can_fuse
from i3dzoo.network.i3d import I3D
from i3dzoo.pretrained import DeployedI3d, InceptionI3d, build
from i3dzoo.video.transforms import normalise

GPU = torch.cuda.is_available() and can_fuse(torch.device("cuda"))
INTERPRETER = importlib.util.find_spec("triton") and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if GPU else "cpu")
OTHER = Variant(epsilon=1e-5, padding="symmetric", pooling="global")
CEIL = Variant(padding="ceil", pooling="global")
RUNS = pytest.mark.skipif(not (GPU or INTERPRETER), reason="there is no such GPU")
SIZES = [(1, 9, 18, 21)] if not GPU else [(1, 9, 32, 32), (3, 17, 45, 58), (2, 16, 225, 255)]


def network(channels: int = 3, variant: Variant = DEEPMIND) -> InceptionI3d:
    """Return a seeded network whose BatchNorm has statistics."""
    torch.manual_seed(0)
    model = InceptionI3d(5, channels, variant=variant).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def error(output: Tensor, expected: Tensor) -> float:
    """Return the difference as a part of the norm."""
    output, expected = output.double().cpu(), expected.double().cpu()
    return float((output - expected).norm() / expected.norm())


@RUNS
@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")  # the interpreter
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("channels", "variant"), [(3, DEEPMIND), (2, DEEPMIND), (3, OTHER), (3, CEIL)]
)
def test_every_endpoint(channels: int, variant: Variant, size: tuple[int, ...]) -> None:
    """All activations and outputs equal those in float64, over odd sizes, twice in a row."""
    model = network(channels, variant)
    fused = FusedI3D(model.state_dict(), variant, DEVICE)
    reference = I3D(5, channels, variant=variant).eval().to(DEVICE).double()
    reference.load_state_dict(model.state_dict())
    x = torch.rand(size[0], channels, *size[1:], device=DEVICE) * 2 - 1
    wanted = (*ENDPOINTS, LOGITS, POOLED)
    with torch.inference_mode():
        expected = reference.endpoints(x.double())
        expected |= {
            LOGITS: reference.step_logits(x.double()),
            POOLED: reference.features(x.double()),
        }
        for clips in (x, x.half().contiguous(memory_format=torch.channels_last_3d)):
            outputs = fused(clips, wanted)
            for name in wanted:
                assert outputs[name].shape == expected[name].shape
                assert error(outputs[name], expected[name]) < 3e-3, name


@pytest.mark.skipif(not GPU, reason="there is no such GPU")
@pytest.mark.gpu
def test_graphs_of_other_shapes_are_dropped() -> None:
    """Results stay the same when more shapes come than there are graphs."""
    deployed = network().cuda().optimize()
    assert isinstance(deployed, DeployedI3d)
    engine = FusedEngine(deployed)
    clips = [torch.rand(1, 3, 9 + number, 32, 32) for number in range(GRAPHS + 2)]
    first = [engine.step_logits(clip) for clip in clips]
    for clip, logits in zip(clips, first, strict=True):
        assert torch.equal(engine.step_logits(clip), logits)
    assert engine.features(clips[0], "Mixed_5c").shape == (1, 1024)
    with pytest.raises(ShapeError, match="8 frames"):
        engine.step_logits(clips[0][:, :, :8])


@pytest.mark.skipif(not GPU, reason="there is no such GPU")
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_clips_are_read_where_they_lie(dtype: torch.dtype) -> None:
    """Results are those of the clips at the time of the call, in places old and new."""
    pixels = 3 * [1 / 127.5], 3 * [-1.0]
    weights = network().state_dict()
    fused = FusedI3D(weights, DEEPMIND, DEVICE, pixels=pixels)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def clip() -> Tensor:
        values = torch.rand(1, 3, 9, 32, 32, device=DEVICE, generator=generator)
        return (values * 255).to(dtype) if dtype == torch.uint8 else values

    places = [clip(), clip().contiguous(memory_format=torch.channels_last_3d), clip()]
    for number in (0, 0, 0, 1, 0, 1, 1, 1, 2, 2, 0, 2):
        place = places[number]
        place.copy_(clip())
        fresh = FusedI3D(weights, DEEPMIND, DEVICE, pixels=pixels)
        assert torch.equal(fused(place)[LOGITS], fresh(place.clone())[LOGITS])


@pytest.mark.skipif(not GPU, reason="there is no such GPU")
@pytest.mark.gpu
def test_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips that pass the first layers in parts have the results of clips that do not."""
    weights = network().state_dict()
    x = torch.rand(7, 3, 16, 48, 48, device=DEVICE)
    wanted = (LOGITS, POOLED, "Mixed_4b")
    whole = FusedI3D(weights, DEEPMIND, DEVICE)(x, wanted)
    for size in (1, 2, 3):
        monkeypatch.setattr("i3dzoo.network.fused._PART", size * 16 * 48 * 48)
        monkeypatch.setattr("i3dzoo.network.fused._LEAST_PARTS", 2)
        fused = FusedI3D(weights, DEEPMIND, DEVICE)
        for clips in (x, x.clone().half().float(), x):
            outputs = fused(clips, wanted)
        for name in wanted:
            assert torch.equal(outputs[name], whole[name]), name
        assert "Mixed_3b" in fused(x, ["Mixed_3b"])


def test_every_layer_has_a_measured_tile() -> None:
    """The table has a tile for each convolution, for one clip and for eight."""
    names = {unit.name for unit in UNITS if unit.kernel == 3}
    for count in (1, 8):
        for name in names:
            tile = find_tile(name, (count, 16, 14, 14, 96))
            assert tile.columns % 16 == 0
            assert tile.depth % 32 == 0
            tiles = candidates(name, (count, 16, 14, 14, 96), None, 99 << 10)
            assert find_tile(name, (count, 16, 14, 14, 96), {"1": {}, "8": {}}) == tiles[0]
            assert set(tiles) <= known_tiles()


def test_pixels_and_progress(rgb: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels come in the input's order, with its normalisation; compiling is announced once."""
    spec = rgb.metadata.input.replace(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channels="bgr"
    )
    model = build(Checkpoint(rgb.tensors, rgb.metadata.replace(input=spec)))
    seen: list[Tensor] = []

    class Network:
        def __init__(self, *arguments: Any) -> None:
            scale, shift = (torch.tensor(part).view(-1, 1, 1, 1) for part in arguments[4])
            self.normalise = lambda x: x * scale + shift

        def __call__(self, x: Tensor, _: object) -> dict[str, Tensor]:
            seen.append(self.normalise(x))
            return {LOGITS: torch.zeros(1, 7, 400)}

    monkeypatch.setattr(pretrained, "FusedI3D", Network)
    monkeypatch.setattr(pretrained, "find_tiles", lambda *_: TIMED)
    progress = RecordedProgress()
    deployed = DeployedI3d(model, torch.float16, progress)
    x = torch.randint(0, 256, (1, 9, 16, 16, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    for _ in range(2):
        deployed.step_logits(x)
    torch.testing.assert_close(seen[1], normalise(x, spec))
    (message,) = progress.messages
    assert message.startswith("compiling the kernels of the engine fused for clips of 1x3x9x16x16")


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_without_a_gpu(rgb: Checkpoint) -> None:
    """Where there is no such GPU, the message names the engine to use."""
    with pytest.raises(OptionError, match=r"needs Triton and an NVIDIA GPU.*use --engine torch"):
        FusedEngine.from_checkpoint(rgb)

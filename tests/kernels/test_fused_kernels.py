"""Each kernel of the engine fused equals PyTorch, on a GPU or in Triton's interpreter.

`make kernels` runs them on a CPU. Every output is NaN before a kernel writes it.
"""

import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.errors import InputTypeError
from i3dzoo.kernels.tiles import Tile
from i3dzoo.network.architecture import (
    DEEPMIND,
    POOLS,
    STEM,
    Padding,
    Unit,
    Variant,
    canonical_shapes,
    output_size,
    pad_axis,
)
from i3dzoo.network.fused import FusedI3D, Pixels, can_fuse
from i3dzoo.network.tile_search import TileSearch
from i3dzoo.progress import SILENT

GPU = torch.cuda.is_available() and can_fuse(torch.device("cuda"))
INTERPRETER = importlib.util.find_spec("triton") and os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if GPU else "cpu")
DESCRIBED = [False, True]  # GPUs before Hopper, and Hopper
if GPU:
    DESCRIBED = [torch.cuda.get_device_capability() >= (9, 0)]
KERNELS = sorted({*POOLS.values(), ((3, 3, 3), (1, 1, 1))})
pytestmark = [
    pytest.mark.skipif(not (GPU or INTERPRETER), reason="there is no such GPU; make kernels"),
    pytest.mark.gpu,
    # of the interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


def tensors_of(channels: int) -> dict[str, Tensor]:
    """Return the canonical tensors of a random network."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in canonical_shapes(5, channels).items():
        values = torch.rand(shape, generator=generator)
        tensors[name] = values + 0.5 if name.endswith("var") else values - 0.5
    return tensors


class Poisoned(FusedI3D):
    """A network whose buffers are NaN until a kernel writes them."""

    def __init__(
        self,
        padding: Padding = "same",
        channels: int = 3,
        pixels: Pixels | None = None,
        pooling: Literal["window", "global"] = "window",
    ) -> None:
        variant = Variant(padding=padding, pooling=pooling)
        super().__init__(tensors_of(channels), variant, DEVICE, pixels=pixels)

        self.flip = False

    def _empty(self, *shape: int) -> Tensor:
        return super()._empty(*shape).fill_(torch.nan)

    def _tile(self, name: str, x: Tensor) -> Tile:
        return super()._tile(name, x)._replace(flip=self.flip)

    def run_conv(self, x: Tensor, groups: Sequence[Sequence[Unit]], outputs: list[Tensor]) -> None:
        """Run a layer of other units than the network's; x and outputs are [N, T, H, W, C]."""
        units = [unit for group in groups for unit in group]
        self._tensors = self.weights = weights_of(units)
        self._mean_inputs = {
            unit.name: torch.zeros(unit.in_channels, dtype=torch.float64, device=DEVICE)
            for unit in units
        }
        name = "another layer " + "x".join(3 * [str(groups[0][0].kernel)])
        self._add(name, *map(list, groups))
        self._conv(self._layers[name], x, *outputs)


@pytest.fixture(scope="module")
def fused() -> Poisoned:
    """DeepMind's variant."""
    return Poisoned()


def weights_of(units: Sequence[Unit]) -> dict[str, Tensor]:
    """Return random weights, and BatchNorm with statistics."""
    tensors = {}
    generator = torch.Generator().manual_seed(1)
    for unit in units:
        shape = (unit.out_channels, unit.in_channels, *(unit.kernel,) * 3)
        tensors[f"{unit.name}.conv.weight"] = torch.rand(shape, generator=generator) - 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{unit.name}.bn.{part}"] = torch.rand(unit.out_channels, generator=generator)
    return tensors


def reference(x: Tensor, tensors: dict[str, Tensor], unit: Unit, stride: int = 1) -> Tensor:
    """Return a unit in float64, from a padded [N, C, T, H, W] to [N, T', H', W', C']."""
    weight = tensors[f"{unit.name}.conv.weight"].double().to(x.device)
    y = F.conv3d(x.double(), weight, stride=stride)
    gamma, beta, mean, variance = (
        tensors[f"{unit.name}.bn.{part}"].double().to(x.device).view(-1, 1, 1, 1)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    y = (y - mean) / (variance + DEEPMIND.epsilon).sqrt() * gamma + beta
    return y.relu().permute(0, 2, 3, 4, 1)


def check(output: Tensor, expected: Tensor, tolerance: float = 3e-3) -> None:
    """Compare with float64, as a part of the norm."""
    assert output.shape == expected.shape
    error = (output.double() - expected.double()).norm() / expected.double().norm()
    assert error < tolerance  # NaN is not


def clip(channels: int, size: Sequence[int], batch: int = 1) -> Tensor:
    """Return a clip of noise."""
    generator = torch.Generator().manual_seed(2)
    return (torch.rand(batch, channels, *size, generator=generator) * 2 - 1).to(DEVICE)


@pytest.mark.parametrize(
    ("channels", "padding", "size", "batch", "described"),
    [
        (3, "same", (9, 10, 13), 1, DESCRIBED[0]),
        (2, "symmetric", (3, 9, 12), 2, DESCRIBED[-1]),
        (3, "ceil", (4, 17, 11), 1, DESCRIBED[-1]),
    ],
)
def test_first_convolution(
    channels: int, padding: Padding, size: tuple[int, int, int], batch: int, described: bool
) -> None:
    """Windows of float32, float16 and other strides, and the convolution of them."""
    network = Poisoned(padding, channels)
    network._described = described
    x = clip(channels, size, batch)
    pads = [side for n in reversed(size) for side in pad_axis(padding, n, 7, 2, pool=False)]
    expected = reference(F.pad(x, pads), tensors_of(channels), STEM[0], stride=2)
    strided = x.half().contiguous(memory_format=torch.channels_last_3d)
    for same in (x, strided):
        windows = network._empty_windows(same)
        network._windows(same, windows)
        assert torch.isfinite(windows).all()
        for network.flip in (False, True):
            check(network._stem(windows, size), expected)


@pytest.mark.parametrize("channels", [2, 3])
def test_windows_of_pixels(channels: int) -> None:
    """Pixels of uint8 in any order are normalised by channel; what is outside of a frame is 0."""
    means, stds = [0.5, 0.456, 0.406][:channels], [0.5, 0.224, 0.225][:channels]
    scale = [1 / (255 * std) for std in stds]
    shift = [-mean / std for mean, std in zip(means, stds, strict=True)]
    network = Poisoned(channels=channels, pixels=(scale, shift))
    pixels = torch.randint(0, 256, (2, 3, 9, 13, channels), dtype=torch.uint8, device=DEVICE)
    x = pixels.permute(0, 4, 1, 2, 3)
    mean, std = (torch.tensor(n, device=DEVICE).view(-1, 1, 1, 1) for n in (means, stds))
    values = (x.float() / 255 - mean) / std
    windows, expected = network._empty_windows(x), network._empty_windows(values)
    network._windows(x, windows)
    network._windows(values, expected)
    assert torch.equal(windows == 0, expected == 0)
    assert float((windows - expected).abs().max()) <= 2e-3  # one rounding of a number below 4
    with pytest.raises(InputTypeError, match="uint8"):
        Poisoned(channels=channels)(x)


def test_tile_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest tile is taken of those that are right; there must be one."""
    name = "Mixed_4b.Branch_2.Conv3d_0b_3x3"
    search = TileSearch(tensors_of(3), DEEPMIND, DEVICE)
    search._best, search._deadline, search._done, search._progress = {}, math.inf, 0, SILENT
    x = clip(16, (2, 3, 4)).permute(0, 2, 3, 4, 1).half().contiguous()
    tiles = search._candidates(name, x.shape, None)
    assert len(tiles) >= 3
    launch = search._launch

    def launch_some(layer: Any, tile: Tile, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        launch(layer, tiles[0], x, y, z)  # all take as long
        if tile in wrong:
            y[0, 0, 0, 0] += 1
        if tile == tiles[1]:
            raise ValueError("too much shared memory")

    def take_time(run: Any) -> float:
        tried.append(run)
        return float(len(tried))

    monkeypatch.setattr(search, "_launch", launch_some)
    monkeypatch.setattr(search, "_time", take_time)
    tried: list[Any] = []
    wrong = {tiles[-1]}
    y = search._empty(*x.shape[:4], 48)
    search._conv(search._layers[name], x, y)
    assert len(tried) == len(tiles) - 2
    assert search._best[name] == tiles[0]
    assert y.isfinite().all()
    wrong = set(tiles)
    with pytest.raises(RuntimeError, match="no tile of Mixed_4b"):
        search._conv(search._layers[name], x, y)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        *((kernel, stride, "same") for kernel, stride in KERNELS),
        *(((3, 3, 3), (2, 2, 2), padding) for padding in ("symmetric", "ceil")),
    ],
)
def test_pool(
    fused: Poisoned,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: Padding,
) -> None:
    """Maxima are exact, of an input that is wider in memory, and of channels that fill no block."""
    dtype = torch.bfloat16 if padding == "ceil" else torch.float16
    fused.variant, fused.dtype = Variant(padding=padding), dtype
    count, channels, size = (3, 8, (3, 3, 5)) if padding == "ceil" else (1, 70, (3, 5, 6))
    wide = torch.full((count, *size[:2], size[2] + 1, channels), torch.nan, dtype=dtype)
    x = wide.to(DEVICE)[:, :, :, : size[2]]
    x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).relu())
    axes = list(zip(size, kernel, stride, strict=True))
    pads = [side for axis in reversed(axes) for side in pad_axis(padding, *axis, pool=True)]
    padded = F.pad(x.double().permute(0, 4, 1, 2, 3), pads)
    expected = F.max_pool3d(padded, kernel, stride).permute(0, 2, 3, 4, 1)
    sizes = [output_size(padding, *axis, pool=True) for axis in axes]
    output = fused._pool(x, kernel, stride)
    fused.variant, fused.dtype = DEEPMIND, torch.float16
    assert output.shape[1:4] == torch.Size(sizes)
    assert torch.equal(output.double(), expected[:, : sizes[0], : sizes[1], : sizes[2]])


def test_pool_keeps_nan(fused: Poisoned) -> None:
    """A NaN wins over any number, and reaches only the windows that see it."""
    x = torch.ones(1, 4, 3, 3, 8, dtype=torch.float16, device=DEVICE)
    x[0, 2, 1, 1, 3] = torch.nan
    output = fused._pool(x, (3, 3, 3), (1, 1, 1)).isnan()
    assert output[0, 1:4, :, :, 3].all()
    assert int(output.sum()) == 27


@pytest.mark.parametrize(
    ("kernel", "channels", "outputs", "size", "batch", "described"),
    [
        (3, 24, 40, (3, 5, 6), 1, DESCRIBED[-1]),  # channels that are no multiple of 16
        (3, 24, 40, (3, 5, 6), 1, DESCRIBED[0]),
        (3, 104, 72, (2, 3, 9), 2, DESCRIBED[-1]),
        (3, 16, 136, (5, 2, 1), 4, DESCRIBED[0]),
        (1, 40, 24, (3, 3, 5), 1, DESCRIBED[-1]),
        (1, 40, 24, (3, 3, 5), 1, DESCRIBED[0]),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_convolution(
    fused: Poisoned,
    kernel: int,
    channels: int,
    outputs: int,
    size: tuple[int, int, int],
    batch: int,
    described: bool,
    flip: bool,
) -> None:
    """A convolution reads and writes slices of wider tensors, and nothing beside them."""
    fused._described, fused.flip = described, flip
    unit = Unit("unit", channels, outputs, kernel)
    wide = torch.full((batch, *size, channels + 16), torch.nan, dtype=torch.float16, device=DEVICE)
    x = wide[..., 8 : 8 + channels]
    x.copy_(clip(channels, size, batch).permute(0, 2, 3, 4, 1))
    buffer = fused._empty(batch, *size, outputs + 24)
    y = buffer[..., 16 : 16 + outputs]
    fused.run_conv(x, [[unit]], [y])
    pads = (kernel // 2,) * 6
    check(y, reference(F.pad(x.permute(0, 4, 1, 2, 3), pads), fused.weights, unit))
    assert buffer[..., :16].isnan().all()
    assert buffer[..., 16 + outputs :].isnan().all()


@pytest.mark.parametrize("described", DESCRIBED)
def test_two_destinations(fused: Poisoned, described: bool) -> None:
    """One product writes the units of a block that read the same input to two tensors."""
    fused._described, fused.flip = described, described
    units = [Unit("a", 48, 40, 1), Unit("b", 48, 24, 1), Unit("c", 48, 8, 1)]
    size = (2, 3, 5)
    x = clip(48, size).permute(0, 2, 3, 4, 1).half().contiguous()
    buffer, inner = fused._empty(1, *size, 56), fused._empty(1, *size, 32)
    fused.run_conv(x, [units[:1], units[1:]], [buffer[..., :40], inner])
    channels_first = x.permute(0, 4, 1, 2, 3)
    check(buffer[..., :40], reference(channels_first, fused.weights, units[0]))
    check(inner[..., :24], reference(channels_first, fused.weights, units[1]))
    check(inner[..., 24:], reference(channels_first, fused.weights, units[2]))
    assert buffer[..., 40:].isnan().all()


@pytest.mark.parametrize("pooling", ["window", "global"])
@pytest.mark.parametrize("size", [(3, 4, 7), (2, 3, 9)])
def test_average(pooling: Literal["window", "global"], size: tuple[int, int, int]) -> None:
    """Features of each step are averages over windows of 2x7x7, or over each step."""
    network = Poisoned(pooling=pooling)
    x = clip(40, size, 2).half()
    output = network._average(x.permute(0, 2, 3, 4, 1).contiguous())
    exact = x.double()
    if pooling == "window":
        exact = F.avg_pool3d(exact, (2, min(7, size[1]), min(7, size[2])), 1)
    check(output, exact.mean((3, 4)).transpose(1, 2), 1e-6)


@pytest.mark.parametrize(("steps", "classes", "channels"), [(1, 5, 70), (9, 17, 64)])
def test_head(fused: Poisoned, steps: int, classes: int, channels: int) -> None:
    """Logits of any number of steps, classes and channels, in float32."""
    pooled, weight = clip(1, (steps, 1, channels), 2)[:, 0, :, 0], clip(1, (1, classes, channels))
    bias = clip(1, (1, 1, classes)).flatten()
    exact = F.linear(pooled.double(), weight[0, 0, 0].double(), bias.double())
    for same in (pooled, pooled.mT.contiguous().mT):
        check(fused._logits(same, weight[0, 0, 0], bias), exact, 1e-6)

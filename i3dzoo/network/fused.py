"""The deployed form of I3D on NVIDIA GPUs: half precision, BatchNorm folded, Triton kernels.

Each branch of a block writes its channels of the block's output, so nothing is concatenated. The
1x1x1 convolutions that read the same input are one product. The first convolution is a product over
windows of 9 pixels, which serve two neighbouring outputs. A CUDA graph is kept for each shape.
"""

import contextlib
import functools
import importlib.util
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.errors import InputTypeError
from i3dzoo.kernels.tiles import TIMED, Table, Tile, find_tile
from i3dzoo.network.architecture import (
    BLOCKS,
    ENDPOINTS,
    HEAD_BIAS,
    HEAD_WEIGHT,
    POOLED,
    POOLS,
    STEM,
    Unit,
    Variant,
    block_units,
    output_size,
    pad_axis,
)
from i3dzoo.network.bias_correction import expected_inputs
from i3dzoo.network.rounding import round_kernels

LOGITS: Final = "logits"
"""Name of the output [N, steps, classes] among those of `FusedI3D`."""

MINIMUM: Final = (8, 0)
"""The least compute capability of a GPU."""

GRAPHS: Final = 4
"""How many shapes keep a CUDA graph and buffers."""

_WINDOW: Final = 32  # numbers of a window; 9 pixels of 3 channels are 27
_GROUPS: Final = 64
_ROWS: Final = 8  # rows of windows that a program writes
_PART: Final = 64 * 224 * 224  # positions of a part of the clips
_LEAST_PARTS: Final = 4
_CHUNK: Final = 8  # steps of a pool that a program computes
_ALIGN: Final = 64  # of the first columns of the second destination
_LANES: Final = 32  # channels that a program averages
_STEPS: Final = 8  # steps and classes whose logits a program computes, and channels at once
_CLASSES: Final = 8
_DEPTH: Final = 64
_EARLY: Final = ENDPOINTS[: ENDPOINTS.index("MaxPool3d_4a_3x3") + 1]
_LATE: Final = ENDPOINTS[len(_EARLY) :]

_Result = TypeVar("_Result")
Tensors = Mapping[str, Tensor]
Pixels = tuple[Sequence[float], Sequence[float]]
"""Scale and shift of each channel: a pixel p becomes `p * scale + shift`."""


@functools.cache
def can_fuse(device: torch.device) -> bool:
    """Whether `FusedI3D` runs on a device: an NVIDIA GPU from Ampere on, with Triton."""
    # the numbers of AMD's GPUs are not those of NVIDIA's
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < MINIMUM:
        return False
    return importlib.util.find_spec("triton") is not None


@dataclass(frozen=True)
class _Layer:
    """A folded convolution: weight [taps, channels, columns], and bias [columns]."""

    name: str
    taps: int
    split: int  # columns of the first destination, padded
    weight: Tensor
    bias: Tensor
    cache: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def packed(self, depth: int, flip: bool) -> Tensor:
        """Return the weight [taps * channels, columns]; channels are a multiple of `depth`.

        With `flip`, it is transposed.
        """
        key = depth, flip
        if key not in self.cache:
            weight = F.pad(self.weight, (0, 0, 0, -self.weight.shape[1] % depth)).flatten(0, 1)
            self.cache[key] = (weight.T if flip else weight).contiguous()
        return self.cache[key]


class FusedI3D:
    """I3D in half precision, from canonical tensors, for clips of any size and number.

    Args:
        tensors: The canonical tensors, on any device.
        variant: BatchNorm epsilon, padding and pooling.
        device: An NVIDIA GPU that `can_fuse` accepts, or a CPU with Triton's interpreter.
        dtype: `torch.float16` or `torch.bfloat16`, of weights and activations; sums are float32.
        pixels: How clips of uint8 are normalised; without it, they are refused.
        tiles: What the programs of each layer compute; see `i3dzoo.kernels.tiles`.
    """

    def __init__(
        self,
        tensors: Tensors,
        variant: Variant,
        device: torch.device,
        dtype: torch.dtype = torch.float16,
        pixels: Pixels | None = None,
        tiles: Table = TIMED,
    ) -> None:
        self.variant, self.device, self.dtype, self.tiles = variant, device, dtype, tiles
        self._pixels = pixels and torch.tensor(pixels, dtype=torch.float32, device=device)
        # boxes of the hardware, from Hopper on
        self._described = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9,)
        self._sides = [_new_stream(device) for _ in range(2)]
        # graphs of a lane never run at the same time, so they share the memory of activations
        self._memory = [
            torch.cuda.graph_pool_handle() for _ in self._sides if device.type == "cuda"
        ]
        self._tensors = tensors
        self.channels = tensors[f"{STEM[0].name}.conv.weight"].shape[1]
        means = expected_inputs(
            {name: tensor.double().cpu().numpy() for name, tensor in tensors.items()}
        )
        self._mean_inputs = {
            name: torch.from_numpy(mean).to(device) for name, mean in means.items()
        }
        self._stem_weight, self._stem_bias = self._fold_stem()
        self._stem_weights: dict[tuple[int, ...], Tensor] = {}
        self._layers: dict[str, _Layer] = {}
        for unit in STEM[1:]:
            self._add(unit.name, [unit])
        for block in BLOCKS:
            b0, b1a, b1b, b2a, b2b, b3 = block_units(block)
            self._add(f"{block}.1x1", [b0], [b1a, b2a])
            for unit in (b1b, b2b, b3):
                self._add(unit.name, [unit])
        self._head: tuple[Tensor, Tensor] | None = None
        if HEAD_WEIGHT in tensors:
            weight = tensors[HEAD_WEIGHT].float().flatten(1).to(device)
            self._head = weight, tensors[HEAD_BIAS].float().to(device)
        del self._tensors, self._mean_inputs
        self._plans: OrderedDict[Any, _Plan] = OrderedDict()
        self._last_place: Any = None
        self._batch = 0  # of the batch that parts belong to

    def __call__(self, x: Tensor, wanted: Collection[str] = (LOGITS,)) -> dict[str, Tensor]:
        """Run clips.

        Args:
            x: Floats, or pixels as uint8, [N, C, T, H, W] on the device, of any strides; T is at
                least 9.
            wanted: `logits` [N, steps, classes], `pooled` [N, 1024], both float32, and endpoints
                [N, C', T', H', W'] in half precision.

        Raises:
            InputTypeError: The clips are uint8, and there is no normalisation.
        """
        if x.dtype == torch.uint8 and self._pixels is None:
            raise InputTypeError("the clips are uint8; expected floats, or a normalisation of them")
        names = frozenset(wanted)
        if self.device.type == "cpu":
            return self._run_clips(x, names)
        parts = min(len(x), x.numel() // (x.shape[1] * _PART))
        if parts >= _LEAST_PARTS and names.isdisjoint(_EARLY):
            outputs = self._run_parts(x, names, parts)
        else:
            outputs = self._run_whole(x, names)
        return {name: output.clone() for name, output in outputs.items()}

    def _run_whole(self, x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Replay a graph that reads clips where they lie; if it is a new place, a copy of them."""
        layout = (x.shape, x.dtype, x.stride(), wanted)
        place = (*layout, x.data_ptr())
        if place in self._plans or place == self._last_place:
            plan = self._find(place, lambda: self._plan_whole(x, wanted))
        else:
            plan = self._find(layout, lambda: self._plan_whole(torch.empty_like(x), wanted, True))
        self._last_place = place
        if plan.source is not None:
            plan.source.copy_(x)
        plan.graph.replay()
        return plan.outputs

    def _plan_whole(self, x: Tensor, wanted: frozenset[str], keep: bool = False) -> "_Plan":
        graph, outputs = self._capture(partial(self._run_clips, x, wanted))
        return _Plan(graph, outputs, source=x if keep else None)

    def _run_clips(self, x: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        windows = self._empty_windows(x)
        self._windows(x, windows)
        return self._run(windows, x.shape[2:], wanted)

    def _run_parts(self, x: Tensor, wanted: frozenset[str], count: int) -> dict[str, Tensor]:
        """Replay the first layers for a part of the clips at a time, and the rest for all.

        The first layers have the largest activations. Two parts run at the same time, since their
        pools wait for memory and their convolutions do not.
        """
        plan = self._find((x.shape, wanted), lambda: self._plan_parts(x, wanted, count))
        for number, (part, (windows, graph)) in enumerate(
            zip(x.tensor_split(count), plan.parts, strict=True)
        ):
            with _fork(self._sides[number % 2]):
                self._windows(part, windows)
                graph.replay()
        for side in self._sides:
            _join(side)
        plan.graph.replay()
        return plan.outputs

    def _plan_parts(self, x: Tensor, wanted: frozenset[str], count: int) -> "_Plan":
        self._batch = len(x)
        shape, sizes = x.shape[2:], [len(part) for part in x.tensor_split(count)]
        lanes = [self._empty_windows(x[: sizes[0]]) for _ in self._sides]
        joined = self._empty(len(x), *self._begin(lanes[0], shape).shape[1:])
        parts = []
        for number, into in enumerate(torch.split(joined, sizes)):
            lane = number % 2
            windows = lanes[lane][: len(into)]
            graph, _ = self._capture(partial(self._begin, windows, shape, into), lane)
            parts.append((windows, graph))
        graph, outputs = self._capture(partial(self._run, joined, shape, wanted, _LATE))
        self._batch = 0
        return _Plan(graph, outputs, parts, joined)

    def _find(self, key: Any, make: Callable[[], "_Plan"]) -> "_Plan":
        """Return what was captured for this key, or capture it and drop what was used least."""
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = make()
            if len(self._plans) == GRAPHS:
                self._plans.popitem(last=False)
        self._plans[key] = plan
        return plan

    def _capture(
        self, run: Callable[[], _Result], lane: int = 0
    ) -> tuple[torch.cuda.CUDAGraph, _Result]:
        """Return a graph of what a function does, and what it returned."""
        warm_up = self._sides[0]
        with _fork(warm_up):  # compiles the kernels
            run()
        _join(warm_up)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory[lane]):
            result = run()
        return graph, result

    def _empty_windows(self, x: Tensor) -> Tensor:
        count, _, time, height, width = x.shape
        groups = -(-self._stem_size(width) // 2)
        return self._empty(count, time, height, groups, _WINDOW)

    def _begin(self, windows: Tensor, shape: Sequence[int], into: Tensor | None = None) -> Tensor:
        """Return the last activation of the first layers."""
        x = windows
        for name in _EARLY:
            x = self._activation(name, x, shape, into if name == _EARLY[-1] else None)
        return x

    def _run(
        self,
        x: Tensor,
        shape: Sequence[int],
        wanted: frozenset[str],
        names: Sequence[str] = ENDPOINTS,
    ) -> dict[str, Tensor]:
        """Return the outputs, given what the first of the named layers reads."""
        outputs: dict[str, Tensor] = {}
        for name in names:
            x = self._activation(name, x, shape)
            if name in wanted:
                outputs[name] = x.permute(0, 4, 1, 2, 3)
        if {LOGITS, POOLED} & wanted:
            pooled = self._average(x)
            if POOLED in wanted:
                outputs[POOLED] = pooled.mean(1)
            if LOGITS in wanted and self._head is not None:
                outputs[LOGITS] = self._logits(pooled, *self._head)
        return outputs

    def _activation(
        self, name: str, x: Tensor, shape: Sequence[int], into: Tensor | None = None
    ) -> Tensor:
        """Return an activation [N, T, H, W, C], given the one before, or the windows of clips."""
        if name == STEM[0].name:
            return self._stem(x, shape)
        if name in POOLS:
            return self._pool(x, *POOLS[name], into)
        if name in BLOCKS:
            return self._block(x, name)
        y = self._empty(*x.shape[:4], STEM[1 if name == STEM[1].name else 2].out_channels)
        self._conv(self._layers[name], x, y)
        return y

    def _windows(self, x: Tensor, windows: Tensor) -> None:
        from i3dzoo.kernels import _fused_triton

        _, channels, time, height, width = x.shape
        before = pad_axis(self.variant.padding, width, STEM[0].kernel, 2, pool=False)[0]
        groups = windows.shape[3]
        blocks = -(-height // _ROWS)
        grid = (x.shape[0] * time * blocks, -(-groups // _GROUPS))
        is_pixels = x.dtype == torch.uint8
        scale, shift = (None, None) if self._pixels is None or not is_pixels else self._pixels
        with self._current_device():
            _fused_triton.windows[grid](
                x, windows, scale, shift, time, height, width, groups, blocks, *x.stride(), before,
                channels, _ROWS, _GROUPS, is_pixels, num_warps=4,
            )  # fmt: skip

    def _stem_size(self, size: int) -> int:
        return output_size(self.variant.padding, size, STEM[0].kernel, 2, pool=False)

    def _stem(self, windows: Tensor, shape: Sequence[int]) -> Tensor:
        return self._launch_stem(self._tile(STEM[0].name, windows), windows, shape)

    def _launch_stem(self, tile: Tile, windows: Tensor, shape: Sequence[int]) -> Tensor:
        from i3dzoo.kernels import _fused_triton

        count, groups = windows.shape[0], windows.shape[3]
        padding = self.variant.padding
        before = [pad_axis(padding, n, STEM[0].kernel, 2, pool=False)[0] for n in shape[:2]]
        sizes = [self._stem_size(size) for size in shape]
        # an even width, because two outputs are written at once
        y = self._empty(count, *sizes[:2], 2 * groups, STEM[0].out_channels)
        box = [1, *tile[1:4]]
        parts = []
        for first in ((0, 0), (0, 1), (1, 0), (1, 1)):
            part = windows[:, first[0] :: 2, first[1] :: 2]
            parts.append(self._boxes(part, part.shape, part.stride(), [*box, _WINDOW]))
        pairs = y.view(count, *sizes[:2], groups, -1)
        output = self._boxes(pairs, pairs.shape, pairs.stride(), [*box, pairs.shape[4]])
        orders = [_by_parity(edge) for edge in before]
        weight = self._stem_of(orders, tile.flip)
        edges = (2 * self._stem_bias.numel(), _WINDOW) if tile.flip else (_WINDOW, weight.shape[1])
        weights = self._boxes(weight, weight.shape, weight.stride(), edges)
        tiles = [-(-size // edge) for size, edge in zip((*sizes[:2], groups), box[1:], strict=True)]
        counts = [len(part) for order in orders for part in order]
        firsts = [
            (taps[0] - edge) // 2
            for order, edge in zip(orders, before, strict=True)
            for taps in order
        ]
        with self._current_device():
            _fused_triton.stem[(count * tiles[0] * tiles[1] * tiles[2],)](
                *parts, weights, self._stem_bias, output, *tiles, *counts, *firsts,
                self._half,
                *box[1:], tile.flip, self._described, num_warps=tile.warps,
                num_stages=tile.stages,
            )  # fmt: skip
        return y[:, :, :, : sizes[2]]

    def _stem_of(self, orders: Sequence[Sequence[Sequence[int]]], flip: bool) -> Tensor:
        """Return the weight with its taps in the order in which the kernel reads them."""
        taps = [t * 7 + h for times in orders[0] for rows in orders[1] for t in times for h in rows]
        key = (*taps, flip)
        if key not in self._stem_weights:
            weight = self._stem_weight.view(49, _WINDOW, -1)[taps].flatten(0, 1)
            self._stem_weights[key] = (weight.T if flip else weight).contiguous()
        return self._stem_weights[key]

    @property
    def _half(self) -> Any:
        import triton.language as tl

        return tl.float16 if self.dtype == torch.float16 else tl.bfloat16

    def _pool(
        self, x: Tensor, kernel: Sequence[int], stride: Sequence[int], into: Tensor | None = None
    ) -> Tensor:
        """Max-pool [N, T, H, W, C], which may be wider in memory."""
        from i3dzoo.kernels import _fused_triton

        count, *shape, channels = x.shape
        axes = list(zip(shape, kernel, stride, strict=True))
        before = [pad_axis(self.variant.padding, *axis, pool=True)[0] for axis in axes]
        sizes = [output_size(self.variant.padding, *axis, pool=True) for axis in axes]
        y = self._empty(count, *sizes, channels) if into is None else into
        pitch = x.stride(2) // channels
        columns = min(32, 1 << (sizes[2] - 1).bit_length())
        lanes = 64 if columns >= 16 else 128
        chunk = _CHUNK if count > 2 else _CHUNK // 2
        chunks = -(-sizes[0] // chunk)
        grid = (count * chunks * sizes[1], -(-sizes[2] // columns), -(-channels // lanes))
        with self._current_device():
            _fused_triton.pool[grid](
                x, y, *shape, channels, pitch, *sizes, *before, chunks, *kernel, *stride, chunk,
                columns, lanes, num_warps=4,
            )  # fmt: skip
        return y

    def _block(self, x: Tensor, block: str) -> Tensor:
        _, out0, reduce1, out1, reduce2, out2, out3 = BLOCKS[block]
        _, _, b1, _, b2, b3 = (unit.name for unit in block_units(block))
        y = self._empty(*x.shape[:4], out0 + out1 + out2 + out3)
        inner = self._empty(*x.shape[:4], reduce1 + reduce2)
        parts = torch.split(y, [out0, out1, out2, out3], dim=4)
        first, second = self._sides  # small layers leave a part of the GPU idle
        with _fork(first):
            pooled = self._pool(x, (3, 3, 3), (1, 1, 1))
            self._conv(self._layers[b3], pooled, parts[3])
        self._conv(self._layers[f"{block}.1x1"], x, parts[0], inner)
        with _fork(second):
            self._conv(self._layers[b2], inner[..., reduce1:], parts[2])
        self._conv(self._layers[b1], inner[..., :reduce1], parts[1])
        _join(first)
        _join(second)
        return y

    def _conv(self, layer: _Layer, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        self._launch(layer, self._tile(layer.name, x), x, y, z)

    def _tile(self, name: str, x: Tensor) -> Tile:
        return find_tile(name, (max(len(x), self._batch), *x.shape[1:]), self.tiles)

    def _boxes(
        self, tensor: Tensor, shape: Sequence[int], strides: Sequence[int], box: Sequence[int]
    ) -> Any:
        """Return what the kernels take for a tensor that they access in boxes."""
        from triton.tools.tensor_descriptor import TensorDescriptor

        if self._described:
            return TensorDescriptor(tensor, list(shape), list(strides), list(box))
        *positions, channels = shape
        return (tensor, *positions, channels // 8, *(stride // 8 for stride in strides[:-1]))

    def _launch(
        self, layer: _Layer, tile: Tile, x: Tensor, y: Tensor, z: Tensor | None = None
    ) -> None:
        from i3dzoo.kernels import _fused_triton

        box = list(tile[:4])

        def boxes(tensor: Tensor, depth: int) -> tuple[list[int], Any]:
            pitch = tensor.stride(3)
            *positions, channels = tensor.shape
            if layer.taps == 1:  # positions need no neighbours, so they are one axis
                positions = [1, 1, 1, tensor.numel() // channels]
            strides = [pitch]
            for size in positions[:0:-1]:
                strides.insert(0, strides[0] * size)
            shape, steps = [*positions, channels], [*strides, 1]
            return positions, self._boxes(tensor, shape, steps, [*box, depth])

        positions, source = boxes(x, tile.depth)
        packed = layer.packed(tile.depth, tile.flip)
        edges = [tile.depth, tile.columns]
        weight = self._boxes(
            packed, packed.shape, packed.stride(), edges[:: -1 if tile.flip else 1]
        )
        first = boxes(y, tile.columns)[1]
        second = first if z is None else boxes(z, tile.columns)[1]
        tiles = [-(-size // edge) for size, edge in zip(positions, box, strict=True)]
        depth, columns = packed.shape[:: -1 if tile.flip else 1]
        columns = -(-columns // tile.columns)
        blocks = depth // (layer.taps * tile.depth)
        grid = (math.prod(tiles) * columns,)
        with self._current_device():
            _fused_triton.conv[grid](
                source, weight, layer.bias, first, second, *tiles[1:], columns, blocks,
                layer.split, layer.taps, self._half, *box, tile.columns, tile.depth,
                tile.flip, self._described, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip

    def _average(self, x: Tensor) -> Tensor:
        """Return the pooled features of each step, float32 [N, steps, 1024]."""
        from i3dzoo.kernels import _fused_triton

        count, time, height, width, channels = x.shape
        span = 1 if self.variant.pooling == "global" else 2
        if span == 2 and max(height, width) > 7:  # windows of 7x7 move
            clips = x.permute(0, 4, 1, 2, 3).float()
            pooled = F.avg_pool3d(clips, (2, min(7, height), min(7, width)), 1)
            return pooled.mean((3, 4)).transpose(1, 2)
        steps = time - span + 1
        y = torch.empty(count, steps, channels, device=self.device)
        with self._current_device():
            _fused_triton.average[(count * steps, -(-channels // _LANES))](
                x, y, time, steps, height * width, channels, span, _LANES,
                num_warps=4,
            )  # fmt: skip
        return y

    def _logits(self, pooled: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the logits, float32 [N, steps, classes]."""
        from i3dzoo.kernels import _fused_triton

        pooled, rows = pooled.contiguous(), pooled[..., 0].numel()
        y = torch.empty(*pooled.shape[:2], len(weight), device=self.device)
        grid = (-(-len(weight) // _CLASSES), -(-rows // _STEPS))
        with self._current_device():
            _fused_triton.head[grid](
                pooled, weight, bias, y, rows, *weight.shape, _STEPS, _CLASSES, _DEPTH,
                num_warps=4,
            )  # fmt: skip
        return y

    def _current_device(self) -> contextlib.AbstractContextManager[Any]:
        is_gpu = self.device.type == "cuda"
        return torch.cuda.device(self.device) if is_gpu else contextlib.nullcontext()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _folded(self, unit: Unit) -> tuple[Tensor, Tensor]:
        """Return the weight [out, in, k, k, k] and bias of a unit, float64, BatchNorm folded.

        The weight is rounded already; the bias makes up for what that does to the mean of the
        outputs.
        """
        weight = self._tensors[f"{unit.name}.conv.weight"].double().to(self.device)
        gamma, beta, mean, variance = (
            self._tensors[f"{unit.name}.bn.{part}"].double().to(self.device)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / (variance + self.variant.epsilon).sqrt()
        weight = weight * scale.view(-1, 1, 1, 1, 1)
        rounded = round_kernels(weight, self.dtype)
        lost = (weight - rounded).sum((2, 3, 4))
        return rounded, beta - mean * scale + lost @ self._mean_inputs[unit.name]

    def _fold_stem(self) -> tuple[Tensor, Tensor]:
        """Return the weight [49 * 32, 128] for windows of 9 pixels, and the bias [64]."""
        weight, bias = self._folded(STEM[0])
        out, channels = weight.shape[:2]
        packed = weight.new_zeros(7, 7, _WINDOW, 2, out)
        for number in range(2):
            for tap in range(7):
                first = (tap + 2 * number) * channels
                packed[:, :, first : first + channels, number] = weight[..., tap].permute(
                    2, 3, 1, 0
                )
        packed = packed.reshape(49 * _WINDOW, 2 * out)
        return packed.to(self.device, self.dtype), bias.float().to(self.device)

    def _add(self, name: str, *groups: list[Unit]) -> None:
        """Add a layer that computes the units of each group, with a destination for each group."""
        taps = groups[0][0].kernel ** 3
        weights, biases, split = [], [], 0
        for units in groups:
            parts = [self._folded(unit) for unit in units]
            weight = torch.cat([part[0] for part in parts]).flatten(2)  # [out, in, taps]
            pad = -len(weight) % _ALIGN
            weights.append(F.pad(weight, (0, 0, 0, 0, 0, pad)).permute(2, 1, 0))
            biases.append(F.pad(torch.cat([part[1] for part in parts]), (0, pad)))
            split = split or weights[0].shape[2]
        bias = torch.cat(biases)
        self._layers[name] = _Layer(
            name,
            taps,
            split,
            torch.cat(weights, 2).to(self.device, self.dtype),
            F.pad(bias, (0, 256 - len(bias) % 256)).float().to(self.device),
        )


def _new_stream(device: torch.device) -> Any:
    """Return a stream of a GPU; None on a CPU, on which Triton's interpreter runs the kernels."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call] # torch's


@contextlib.contextmanager
def _fork(stream: Any) -> Iterator[None]:
    """Run the block on another stream, after what the current one has to do."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield


def _join(stream: Any) -> None:
    """Let the current stream wait for another one."""
    if stream is not None:
        torch.cuda.current_stream(stream.device).wait_stream(stream)


def _by_parity(before: int) -> tuple[list[int], list[int]]:
    """Return the taps of the first convolution that read even and odd positions of the input."""
    taps = range(STEM[0].kernel)
    even, odd = ([tap for tap in taps if (tap - before) % 2 == parity] for parity in (0, 1))
    return even, odd


@dataclass(frozen=True)
class _Plan:
    """What was captured for clips of one shape."""

    graph: torch.cuda.CUDAGraph  # of all layers, or of those behind the parts
    outputs: dict[str, Tensor]
    parts: Sequence[tuple[Tensor, torch.cuda.CUDAGraph]] = ()  # windows, and the first layers
    joined: Tensor | None = None  # what the parts write and the rest reads
    source: Tensor | None = None  # to which clips are copied

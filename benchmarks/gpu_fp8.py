"""Measure what 8-bit floats (e4m3) would gain in the engine fused, and what they would cost.

    python benchmarks/gpu_fp8.py WEIGHTS.safetensors OUT --clips CLIPS.npy

Times are of each convolution but the first at batch 8, clips of 64x224x224, in a CUDA graph: in
fp16 with the tile that ships, and in fp8 with the fastest of a few tiles. The fp8 kernel reads and
writes e4m3 alone, with a scale for each output channel of the weights and one for all activations
of a layer. The bound on the gain replaces the time of each layer in that of the whole network by
that of fp8 where it is shorter. The error is of a network in PyTorch, float32, whose weights and
inputs of convolutions are rounded to e4m3; the scales of activations are calibrated on the clips.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_fused import error, load, reference
from gpu_pytorch import time_on_gpu

from i3dzoo.kernels.tiles import TIMED, Table, Tile, find_tile
from i3dzoo.network.architecture import DEEPMIND, STEM
from i3dzoo.network.fused import LOGITS, FusedI3D
from i3dzoo.network.tile_search import TileSearch

E4M3: Final = torch.float8_e4m3fn
LARGEST: Final = 448.0
WRONG: Final = 0.05  # of the norm; a sum next to the middle of two numbers is rounded either way


@triton.jit(do_not_specialize=["blocks"])
def conv8(
    x, weight, scale, bias, y,
    tiles_t, tiles_h, tiles_w, tiles_c, blocks,
    TAPS: tl.constexpr,
    BN: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Convolve as `i3dzoo.kernels._fused_triton.conv`; `weight` is [columns, TAPS * channels]."""
    pid = tl.program_id(0)
    first = (pid % tiles_c) * COLUMNS
    pid = pid // tiles_c
    w0 = (pid % tiles_w) * BW
    pid = pid // tiles_w
    h0 = (pid % tiles_h) * BH
    pid = pid // tiles_h
    t0 = (pid % tiles_t) * BT
    n = pid // tiles_t * BN
    ROWS: tl.constexpr = BN * BT * BH * BW
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(TAPS * blocks):
        tap = step // blocks
        c = (step % blocks) * DEPTH
        if TAPS == 27:
            a = x.load([n, t0 + tap // 9 - 1, h0 + tap // 3 % 3 - 1, w0 + tap % 3 - 1, c])
        else:
            a = x.load([n, t0, h0, w0, c])
        b = weight.load([first, step * DEPTH])
        total = tl.dot(tl.reshape(a, [ROWS, DEPTH]), b.T, total)
    column = first + tl.arange(0, COLUMNS)
    total = total * tl.load(scale + column)[None, :] + tl.load(bias + column)[None, :]
    out = tl.minimum(tl.maximum(total, 0.0), 448.0).to(tl.float8e4nv)
    y.store([n, t0, h0, w0, first], tl.reshape(out, [BN, BT, BH, BW, COLUMNS]))


def quantise(x: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Return x in e4m3, and the scale by which it is multiplied to get x back."""
    scale = largest.clamp(min=1e-12) / LARGEST
    return (x / scale).clamp(-LARGEST, LARGEST).to(E4M3), scale


def pad(x: Tensor, axis: int, multiple: int) -> Tensor:
    """Return x with zeros behind it, up to a multiple."""
    pads = [0, 0] * (x.ndim - 1 - axis) + [0, -x.shape[axis] % multiple]
    return F.pad(x, pads)


class Layers(TileSearch):
    """Times each convolution in fp16 and in fp8."""

    def measure(self, x: Tensor) -> list[dict[str, Any]]:
        """Return the times of each layer."""
        self.rows: list[dict[str, Any]] = []
        windows = self._empty_windows(x)
        self._windows(x, windows)
        with torch.inference_mode():
            self._run(windows, x.shape[2:], frozenset((LOGITS,)))
        return self.rows

    def _stem(self, windows: Tensor, shape: Any) -> Tensor:
        return FusedI3D._stem(self, windows, shape)

    def _conv(self, layer: Any, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        FusedI3D._conv(self, layer, x, y, z)
        half = self._time(lambda: FusedI3D._conv(self, layer, x, y, z))
        taps, channels, columns = layer.weight.shape
        weight = layer.weight.float().permute(2, 0, 1)  # [columns, taps, channels]
        weight8, scale = quantise(weight, weight.abs().amax((1, 2), keepdim=True))
        x8, x_scale = quantise(x.float(), x.float().abs().max())
        edge = round(taps ** (1 / 3))
        kernel = (weight8.float() * scale).permute(0, 2, 1).reshape(-1, channels, *(edge,) * 3)
        clips = (x8.float() * x_scale).permute(0, 4, 1, 2, 3)
        exact = F.conv3d(clips, kernel, layer.bias[:columns], padding=edge // 2)
        exact = exact.relu_().permute(0, 2, 3, 4, 1)
        exact8, y_scale = quantise(exact, exact.max())
        exact = exact8.float() * y_scale
        factor = pad(scale.flatten() * x_scale / y_scale, 0, 256)
        bias = layer.bias / y_scale
        times: dict[Tile, float] = {}
        own = find_tile(layer.name, x.shape, self.tiles)
        tiles = [own._replace(depth=min(2 * own.depth, 128))]  # as many bytes
        if channels % tiles[0].depth:
            tiles.append(own)  # less padding
        if own.warps == 4:
            tiles.append(tiles[0]._replace(warps=8, columns=128, stages=3))
        worst, problems = 0.0, []
        for tile in dict.fromkeys(tiles):
            run, output = self._prepare(tile, taps, x8, weight8, factor, bias)
            try:
                run()
                off = float((output[..., :columns].float() * y_scale - exact).norm() / exact.norm())
                if not off < WRONG:
                    problems.append(f"{tuple(tile)}: error {off:.1e}")
                    continue
                worst = max(worst, off)
                times[tile] = self._time(run)
            except Exception as problem:  # a tile may need too much shared memory
                problems.append(f"{tuple(tile)}: {type(problem).__name__} {str(problem)[:60]}")
        best = min(times, key=times.__getitem__) if times else None
        row = {"layer": layer.name, "fp16_us": 1e6 * half, "tile": best, "error": worst,
               "fp8_us": 1e6 * times[best] if best else None, "problems": problems}  # fmt: skip
        self.rows.append(row)
        fp8 = f"{row['fp8_us']:.0f} us {tuple(best)}" if best else "none"
        print(f"{layer.name}: fp16 {1e6 * half:.0f} us, fp8 {fp8}", *problems[:1], flush=True)

    def _prepare(
        self, tile: Tile, taps: int, x8: Tensor, weight8: Tensor, scale: Tensor, bias: Tensor
    ) -> tuple[Callable[[], object], Tensor]:
        """Return what runs a tile, and its output, e4m3 [N, T, H, W, columns]."""
        box = list(tile[:4])
        source = pad(x8.view(torch.uint8), 4, 16).contiguous().view(E4M3)
        packed = pad(weight8.view(torch.uint8), 2, tile.depth).flatten(1).contiguous().view(E4M3)
        columns = -(-packed.shape[0] // 16) * 16
        output = torch.empty((*x8.shape[:4], columns), dtype=E4M3, device=x8.device)

        def describe(tensor: Tensor, depth: int) -> Any:
            if taps == 1:
                tensor = tensor.view(1, 1, 1, -1, tensor.shape[4])
            return TensorDescriptor.from_tensor(tensor, [*box, depth])

        x_boxes, y_boxes = describe(source, tile.depth), describe(output, tile.columns)
        weights = TensorDescriptor.from_tensor(packed, [tile.columns, tile.depth])
        shape = x_boxes.shape[:4]
        tiles = [-(-size // edge) for size, edge in zip(shape, box, strict=True)]
        parts = -(-packed.shape[0] // tile.columns)
        blocks = packed.shape[1] // (taps * tile.depth)
        grid = (int(np.prod(tiles)) * parts,)

        def run() -> object:
            return conv8[grid](
                x_boxes, weights, scale, bias, y_boxes, *tiles[1:], parts, blocks, taps, *box,
                tile.columns, tile.depth, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip

        return run, output


def emulate(tensors: dict[str, Tensor], clips: Tensor, kernels: tuple[int, ...]) -> dict[str, Any]:
    """Return the error of logits if convolutions with these kernels, but the first, are in fp8."""
    exact_network, network = reference(tensors), reference(tensors)
    largest: dict[str, Tensor] = {}
    convolutions = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv3d)
        and module.kernel_size[0] in kernels
        and not name.startswith((STEM[0].name, "Logits"))
    }

    def calibrate(name: str) -> Any:
        def see(_: Any, inputs: tuple[Tensor, ...]) -> None:
            now = inputs[0].abs().max()
            largest[name] = torch.maximum(largest.get(name, now), now)

        return see

    def round_input(name: str) -> Any:
        def see(_: Any, inputs: tuple[Tensor, ...]) -> Tensor:
            rounded, scale = quantise(inputs[0], largest[name])
            return rounded.float() * scale

        return see

    with torch.inference_mode():
        hooks = [m.register_forward_pre_hook(calibrate(n)) for n, m in convolutions.items()]
        exact = torch.cat([network(clip[None]) for clip in clips])
        for hook in hooks:
            hook.remove()
        for name, module in convolutions.items():
            weight = module.weight.data
            rounded, scale = quantise(weight, weight.abs().amax((1, 2, 3, 4), keepdim=True))
            module.weight.data = rounded.float() * scale
            module.register_forward_pre_hook(round_input(name))
        output = torch.cat([network(clip[None]) for clip in clips])
        plain = torch.cat([exact_network(clip[None]) for clip in clips])
    errors = [error(output[i : i + 1], exact[i : i + 1]) for i in range(len(clips))]
    same = int((output.argmax(1) == exact.argmax(1)).sum())
    row = {"kernels": kernels, "layers": len(convolutions), "errors": errors, "same_top1": same,
           "clips": len(clips), "unchanged": float((plain - exact).abs().max())}  # fmt: skip
    print("fp8 in", kernels, [f"{one:.1e}" for one in errors], f"top-1 {same} of {len(clips)}")
    return row


def main() -> None:
    """Time the layers, and emulate the network."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--tiles", type=Path, help="tiles.json of gpu_fused.py")
    options = parser.parse_args()
    tensors = load(options.weights)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    document: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "triton": triton.__version__,
    }
    if options.clips:
        clips = torch.from_numpy(np.load(options.clips)).cuda()
        x = clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        document["emulated"] = [emulate(tensors, x, kernels) for kernels in ((3,), (1, 3))]
        batch = x[torch.arange(8, device="cuda") % len(x)].half()
        del clips, x
    else:
        batch = (torch.rand(8, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
    tiles: Table = TIMED
    if options.tiles:
        tables = json.loads(options.tiles.read_text())
        tiles = {c: {name: Tile(*t) for name, t in table.items()} for c, table in tables.items()}
    whole = FusedI3D(tensors, DEEPMIND, torch.device("cuda"), tiles=tiles)
    milliseconds = median(time_on_gpu(lambda: whole(batch), 20))
    rows = Layers(tensors, DEEPMIND, torch.device("cuda"), tiles=tiles).measure(batch)
    half = sum(row["fp16_us"] for row in rows) / 1000
    for name, part in (("3x3", "3x3"), ("all", "")):
        taken = [row for row in rows if row["layer"].endswith(part)]
        saved = sum(max(row["fp16_us"] - (row["fp8_us"] or row["fp16_us"]), 0) for row in taken)
        gain = milliseconds / (milliseconds - saved / 1000)
        document[f"bound_{name}"] = gain
        print(f"fp8 in {name}: saves {saved / 1000:.2f} ms of {milliseconds:.2f}, {gain:.2f} times")
    document |= {"milliseconds": milliseconds, "convolutions_fp16_ms": half, "layers": rows}
    (options.out / "fp8.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Check, tune and time the fused engine on a GPU, beside PyTorch and the common port.

    python benchmarks/gpu_fused.py WEIGHTS.safetensors OUT [--clips CLIPS.npy] [--tune SECONDS]
    python benchmarks/gpu_fused.py WEIGHTS.safetensors OUT --first-call
    python benchmarks/gpu_fused.py WEIGHTS.safetensors OUT --ampere

OUT gets fused.json, and with --tune the tiles that were fastest, tiles.json, which
`i3dzoo/kernels/tiles.json` ships. All timings are in one process, alternating, medians, clips of
64x224x224 in half precision on the GPU; errors are of the norm of the logits, from float64. With
--ampere, a newer GPU runs the PTX that Triton makes for an A100; times are not those of an A100.
--first-call only times the first clips; set TRITON_CACHE_DIR to a new folder for a cold cache.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common_port import CommonPort
from gpu_pytorch import time_on_gpu

from i3dzoo import kernels
from i3dzoo.kernels.tiles import TIMED, Table, Tile
from i3dzoo.network.architecture import DEEPMIND, ENDPOINTS, STEM, Variant
from i3dzoo.network.fused import LOGITS, FusedI3D
from i3dzoo.network.i3d import I3D
from i3dzoo.network.tile_search import TileSearch

Shape = tuple[int, int, int]

SHAPES: list[Shape] = [(1, 64, 224), (8, 64, 224), (32, 64, 224), (8, 16, 224), (8, 64, 112),
                       (1, 300, 224)]  # fmt: skip
"""Clips, frames, and the edge of a frame."""

SIZES = [(1, 9, 32, 32), (2, 17, 45, 58), (1, 64, 224, 224), (3, 20, 225, 231), (8, 32, 224, 224)]


def load(path: Path) -> dict[str, Tensor]:
    """Read canonical tensors."""
    from safetensors.torch import load_file

    return load_file(path)


def reference(tensors: dict[str, Tensor], variant: Variant = DEEPMIND) -> I3D:
    """Return the network in eval mode on the GPU."""
    classes = tensors["Logits.Conv3d_0c_1x1.conv.bias"].shape[0]
    network = I3D(classes, variant=variant)
    network.load_state_dict(tensors, strict=False)
    return network.cuda().eval()


def error(output: Tensor, exact: Tensor) -> float:
    """Return the largest error of the norm of the logits."""
    output, exact = output.double().flatten(1), exact.double().flatten(1)
    return float(((output - exact).norm(dim=1) / exact.norm(dim=1)).max())


def check(tensors: dict[str, Tensor], tiles: Table) -> list[dict[str, Any]]:
    """Compare all endpoints and the logits with float64, over odd sizes and both variants."""
    rows = []
    for variant in (DEEPMIND, Variant(epsilon=1e-5, padding="symmetric", pooling="global")):
        network = reference(tensors, variant).double()
        fused = FusedI3D(tensors, variant, torch.device("cuda"), tiles=tiles)
        for size in SIZES if variant == DEEPMIND else SIZES[1:3]:
            torch.manual_seed(sum(size))
            x = torch.rand(size[0], 3, *size[1:], device="cuda") * 2 - 1
            wanted = (LOGITS, *ENDPOINTS)
            with torch.inference_mode():
                outputs = fused(x, wanted)
                exact = network.endpoints(x.double())
                exact[LOGITS] = network.step_logits(x.double())
                again = fused(x, wanted)
            errors = {}
            for name in wanted:
                finite = bool(torch.isfinite(outputs[name]).all())
                same = torch.equal(outputs[name], again[name])
                errors[name] = error(outputs[name], exact[name]) if finite and same else "WRONG"
            rows.append({"variant": str(variant), "size": size, "errors": errors})
            worst = {k: v for k, v in errors.items() if not isinstance(v, float) or v > 5e-3}
            print("check", size, variant.padding, f"logits {errors[LOGITS]}", worst, flush=True)
            torch.cuda.empty_cache()
    return rows


def first_call(tensors: dict[str, Tensor], batch: int) -> float:
    """Return the seconds until a new network has run its first clips: compiling and capturing."""
    x = (torch.rand(batch, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
    begun = time.perf_counter()
    FusedI3D(tensors, DEEPMIND, torch.device("cuda"))(x)
    torch.cuda.synchronize()
    return time.perf_counter() - begun


STEMS = [(2, 8, 8, (4, 4)), (4, 4, 8, (4, 5))]
"""Time, height and width of the boxes of the first convolution; warps and stages."""

Boxes = dict[int, list[tuple[tuple[int, int, int, int], int, int, int]]]

BOXES: Boxes = {
    32: [((1, 2, 8, 8), 256, 8, 3), ((1, 4, 8, 8), 64, 8, 3), ((1, 2, 8, 8), 64, 4, 4)],
    16: [((1, 8, 4, 4), 128, 4, 4), ((1, 8, 4, 4), 128, 8, 3), ((1, 8, 4, 4), 256, 8, 4),
         ((1, 8, 4, 4), 64, 4, 4), ((1, 8, 4, 4), 32, 4, 4), ((1, 16, 4, 4), 128, 8, 3),
         ((1, 16, 4, 4), 32, 8, 4), ((1, 16, 4, 4), 64, 8, 4), ((1, 16, 8, 4), 32, 8, 3)],
    8: [((1, 16, 2, 2), 256, 4, 3), ((1, 16, 2, 2), 128, 4, 4), ((1, 16, 2, 2), 64, 4, 4)],
    0: [((1, 8, 1, 8), 64, 4, 4), ((1, 8, 1, 8), 128, 4, 4), ((1, 1, 8, 8), 64, 4, 4)],
}  # fmt: skip
"""Boxes for frames wider than so much; columns, warps and stages."""

SMALL: Boxes = {
    8: [((1, 16, 2, 2), 32, 4, 4)],
    0: [((1, 8, 1, 8), 32, 4, 5), ((1, 8, 1, 8), 16, 4, 5)],
}
"""Further boxes for one clip."""

LARGE: Boxes = {
    8: [((2, 16, 2, 2), 256, 8, 3), ((2, 16, 2, 2), 128, 8, 4), ((2, 16, 2, 2), 64, 4, 4),
        ((4, 16, 2, 2), 64, 8, 3), ((2, 16, 2, 2), 32, 4, 4)],
    0: [((2, 8, 1, 8), 128, 8, 3), ((2, 8, 1, 8), 64, 4, 4)],
}  # fmt: skip
"""Further boxes for several clips."""


FLIPS: dict[int, list[tuple[int, int, int, int]]] = {
    32: [(1, 4, 8, 8), (1, 2, 8, 8)],
    16: [(1, 16, 4, 4), (1, 8, 4, 4)],
    8: [(1, 16, 2, 2), (2, 16, 2, 2), (4, 16, 2, 2)],
    0: [(1, 8, 1, 8), (2, 8, 1, 8), (4, 8, 1, 8)],
}
"""Boxes for tiles whose first factor is the weights, for frames wider than so much."""


def flips(name: str, shape: Sequence[int]) -> list[Tile]:
    """Return tiles whose first factor is the weights, at least 64 columns."""
    clips, width, channels = shape[0], shape[3], shape[4]
    if name == STEM[0].name:
        boxes = [(4, 8, 8), (2, 16, 8), (8, 4, 8)]
        return [Tile(1, *box, 128, 32, 8, stages, True) for box in boxes for stages in (3, 4, 5)]
    if name.endswith("1x1"):
        return [Tile(1, 1, 1, rows, columns, 64, 8 if rows * columns > 16384 else 4, stages, True)
                for columns in (64, 128) for rows in (64, 128, 256)
                for stages in (3, 4)]  # fmt: skip
    boxes = [box for box in FLIPS[next(s for s in FLIPS if width > s)] if box[0] <= clips]
    tiles = []
    for box, columns, (depth, stages) in itertools.product(
        boxes, (64, 128), ((32, 5), (64, 3), (64, 4), (128, 3))
    ):
        rows = math.prod(box)
        if depth <= max(channels, 32) and (depth < 128 or rows + columns <= 256):
            for warps in (
                {4, 8} if rows * columns == 16384 else {8 if rows * columns > 16384 else 4}
            ):
                tiles.append(Tile(*box, columns, depth, warps, stages, True))
    return tiles


class WideSearch(TileSearch):
    """A search among more tiles than on a user's GPU, to find those that ship."""

    def _candidates(self, name: str, shape: Sequence[int], split: int | None) -> list[Tile]:
        """Return the tiles to try: boxes for this size of frames, depths for these channels."""
        known = TIMED["1" if shape[0] == 1 else "8"][name]
        tiles = [known, *self._direct(name, shape, split), *flips(name, shape)]
        return [tile for tile in dict.fromkeys(tiles) if split is None or split % tile.columns == 0]

    def _direct(self, name: str, shape: Sequence[int], split: int | None) -> list[Tile]:
        clips, width, channels = shape[0], shape[3], shape[4]
        small = clips == 1
        if name == STEM[0].name:
            return [Tile(1, *box, 128, 32, *rest) for *box, rest in STEMS]
        if name.endswith("1x1"):
            wide = [128] if split is None or split % 128 == 0 else []
            return [Tile(1, 1, 1, rows, n, 64, w, s) for n in (64, *wide)
                    for rows, w, s in ((128, 4, 3), (128, 4, 4), (64, 4, 4))]  # fmt: skip
        depths = {32 if channels <= 32 or channels % 64 else 64}
        if channels > 64:
            depths |= {64} | ({128} if small else {32})
        size = next(size for size in BOXES if width > size)
        boxes = BOXES[size] + (SMALL if small else LARGE).get(size, [])
        return [
            Tile(*box, n, depth, warps, 3 if depth == 128 else stages + (depth == 32))
            for box, n, warps, stages in boxes
            for depth in sorted(depths)
        ]


def tune(tensors: dict[str, Tensor], seconds: float) -> Table:
    """Search the tiles of this GPU, and print those that differ from an H100's."""
    begun = time.perf_counter()
    tables = WideSearch(tensors, DEEPMIND, torch.device("cuda")).search(seconds=seconds)
    for count, table in tables.items():
        for name, tile in table.items():
            if tile != TIMED[count][name]:
                print("tile", count, name, *tile, "instead of", *TIMED[count][name])
    print(f"tuned in {time.perf_counter() - begun:.0f} s", flush=True)
    return tables


def compare_pixels(tensors: dict[str, Tensor], tiles: Table) -> float:
    """Return the error of logits of uint8 clips, of any strides, from those of floats."""
    pixels = [3 * [1 / 127.5], 3 * [-1.0]]
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"), pixels=pixels, tiles=tiles)
    worst = 0.0
    for count in (1, 3):
        clips = torch.randint(0, 256, (count, 16, 120, 131, 3), dtype=torch.uint8, device="cuda")
        x = clips.permute(0, 4, 1, 2, 3)
        values = fused(x.float() / 127.5 - 1)[LOGITS]
        for same in (x, x.contiguous()):
            worst = max(worst, error(fused(same)[LOGITS], values))
    print(f"pixels: {worst:.1e}", flush=True)
    return worst


def timings(
    tensors: dict[str, Tensor], shapes: list[Shape], tiles: Table = TIMED
) -> list[dict[str, Any]]:
    """Time each way with clips [N, 3, T, S, S] of each shape, alternating."""
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"), tiles=tiles)
    network = reference(tensors).half().to(memory_format=torch.channels_last_3d)
    port = CommonPort(reference(tensors).half())
    rows = []
    for batch, frames, size in shapes:
        x = (torch.rand(batch, 3, frames, size, size, device="cuda") * 2 - 1).half()
        last = x.contiguous(memory_format=torch.channels_last_3d)

        def run_port(x: Tensor = x) -> Tensor:
            kernels.set_enabled(False)
            output = port(x)
            kernels.set_enabled(True)
            return output

        ways = {
            "fused": lambda x=x: fused(x)[LOGITS],
            "pytorch": lambda x=last: network(x),
            "common port": run_port,
        }
        if batch > 8 or size != 224:  # the common port takes much memory, and has a window of 7x7
            del ways["common port"]
        for name, run in ways.items():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                times = time_on_gpu(run, 20 if batch > 8 else 30)
            row = {"way": name, "batch": batch, "frames": frames, "size": size, "ms": median(times),
                   "clips_per_second": 1000 * batch / median(times),
                   "peak_mb": torch.cuda.max_memory_allocated() / 1e6}  # fmt: skip
            rows.append(row)
            rate = f"{row['ms']:.3f} ms {row['clips_per_second']:.0f}/s"
            peak = f"peak {row['peak_mb']:.0f} MB"
            print(f"{name:12} {batch}x{frames}x{size}x{size}: {rate} {peak}", flush=True)
    return rows


def profile(tensors: dict[str, Tensor], batch: int, tiles: Table) -> None:
    """Print the time of each kernel."""
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"), tiles=tiles)
    x = (torch.rand(batch, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
    fused(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(5):
            fused(x)
        torch.cuda.synchronize()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.device_time_total)
    for row in rows[:8]:
        milliseconds = row.device_time_total / 5000
        print(batch, row.key[:40], f"{milliseconds:.3f} ms, {row.count // 5} calls")


def pretend_ampere(folder: Path) -> None:
    """Let Triton generate PTX for an A100, and assemble it for this GPU."""
    from triton import knobs

    major, minor = torch.cuda.get_device_capability()
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    assembler = folder.resolve() / "ptxas"
    assembler.write_text(
        "#!/bin/sh\n"
        f"set -- $(echo \"$@\" | sed 's/--gpu-name=sm_80/--gpu-name=sm_{major}{minor}/')\n"
        f'exec {knobs.nvidia.ptxas.path} "$@"\n'
    )
    assembler.chmod(0o755)
    os.environ |= {"TRITON_OVERRIDE_ARCH": "sm80", "TRITON_PTXAS_PATH": str(assembler)}


def main() -> None:
    """Check, tune, time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tune", type=float, default=0)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--first-call", action="store_true")
    parser.add_argument("--ampere", action="store_true")
    options = parser.parse_args()
    if options.ampere:
        pretend_ampere(options.out)
    tensors = load(options.weights)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    document: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    begun = time.time()
    if options.first_call:
        print("first call", {batch: first_call(tensors, batch) for batch in (8, 1)})
        return
    tables = TIMED
    if options.tune:
        tables = tune(tensors, options.tune)
        (options.out / "tiles.json").write_text(json.dumps(tables, indent=0))
    document["timings"] = timings(tensors, SHAPES[:2] if options.ampere else SHAPES, tables)
    print(f"timed after {time.time() - begun:.0f} s", flush=True)
    document["pixels"] = compare_pixels(tensors, tables)
    document["check"] = check(tensors, tables)
    print(f"checked after {time.time() - begun:.0f} s", flush=True)
    name = "fused_ampere.json" if options.ampere else "fused.json"
    (options.out / name).write_text(json.dumps(document, indent=1))
    if options.ampere:
        return
    for batch in (8, 1):
        profile(tensors, batch, tables)
    if options.clips:
        compare_clips(tensors, options.clips, tables)


def compare_clips(tensors: dict[str, Tensor], path: Path, tiles: Table) -> None:
    """Print the error and the first class of each clip, uint8 [N, T, H, W, 3]."""
    clips = torch.from_numpy(np.load(path)).cuda()
    network = reference(tensors).double()
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"), tiles=tiles)
    for clip in clips:
        x = clip[None].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        with torch.inference_mode():
            exact, output = network(x.double()), fused(x)[LOGITS].mean(1)
        print("clip", f"{error(output, exact):.2e}", bool(exact.argmax() == output.argmax()))


if __name__ == "__main__":
    main()

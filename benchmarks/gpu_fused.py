"""Check, tune and time the fused engine on a GPU, beside PyTorch and the common port.

    python benchmarks/gpu_fused.py WEIGHTS.safetensors OUT [--tune SECONDS] [--clips CLIPS.npy]

OUT gets fused.json, and with --tune the tiles that were fastest, tiles.json, which
`i3dzoo/kernels/tiles.json` ships. All timings are in one process, alternating, medians, clips of
64x224x224 in half precision on the GPU; errors are of the norm of the logits, from float64.
"""

import argparse
import json
import sys
import time
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
from i3dzoo.kernels.tiles import Tile, find_tile
from i3dzoo.network.architecture import DEEPMIND, ENDPOINTS, Variant
from i3dzoo.network.fused import LOGITS, FusedI3D
from i3dzoo.network.i3d import I3D

Shape = tuple[int, int, int]

SHAPES: list[Shape] = [(1, 64, 224), (8, 64, 224), (32, 64, 224), (8, 16, 224), (8, 64, 112),
                       (1, 300, 224)]  # fmt: skip
"""Clips, frames, and the edge of a frame."""

SIZES = [(1, 9, 32, 32), (2, 17, 45, 58), (1, 64, 224, 224), (3, 20, 225, 231), (8, 32, 224, 224)]


ONLY: list[str] = []  # parts of the names of the layers to tune; all without


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


def check(tensors: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Compare all endpoints and the logits with float64, over odd sizes and both variants."""
    rows = []
    for variant in (DEEPMIND, Variant(epsilon=1e-5, padding="symmetric", pooling="global")):
        network = reference(tensors, variant).double()
        fused = FusedI3D(tensors, variant, torch.device("cuda"))
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


def candidates(layer: Any, x: Tensor, columns: int) -> list[Tile]:
    """Return the tiles to try for a layer."""
    batch, width = x.shape[0], x.shape[3]
    channels, small = layer.weight.shape[1], x.shape[0] == 1
    if ONLY and layer.taps == 1:
        return [find_tile(layer.name, layer.taps, x.shape)]
    if layer.taps == 1:
        wide = [128] if columns >= 128 and layer.split % 128 == 0 else []
        return [Tile(1, 1, 1, rows, n, 64, w, s) for n in (64, *wide)
                for rows, w, s in ((128, 4, 3), (128, 4, 4), (64, 4, 4))]  # fmt: skip
    if ONLY and not any(part in layer.name for part in ONLY):
        return [find_tile(layer.name, layer.taps, x.shape)]
    depths = {32 if channels <= 32 or channels % 64 else 64}
    if channels > 64:
        depths |= {64} | ({128} if small else {32})
    if width > 32:
        boxes = [((1, 2, 8, 8), 256, 8, 3), ((1, 4, 8, 8), 64, 8, 3), ((1, 2, 8, 8), 64, 4, 4)]
    elif width > 16:
        boxes = [((1, 8, 4, 4), 128, 4, 4), ((1, 8, 4, 4), 128, 8, 3), ((1, 8, 4, 4), 256, 8, 4),
                 ((1, 8, 4, 4), 64, 4, 4), ((1, 8, 4, 4), 32, 4, 4), ((1, 16, 4, 4), 128, 8, 3),
                 ((1, 16, 4, 4), 32, 8, 4), ((1, 16, 4, 4), 64, 8, 4), ((1, 16, 8, 4), 32, 8, 3),
                 ]  # fmt: skip
    elif width > 8:
        boxes = [((1, 16, 2, 2), 256, 4, 3), ((1, 16, 2, 2), 128, 4, 4), ((1, 16, 2, 2), 64, 4, 4)]
        if not small:
            boxes += [((2, 16, 2, 2), 256, 8, 3), ((2, 16, 2, 2), 128, 8, 4),
                      ((2, 16, 2, 2), 64, 4, 4), ((4, 16, 2, 2), 64, 8, 3),
                      ((2, 16, 2, 2), 32, 4, 4)]  # fmt: skip
        else:
            boxes += [((1, 16, 2, 2), 32, 4, 4)]
    else:
        boxes = [((1, 8, 1, 8), 64, 4, 4), ((1, 8, 1, 8), 128, 4, 4), ((1, 1, 8, 8), 64, 4, 4)]
        if not small:
            boxes += [((2, 8, 1, 8), 128, 8, 3), ((2, 8, 1, 8), 64, 4, 4)]
        else:
            boxes += [((1, 8, 1, 8), 32, 4, 5), ((1, 8, 1, 8), 16, 4, 5)]
    return [
        Tile(*box, n, depth, warps, 3 if depth == 128 else stages + (depth == 32))
        for box, n, warps, stages in boxes
        for depth in sorted(depths)
        if n <= 2 * max(columns, 32) and batch % box[0] == 0
    ]


class Tuner(FusedI3D):
    """Runs each convolution with every candidate, and keeps the fastest tile."""

    def tune(self, x: Tensor, deadline: float) -> dict[str, list[int]]:
        """Return the fastest tile of each layer."""
        self.deadline, self.best, self.lines = deadline, {}, []
        windows = torch.zeros(
            (len(x), *x.shape[2:4], -(-x.shape[4] // 4), 32), dtype=self.dtype, device="cuda"
        )
        self._windows(x, windows)
        self._run(windows, x.shape[2:], frozenset((LOGITS,)))
        return self.best

    def _stem(self, windows: Tensor, shape: Any) -> Tensor:
        boxes = [(2, 8, 8, 4, 4), (4, 4, 8, 4, 5)]
        tiles = [Tile(1, *box[:3], 128, 32, *box[3:]) for box in boxes]
        flop = 2 * len(windows) * 32 * 112 * 112 * 64 * 3 * 343
        name = "Conv3d_1a_7x7"
        self._try(name, tiles, flop, lambda tile: self._launch_stem(tile, windows, shape))
        return self._launch_stem(Tile(*self.best[name]), windows, shape)

    def _conv(self, layer: Any, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        tiles = candidates(layer, x, y.shape[4])
        columns = y.shape[4] + (z.shape[4] if z is not None else 0)
        flop = 2 * x.numel() * layer.taps * columns
        self._try(layer.name, tiles, flop, lambda tile: self._launch(layer, tile, x, y, z))
        self._launch(layer, Tile(*self.best[layer.name]), x, y, z)

    def _try(self, name: str, tiles: list[Tile], flop: float, run: Any) -> None:
        times: dict[Tile, float] = {}
        for tile in tiles:
            if times and time.time() > self.deadline:
                break
            try:
                times[tile] = in_graph(lambda tile=tile: run(tile))
            except Exception as problem:  # a tile may need too much shared memory
                print("tile", name, tuple(tile), type(problem).__name__, str(problem)[:60])
        tile = min(times, key=times.__getitem__)
        self.best[name] = list(tile)
        short = name.replace("Conv3d_", "").replace("Branch_", "b")
        best = times[tile]
        rate = f"{1000 * best:.0f} us, {flop / best / 1e9:.0f} TFLOP/s"
        print(f"{short} {tuple(tile)} of {len(times)}: {rate}", flush=True)


def in_graph(run: Any, repeats: int = 10) -> float:
    """Return the milliseconds of one call, from a CUDA graph of several."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            run()
    times = []
    for _ in range(4):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / repeats)
    return min(times[1:])


def first_call(tensors: dict[str, Tensor], batch: int) -> float:
    """Return the seconds until a new network has run its first clips: compiling and capturing."""
    x = (torch.rand(batch, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
    begun = time.perf_counter()
    FusedI3D(tensors, DEEPMIND, torch.device("cuda"))(x)
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def timings(tensors: dict[str, Tensor], shapes: list[Shape]) -> list[dict[str, Any]]:
    """Time each way with clips [N, 3, T, S, S] of each shape, alternating."""
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"))
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


def profile(tensors: dict[str, Tensor], batch: int) -> None:
    """Print the time of each kernel."""
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"))
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


def main() -> None:
    """Check, tune, time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tune", type=float, default=0)
    parser.add_argument("--only", action="append", default=ONLY)
    parser.add_argument("--clips", type=Path)
    options = parser.parse_args()
    tensors = load(options.weights)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    document: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    begun = time.time()
    document["first_call"] = [first_call(tensors, 8) for _ in range(2)]
    print("first call", document["first_call"], flush=True)
    document["check"] = check(tensors)
    print(f"checked in {time.time() - begun:.0f} s")
    if options.tune:
        tables = {}
        for batch in (8, 1):
            tuner = Tuner(tensors, DEEPMIND, torch.device("cuda"))
            x = (torch.rand(batch, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
            tables[str(batch)] = tuner.tune(x, time.time() + options.tune)
        (options.out / "tiles.json").write_text(json.dumps(tables, indent=0))
        from i3dzoo.kernels import tiles

        tiles._TABLE.update(tables)
        print(f"tuned after {time.time() - begun:.0f} s")
    document["timings"] = timings(tensors, SHAPES)
    (options.out / "fused.json").write_text(json.dumps(document, indent=1))
    fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"))
    for batch in (1, 8):
        x = (torch.rand(batch, 3, 64, 224, 224, device="cuda") * 2 - 1).half()
        fused(x)
        (graph,) = [g for key, g in fused._graphs.items() if key[0] == batch]
        print("graph alone", batch, median(time_on_gpu(graph.graph.replay, 20)))
    profile(tensors, 8)
    profile(tensors, 1)
    if options.clips:
        clips = torch.from_numpy(np.load(options.clips)).cuda()
        network = reference(tensors).double()
        fused = FusedI3D(tensors, DEEPMIND, torch.device("cuda"))
        for clip in clips:
            x = clip[None].permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            with torch.inference_mode():
                exact, output = network(x.double()), fused(x)[LOGITS].mean(1)
            print("clip", f"{error(output, exact):.2e}", bool(exact.argmax() == output.argmax()))


if __name__ == "__main__":
    main()

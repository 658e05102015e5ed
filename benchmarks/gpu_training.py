"""Check the kernels of training on a GPU, time a training step, and profile it.

    python benchmarks/gpu_training.py [check] [runs] [time] [profile] [--batch 16]

`check` compares logits, gradients and running statistics with float64, beside the errors of
PyTorch's own operators. `runs` compares two runs, and one without a CUDA graph, to the bit. `time`
times the ways of `benchmarks/train.py`. `profile` prints the 25 kernels that take the most time.
"""

import argparse
import copy
import gc
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from train import CLASSES, Labels, clips, recipe, timed, train_step, ways

from i3dzoo import kernels
from i3dzoo.network.architecture import DEEPMIND, Variant
from i3dzoo.network.i3d import I3D
from i3dzoo.pretrained import InceptionI3d
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import TrainStep, make_accelerator

SIZES = [(2, 16, 112, 112), (3, 11, 90, 131)]
VARIANTS = [DEEPMIND, Variant(epsilon=1e-5, padding="symmetric", pooling="global")]


def gradients(network: nn.Module, x: Tensor, half: torch.dtype | None) -> dict[str, Tensor]:
    """Return the logits, all gradients and the new running statistics, in float64."""
    network.zero_grad()
    with torch.autocast("cuda", half, enabled=half is not None):
        logits = network(x).to(torch.promote_types(torch.float32, x.dtype))
    labels = torch.arange(len(x), device="cuda") % logits.shape[1]
    scale = 1024.0 if half is torch.float16 else 1.0
    (F.cross_entropy(logits, labels) * scale).backward()
    results = {"logits": logits.detach().double()}
    for name, value in network.named_parameters():
        if value.grad is not None:
            results[f"gradient {name}"] = value.grad.double() / scale
    for name, value in network.named_buffers():
        results[f"buffer {name}"] = value.double()
    return results


def errors(results: dict[str, Tensor], exact: dict[str, Tensor]) -> str:
    """Return the errors of the logits and of all gradients and buffers, as a part of the norm."""
    parts = []
    for kind in ("logits", "gradient", "buffer"):
        names = [name for name in exact if name.startswith(kind)]
        apart = torch.cat([(results[name] - exact[name]).flatten() for name in names])
        whole = torch.cat([exact[name].flatten() for name in names])
        ratios = {
            name: float((results[name] - exact[name]).norm() / (exact[name].norm() + 1e-12))
            for name in names
        }
        worst = max(ratios, key=ratios.__getitem__)
        error = f"{float(apart.norm() / whole.norm()):.1e}"
        parts.append(f"{kind} {error} (worst {ratios[worst]:.1e} {worst.split('.', 1)[-1]})")
    return ", ".join(parts)


def check() -> None:
    """Compare with float64, and with PyTorch's own operators."""
    torch.backends.cudnn.allow_tf32 = False
    for variant in VARIANTS:
        for batch, *size in SIZES:
            for is_training in (True, False):
                torch.manual_seed(0)
                network = I3D(7, dropout=0.0, variant=variant).cuda().train(is_training)
                x = torch.rand(batch, 3, *size, device="cuda") * 2 - 1
                exact = gradients(copy.deepcopy(network).double(), x.double(), None)
                x = x.contiguous(memory_format=torch.channels_last_3d)
                for half in (None, torch.float16, torch.bfloat16):
                    for enabled in (True, False):
                        kernels.set_enabled(enabled)
                        tried = copy.deepcopy(network)
                        tried.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d
                        results = gradients(tried, x, half)
                        mode = "training" if is_training else "frozen"
                        whose = "kernels" if enabled else "PyTorch"
                        title = f"{variant.padding} {(batch, *size)} {mode} {half or 'float32'}"
                        print(f"{title} {whose}: {errors(results, exact)}", flush=True)
                kernels.set_enabled(True)
    torch.backends.cudnn.allow_tf32 = True


def check_runs(precision: str) -> None:
    """Take the same steps twice, and without a CUDA graph; compare the weights to the bit."""
    torch.backends.cudnn.deterministic = True
    given = recipe(precision, True, 4)
    states: list[dict[str, Tensor]] = []
    for way in ("first", "again", "without a graph"):
        accelerator = make_accelerator(given)
        torch.manual_seed(0)
        streams = Streams({"rgb": InceptionI3d(CLASSES)})
        step = TrainStep(given, streams, Labels(), accelerator)  # type: ignore[arg-type] # all it uses
        if way == "without a graph":
            step._graph = None
        batches = clips(4, accelerator.device, given.loop.channels_last)
        losses = [step([next(batches)], number, 1e-2).loss for number in range(8)]
        captured = step._graph is not None and step._graph._captured is not None
        states.append({name: value.clone() for name, value in step.streams.state_dict().items()})
        same = all(torch.equal(value, states[0][name]) for name, value in states[-1].items())
        print(
            f"8 steps, {way} (graph {captured}): {losses}, the same to the bit: {same}", flush=True
        )
    torch.backends.cudnn.deterministic = False


def time_ways(batch: int, only: list[str] | None) -> None:
    """Time the ways of `benchmarks/train.py` of these names."""
    for name, make in ways(batch).items():
        if only and name not in only:
            continue
        gc.collect()
        torch.cuda.empty_cache()
        result = timed(make(), 6, 20)
        print(
            f"{name:24} batch {batch:3}  {1e3 * batch / result['median_ms']:7.1f} clips/s  "
            f"{result['median_ms']:7.1f} ms ({result['fastest_ms']:.1f} to "
            f"{result['slowest_ms']:.1f})  {result['peak_gb']:5.2f} GB",
            flush=True,
        )


def profile(batch: int, precision: str) -> None:
    """Print the kernels that take the most time of a step."""
    step = train_step(recipe(precision, True, batch), batch)
    for _ in range(4):
        step()
    torch.cuda.synchronize()
    steps = 3
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_device_time_total)
    rows = [row for row in rows if row.self_device_time_total]
    total = sum(row.self_device_time_total for row in rows)
    count = sum(row.count for row in rows)
    print(f"kernels of a step: {total / steps / 1e3:.1f} ms, {count // steps} launches")
    for row in rows[:25]:
        milliseconds = row.self_device_time_total / steps / 1e3
        print(f"{milliseconds:7.2f} ms {row.count // steps:4} x {row.key[:110]}")


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=["check", "runs", "time", "profile"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="fp16", choices=["fp32", "fp16", "bf16"])
    parser.add_argument("--only", action="append", help="ways to time; all without")
    parser.add_argument("--eager", action="store_true", help="take steps without a CUDA graph")
    given = parser.parse_args()
    if given.eager:
        TrainStep._make_graph = lambda _: None  # type: ignore[method-assign] # to compare
    print(torch.cuda.get_device_name(), torch.__version__, torch.backends.cudnn.version())
    if "time" in given.parts:
        time_ways(given.batch, given.only)
    if "profile" in given.parts:
        profile(given.batch, given.precision)
    if "check" in given.parts:
        check()
    if "runs" in given.parts:
        check_runs(given.precision)


if __name__ == "__main__":
    main()

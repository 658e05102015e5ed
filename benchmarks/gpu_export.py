"""Compare TensorRT engines of our ONNX models with PyTorch, on one GPU, in one run.

There are four steps, because the GPU machine may have neither a network connection nor PyAV, and
TensorRT may be installed in another Python than the one that measures PyTorch:

    python benchmarks/gpu_export.py pixels build/gpu              # anywhere: real clips
    python benchmarks/gpu_export.py models build/gpu WEIGHTS      # on the GPU machine: the graphs
    python benchmarks/gpu_export.py build build/gpu --python PYTHON --seconds 400
    python benchmarks/gpu_export.py measure build/gpu WEIGHTS out.json --python PYTHON

`build` begins with the most important engine, and continues if it is called again. PYTHON has
TensorRT, PyTorch with CUDA, and the dependencies of i3dzoo; the variables TENSORRT_LD_LIBRARY_PATH
and TENSORRT_PYTHONPATH become its LD_LIBRARY_PATH and PYTHONPATH.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

SIZE = (64, 224, 224)
NAMES = (
    *("v_CricketShot_g04_c01_rgb.gif", "arm_wrestling.mp4", "R6llTwEh07w.mp4"),
    *("v_SoccerJuggling_g24_c01.avi", "TrumanShow_wave_f_nm_np1_fr_med_26.avi", "SOX5yA1l24A.mp4"),
)
# largest difference that is good enough, as a part of the norm of a clip's logits
LIMITS = {"fp16": 1e-3, "tf32": 2e-4, "refit": 1e-3, "cached": 1e-3, "compatible": 1e-3}
ORDER = (
    *(("fp16", 8), ("fp16", 1), ("tf32", 8), ("tf32", 1)),  # required
    *(("refit", 1), ("cached", 1), ("compatible", 1)),
)
REQUIRED = ORDER[:4]
KINDS = tuple(dict.fromkeys(kind for kind, _ in ORDER))


def pixels(folder: Path, data: Path) -> None:
    """Write the middle clips of real videos as uint8."""
    from i3dzoo.checkpoints.metadata import default_input
    from i3dzoo.video import load_clips, probe, sampling

    folder.mkdir(parents=True, exist_ok=True)
    spec, clips = default_input("rgb"), []
    for name in NAMES:
        info = probe(data / "clips" / name)
        samples = sampling.resample(info, spec.fps)
        ((_, clip),) = load_clips(info, sampling.clips(samples, spec.frames, 1), spec)
        # whole pixel values take a quarter of the bytes
        clips.append(((clip + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    np.savez_compressed(folder / "clips.npz", clips=np.stack(clips))


def models(folder: Path, weights: Path) -> None:
    """Write the clips, the ONNX graph and its description, and the constants of other weights.

    The clips are not compressed, since TensorRT's Python may lack zlib.
    """
    import onnx

    from i3dzoo.checkpoints.checkpoint import read_checkpoint
    from i3dzoo.onnx.description import describe
    from i3dzoo.onnx.model import build_model
    from i3dzoo.onnx.options import ExportOptions

    with np.load(folder / "clips.npz") as packed:
        clips = packed["clips"]
    noise = np.random.default_rng(0).integers(0, 256, clips[:1].shape, dtype=np.uint8)
    np.save(folder / "clips.npy", np.concatenate([clips, noise]))
    checkpoint = read_checkpoint(weights)
    # what `i3dzoo.exporters.tensorrt.graph_options` returns for tf32 and fp16
    options = ExportOptions(space_to_depth=True, precision="tf32")
    data = build_model([checkpoint], options).SerializeToString()
    (folder / "i3d.onnx").write_bytes(data)
    (folder / "i3d.json").write_text(json.dumps(describe([checkpoint], options)))
    graph = build_model([_altered(checkpoint)], options).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    np.savez(folder / "other.npz", **constants)


def _altered(checkpoint: Any) -> Any:
    """Return a checkpoint with other weights and other first classes, as of another training."""
    generator = np.random.default_rng(0)
    tensors = dict(checkpoint.tensors)
    for name, array in tensors.items():
        if name.endswith("conv.weight"):
            noise = generator.normal(0, 0.05 * array.std(), array.shape)
            tensors[name] = (array + noise).astype("f4")
        if name.startswith("Logits"):
            tensors[name] = np.roll(tensors[name], 7, axis=0)
    return replace(checkpoint, tensors=tensors)


def engine(folder: Path, kind: str, batch: int) -> None:
    """Build one engine as `i3dzoo export --to tensorrt` does, with its sidecar."""
    import msgspec

    from i3dzoo.engines.tensorrt_library import library
    from i3dzoo.engines.tensorrt_sidecar import sidecar_path
    from i3dzoo.exporters.job import EngineOptions
    from i3dzoo.exporters.tensorrt_builder import build_engine, refit_engine

    installed = library()
    options = EngineOptions(
        precision="tf32" if kind == "tf32" else "fp16",
        timing_cache=folder / "timing.cache",
        refittable=kind == "refit",
        compatible="gpus" if kind == "compatible" else None,
    )
    shape = (batch, 3, *SIZE)
    profile = {"input_rgb": (shape, shape, shape)}
    start = time.perf_counter()
    model = (folder / "i3d.onnx").read_bytes()
    description = json.loads((folder / "i3d.json").read_text())
    plan, sidecar = build_engine(installed, model, description, options, profile)
    built = time.perf_counter() - start
    if kind == "refit":
        start = time.perf_counter()
        with np.load(folder / "other.npz") as constants:
            plan = refit_engine(installed, plan, dict(constants))
        digest = hashlib.sha256(plan).hexdigest()
        sidecar = msgspec.structs.replace(sidecar, sha256=digest)
    seconds = {"build": built, kind: time.perf_counter() - start}
    path = folder / f"{kind}_{batch}.engine"
    path.with_suffix(".seconds").write_text(json.dumps(seconds))
    sidecar_path(path).write_bytes(sidecar.to_json())
    path.write_bytes(plan)
    print(kind, batch, seconds, f"{len(plan) / 1e6:.1f} MB", flush=True)


def time_engine(folder: Path, kind: str, batch: int, runs: int) -> None:
    """Run an engine on the clips as `i3dzoo predict` does, save its logits, print its times."""
    from i3dzoo.engines.tensorrt import TensorRTEngine

    path = folder / f"{kind}_{batch}.engine"
    loaded = TensorRTEngine.from_file(path)
    clips = np.load(folder / "clips.npy").astype("f4") / np.float32(127.5) - np.float32(1)
    full = np.concatenate([clips, np.repeat(clips[-1:], -len(clips) % batch, axis=0)])
    parts = full.reshape(-1, batch, *clips.shape[1:])
    batches = loaded.run_all({"input_rgb": part} for part in parts)
    logits = [outputs["fc_pred"] for outputs in batches]
    np.save(folder / f"{kind}_{batch}.npy", np.concatenate(logits)[: len(clips)])
    alone = loaded.run({"input_rgb": parts[0]})["fc_pred"]
    refusals = _refusals(path, batch)
    times = _times(loaded, parts[0], runs)
    times["repeats"] = bool(np.array_equal(alone, logits[0]))
    print(json.dumps(times | {"refusals": refusals}))


def _refusals(path: Path, batch: int) -> list[str]:
    """Return the errors for an engine of another version or GPU, and for clips of other sizes."""
    import msgspec

    from i3dzoo.engines.tensorrt import TensorRTEngine
    from i3dzoo.engines.tensorrt_library import Gpu
    from i3dzoo.engines.tensorrt_sidecar import read_engine
    from i3dzoo.errors import I3DZooError

    plan, sidecar = read_engine(path)
    messages = []
    for changes in ({"version": "7.2.3"}, {"gpu": Gpu("NVIDIA A10", "8.6")}, {}):
        try:
            engine = TensorRTEngine(str(path), plan, msgspec.structs.replace(sidecar, **changes))
            engine.run({"input_rgb": np.zeros((batch + 1, 3, 9, 32, 32), "f4")})
            messages.append("it ran")
        except I3DZooError as error:
            messages.append(str(error))
    return messages


def _times(loaded: Any, clips: Any, runs: int) -> dict[str, Any]:
    from i3dzoo.engines.tensorrt_library import gpu

    session = loaded.session({"input_rgb": clips.shape})
    copied = min(runs, 20)
    start = time.perf_counter()
    for _ in session.run_all({"input_rgb": clips} for _ in range(copied)):
        pass
    piped = (time.perf_counter() - start) / copied
    start = time.perf_counter()
    for _ in range(copied):
        session.run({"input_rgb": clips})
    alone = (time.perf_counter() - start) / copied
    on_gpu = sorted(_on_the_gpu(session, runs))
    return {
        "gpu": str(gpu()),
        "graph": session.captured,
        "median_ms": on_gpu[len(on_gpu) // 2],
        "p99_ms": on_gpu[int(len(on_gpu) * 0.99)],
        "from_memory_ms": 1e3 * alone,
        "piped_ms": 1e3 * piped,
    }


def _on_the_gpu(session: Any, runs: int) -> list[float]:
    """Return the milliseconds of runs, input and output on the GPU already."""
    import torch
    from gpu_pytorch import time_on_gpu

    slot = session._slots[0]
    stream, context = slot._stream, slot._context

    def enqueue() -> None:
        context.execute_async_v3(stream.cuda_stream)

    if not session.captured:
        with torch.cuda.stream(stream):
            return time_on_gpu(enqueue, runs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="relaxed"):
        enqueue()
    with torch.cuda.stream(stream):
        return time_on_gpu(graph.replay, runs)


def build(folder: Path, python: str, seconds: float) -> None:
    """Build the missing engines, the most important first, while time is left."""
    deadline = time.monotonic() + seconds
    for kind, batch in ORDER:
        path = folder / f"{kind}_{batch}.engine"
        left = deadline - time.monotonic()
        if path.exists() or left < 40:
            continue
        output, error = _in_tensorrt(python, ["engine", folder, kind, str(batch)], left)
        (folder / f"{kind}_{batch}.error").write_text(error)
        print(f"{kind} {batch}: {left:.0f} s were left; {error or output.strip()}", flush=True)


def _in_tensorrt(python: str, command: list[Any], seconds: float) -> tuple[str, str]:
    """Run one of the steps beside TensorRT; return its output, and what went wrong."""
    environment = dict(os.environ)
    for key in ("LD_LIBRARY_PATH", "PYTHONPATH"):
        if value := os.environ.get(f"TENSORRT_{key}"):
            environment[key] = value
    line = [python, __file__, *map(str, command)]
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "", f"took more than {seconds:.0f} s"
    sys.stderr.write(done.stderr[-2000:])
    tail = " / ".join(done.stderr.strip().splitlines()[-3:])
    return done.stdout, f"exit code {done.returncode}: {tail}" if done.returncode else ""


def measure(folder: Path, weights: Path, output: Path, python: str, runs: int) -> list[str]:
    """Compare and time the engines, write JSON, and return the required ones that are not good."""
    import torch
    from gpu_pytorch import time_pytorch

    from i3dzoo.checkpoints.checkpoint import read_checkpoint
    from i3dzoo.pretrained import build as build_network

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    checkpoint = read_checkpoint(weights)
    clips = torch.from_numpy(np.load(folder / "clips.npy")).float() / 127.5 - 1
    expected = {}
    for name, weights_of in (("i3d", checkpoint), ("other", _altered(checkpoint))):
        network = build_network(weights_of).cuda()
        with torch.inference_mode():
            logits = [network(clip[None].cuda()).cpu() for clip in clips]
        expected[name] = torch.cat(logits).numpy()
    labels = checkpoint.metadata.labels or ()
    report: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "clips": {n: labels[i] for n, i in zip(NAMES, expected["i3d"].argmax(1), strict=False)},
        "pytorch": time_pytorch(build_network(checkpoint).cuda(), clips, runs),
        "engines": [],
    }
    torch.cuda.empty_cache()
    wrong = []
    for kind, batch in ORDER:
        entry = {"kind": kind, "batch": batch, "limit": LIMITS.get(kind), "good": False}
        if (folder / f"{kind}_{batch}.engine").exists():
            wanted = expected["other" if kind == "refit" else "i3d"]
            entry |= _judge(folder, kind, batch, wanted, python, runs)
        elif (error := folder / f"{kind}_{batch}.error").exists():
            entry["error"] = error.read_text()
        else:
            entry["error"] = "was not built"
        report["engines"].append(entry)
        if not entry["good"] and (kind, batch) in REQUIRED:
            wrong.append(f"{kind} {batch}")
        output.write_text(json.dumps(report, indent=1))
    _print(report)
    return wrong


def _judge(
    folder: Path, kind: str, batch: int, expected: Any, python: str, runs: int
) -> dict[str, Any]:
    """Time an engine and compare its logits with PyTorch's."""
    from gpu_pytorch import differences

    command = ["time", folder, kind, str(batch), "--runs", str(runs)]
    printed, error = _in_tensorrt(python, command, 90)
    if error:
        return {"error": error}
    logits = np.load(folder / f"{kind}_{batch}.npy")
    apart = differences(logits, expected)
    largest = max(apart["of_the_norm"])
    same = bool((logits.argmax(1) == expected.argmax(1))[: len(NAMES)].all())  # noise has no class
    about = json.loads((folder / f"{kind}_{batch}.engine.json").read_text())
    times = json.loads(printed.splitlines()[-1])
    return times | {
        **apart,  # of each clip, the noise last
        "same_top_1": same,
        "good": same and largest <= LIMITS.get(kind, 1.0),
        "clips_per_second": 1e3 * batch / times["median_ms"],
        "bytes": (folder / f"{kind}_{batch}.engine").stat().st_size,
        "version": f"{about['library']} {about['version']}",
        "seconds": json.loads((folder / f"{kind}_{batch}.seconds").read_text()),
    }


def _print(report: dict[str, Any]) -> None:
    """Print the report as Markdown."""
    print(f"{report['gpu']}, PyTorch {report['torch']}; {report['clips']}\n")
    print("| | batch | ms | clips/s | of the norm | of the largest | top-1 ", end="")
    print("| from memory ms | piped ms | built in s |\n|---|---|---|---|---|---|---|---|---|---|")

    def errors(row: dict[str, Any]) -> str:
        worst = (max(row[key]) for key in ("of_the_norm", "of_the_largest_logit"))
        return " | ".join(f"{each:.1e}" for each in worst)

    for row in report["pytorch"]:
        speed = f"{row['median_ms']:.2f} | {row['clips_per_second']:.0f}"
        print(f"| PyTorch {row['mode']} | {row['batch']} | {speed} | {errors(row)} | | | | |")
    for row in report["engines"]:
        if "error" in row:
            print(f"| {row['kind']} | {row['batch']} | {row['error'][:300]} | | | | | | | |")
            continue
        speed = f"{row['median_ms']:.2f} | {row['clips_per_second']:.0f}"
        top = "same" if row["same_top_1"] else "OTHER"
        copied = f"{row['from_memory_ms']:.1f} | {row['piped_ms']:.1f}"
        built = ", ".join(f"{k} {v:.0f}" for k, v in row["seconds"].items())
        print(f"| {row['kind']} | {row['batch']} | {speed} | {errors(row)} ", end="")
        print(f"| {top} | {copied} | {built} |")
    first = next((row for row in report["engines"] if "refusals" in row), None)
    if first:
        print(first["version"], f"graph {first['graph']}", *first["refusals"], sep="\n")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("pixels", "models", "engine", "time", "build", "measure"):
        step = steps.add_parser(name)
        step.add_argument("folder", type=Path)
        if name == "pixels":
            step.add_argument("--data", type=Path, default=os.environ.get("I3DZOO_TEST_DATA"))
        if name in ("models", "measure"):
            step.add_argument("weights", type=Path)
        if name in ("engine", "time"):
            step.add_argument("kind", choices=KINDS)
            step.add_argument("batch", type=int, choices=(1, 8))
        if name in ("time", "measure"):
            step.add_argument("--runs", type=int, default=50)
        if name in ("build", "measure"):
            step.add_argument("--python", default=sys.executable)
        if name == "build":
            step.add_argument("--seconds", type=float, default=1e4)
        if name == "measure":
            step.add_argument("output", type=Path)
    given = vars(parser.parse_args())
    step = given.pop("step")
    functions = {"engine": engine, "time": time_engine, "build": build, "models": models}
    if step == "measure":
        if wrong := measure(**given):
            sys.exit(f"missing, or less exact than required: {', '.join(wrong)}")
    elif step == "pixels":
        pixels(given["folder"], Path(given["data"]))
    else:
        functions[step](**given)


if __name__ == "__main__":
    main()

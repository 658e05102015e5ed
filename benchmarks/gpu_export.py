"""TensorRT engines of our ONNX beside PyTorch, on one GPU, in one run.

Four steps, because the GPU machine may have neither a network nor PyAV, and the last TensorRT on
the package index wants a Python of its own, in which PyTorch is not:

    python benchmarks/gpu_export.py pixels build/gpu              # here: real clips
    python benchmarks/gpu_export.py models build/gpu WEIGHTS      # there: the graphs
    python benchmarks/gpu_export.py build build/gpu --python PYTHON --seconds 400
    python benchmarks/gpu_export.py measure build/gpu WEIGHTS out.json --python PYTHON

`build` takes the most important engine first, and called again it goes on. An int8 graph is made
where build/gpu/calibration.json is what `i3dzoo export --precision int8` kept beside its file.
PYTHON has TensorRT, numpy, google-crc32c and, below 3.11, tomli; the variables
TENSORRT_LD_LIBRARY_PATH and TENSORRT_PYTHONPATH become its LD_LIBRARY_PATH and PYTHONPATH.
"""

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if sys.version_info < (3, 11):  # noqa: UP036 - TensorRT 8.6 is there for 3.10 only
    sys.modules["tomllib"] = importlib.import_module("tomli")
    sys.modules["importlib.resources.abc"] = importlib.import_module("importlib.abc")

import numpy as np

SIZE = (64, 224, 224)
NAMES = (
    *("v_CricketShot_g04_c01_rgb.gif", "arm_wrestling.mp4", "R6llTwEh07w.mp4"),
    *("v_SoccerJuggling_g24_c01.avi", "TrumanShow_wave_f_nm_np1_fr_med_26.avi", "SOX5yA1l24A.mp4"),
)
# largest difference, of the norm of a clip's logits, that is good enough; int8's is measured
LIMITS = {"fp16": 1e-3, "tf32": 2e-4, "refit": 1e-3, "cached": 1e-3, "compatible": 1e-3}
ORDER = (
    *(("fp16", 8), ("fp16", 1), ("tf32", 8), ("tf32", 1)),  # what must be there
    *(("int8", 8), ("refit", 1), ("cached", 1), ("int8", 1), ("compatible", 1)),
)
NEEDED = ORDER[:4]
KINDS = tuple(dict.fromkeys(kind for kind, _ in ORDER))


def pixels(folder: Path, data: Path) -> None:
    """Write the middle clips of real videos as uint8."""
    from i3dzoo.metadata import default_input
    from i3dzoo.video import load_clips, probe, sampling

    folder.mkdir(parents=True, exist_ok=True)
    spec, clips = default_input("rgb"), []
    for name in NAMES:
        info = probe(data / "clips" / name)
        samples = sampling.resample(info, spec.fps)
        ((_, clip),) = load_clips(info, sampling.clips(samples, spec.frames, 1), spec)
        # whole pixel values, so that a quarter of the bytes says the same
        clips.append(((clip + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    np.savez_compressed(folder / "clips.npz", clips=np.stack(clips))


def models(folder: Path, weights: Path) -> None:
    """Write the ONNX graphs, what they say of themselves, and the constants of other weights.

    The clips are unpacked, too, since TensorRT's Python may be without zlib.
    """
    import onnx

    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.export.calibrate import read_calibration
    from i3dzoo.export.describe import describe
    from i3dzoo.export.onnx import build
    from i3dzoo.export.options import ExportOptions

    with np.load(folder / "clips.npz") as packed:
        clips = packed["clips"]
    noise = np.random.default_rng(0).integers(0, 256, clips[:1].shape, dtype=np.uint8)
    np.save(folder / "clips.npy", np.concatenate([clips, noise]))
    checkpoint = read_checkpoint(weights)
    kept = folder / "calibration.json"
    # as `i3dzoo.export.tensorrt.graph_options` has them for tf32 and fp16
    engine = ExportOptions(split=True, bits=10)
    graphs = {"i3d": (engine, None)}
    if kept.exists():
        int8 = replace(engine, precision="int8", bits=None)
        graphs["int8"] = (int8, read_calibration(kept).units)
    for name, (options, found) in graphs.items():
        data = build([checkpoint], options, found).SerializeToString()
        (folder / f"{name}.onnx").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps(describe([checkpoint], options)))
    graph = build([_altered(checkpoint)], engine).graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    np.savez(folder / "other.npz", **constants)


def _altered(checkpoint: Any) -> Any:
    """Return what another training might have made: other weights, and other first classes."""
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
    from i3dzoo.export.engine_build import EngineOptions, build_engine, library
    from i3dzoo.export.refit import refit_engine
    from i3dzoo.export.tensorrt import document, sidecar

    found = library()
    options = EngineOptions(
        precision=kind if kind in ("tf32", "int8") else "fp16",  # type: ignore[arg-type] # checked
        timing_cache=folder / "timing.cache",
        refittable=kind == "refit",
        compatible="gpus" if kind == "compatible" else None,
    )
    graph = "int8" if kind == "int8" else "i3d"
    shape = (batch, 3, *SIZE)
    profile = {"input_rgb": (shape, shape, shape)}
    start = time.perf_counter()
    model = (folder / f"{graph}.onnx").read_bytes()
    plan, network = build_engine(found, model, options, profile)
    built = time.perf_counter() - start
    if kind == "refit":
        start = time.perf_counter()
        with np.load(folder / "other.npz") as constants:
            plan = refit_engine(found, plan, dict(constants))
    about = document(found, plan, options, profile, network)
    about["description"] = json.loads((folder / f"{graph}.json").read_text())
    about["seconds"] = {"build": built, kind: time.perf_counter() - start}
    about["onnx"] = hashlib.sha256(model).hexdigest()
    path = folder / f"{kind}_{batch}.engine"
    sidecar(path).write_text(json.dumps(about))
    path.write_bytes(plan)
    print(kind, batch, about["seconds"], f"{len(plan) / 1e6:.1f} MB", flush=True)


def time_engine(folder: Path, kind: str, batch: int, runs: int) -> None:
    """Run an engine on the clips as `i3dzoo predict` does, keep its logits, print its times."""
    from i3dzoo.export.tensorrt_engine import TensorRTEngine

    path = folder / f"{kind}_{batch}.engine"
    loaded = TensorRTEngine(path)
    clips = np.load(folder / "clips.npy").astype("f4") / np.float32(127.5) - np.float32(1)
    full = np.concatenate([clips, np.repeat(clips[-1:], -len(clips) % batch, axis=0)])
    parts = full.reshape(-1, batch, *clips.shape[1:])
    found = [each["fc_pred"] for each in loaded.run_all({"input_rgb": part} for part in parts)]
    np.save(folder / f"{kind}_{batch}.npy", np.concatenate(found)[: len(clips)])
    alone = loaded.run({"input_rgb": parts[0]})["fc_pred"]
    refusals = _refusals(path, batch)
    times = _times(loaded, parts[0], runs)
    times["repeats"] = bool(np.array_equal(alone, found[0]))
    print(json.dumps(times | {"refusals": refusals}))


def _refusals(path: Path, batch: int) -> list[str]:
    """Return what is said of an engine of another version or GPU, and of clips of other sizes."""
    from i3dzoo.errors import I3DZooError
    from i3dzoo.export.tensorrt_engine import TensorRTEngine

    about = json.loads(path.with_name(f"{path.name}.json").read_text())
    other = {"name": "NVIDIA A10", "capability": "8.6"}
    tries = (about | {"version": "7.2.3"}, about | {"gpu": other}, about)
    said = []
    for document in tries:
        try:
            made = TensorRTEngine(path.read_bytes(), document)
            made.run({"input_rgb": np.zeros((batch + 1, 3, 9, 32, 32), "f4")})
            said.append("it ran")
        except I3DZooError as error:
            said.append(str(error))
    return said


def _times(loaded: Any, clips: Any, runs: int) -> dict[str, Any]:
    from i3dzoo.export import cuda

    (runner,) = loaded._runners.values()
    copied = min(runs, 20)
    start = time.perf_counter()
    for _ in runner.stream({"input_rgb": clips} for _ in range(copied)):
        pass
    piped = (time.perf_counter() - start) / copied
    start = time.perf_counter()
    for _ in range(copied):
        runner.run({"input_rgb": clips})
    alone = (time.perf_counter() - start) / copied
    on_gpu = _on_the_gpu(runner, cuda, runs)
    return {
        "gpu": str(cuda.gpu()),
        "graph": runner.captured,
        "median_ms": on_gpu[len(on_gpu) // 2],
        "p99_ms": on_gpu[int(len(on_gpu) * 0.99)],
        "from_memory_ms": 1e3 * alone,
        "piped_ms": 1e3 * piped,
    }


def _on_the_gpu(runner: Any, cuda: Any, runs: int) -> list[float]:
    """Return the sorted milliseconds of runs, input and output on the GPU already."""
    slot = runner._slots[0]
    stream, context = slot._stream, slot._context
    graph = None
    if runner.captured:
        stream.begin_capture()
        context.execute_async_v3(stream.handle.value)
        graph = stream.end_capture()
    found = []
    for number in range(runs + 10):
        begin, end = cuda.Event(), cuda.Event()
        begin.record(stream)
        if graph is None:
            context.execute_async_v3(stream.handle.value)
        else:
            graph.launch(stream)
        end.record(stream)
        elapsed = end.milliseconds_since(begin)
        if number >= 10:
            found.append(elapsed)
    return sorted(found)


def build(folder: Path, python: str, seconds: float) -> None:
    """Build what is missing, the most important first, while time is left."""
    deadline = time.monotonic() + seconds
    for kind, batch in ORDER:
        path = folder / f"{kind}_{batch}.engine"
        left = deadline - time.monotonic()
        if path.exists() or left < 40 or (kind == "int8" and not (folder / "int8.onnx").exists()):
            continue
        said, error = _in_tensorrt(python, ["engine", folder, kind, str(batch)], left)
        (folder / f"{kind}_{batch}.error").write_text(error)
        print(f"{kind} {batch}: {left:.0f} s were left; {error or said.strip()}", flush=True)


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
    """Compare and time what was built, write JSON, and return which of `NEEDED` is not good."""
    import torch
    from gpu_pytorch import time_pytorch

    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import build as network_of

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    checkpoint = read_checkpoint(weights)
    clips = torch.from_numpy(np.load(folder / "clips.npy")).float() / 127.5 - 1
    expected = {}
    for name, given in (("i3d", checkpoint), ("other", _altered(checkpoint))):
        network = network_of(given).cuda()
        with torch.inference_mode():
            logits = [network(clip[None].cuda()).cpu() for clip in clips]
        expected[name] = torch.cat(logits).numpy()
    labels = checkpoint.metadata.labels or ()
    report: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "clips": {n: labels[i] for n, i in zip(NAMES, expected["i3d"].argmax(1), strict=False)},
        "pytorch": time_pytorch(network_of(checkpoint).cuda(), clips, runs),
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
        if not entry["good"] and (kind, batch) in NEEDED:
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
    found = np.load(folder / f"{kind}_{batch}.npy")
    apart = differences(found, expected)
    largest = max(apart["of_the_norm"])
    same = bool((found.argmax(1) == expected.argmax(1))[: len(NAMES)].all())  # noise has no class
    about = json.loads((folder / f"{kind}_{batch}.engine.json").read_text())
    times = json.loads(printed.splitlines()[-1])
    return times | {
        **apart,  # of each clip, the noise last
        "same_top_1": same,
        "good": same and largest <= LIMITS.get(kind, 1.0),
        "clips_per_second": 1e3 * batch / times["median_ms"],
        "bytes": (folder / f"{kind}_{batch}.engine").stat().st_size,
        "version": f"{about['library']} {about['version']}",
        "seconds": about["seconds"],
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
            sys.exit(f"not there, or not as exact as they should be: {', '.join(wrong)}")
    elif step == "pixels":
        pixels(given["folder"], Path(given["data"]))
    else:
        functions[step](**given)


if __name__ == "__main__":
    main()

"""TensorRT engines of our ONNX beside PyTorch, on one GPU, in one run.

Three steps, because the GPU machine may have neither a network nor this package's dependencies:

    python benchmarks/gpu_export.py prepare build/gpu            # here: model, weights, clips
    python benchmarks/gpu_export.py engine build/gpu fp16 1      # there: for each precision, batch
    python benchmarks/gpu_export.py measure build/gpu out.json   # there: check and time them all

`prepare` needs i3dzoo with the extra onnx, and real clips. `engine` needs TensorRT, and nothing
else: no numpy, no torch. `measure` needs PyTorch; it calls `time` in the Python that has TensorRT,
which --python names (with LD_LIBRARY_PATH and PYTHONPATH set as it needs them).
"""

import argparse
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SIZE = (64, 224, 224)
VALUES = 3 * 64 * 224 * 224
NAMES = ("v_CricketShot_g04_c01_rgb.gif", "arm_wrestling.mp4", "R6llTwEh07w.mp4")
LIMITS = {"fp16": 1e-3, "tf32": 2e-4}  # largest relative error that is good enough
BATCHES = (1, 8)


def prepare(folder: Path, model: str, data: Path) -> None:
    """Write the ONNX model, the weights, and the pixels of real clips as uint8."""
    import torch

    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.export.onnx import build
    from i3dzoo.export.options import ExportOptions
    from i3dzoo.loading import build as network
    from i3dzoo.loading import find
    from i3dzoo.video import load_clips, probe, sampling

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = read_checkpoint(find(model))
    (folder / "i3d.onnx").write_bytes(build([checkpoint], ExportOptions()).SerializeToString())
    torch.save(network(checkpoint).state_dict(), folder / "weights.pt")
    spec, clips = checkpoint.metadata.input, []
    for name in NAMES:
        info = probe(data / "clips" / name)
        samples = sampling.resample(info, spec.fps)
        ((_, clip),) = load_clips(info, sampling.clips(samples, spec.frames, 1), spec)
        # whole pixel values, so that a quarter of the bytes says the same
        clips.append(((clip + 1) * 127.5).round().clamp(0, 255).byte())
    (folder / "clips.bin").write_bytes(torch.stack(clips).numpy().tobytes())
    labels = list(checkpoint.metadata.labels or [])
    about = {"clips": NAMES, "labels": labels, "classes": checkpoint.metadata.num_classes}
    (folder / "about.json").write_text(json.dumps(about))
    for path in sorted(folder.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")


def engine(folder: Path, precision: str, batch: int) -> None:
    """Build one engine with TensorRT 8.6 or later and keep it in the folder."""
    import tensorrt as trt

    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse((folder / "i3d.onnx").read_bytes()):
        sys.exit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    # the libraries of cuBLAS and cuDNN are stubs where TensorRT 8.6 was carried to the machine
    sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    if precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    else:
        config.set_flag(trt.BuilderFlag.TF32)
    shapes = builder.create_optimization_profile()
    shape = (batch, 3, *SIZE)
    shapes.set_shape(network.get_input(0).name, shape, shape, shape)
    config.add_optimization_profile(shapes)
    start = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("TensorRT could not build the engine; its messages are above")
    (folder / f"{precision}_{batch}.engine").write_bytes(plan)
    about = {
        "seconds": time.perf_counter() - start,
        "version": trt.__version__,
        "layers": network.num_layers,
        "onnx": hashlib.sha256((folder / "i3d.onnx").read_bytes()).hexdigest(),
    }
    (folder / f"{precision}_{batch}.json").write_text(json.dumps(about))
    print(precision, batch, about)


def time_engine(folder: Path, precision: str, batch: int, runs: int) -> None:
    """Run an engine on the clips by our own runner, keep its logits, and print its times."""
    import tensorrt as trt

    from i3dzoo.export import cuda
    from i3dzoo.export.engine_runner import EngineRunner

    shape = (batch, 3, *SIZE)
    plan = (folder / f"{precision}_{batch}.engine").read_bytes()
    runner = EngineRunner(trt, plan, {"input_rgb": shape})
    logits = b""
    given = (folder / "clips.f32").read_bytes()
    clips = [given[i : i + 4 * VALUES] for i in range(0, len(given), 4 * VALUES)]
    batches = []
    for first in range(0, len(clips), batch):
        part = clips[first : first + batch]
        batches.append({"input_rgb": b"".join(part + part[-1:] * (batch - len(part)))})
        logits += runner.run(batches[-1])["fc_pred"]
    (folder / f"{precision}_{batch}.logits").write_bytes(logits)
    start = time.perf_counter()
    for _ in runner.stream(batches[0] for _ in range(runs)):
        pass
    piped = (time.perf_counter() - start) / runs
    runner.close()
    latencies = _on_the_gpu(trt, cuda, plan, shape, runs)
    print(
        json.dumps(
            {
                "gpu": str(cuda.gpu()),
                "graph": runner.captured,
                "median_ms": latencies[len(latencies) // 2],
                "p99_ms": latencies[int(len(latencies) * 0.99)],
                "piped_ms": 1e3 * piped,
            }
        )
    )


def _on_the_gpu(trt: Any, cuda: Any, plan: bytes, shape: Any, runs: int) -> list[float]:
    """Return the sorted milliseconds of runs, input and output on the GPU already."""
    log = trt.Logger(trt.Logger.ERROR)
    stream = cuda.Stream()
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    context.set_input_shape("input_rgb", shape)
    buffers = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        size = engine.get_tensor_dtype(name).itemsize
        for axis in context.get_tensor_shape(name):
            size *= axis
        buffers.append(cuda.Buffer(int(size)))
        context.set_tensor_address(name, buffers[-1].device)
    context.execute_async_v3(stream.handle.value)
    stream.synchronize()
    try:
        stream.begin_capture()
        context.execute_async_v3(stream.handle.value)
        graph = stream.end_capture()
    except cuda.DeviceError:
        graph = None
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


def measure(folder: Path, output: Path, python: str, runs: int) -> bool:
    """Compare every engine with PyTorch in float32, time both, and write JSON."""
    import torch

    from i3dzoo.model import InceptionI3d

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    about = json.loads((folder / "about.json").read_text())
    network = InceptionI3d(about["classes"]).eval()
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    network = network.cuda()
    pixels = bytearray((folder / "clips.bin").read_bytes())
    raw = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, 3, *SIZE)
    clips = raw.float() / 127.5 - 1
    clips = clips.contiguous()
    # by address, since PyTorch may be without numpy here
    (folder / "clips.f32").write_bytes(ctypes.string_at(clips.data_ptr(), 4 * clips.numel()))
    with torch.inference_mode():
        expected = torch.cat([network(clip[None].cuda()) for clip in clips]).cpu()
    report: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "clips": dict(zip(about["clips"], _names(expected, about), strict=True)),
        "pytorch": _time_pytorch(network, clips, runs),
        "engines": [],
    }
    good = True
    for precision, limit in LIMITS.items():
        for batch in BATCHES:
            if not (folder / f"{precision}_{batch}.engine").exists():
                continue
            report["engines"].append(
                _judge(folder, precision, batch, limit, expected, python, runs)
            )
            good &= report["engines"][-1]["good"]
    output.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return good and bool(report["engines"])


def _judge(
    folder: Path, precision: str, batch: int, limit: float, expected: Any, python: str, runs: int
) -> dict[str, Any]:
    import torch

    command = [python, __file__, "time", str(folder), precision, str(batch), "--runs", str(runs)]
    environment = dict(os.environ)
    for key in ("LD_LIBRARY_PATH", "PYTHONPATH"):
        if value := os.environ.get(f"TENSORRT_{key}"):
            environment[key] = value
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    entry: dict[str, Any] = {"precision": precision, "batch": batch, "limit": limit, "good": False}
    if done.returncode:
        return entry | {"error": f"exit code {done.returncode}; its messages are above"}
    logits = bytearray((folder / f"{precision}_{batch}.logits").read_bytes())
    found = torch.frombuffer(logits, dtype=torch.float32).view(-1, expected.shape[1])
    found = found[: len(expected)]
    error = float((found - expected).abs().max() / expected.abs().max())
    same = bool((found.argmax(1) == expected.argmax(1)).all())
    built = json.loads((folder / f"{precision}_{batch}.json").read_text())
    times = json.loads(done.stdout.splitlines()[-1])
    rate = 1e3 * batch / times["median_ms"]
    return (
        entry
        | times
        | {
            "relative_error": error,
            "same_top_1": same,
            "good": same and error <= limit,
            "clips_per_second": rate,
            "built": built,
        }
    )


def _names(logits: Any, about: dict[str, Any]) -> list[str]:
    return [about["labels"][index] for index in logits.argmax(1).tolist()]


def _time_pytorch(network: Any, clips: Any, runs: int) -> list[dict[str, Any]]:
    """Time PyTorch as it comes, in float32, TF32 and half precision, input on the GPU already."""
    import torch

    found = []
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("fp16 channels-last", torch.float16, False),
    ):
        torch.backends.cudnn.allow_tf32 = tf32
        model = network.to(dtype)
        last = torch.channels_last_3d if dtype is torch.float16 else torch.contiguous_format
        model = model.to(memory_format=last)
        for batch in BATCHES:
            given = clips[:1].expand(batch, -1, -1, -1, -1).to("cuda", dtype)
            given = given.contiguous(memory_format=last)
            times = []
            with torch.inference_mode():
                for number in range(runs + 10):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                    model(given)
                    end.record()
                    end.synchronize()
                    if number >= 10:
                        times.append(begin.elapsed_time(end))
            median = sorted(times)[len(times) // 2]
            rate = 1e3 * batch / median
            found.append(
                {"mode": name, "batch": batch, "median_ms": median, "clips_per_second": rate}
            )
    return found


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("prepare")
    step.add_argument("folder", type=Path)
    step.add_argument("--model", default="rgb_scratch")
    step.add_argument("--data", type=Path, default=os.environ.get("I3DZOO_TEST_DATA"))
    for name in ("engine", "time"):
        step = steps.add_parser(name)
        step.add_argument("folder", type=Path)
        step.add_argument("precision", choices=list(LIMITS))
        step.add_argument("batch", type=int, choices=BATCHES)
        step.add_argument("--runs", type=int, default=100)
    step = steps.add_parser("measure")
    step.add_argument("folder", type=Path)
    step.add_argument("output", type=Path)
    step.add_argument("--python", default=sys.executable)
    step.add_argument("--runs", type=int, default=100)
    given = parser.parse_args()
    if given.step == "prepare":
        prepare(given.folder, given.model, Path(given.data))
    elif given.step == "engine":
        engine(given.folder, given.precision, given.batch)
    elif given.step == "time":
        time_engine(given.folder, given.precision, given.batch, given.runs)
    elif not measure(given.folder, given.output, given.python, given.runs):
        sys.exit("an engine is missing, failed, or is not as exact as it should be")


if __name__ == "__main__":
    main()

"""Try engines, extras and video: `python -m i3dzoo.doctor.attempts NAME` tries one, in a process.

Each function does a little real work and returns what it did, in a few words; or raises an error.
A crash or an endless wait ends only the process of the attempt.
"""

import importlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

Report = dict[str, Any]


def try_torch() -> Report:
    """Run I3D on a small clip on every device, and return the versions and the devices."""
    import torch

    from i3dzoo.network.i3d import I3D

    cuda = torch.cuda.is_available()
    count = torch.cuda.device_count() if cuda else 0
    names = ["cpu", *(f"cuda:{number}" for number in range(count))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    torch.manual_seed(0)
    network = I3D(0).eval()
    clip = torch.rand(1, 3, 9, 32, 32)
    results = {}
    for name in names:
        with torch.inference_mode():
            features = network.to(name)(clip.to(name)).float().cpu()
        results[name] = features
        if not torch.isfinite(features).all():
            raise ArithmeticError(f"I3D on {name} gives numbers that are not finite")
        error = float((features - results["cpu"]).abs().max())
        if error > 0.01 * float(results["cpu"].abs().max()):
            raise ArithmeticError(f"I3D on {name} differs from the CPU by {error:.3g}")
    gpus = [torch.cuda.get_device_properties(number) for number in range(count)]
    return {
        "detail": f"ran I3D on {', '.join(names)}",
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call] # torch has no types here
        "devices": names,
        "gpus": [
            {
                "name": gpu.name,
                "memory": gpu.total_memory,
                "capability": f"{gpu.major}.{gpu.minor}",
            }
            for gpu in gpus
        ],
        "threads": torch.get_num_threads(),
    }


def try_fused() -> Report:
    """Check that i3dzoo's own kernels can run here."""
    import torch

    from i3dzoo.errors import DeviceError
    from i3dzoo.network.fused import MINIMUM, can_fuse

    least = ".".join(map(str, MINIMUM))

    if not torch.cuda.is_available() or not can_fuse(torch.device("cuda")):
        raise DeviceError(f"needs Triton and an NVIDIA GPU of compute capability {least} or more")
    return {"detail": f"Triton and a GPU of compute capability {least} or more"}


def _small_onnx() -> bytes:
    """Return an ONNX model with one 3D convolution whose sum over ones is 27."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3, 3), np.float32), "w")
    shapes = {"x": [1, 1, 3, 3, 3], "y": [1, 1, 1, 1, 1]}
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items())
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "conv", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    text: bytes = model.SerializeToString()
    return text


def _check_sum(value: Any) -> None:
    if float(np.asarray(value).reshape(-1)[0]) != 27:
        raise ArithmeticError(f"a convolution of ones gives {value}, expected 27")


def try_onnxruntime() -> Report:
    """Run a 3D convolution in onnxruntime."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    session = onnxruntime.InferenceSession(_small_onnx(), providers=providers)
    _check_sum(session.run(None, {"x": np.ones((1, 1, 3, 3, 3), np.float32)})[0])
    used = [name.removesuffix("ExecutionProvider") for name in session.get_providers()]
    return {"detail": f"ran a convolution with {', '.join(used)}"}


def try_openvino() -> Report:
    """Run a 3D convolution in OpenVINO."""
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(_small_onnx()), "CPU")
    _check_sum(compiled([np.ones((1, 1, 3, 3, 3), np.float32)])[0])
    return {"detail": f"ran a convolution; it has {', '.join(core.available_devices)}"}


def try_tensorrt() -> Report:
    """Check the GPU, and create a builder of engines."""
    from i3dzoo.engines.tensorrt_library import check_gpu, library, logger

    installed = library()
    gpu = check_gpu(installed.name, installed.name)
    if installed.module.Builder(logger(installed.module)) is None:
        raise RuntimeError("TensorRT's builder could not be created")
    return {"detail": f"{installed.name} {installed.version} on {gpu}"}


def try_flow() -> Report:
    """Compute TV-L1 optical flow of two frames with OpenCV."""
    from i3dzoo.video.flow import flows

    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    (flow,) = flows(list(frames), "tvl1")
    return {"detail": f"computed TV-L1 optical flow of {flow.shape[1]}x{flow.shape[0]} pixels"}


def try_plot() -> Report:
    """Draw a plot into memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1])
    figure.savefig(drawn := io.BytesIO(), format="png")
    return {"detail": f"drew a plot of {len(drawn.getvalue()):,} bytes"}


def try_parquet() -> Report:
    """Write and read a table."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"x": [1, 2]}), written := io.BytesIO())
    # threads of pyarrow that have just started may abort a process that ends
    table = parquet.read_table(io.BytesIO(written.getvalue()), use_threads=False)
    return {"detail": f"wrote and read a table of {table.num_rows} rows"}


def try_tensorflow() -> Report:
    """Compute a sum in TensorFlow."""
    tensorflow = importlib.import_module("tensorflow")
    total = int(tensorflow.reduce_sum(tensorflow.constant([1, 2])))
    return {"detail": f"summed 1 and 2 to {total}"}


def try_train() -> Report:
    """Create an accelerator and a writer of metrics."""
    import torch
    from accelerate import Accelerator
    from torch.utils.tensorboard.writer import SummaryWriter

    gpu = torch.cuda.is_available()
    accelerator = Accelerator(cpu=not gpu)
    return {"detail": f"accelerate on {accelerator.device.type}, and {SummaryWriter.__name__}"}


def try_app() -> Report:
    """Import Gradio, and create a page."""
    gradio = importlib.import_module("gradio")
    with gradio.Blocks(analytics_enabled=False):
        gradio.Markdown("x")
    return {"detail": "created a page"}


def try_video() -> Report:
    """Encode and decode a video in memory, and return the codecs that are missing."""
    import av

    frames = np.zeros((4, 32, 32, 3), np.uint8)
    output: Any
    source: Any
    with av.open(written := io.BytesIO(), "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for array in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
        output.mux(stream.encode())
    with av.open(io.BytesIO(written.getvalue())) as source:
        count = sum(1 for _ in source.decode(video=0))
    if count != len(frames):
        raise OSError(f"decoded {count} of {len(frames)} frames")
    return {
        "detail": f"encoded and decoded {count} frames",
        "missing_decoders": [name for name in _DECODERS if not _has(name, "r")],
        "missing_encoders": [name for name in _ENCODERS if not _has(name, "w")],
    }


_DECODERS: Final = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "msmpeg4v3", "mjpeg", "theora", "wmv2"),
    *("flv", "gif", "ffv1", "rawvideo"),
)
_ENCODERS: Final = ("libx264", "mpeg4")


def _has(name: str, mode: Any) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


ATTEMPTS: Final[dict[str, Callable[[], Report]]] = {
    "torch": try_torch,
    "fused": try_fused,
    "onnxruntime": try_onnxruntime,
    "openvino": try_openvino,
    "tensorrt": try_tensorrt,
    "video": try_video,
    "flow": try_flow,
    "plot": try_plot,
    "parquet": try_parquet,
    "tensorflow": try_tensorflow,
    "train": try_train,
    "app": try_app,
}


def main() -> None:
    """Try what the argument names, and print its report as the last line."""
    print(f"\n{json.dumps(ATTEMPTS[sys.argv[1]]())}")


if __name__ == "__main__":
    main()

"""Show which kernels TensorRT 8 chooses for units of I3D, and how they round.

    python benchmarks/gpu_tactics.py units build/tactics WEIGHTS  # results of each rounding
    PYTHON benchmarks/gpu_tactics.py kernels build/tactics tf32   # the rounding of each kernel

PYTHON is TensorRT's, as for `gpu_export.py`. `kernels` builds each unit alone, and compares its
output with convolutions whose weights and input are rounded to TF32, truncated to TF32, rounded to
float16, or exact. An error that remains, as in fp16, comes from sums in float16. A unit may use the
kernels that `i3dzoo.exporters.tensorrt_builder.rounding_selector` refuses for the whole network.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# shape of the input of each unit for a clip of 64x224x224, and stride
UNITS = {
    "Conv3d_1a_7x7": ((3, 64, 224, 224), 2),
    "Conv3d_2b_1x1": ((64, 32, 56, 56), 1),
    "Conv3d_2c_3x3": ((64, 32, 56, 56), 1),
    "Mixed_3b.Branch_1.Conv3d_0a_1x1": ((192, 32, 28, 28), 1),
    "Mixed_3c.Branch_1.Conv3d_0b_3x3": ((128, 32, 28, 28), 1),
    "Mixed_4f.Branch_1.Conv3d_0b_3x3": ((160, 16, 14, 14), 1),
    "Mixed_4d.Branch_0.Conv3d_0a_1x1": ((512, 16, 14, 14), 1),
    "Mixed_5c.Branch_1.Conv3d_0b_3x3": ((192, 8, 7, 7), 1),
    "Mixed_5c.Branch_0.Conv3d_0a_1x1": ((832, 8, 7, 7), 1),
}
BATCH = 2
SAMPLE = (slice(0, 1), slice(None), *[slice(None, None, 3)] * 3)  # the compared part of an output


def make_input(name: str) -> Any:
    """Return a random input of a unit: clips for the first, outputs of a ReLU for the others."""
    shape, stride = UNITS[name]
    generator = np.random.default_rng(list(name.encode()))
    x = generator.standard_normal((BATCH, *shape), dtype="f4")
    return np.clip(x / 3, -1, 1) if stride == 2 else np.maximum(x + np.float32(0.2), 0)


def units(folder: Path, weights: Path) -> None:
    """Write a graph of each unit, and its output for each way of rounding."""
    import onnx
    import torch
    from torch.nn import functional

    from i3dzoo.checkpoints.checkpoint import read_checkpoint
    from i3dzoo.network.architecture import same_padding
    from i3dzoo.network.bias_correction import MANTISSA_BITS, round_mantissa
    from i3dzoo.onnx.network import fold_batch_norm

    folder.mkdir(parents=True, exist_ok=True)
    tensors = read_checkpoint(weights).tensors
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ways: dict[str, Callable[[Any], Any]] = {
        "none": lambda array: array,
        "nearest": lambda array: round_mantissa(array, MANTISSA_BITS["tf32"]),
        "truncated": lambda array: (array.view("u4") & np.uint32(0xFFFFE000)).view("f4"),
        "float16": lambda array: array.astype("f2").astype("f4"),
    }

    def rounded(array: Any) -> dict[str, Any]:
        return {key: torch.from_numpy(way(array)).to(device).double() for key, way in ways.items()}

    for name, (shape, stride) in UNITS.items():
        weight, bias = fold_batch_norm(tensors, name)
        edge = weight.shape[2]
        pairs = [same_padding(size, edge, stride) for size in shape[1:]]
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
        attributes = {"kernel_shape": [edge] * 3, "strides": [stride] * 3, "pads": pads}
        path = folder / f"{name}.onnx"
        path.write_bytes(_graph(onnx, shape, weight, bias, attributes).SerializeToString())
        sides = [side for pair in reversed(pairs) for side in pair]
        inputs = {k: functional.pad(x, sides) for k, x in rounded(make_input(name)[:1]).items()}
        b = torch.from_numpy(bias).to(device).double()
        outputs = {}
        for (first, w), (second, x) in itertools.product(rounded(weight).items(), inputs.items()):
            y = functional.relu(functional.conv3d(x, w, b, stride))
            outputs[f"{first}, {second}"] = y.float().cpu().numpy()[SAMPLE]
        np.savez(folder / f"{name}.npz", **outputs)
        print(name, flush=True)


def _graph(onnx: Any, shape: Any, weight: Any, bias: Any, attributes: dict[str, Any]) -> Any:
    """Return a convolution and a ReLU."""
    helper, element = onnx.helper, onnx.TensorProto.FLOAT
    stride = attributes["strides"][0]
    sizes = [(BATCH, *shape), (BATCH, len(weight), *(-(-size // stride) for size in shape[1:]))]
    x, y = (
        helper.make_tensor_value_info(name, element, size)
        for name, size in zip("xy", sizes, strict=True)
    )
    constants = [
        onnx.numpy_helper.from_array(array, name) for name, array in (("w", weight), ("b", bias))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", **attributes),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    graph = helper.make_graph(nodes, "unit", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model, full_check=True)
    return model


def kernels(folder: Path, kind: str) -> None:
    """Build each unit, and print its kernel and the rounding that it comes closest to."""
    from i3dzoo.engines.tensorrt_library import library
    from i3dzoo.engines.tensorrt_session import TensorRTSession
    from i3dzoo.exporters import tensorrt_builder
    from i3dzoo.exporters.job import EngineOptions

    installed = library()
    trt = installed.module
    configure = tensorrt_builder._configure

    def detailed(library: Any, config: Any, *rest: Any) -> None:
        configure(library, config, *rest)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    tensorrt_builder._configure = detailed
    options = EngineOptions(precision=kind)  # type: ignore[arg-type] # a choice
    for name, (shape, _) in UNITS.items():
        size = (BATCH, *shape)
        model = (folder / f"{name}.onnx").read_bytes()
        plan, _ = tensorrt_builder.build_engine(
            installed, model, {}, options, {"x": (size, size, size)}
        )
        session = TensorRTSession(trt, plan, {"x": size}, slots=1)
        sample = session.run({"x": make_input(name)})["y"][SAMPLE].astype("f8")
        inspector = session.engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        with np.load(folder / f"{name}.npz") as outputs:
            errors = {
                way: np.linalg.norm(sample - exact) / np.linalg.norm(exact)
                for way, exact in outputs.items()
            }
        way = min(errors, key=lambda key: errors[key])
        layers = json.loads(text, strict=False)["Layers"]
        names = [layer.get("TacticName") or "" for layer in layers if isinstance(layer, dict)]
        print(f"{name}: weights and input {way}: {errors[way]:.1e}; ", end="")
        print(f"{errors['none, none']:.1e} from exact; {' '.join(filter(None, names))}", flush=True)


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for step in (units, kernels):
        arguments = steps.add_parser(step.__name__, description=step.__doc__)
        arguments.add_argument("folder", type=Path)
        if step is units:
            arguments.add_argument("weights", type=Path)
        else:
            arguments.add_argument("kind", choices=("tf32", "fp16"))
        arguments.set_defaults(run=step)
    options = vars(parser.parse_args())
    del options["step"]
    options.pop("run")(**options)


if __name__ == "__main__":
    main()

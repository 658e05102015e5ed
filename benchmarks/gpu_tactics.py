"""Which kernels TensorRT 8 takes for units of I3D, and how they round.

    python benchmarks/gpu_tactics.py units build/tactics WEIGHTS  # what each rounding gives
    PYTHON benchmarks/gpu_tactics.py ask build/tactics tf32       # what comes closest to kernels

PYTHON is TensorRT's own, as for `gpu_export.py`. `ask` builds each unit alone; what weights and
input are rounded to is the nearest TF32, TF32 by cutting off, float16, or nothing. An error that
stays, as in fp16, is that of adding up in float16. Each unit may have the kernels that
`i3dzoo.export.engine_build.rounding_selector` keeps from the whole network.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import gpu_export  # noqa: F401 - which makes Python 3.10 do

# the shape of what each is given, of a clip of 64x224x224; and its stride
ASKED = {
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
CUT = (slice(0, 1), slice(None), *[slice(None, None, 3)] * 3)  # what of a result is compared


def given(name: str) -> Any:
    """Return what a unit is shown: clips for the first, what comes from a ReLU for the others."""
    shape, stride = ASKED[name]
    generator = np.random.default_rng(list(name.encode()))
    x = generator.standard_normal((BATCH, *shape), dtype="f4")
    return np.clip(x / 3, -1, 1) if stride == 2 else np.maximum(x + np.float32(0.2), 0)


def units(folder: Path, weights: Path) -> None:
    """Write a graph of each unit, and what each way of rounding makes of what it is shown."""
    import onnx
    import torch
    from torch.nn import functional

    from i3dzoo.architecture import same_padding
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.export.network import fold
    from i3dzoo.export.rounding import BITS, keep_bits

    folder.mkdir(parents=True, exist_ok=True)
    tensors = read_checkpoint(weights).tensors
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ways: dict[str, Callable[[Any], Any]] = {
        "none": lambda array: array,
        "nearest": lambda array: keep_bits(array, BITS["tf32"]),
        "cut off": lambda array: (array.view("u4") & np.uint32(0xFFFFE000)).view("f4"),
        "float16": lambda array: array.astype("f2").astype("f4"),
    }

    def rounded(array: Any) -> dict[str, Any]:
        return {key: torch.from_numpy(way(array)).to(device).double() for key, way in ways.items()}

    for name, (shape, stride) in ASKED.items():
        weight, bias = fold(tensors, name)
        edge = weight.shape[2]
        pairs = [same_padding(size, edge, stride) for size in shape[1:]]
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
        attributes = {"kernel_shape": [edge] * 3, "strides": [stride] * 3, "pads": pads}
        path = folder / f"{name}.onnx"
        path.write_bytes(_graph(onnx, shape, weight, bias, attributes).SerializeToString())
        sides = [side for pair in reversed(pairs) for side in pair]
        inputs = {k: functional.pad(x, sides) for k, x in rounded(given(name)[:1]).items()}
        b = torch.from_numpy(bias).to(device).double()
        made = {}
        for (first, w), (second, x) in itertools.product(rounded(weight).items(), inputs.items()):
            y = functional.relu(functional.conv3d(x, w, b, stride))
            made[f"{first}, {second}"] = y.float().cpu().numpy()[CUT]
        np.savez(folder / f"{name}.npz", **made)
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


def ask(folder: Path, kind: str) -> None:
    """Build each unit and say which kernel was taken, and which rounding it comes closest to."""
    from i3dzoo.export import engine_build
    from i3dzoo.export.engine_runner import EngineRunner

    found = engine_build.library()
    trt = found.module
    configure = engine_build._configure

    def detailed(library: Any, config: Any, *rest: Any) -> None:
        configure(library, config, *rest)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    engine_build._configure = detailed
    options = engine_build.EngineOptions(precision=kind)  # type: ignore[arg-type] # a choice
    for name, (shape, _) in ASKED.items():
        size = (BATCH, *shape)
        model = (folder / f"{name}.onnx").read_bytes()
        plan, _ = engine_build.build_engine(found, model, options, {"x": (size, size, size)})
        runner = EngineRunner(trt, plan, {"x": size}, slots=1)
        y = np.frombuffer(runner.run({"x": given(name)})["y"], "f4")
        cut = y.reshape(runner.outputs["y"])[CUT].astype("f8")
        inspector = runner._engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        runner.close()
        with np.load(folder / f"{name}.npz") as made:
            errors = {
                way: np.linalg.norm(cut - exact) / np.linalg.norm(exact)
                for way, exact in made.items()
            }
        way = min(errors, key=lambda key: errors[key])
        layers = json.loads(text, strict=False)["Layers"]
        kernels = [layer.get("TacticName") or "" for layer in layers if isinstance(layer, dict)]
        print(f"{name}: weights and input {way}: {errors[way]:.1e}; ", end="")
        print(
            f"{errors['none, none']:.1e} from exact; {' '.join(filter(None, kernels))}", flush=True
        )


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for step in (units, ask):
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

"""The builder of TensorRT engines: shapes, options, and kernels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.tensorrt_library import RTX, Library, gpu_or_none, library
from i3dzoo.errors import FormatError, OptionError
from i3dzoo.exporters.job import EngineOptions
from i3dzoo.exporters.tensorrt import parse_shapes
from i3dzoo.exporters.tensorrt_builder import build_engine
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed")


@pytest.mark.parametrize(
    ("dynamic", "shapes", "message"),
    [
        ((), "1,2", "expected MIN,OPT,MAX"),
        ((), "1,2,x", "expected MIN,OPT,MAX"),
        ((), "99999999999999999999", "expected MIN,OPT,MAX"),
        ((), "4,2,8", "expected MIN <= OPT <= MAX, found '4,2,8'"),
        ((), "1x16x64x64,1x16x64x64,1x32x64x64", "make the axes that vary --dynamic"),
        ((), "0,1,2", "does not fit input_rgb"),
        (("frames",), None, "--shapes: expected sizes of the dynamic frames"),
        (("frames",), "1,2,4", "--shapes: expected sizes of the dynamic frames"),
        (("frames",), "1x8x32x32", "I3D takes 9 frames or more, found 1x8x32x32"),
    ],
)
def test_wrong_shapes(
    rgb: Checkpoint, dynamic: tuple[str, ...], shapes: str | None, message: str
) -> None:
    """Malformed shapes, another order, sizes of fixed axes, and no sizes of dynamic ones."""
    with pytest.raises(OptionError, match=message):
        parse_shapes(shapes, [rgb], ExportOptions(dynamic=dynamic))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timing_cache": Path("timing.cache")}, "no timing cache; leave --timing-cache out"),
        ({"compatible": "all"}, "leave --compatible out"),
    ],
)
def test_options_that_tensorrt_rtx_does_not_have(
    rgb: Checkpoint, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """An option that would have no effect is refused."""
    if library().name != RTX:
        pytest.skip("the full TensorRT has both")
    with pytest.raises(OptionError, match=message):
        i3dzoo.export(rgb, tmp_path / "x.engine", "tensorrt", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(gpu_or_none() is not None, reason="for machines without a GPU")
def test_refittable_without_a_gpu(rgb: Checkpoint) -> None:
    """The error says that a refittable engine needs a GPU."""
    profile = parse_shapes("1", [rgb], ExportOptions())
    model = build_model([rgb], ExportOptions()).SerializeToString()
    with pytest.raises(FormatError, match="--refittable needs a GPU"):
        build_engine(library(), model, {}, EngineOptions(refittable=True), profile)


def built_by_tensorrt_8(precision: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build with a mock of TensorRT 8, and return the configuration of the builder."""
    trt = MagicMock()
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    trt.ILogger = trt.IAlgorithmSelector = type("Base", (), {})
    del trt.IProgressMonitor
    trt.TacticSource = SimpleNamespace(EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4)
    config = trt.Builder().create_builder_config()
    config.algorithm_selector = None
    trt.Builder().create_network().num_inputs = trt.Builder().create_network().num_outputs = 0
    monkeypatch.setattr("i3dzoo.exporters.tensorrt_builder.gpu", lambda: None)
    trt.Builder().build_serialized_network.return_value = b"plan"
    options = EngineOptions(precision=precision)
    plan, _ = build_engine(Library("tensorrt", "8.6.0", trt), b"", {}, options, {})
    assert plan == b"plan"
    return config


def test_tf32_of_tensorrt_8_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions do not use kernels that truncate, recognised by strides, if they have others."""

    def choices(*strides: tuple[int, ...]) -> list[Any]:
        infos = [SimpleNamespace(strides=stride) for stride in strides]
        return [SimpleNamespace(get_algorithm_io_info=lambda _, io=io: io) for io in infos]

    first, last = (1470, 49, 49, 7, 1), (1470, 1, 210, 30, 30)  # channels first and last
    for precision in ("fp32", "fp16"):
        assert built_by_tensorrt_8(precision, monkeypatch).algorithm_selector is None
    selector = built_by_tensorrt_8("tf32", monkeypatch).algorithm_selector
    for name, strides, selected in (
        ("Mixed_3b.Branch_0.Conv3d_0a_1x1.conv + relu", (first, last, first, last), [1, 3]),
        ("Logits.Conv3d_0c_1x1", (last, first), [0]),
        ("Conv3d_1a_7x7.conv", (first, first), [0, 1]),  # there is no other
        ("Reformatting CopyNode for Input Tensor 0 to Conv3d_1a_7x7.conv", (first, last), [0, 1]),
        ("MaxPool3d_2a_3x3", (first, last), [0, 1]),
    ):
        context = SimpleNamespace(name=name)
        assert selector.select_algorithms(context, choices(*strides)) == selected, name


def test_graph_that_tensorrt_refuses(rgb: Checkpoint) -> None:
    """The error has the reason of TensorRT's parser."""
    profile = parse_shapes("1", [rgb], ExportOptions())
    with pytest.raises(FormatError, match=r"cannot read the ONNX model: .+"):
        build_engine(library(), b"no model", {}, EngineOptions(), profile)

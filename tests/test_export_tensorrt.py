"""TensorRT: real engines, built without a GPU, what they say of themselves, and refusals."""

import dataclasses
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import (
    ChecksumError,
    DeviceError,
    FormatError,
    MetadataError,
    MissingFileError,
    OutputError,
    ShapeError,
)
from i3dzoo.export import cuda, tensorrt
from i3dzoo.export.engine_build import RTX, EngineOptions, Library, build_engine, library
from i3dzoo.export.onnx import build
from i3dzoo.export.options import AXES, ExportOptions
from i3dzoo.export.refit import refit_export
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.export.tensorrt import export_engine, sidecar
from i3dzoo.export.tensorrt_engine import TensorRTEngine

from .exported import noisy
from .test_cli_export import run

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed")


def gpu_is_here() -> bool:
    """Whether there is a GPU, without which engines are built and refused."""
    try:
        cuda.gpu()
    except DeviceError:
        return False
    return True


without_gpu = pytest.mark.skipif(gpu_is_here(), reason="about machines without a GPU")


@pytest.fixture(scope="module")
def rgb() -> Checkpoint:
    """An RGB network of 5 classes."""
    return noisy("rgb", 5)


@pytest.fixture(scope="module")
def engine(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real fp16 engine of batches 1 to 4, with its description."""
    path = tmp_path_factory.mktemp("engine") / "x.engine"
    options = EngineOptions(precision="fp16", shapes="1,2,4", workspace=1)
    export_engine([rgb], path, ExportOptions(features=True), options)
    return path


def test_engine_and_its_description(engine: Path, rgb: Checkpoint) -> None:
    """The engine's inputs, outputs, shapes, precision, library and digest lie beside it."""
    document = json.loads(sidecar(engine).read_text())
    assert document["library"] == library().name
    assert document["version"] == library().version
    assert document["precision"] == "fp16"
    assert document["inputs"] == {"input_rgb": {"shape": [-1, 3, 16, 32, 32], "type": "FLOAT"}}
    assert document["outputs"] == {
        "features": {"shape": [-1, 1024], "type": "FLOAT"},
        "fc_pred": {"shape": [-1, 5], "type": "FLOAT"},
    }
    shapes = document["shapes"]["input_rgb"]
    assert [shape[0] for shape in shapes] == [1, 2, 4]
    assert document["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert document["description"]["labels"].splitlines() == list(rgb.metadata.labels or ())
    # half precision is in the engine itself: 12 million weights of 2 bytes
    assert 24e6 < engine.stat().st_size < 30e6


@without_gpu
def test_refused_without_a_gpu(engine: Path) -> None:
    """Running it where there is no GPU is a sentence, and the sidecar says what was proved."""
    with pytest.raises(DeviceError, match=r"there is no NVIDIA driver here .* take the checkpoint"):
        TensorRTEngine(engine)
    assert json.loads(sidecar(engine).read_text())["proved"] == "graph"


def test_gpus_that_tensorrt_rtx_does_not_run_on(
    engine: Path, rgb: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running there, and building what is built where it runs only, is a sentence."""
    if library().name != RTX:
        pytest.skip("the full TensorRT runs on them")
    monkeypatch.setattr("i3dzoo.export.engine_build.gpu", lambda: cuda.Gpu("NVIDIA H100", "9.0"))
    why = r"compute capability 7\.5, 8\.x and 12\.x, and this is NVIDIA H100 \(9\.0\)"
    with pytest.raises(DeviceError, match=rf"x\.engine: {RTX} runs on {why}"):
        TensorRTEngine(engine)
    options = EngineOptions(refittable=True)
    with pytest.raises(DeviceError, match=rf"--refittable: {RTX} runs on {why}"):
        export_engine([rgb], tmp_path / "x.engine", ExportOptions(), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": "1.0"}, MetadataError, r"was built by tensorrt-rtx 1\.0, and .* is installed"),
        ({"library": "tensorrt"}, MetadataError, "was built by tensorrt 1.* install the former"),
        ({"sha256": "0"}, ChecksumError, r"describes another engine than x\.engine"),
        ({"format": 2}, MetadataError, "is of version 2; this i3dzoo reads 1"),
        (
            {"outputs": {"fc_pred": {"shape": [-1, 400], "type": "FLOAT"}}},
            MetadataError,
            "gives 400 logits, and its description names 5 classes",
        ),
        ({"description": {}}, MetadataError, "carries no description by i3dzoo"),
        (
            {"outputs": [], "version": None, "description": "x"},
            MetadataError,
            r"x\.engine\.json: is malformed: version, outputs, description; export again",
        ),
    ],
)
def test_refused_elsewhere(
    engine: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Another version, library, engine or label set is a sentence, not a crash."""
    path = tmp_path / "x.engine"
    path.write_bytes(engine.read_bytes())
    document = json.loads(sidecar(engine).read_text()) | changes
    sidecar(path).write_text(json.dumps(document))
    with pytest.raises(error, match=message):
        TensorRTEngine(path)


def test_missing_parts(engine: Path, tmp_path: Path) -> None:
    """An engine, or its description, that is not there is said to be."""
    with pytest.raises(MissingFileError, match=r"gone\.engine: there is no such file"):
        TensorRTEngine(tmp_path / "gone.engine")
    path = tmp_path / "x.engine"
    path.write_bytes(engine.read_bytes())
    with pytest.raises(MissingFileError, match=r"x\.engine\.json: is not there"):
        TensorRTEngine(path)
    document = json.loads(sidecar(engine).read_text())
    for text in ("{}", "[]", json.dumps({k: document[k] for k in document if k != "description"})):
        sidecar(path).write_text(text)
        with pytest.raises(MetadataError, match="is malformed"):
            TensorRTEngine(path)


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("tf32", ExportOptions(dynamic=AXES, opset=17)),
        ("bf16", ExportOptions(opset=22)),
        ("fp32", ExportOptions(pixels=(90, 120))),
    ],
)
def test_other_engines(rgb: Checkpoint, tmp_path: Path, precision: Any, options: Any) -> None:
    """tf32 of any size, bf16, and frames in: each is built, its size that of its precision."""
    shapes = "1x16x64x64,2x32x64x64,2x32x80x96" if options.dynamic else "2"
    path = tmp_path / "x.engine"
    told: list[str] = []
    made = export_engine(
        [rgb],
        path,
        options,
        EngineOptions(precision=precision, shapes=shapes),
        say=told.append,
    )
    assert made.path.stat().st_size > (24e6 if precision == "bf16" else 48e6)
    document = json.loads(sidecar(path).read_text())
    name = "frames_rgb" if options.pixels else "input_rgb"
    if options.dynamic:
        assert document["shapes"][name][2] == [2, 3, 32, 80, 96]
    assert document["inputs"][name]["type"] == ("UINT8" if options.pixels else "FLOAT")
    assert any(line.startswith("TensorRT: Building") for line in told)


def test_proved_within_its_shapes(rgb: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown to an engine is the smallest and the largest that it takes."""
    seen = []

    class Engine:
        def __init__(self, plan: bytes, _: dict[str, Any]) -> None:
            self.run_graph = OnnxEngine(plan).run

        def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
            seen.append(inputs["input_rgb"].shape)
            return self.run_graph(inputs)

    monkeypatch.setattr("i3dzoo.export.tensorrt_engine.TensorRTEngine", Engine)
    options = ExportOptions(AXES)
    sizes = "1x9x40x40,2x10x40x48,2x10x40x48"
    shapes = tensorrt.parse_shapes(sizes, [rgb], options)
    about = {"precision": "fp32", "library": "", "version": "", "shapes": shapes}
    plan = build([rgb], options).SerializeToString()
    tensorrt.prove_engine(Path("x.engine"), plan, about, [rgb], options)
    assert seen == [(1, 3, 9, 40, 40), (2, 3, 10, 40, 48)]
    assert about["proved"] == "engine"


@pytest.mark.parametrize("shapes", [None, "1,2,4"])
def test_dynamic_axes_need_sizes(rgb: Checkpoint, shapes: str | None) -> None:
    """Axes that shall vary, and would not, are refused; so is a clip that is too short."""
    with pytest.raises(MetadataError, match="leaves the dynamic frames as they are; pass --shapes"):
        tensorrt.parse_shapes(shapes, [rgb], ExportOptions(("frames",)))
    short = "1x8x32x32,1x16x32x32,1x16x32x32"
    with pytest.raises(MetadataError, match="is of 8 frames; I3D takes 9 or more"):
        tensorrt.parse_shapes(short, [rgb], ExportOptions(("frames",)))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("1,2", "expected MIN,OPT,MAX"),
        ("1,2,x", "expected MIN,OPT,MAX"),
        ("99999999999999999999", "expected MIN,OPT,MAX"),
        ("4,2,8", "do not rise from MIN over OPT to MAX"),
        ("1x16x64x64,1x16x64x64,1x32x64x64", "make the axes that shall vary --dynamic"),
        ("0,1,2", "does not fit input_rgb"),
    ],
)
def test_shapes_that_do_not_fit(rgb: Checkpoint, shapes: str, message: str) -> None:
    """Malformed, falling and fixed shapes are refused."""
    with pytest.raises(MetadataError, match=message):
        tensorrt.parse_shapes(shapes, [rgb], ExportOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timing_cache": Path("timing.cache")}, "keeps no timing cache; leave --timing-cache out"),
        ({"compatible": "all"}, "fit every GPU that it knows, and no other version"),
    ],
)
def test_what_this_library_has_not(
    rgb: Checkpoint, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """An option that would do nothing, or fail, is refused."""
    if library().name != RTX:
        pytest.skip("the full TensorRT has both")
    with pytest.raises(MetadataError, match=message):
        export_engine([rgb], tmp_path / "x.engine", ExportOptions(), EngineOptions(**options))
    assert list(tmp_path.iterdir()) == []


@without_gpu
def test_refittable_without_a_gpu(rgb: Checkpoint) -> None:
    """What TensorRT cannot build here is an error that says what is missing."""
    profile = tensorrt.parse_shapes("1", [rgb], ExportOptions())
    model = build([rgb], ExportOptions()).SerializeToString()
    with pytest.raises(FormatError, match="no GPU, and --refittable builds on one only"):
        build_engine(library(), model, EngineOptions(refittable=True), profile)


def built_by_tensorrt_8(precision: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Build with a TensorRT 8 of mocks, and return the configuration that it was given."""
    trt = MagicMock()
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    trt.ILogger = trt.IAlgorithmSelector = type("Base", (), {})
    del trt.IProgressMonitor
    trt.TacticSource = SimpleNamespace(EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4)
    config = trt.Builder().create_builder_config()
    config.algorithm_selector = None
    trt.Builder().create_network().num_inputs = trt.Builder().create_network().num_outputs = 0
    monkeypatch.setattr("i3dzoo.export.engine_build.gpu", lambda: None)
    trt.Builder().build_serialized_network.return_value = b"plan"
    options = EngineOptions(precision=precision)
    plan, _ = build_engine(Library("tensorrt", "8.6.0", trt), b"", options, {})
    assert plan == b"plan"
    return config


def test_tf32_of_tensorrt_8_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that cut it off, by their strides, are kept from convolutions that have others."""

    def choices(*strides: tuple[int, ...]) -> list[Any]:
        given = [SimpleNamespace(strides=each) for each in strides]
        return [SimpleNamespace(get_algorithm_io_info=lambda _, io=io: io) for io in given]

    first, last = (1470, 49, 49, 7, 1), (1470, 1, 210, 30, 30)  # where channels are
    for precision in ("fp32", "fp16"):
        assert built_by_tensorrt_8(precision, monkeypatch).algorithm_selector is None
    selector = built_by_tensorrt_8("tf32", monkeypatch).algorithm_selector
    for name, strides, kept in (
        ("Mixed_3b.Branch_0.Conv3d_0a_1x1.conv + relu", (first, last, first, last), [1, 3]),
        ("Logits.Conv3d_0c_1x1", (last, first), [0]),
        ("Conv3d_1a_7x7.conv", (first, first), [0, 1]),  # no other is there
        ("Reformatting CopyNode for Input Tensor 0 to Conv3d_1a_7x7.conv", (first, last), [0, 1]),
        ("MaxPool3d_2a_3x3", (first, last), [0, 1]),
    ):
        context = SimpleNamespace(name=name)
        assert selector.select_algorithms(context, choices(*strides)) == kept, name


def test_graph_that_tensorrt_refuses(rgb: Checkpoint) -> None:
    """What TensorRT's parser says is in the error."""
    profile = tensorrt.parse_shapes("1", [rgb], ExportOptions())
    with pytest.raises(FormatError, match=r"cannot read the ONNX model: .+"):
        build_engine(library(), b"no model", EngineOptions(), profile)


def test_nothing_is_left_where_the_proof_fails(rgb: Checkpoint, tmp_path: Path) -> None:
    """An engine whose graph differs is not built."""
    with pytest.raises(FormatError, match="was not written"):
        export_engine([rgb], tmp_path / "x.engine", ExportOptions(), EngineOptions(), atol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_written_with_its_sidecar_or_not(tmp_path: Path) -> None:
    """Where the sidecar cannot be written, the engine is not either."""
    path = tmp_path / "x.engine"
    sidecar(path).mkdir()
    with pytest.raises(OutputError, match=r"x\.engine\.json: cannot be written"):
        tensorrt.write_engine(path, b"plan", {})
    assert list(tmp_path.iterdir()) == [sidecar(path)]


def test_what_cannot_be_refitted(engine: Path, rgb: Checkpoint, tmp_path: Path) -> None:
    """An engine that was not built for it, and weights of another network, are refused."""
    new = tmp_path / "new.engine"
    with pytest.raises(MetadataError, match="build it once with --refittable"):
        refit_export([rgb], engine, new)
    old = _as_refittable(engine, tmp_path / "old.engine")
    with pytest.raises(MetadataError, match=r"rgb one of 5 classes and 16x32 clips; .* rgb, 6, "):
        refit_export([noisy("rgb", 6)], old, new)
    assert not new.exists()


@without_gpu
def test_refitting_without_a_gpu(
    capsys: pytest.CaptureFixture[str], engine: Path, rgb: Checkpoint, tmp_path: Path
) -> None:
    """Weights are replaced on a GPU only, which is a sentence, and nothing is written."""
    file = write_checkpoint(tmp_path / "x.safetensors", rgb)
    old, new = _as_refittable(engine, tmp_path / "old.engine"), tmp_path / "new.engine"
    common = ("export", file, "--to", "tensorrt", "-o", new, "--refit", old)
    code, _, err = run(capsys, *common)
    assert code == 1
    assert "there is no NVIDIA driver here" in err
    assert not new.exists()
    code, _, err = run(capsys, *common, "--shapes", "1,2,3")
    assert code == 2
    assert "--shapes is as the engine was built; leave it out with --refit" in err


def _as_refittable(engine: Path, path: Path) -> Path:
    """Copy an engine and let its description say that it can be refitted."""
    path.write_bytes(engine.read_bytes())
    document = json.loads(sidecar(engine).read_text()) | {"refittable": True}
    sidecar(path).write_text(json.dumps(document))
    return path


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_is_here(), reason="there is no GPU")
def test_refitting_on_a_gpu(rgb: Checkpoint, tmp_path: Path) -> None:
    """Where there is a GPU that takes it, an engine with replaced weights is proved like any."""
    old, new = tmp_path / "old.engine", tmp_path / "new.engine"
    export_engine([rgb], old, ExportOptions(), EngineOptions(refittable=True, shapes="2"))
    refit_export([noisy("rgb", 5, seed=1)], old, new)
    assert json.loads(sidecar(new).read_text())["proved"] == "engine"


@pytest.mark.gpu
@pytest.mark.skipif(not gpu_is_here(), reason="there is no GPU")
def test_engine_on_a_gpu(rgb: Checkpoint, tmp_path: Path) -> None:
    """Where there is a GPU that takes it, the engine itself is proved, and refuses other shapes."""
    path = tmp_path / "x.engine"
    options = dataclasses.replace(EngineOptions(), shapes="1,2,4")
    export_engine([rgb], path, ExportOptions(), options)
    assert json.loads(sidecar(path).read_text())["proved"] == "engine"
    with pytest.raises(ShapeError, match="build one with other --shapes"):
        TensorRTEngine(path).run({"input_rgb": np.zeros((5, 3, 16, 32, 32), "f4")})

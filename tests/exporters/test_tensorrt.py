"""TensorRT: real engines, which are built without a GPU, their sidecars, and refused options."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.exported import noisy
from helpers.progress import RecordedProgress

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.engines.tensorrt import TensorRTEngine
from i3dzoo.engines.tensorrt_library import RTX, Gpu, gpu_or_none, library
from i3dzoo.engines.tensorrt_sidecar import Sidecar, read_engine, sidecar_path
from i3dzoo.errors import (
    ChecksumError,
    DeviceError,
    FormatError,
    MetadataError,
    MissingFileError,
    OutputError,
    ShapeError,
)
from i3dzoo.exporters.job import ExportJob
from i3dzoo.exporters.tensorrt import parse_shapes, write_engine
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import AXES, ExportOptions

pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed")

without_gpu = pytest.mark.skipif(gpu_or_none() is not None, reason="for machines without a GPU")


@pytest.fixture(scope="module")
def engine(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real fp16 engine of batches 1 to 4, with its sidecar."""
    path = tmp_path_factory.mktemp("engine") / "x.engine"
    options: dict[str, Any] = {"precision": "fp16", "shapes": "1,2,4", "workspace": 1}
    return i3dzoo.export(rgb, path, "tensorrt", features=True, **options).path


def _document(engine: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sidecar_path(engine).read_text())
    return document


def _copy(engine: Path, path: Path, document: Any = None) -> Path:
    """Copy an engine, with a sidecar unless `document` is None."""
    path.write_bytes(engine.read_bytes())
    if document is not None:
        sidecar_path(path).write_text(json.dumps(document))
    return path


def test_sidecar(engine: Path, rgb: Checkpoint) -> None:
    """The sidecar has inputs, outputs, shapes, precision, library and digest of the engine."""
    document = _document(engine)
    assert (document["library"], document["version"]) == (library().name, library().version)
    assert document["precision"] == "fp16"
    assert document["inputs"] == {"input_rgb": {"shape": [-1, 3, 16, 32, 32], "type": "FLOAT"}}
    assert document["outputs"] == {
        "features": {"shape": [-1, 1024], "type": "FLOAT"},
        "fc_pred": {"shape": [-1, 5], "type": "FLOAT"},
    }
    assert [shape[0] for shape in document["shapes"]["input_rgb"]] == [1, 2, 4]
    assert document["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert document["description"]["labels"].splitlines() == list(rgb.metadata.labels or ())
    # the engine has 12 million weights of 2 bytes
    assert 24e6 < engine.stat().st_size < 30e6


@without_gpu
def test_refused_without_a_gpu(engine: Path) -> None:
    """Without a GPU, the engine is refused, and the sidecar says that the graph was compared."""
    with pytest.raises(DeviceError, match=r"PyTorch .*use the checkpoint or an \.onnx file"):
        TensorRTEngine.from_file(engine)
    assert _document(engine)["compared"] == "graph"


def test_gpus_that_tensorrt_rtx_does_not_run_on(
    engine: Path, rgb: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running there is refused, and so is building an engine that must be built where it runs."""
    if library().name != RTX:
        pytest.skip("the full TensorRT runs on these GPUs")
    h100 = Gpu("NVIDIA H100", "9.0")
    monkeypatch.setattr("i3dzoo.engines.tensorrt_library.gpu", lambda: h100)
    why = r"compute capability 7\.5, 8\.x and 12\.x, and this GPU is NVIDIA H100 \(9\.0\)"
    with pytest.raises(DeviceError, match=rf"x\.engine: {RTX} runs on {why}"):
        TensorRTEngine.from_file(engine)
    with pytest.raises(DeviceError, match=rf"--refittable: {RTX} runs on {why}"):
        i3dzoo.export(rgb, tmp_path / "x.engine", "tensorrt", refittable=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"version": "1.0"}, MetadataError, r"was built by tensorrt-rtx 1\.0, and .* is installed"),
        ({"library": "tensorrt"}, MetadataError, "was built by tensorrt 1.* install tensorrt 1"),
        ({"sha256": "0"}, ChecksumError, r"describes another engine than x\.engine"),
        ({"format": 2}, MetadataError, "format: expected 1, found 2"),
        (
            {"outputs": {"fc_pred": {"shape": [-1, 400], "type": "FLOAT"}}},
            MetadataError,
            r"fc_pred has shape \[-1, 400\]; its description has 5 classes",
        ),
        ({"description": {}}, MetadataError, "no description by i3dzoo"),
        ({"outputs": []}, MetadataError, r"x\.engine\.json: outputs: expected .* found"),
    ],
)
def test_refused_elsewhere(
    engine: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Another version, library, engine or label set is refused."""
    path = _copy(engine, tmp_path / "x.engine", _document(engine) | changes)
    with pytest.raises(error, match=message):
        TensorRTEngine.from_file(path)


def test_missing_parts(engine: Path, tmp_path: Path) -> None:
    """A missing engine and a missing or malformed sidecar are errors with the file's name."""
    with pytest.raises(MissingFileError, match=r"gone\.engine: there is no such file"):
        TensorRTEngine.from_file(tmp_path / "gone.engine")
    path = _copy(engine, tmp_path / "x.engine")
    with pytest.raises(MissingFileError, match=r"x\.engine\.json: this file is missing"):
        TensorRTEngine.from_file(path)
    document = _document(engine)
    del document["description"]
    for content in ({}, [], document):
        _copy(engine, path, content)
        with pytest.raises(MetadataError, match=r"x\.engine\.json: .*expected"):
            TensorRTEngine.from_file(path)


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("tf32", {"dynamic": AXES, "opset": 17}),
        ("bf16", {}),
        ("fp32", {"pixels": (90, 120)}),
    ],
)
def test_other_engines(
    rgb: Checkpoint, tmp_path: Path, precision: Any, options: dict[str, Any]
) -> None:
    """tf32 of any size, bf16, and an input of frames: each engine has the size of its precision."""
    dynamic = "dynamic" in options
    options["shapes"] = "1x16x64x64,2x32x64x64,2x32x80x96" if dynamic else "2"
    path, progress = tmp_path / "x.engine", RecordedProgress()
    i3dzoo.export(rgb, path, "tensorrt", precision=precision, progress=progress, **options)
    assert path.stat().st_size > (24e6 if precision == "bf16" else 48e6)
    document = _document(path)
    name = "frames_rgb" if "pixels" in options else "input_rgb"
    if dynamic:
        assert document["shapes"][name][2] == [2, 3, 32, 80, 96]
    assert document["inputs"][name]["type"] == ("UINT8" if "pixels" in options else "FLOAT")
    assert any(str(event).startswith("TensorRT: Building") for event in progress.events)


def test_compared_within_its_shapes(
    rgb: Checkpoint, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine is compared at the smallest and the largest shape that it takes."""
    seen = []

    class Engine:
        def __init__(self, where: str, plan: bytes, _: Sidecar) -> None:
            assert where == str(tmp_path / "x.engine")
            self.run_graph = OnnxEngine(plan).run

        def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
            seen.append(inputs["input_rgb"].shape)
            return self.run_graph(inputs)

    monkeypatch.setattr("i3dzoo.exporters.tensorrt.TensorRTEngine", Engine)
    options = ExportOptions(dynamic=AXES)
    shapes = parse_shapes("1x9x40x40,2x10x40x48,2x10x40x48", [rgb], options)
    sidecar = read_engine(engine)[1].replace(shapes=shapes)
    plan = build_model([rgb], options).SerializeToString()
    job = ExportJob((rgb,), "tensorrt", tmp_path / "x.engine", options)
    export = write_engine(job, plan, sidecar, 1)
    assert seen == [(1, 3, 9, 40, 40), (2, 3, 10, 40, 48)]
    assert export.runs_here
    assert _document(export.path)["compared"] == "engine"


def test_old_sidecar(engine: Path, tmp_path: Path) -> None:
    """A sidecar with the earlier name of `compared` is read."""
    document = _document(engine)
    document["proved"] = document.pop("compared")
    path = _copy(engine, tmp_path / "x.engine", document)
    assert read_engine(path) == read_engine(engine)


def test_graph_that_differs(rgb: Checkpoint, tmp_path: Path) -> None:
    """An engine whose graph differs from PyTorch is not built."""
    with pytest.raises(FormatError, match="was not written"):
        i3dzoo.export(rgb, tmp_path / "x.engine", "tensorrt", atol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_sidecar_that_cannot_be_written(rgb: Checkpoint, tmp_path: Path) -> None:
    """If the sidecar cannot be written, neither is the engine."""
    path = tmp_path / "x.engine"
    sidecar_path(path).mkdir()
    with pytest.raises(OutputError, match=r"x\.engine\.json"):
        ExportJob((rgb,), "tensorrt", path).write({path: b"plan", sidecar_path(path): b"{}"}, None)
    assert list(tmp_path.iterdir()) == [sidecar_path(path)]


def test_refitting_another_network(engine: Path, rgb: Checkpoint, tmp_path: Path) -> None:
    """An engine that is not refittable, and weights of another network, are refused."""
    new = tmp_path / "new.engine"
    with pytest.raises(MetadataError, match="build it once with --refittable"):
        i3dzoo.export(rgb, new, "tensorrt", refit=engine)
    old = _copy(engine, tmp_path / "old.engine", _document(engine) | {"refittable": True})
    expected = r"expected .* rgb with 5 classes and clips of 16x32x32, found rgb with 6 classes"
    with pytest.raises(MetadataError, match=rf"old\.engine: {expected}"):
        i3dzoo.export(noisy("rgb", 6), new, "tensorrt", refit=old)
    assert not new.exists()


@without_gpu
def test_refitting_without_a_gpu(engine: Path, rgb: Checkpoint, tmp_path: Path) -> None:
    """Refitting needs a GPU; without one nothing is written."""
    new = tmp_path / "new.engine"
    old = _copy(engine, tmp_path / "old.engine", _document(engine) | {"refittable": True})
    with pytest.raises(DeviceError, match="TensorRT engines run on a GPU through PyTorch's CUDA"):
        i3dzoo.export(rgb, new, "tensorrt", refit=old)
    assert not new.exists()


@pytest.mark.gpu
@pytest.mark.skipif(gpu_or_none() is None, reason="there is no GPU")
def test_on_a_gpu(rgb: Checkpoint, tmp_path: Path) -> None:
    """On a GPU, built and refitted engines are compared themselves; they refuse other shapes."""
    old, new = tmp_path / "old.engine", tmp_path / "new.engine"
    i3dzoo.export(rgb, old, "tensorrt", refittable=True, shapes="1,2,4")
    i3dzoo.export(noisy("rgb", 5, seed=1), new, "tensorrt", refit=old)
    assert _document(old)["compared"] == _document(new)["compared"] == "engine"
    with pytest.raises(ShapeError, match="build one with other --shapes"):
        TensorRTEngine.from_file(new).run({"input_rgb": np.zeros((5, 3, 16, 32, 32), "f4")})

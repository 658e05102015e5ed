"""int8: rounding by real clips, what is kept of it, Q/DQ graphs in onnxruntime and TensorRT."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.errors import FormatError, MetadataError, MissingFileError
from i3dzoo.export.calibrate import Calibration, calibrate, calibrated, read_calibration
from i3dzoo.export.onnx import build, node_limit
from i3dzoo.export.options import AXES, ExportOptions
from i3dzoo.export.prove import middle_clip, prove
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.loading import build as network

from .exported import noisy, small
from .test_cli_export import run
from .video_files import numbered, write_video

Capture = pytest.CaptureFixture[str]
INT8 = ExportOptions(precision="int8")
CLIPS = ("arm_wrestling.mp4", "R6llTwEh07w.mp4", "v_CricketShot_g04_c01_rgb.gif")


@pytest.fixture(scope="module")
def rgb() -> Checkpoint:
    """An RGB network of 5 classes."""
    return noisy("rgb", 5)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 60 frames."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mov", numbered(60, 40, 56))


@pytest.fixture(scope="module")
def calibration(rgb: Checkpoint, video: Path) -> Calibration:
    """How that video rounds that network."""
    return calibrate(rgb, [video])


def logits(checkpoint: Checkpoint, units: Any, clip: torch.Tensor) -> np.ndarray[Any, Any]:
    """Run the int8 graph."""
    engine = OnnxEngine(build([checkpoint], INT8, units).SerializeToString(), threads=2)
    return engine.run({"input_rgb": clip[None].numpy()})["fc_pred"]


class TestGraph:
    @pytest.mark.parametrize("dynamic", [(), AXES])
    def test_units_are_rounded(
        self, rgb: Checkpoint, video: Path, calibration: Calibration, dynamic: tuple[str, ...]
    ) -> None:
        """All but the first two: filters have scales of their own, inputs one each, around zero."""
        options = dataclasses.replace(INT8, dynamic=dynamic)
        model = build([rgb], options, calibration.units)
        made = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert len(made) == 55 + 37
        assert sum(bool(node.attribute) for node in made) == 55
        assert len(model.graph.node) < node_limit(options, joint=False)
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        assert not any(constants[node.input[2]].any() for node in made)
        proof = prove(
            "x", OnnxEngine(model.SerializeToString()).run, "", [rgb], options, clip=video
        )
        assert len(proof.cases) == (3 if dynamic else 2)

    @pytest.mark.parametrize("dynamic", [(), ("frames",)])
    def test_engines_do_not_pool_in_int8(
        self, rgb: Checkpoint, video: Path, calibration: Calibration, dynamic: tuple[str, ...]
    ) -> None:
        """Between each pool and the rounding of what it gives stands a sum, which stops TensorRT 8.

        It moves the rounding before the pool, and has no such pool.
        """
        options = dataclasses.replace(INT8, split=True, dynamic=dynamic)
        model = build([rgb], options, calibration.units)
        makers = {node.output[0]: node.op_type for node in model.graph.node}
        given = [makers.get(n.input[0]) for n in model.graph.node if n.op_type == "QuantizeLinear"]
        assert given.count("Add") == 3 + 9
        assert not {"MaxPool", "Reshape"} & set(given)
        plain = build([rgb], dataclasses.replace(options, split=False), calibration.units)
        shown = {"input_rgb": middle_clip(video, rgb.metadata.input)[None].numpy()}
        found, expected = (
            OnnxEngine(each.SerializeToString()).run(shown)["fc_pred"] for each in (model, plain)
        )
        np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())

    def test_refusals(self, rgb: Checkpoint, calibration: Calibration) -> None:
        """int8 takes clips, one stream, and BatchNorm that is folded."""
        with pytest.raises(MetadataError, match="calibrated with real clips"):
            build([rgb], INT8)
        with pytest.raises(MetadataError, match="takes one stream"):
            build([rgb, noisy("flow", 5)], INT8, calibration.units)
        with pytest.raises(MetadataError, match="leave --keep-bn out"):
            ExportOptions(precision="int8", keep_bn=True)


class TestKept:
    def test_the_same_clips_are_not_shown_again(
        self, rgb: Checkpoint, video: Path, tmp_path: Path
    ) -> None:
        """What is kept is read back as it was, and used again for the same weights and clips."""
        kept = tmp_path / "x.calibration.json"
        told: list[str] = []
        made = calibrated(rgb, [video.parent], kept, told.append)
        assert told == ["calibration: clip 1 of 1"] * 2
        told.clear()
        for shown in ([video], []):
            again = calibrated(rgb, shown, kept, told.append)
            assert (again.units, again.clips) == (made.units, made.clips)
        assert told == [f"calibration: that of {kept}, 1 clips"] * 2

    def test_other_clips(self, rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
        """Clips of another size, or of another video of the same name, are shown anew."""
        kept = tmp_path / "x.calibration.json"
        told: list[str] = []
        calibrated(rgb, [video], kept)
        calibrated(small(rgb, 32, 24), [video], kept, told.append)
        other = write_video(tmp_path / video.name, numbered(30, 40, 56))
        calibrated(rgb, [other], kept)
        calibrated(rgb, [video, other], kept, told.append)
        assert told == ["calibration: clip 1 of 1"] * 2 + [
            f"calibration: clip {number} of 2" for number in (1, 2, 1, 2)
        ]
        assert len(read_calibration(kept).clips) == 2

    def test_what_is_no_video_is_left_out(
        self, rgb: Checkpoint, video: Path, tmp_path: Path
    ) -> None:
        """Text and folders among the videos are named, and not shown."""
        folder = tmp_path / "clips"
        (folder / "more").mkdir(parents=True)
        (folder / "readme.txt").write_text("Clips for calibration.")
        (folder / "a.mov").write_bytes(video.read_bytes())
        told: list[str] = []
        made = calibrated(rgb, [folder], tmp_path / "x.json", told.append)
        assert len(made.clips) == 1
        assert [line.split(":")[1:3] for line in told[:2]] == [
            [" left out", f" {folder / name}"] for name in ("more", "readme.txt")
        ]

    def test_what_does_not_fit(self, rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
        """Other weights, no clips and malformed files are refused in a sentence."""
        kept = tmp_path / "x.calibration.json"
        with pytest.raises(MetadataError, match="show some with --calibrate VIDEO"):
            calibrated(rgb, [], kept)
        calibrated(rgb, [video], kept)
        with pytest.raises(MetadataError, match="is of other weights, or of clips other"):
            calibrated(noisy("rgb", 5, seed=1), [], kept)
        with pytest.raises(MetadataError, match=r"other than rgb, 24 frames .*; show videos with"):
            calibrated(small(rgb, 32, 24), [], kept)
        (tmp_path / "empty").mkdir()
        with pytest.raises(MetadataError, match="empty: holds no video to calibrate by"):
            calibrated(rgb, [tmp_path / "empty"], kept)
        with pytest.raises(MissingFileError, match="gone: there is no such video or folder"):
            calibrated(rgb, [tmp_path / "gone"], kept)
        document = json.loads(kept.read_text())
        del document["units"]["Mixed_5c.Branch_0.Conv3d_0a_1x1"]
        for text, message in (
            (json.dumps(document), "is not of all 57 units"),
            ("{}", "is no calibration for int8"),
            (
                json.dumps(document | {"format": 1}),
                "is of version 1; this i3dzoo reads 2",
            ),
        ):
            kept.write_text(text)
            with pytest.raises(FormatError, match=message):
                read_calibration(kept)
        # the last is of an older version, and is made anew where there are videos
        assert calibrated(rgb, [video], kept).clips == read_calibration(kept).clips


def test_on_the_command_line(capsys: Capture, rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
    """An int8 ONNX model is proved on the clip, and its calibration kept beside it."""
    file = write_checkpoint(tmp_path / "x.safetensors", rgb)
    path = tmp_path / "x.onnx"
    common = ("export", file, "--to", "onnx", "-o", path, "--precision", "int8")
    code, _, err = run(capsys, *common, "--calibrate", video)
    assert code == 0, err
    assert f"onnxruntime against PyTorch, {video}:" in err
    assert (tmp_path / "x.onnx.calibration.json").is_file()
    code, _, err = run(capsys, *common, "--force", "--clip", video)
    assert code == 0, err
    assert "calibration: that of" in err
    assert run(capsys, "predict", video, "--model", path)[0] == 0
    for arguments, message in (
        (("--force",), "compared with PyTorch on a real clip; pass --clip"),
        (("--to", "tao"), "int8 is for one stream, to onnx or tensorrt"),
        (("--to", "tensorrt", "--refittable"), "whose scales belong to its weights"),
        (("--precision", "fp16", "--calibrate", video), "--calibrate is for --precision int8"),
        (("--to", "tensorrt", "--refit", path), "--precision is as the engine was built"),
        (("--force", "--calibrate", video, "--pixels", "64x64"), "the export takes 64x64; show a"),
    ):
        code, _, err = run(capsys, *common, *arguments)
        assert code == (1 if "--pixels" in arguments else 2)
        assert message in err
        assert "calibration:" not in err


def test_a_real_engine(rgb: Checkpoint, calibration: Calibration) -> None:
    """TensorRT takes the graph, and its engine holds weights of one byte."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed")
    from i3dzoo.export.engine_build import EngineOptions, build_engine, library
    from i3dzoo.export.tensorrt import graph_options, parse_shapes

    engine = EngineOptions(precision="int8")
    options = graph_options(INT8, engine, library())
    profile = parse_shapes("1,2,2", [rgb], options)
    model = build([rgb], options, calibration.units).SerializeToString()
    plan, network = build_engine(library(), model, engine, profile)
    assert network["inputs"]["input_rgb"]["type"] == "FLOAT"
    assert len(plan) < 22e6  # fp16 has 24 million bytes of weights alone


@pytest.mark.real_data
def test_genuine_weights(genuine: Checkpoint, test_data: Path) -> None:
    """Calibrated with one real clip, others keep their first class; shifts bring them nearer."""
    checkpoint = small(genuine, crop=112, frames=32)
    paths = [test_data / "clips" / name for name in CLIPS]
    units = calibrate(checkpoint, paths[:1]).units
    bare = {
        name: dataclasses.replace(unit, shift=(0.0,) * len(unit.shift))
        for name, unit in units.items()
    }
    float32 = network(checkpoint)
    errors = []
    for path in paths:
        clip = middle_clip(path, checkpoint.metadata.input)
        with torch.inference_mode():
            expected = float32(clip[None]).numpy()
        found = [logits(checkpoint, each, clip) for each in (units, bare)]
        assert found[0].argmax() == expected.argmax()
        errors.append(
            [float(np.abs(each - expected).max() / np.abs(expected).max()) for each in found]
        )
    shifted, unshifted = np.mean(errors, axis=0)
    assert 0.001 < shifted < unshifted < 0.2, errors

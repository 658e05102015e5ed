"""`i3dzoo export` and `predict --engine` as a user meets them, and the other targets."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.cli import main
from i3dzoo.engines import load_engine
from i3dzoo.errors import MetadataError
from i3dzoo.export import onnx, portable, tao
from i3dzoo.export.describe import describe, read_description
from i3dzoo.export.options import AXES, ExportOptions
from i3dzoo.export.prove import prove
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.export.targets import export
from i3dzoo.loading import build as network
from i3dzoo.predict import predict_video
from i3dzoo.surgery import change_dtype
from i3dzoo.training.predictions import read_predictions

from .exported import noisy, small
from .peer_piergiaj import Peer
from .video_files import numbered, write_video

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """An RGB network of 5 classes."""
    return noisy("rgb", 5)


@pytest.fixture(scope="module")
def file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("file") / "x.safetensors", checkpoint)


@pytest.fixture(scope="module")
def onnx_file(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as ONNX, with any number of frames and steps."""
    path = tmp_path_factory.mktemp("onnx") / "x.onnx"
    with pytest.raises(SystemExit) as stop:
        main(
            ["export", str(file), "--to", "onnx", "-o", str(path), "--dynamic", "frames", "--steps"]
        )
    assert stop.value.code == 0
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A video of 60 frames."""
    return write_video(tmp_path / "a.mov", numbered(60, 90, 120))


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


class TestExport:
    def test_onnx_on_a_video(
        self, capsys: Capture, file: Path, video: Path, tmp_path: Path
    ) -> None:
        """The errors on a video are printed, and the path is the last line of output."""
        path = tmp_path / "x.onnx"
        code, out, err = run(
            capsys, "export", file, "--to", "onnx", "-o", path, "--clip", video, "--dynamic", "all"
        )
        assert code == 0, err
        assert out == f"{path}\n"
        assert err.count("largest difference") == 3
        assert err.count("same top-1") == 3
        assert f"onnxruntime against PyTorch, {video}:" in err
        assert f"Next: i3dzoo predict VIDEO --model {path}" in err

    def test_json(self, capsys: Capture, file: Path, tmp_path: Path) -> None:
        """--json tells of the file and its proof; --frames and --crop are its clips."""
        path = tmp_path / "x.onnx"
        arguments = ("--frames", 9, "--crop", 32, "--features", "--json")
        code, out, _ = run(capsys, "export", file, "--to", "onnx", "-o", path, *arguments)
        assert code == 0
        document = json.loads(out)
        assert document["nodes"] < 200
        assert document["proof"]["cases"][1]["shapes"] == {"input_rgb": [2, 3, 9, 32, 32]}
        assert load_engine(path).metadata.input.resize == 36  # type: ignore[union-attr] # it has

    def test_tao(self, capsys: Capture, file: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """A bare state dict under piergiaj's names, all of them, and the spec that loads it."""
        path = tmp_path / "tao.pt"
        code, out, err = run(capsys, "export", file, "--to", "tao", "-o", path)
        assert (code, out) == (0, f"{path}\n"), err
        state = torch.load(path, weights_only=True)
        assert len(state) == 344
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
        back = read_checkpoint(path).tensors
        for name, array in checkpoint.tensors.items():
            np.testing.assert_array_equal(back[name], array)
        assert f'  rgb_pretrained_model_path: "{path}"\n' in err
        assert "  rgb_pretrained_num_classes: 5\n" in err
        assert "    action 4: 4\n" in err
        peer = Peer(5)
        peer.load_state_dict(state, strict=True)
        clip = torch.rand(1, 3, 16, 36, 33)
        with torch.inference_mode():
            expected = network(checkpoint)(clip)
            torch.testing.assert_close(peer.eval()(clip), expected, rtol=1e-4, atol=1e-5)

    def test_labels_that_yaml_would_take_for_something_else(self, checkpoint: Checkpoint) -> None:
        """The spec's label map holds the labels, whatever they look like."""
        labels = ("no", "12", "a: b", 'it\'s "x"', "plain one")
        metadata = dataclasses.replace(checkpoint.metadata, labels=labels)
        path = Path("my: files #1") / 'x".pt'
        found = yaml.safe_load(tao.spec(path, metadata))
        assert list(found["dataset"]["label_map"]) == list(labels)
        assert found["model"]["rgb_pretrained_model_path"] == str(path.resolve())

    def test_labels_that_are_the_same(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """A spec, which maps labels to classes, is not written of them, nor what it is for."""
        metadata = dataclasses.replace(checkpoint.metadata, labels=("a", "b", "a", "c", "d"))
        twice = dataclasses.replace(checkpoint, metadata=metadata)
        with pytest.raises(MetadataError, match="two classes are labelled 'a'"):
            export([twice], "tao", tmp_path / "x.pt", ExportOptions())
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("classes", "arguments", "hint"),
        [
            (5, ("--pixels", "48x40"), "docs/export.md names what"),
            (0, (), "i3dzoo features VIDEO --model"),
        ],
    )
    def test_what_predict_does_not_take(
        self, capsys: Capture, tmp_path: Path, classes: int, arguments: tuple[str, ...], hint: str
    ) -> None:
        """What comes next is what works."""
        file = write_checkpoint(tmp_path / "x.safetensors", noisy("rgb", classes))
        path = tmp_path / "x.onnx"
        code, _, err = run(capsys, "export", file, "--to", "onnx", "-o", path, *arguments)
        assert code == 0, err
        assert f"Next: {hint}" in err

    def test_names_that_say_nothing(self, capsys: Capture, file: Path, tmp_path: Path) -> None:
        """A file that no command would know for what it is is not made."""
        for target, suffixes in (("onnx", ".onnx"), ("tensorrt", ".engine, .plan, .trt")):
            path = tmp_path / "x.bin"
            code, _, err = run(capsys, "export", file, "--to", target, "-o", path)
            assert code == 1
            assert f"{path}: ends in none of {suffixes}, by which other commands know" in err

    def test_failures_leave_nothing(self, capsys: Capture, file: Path, tmp_path: Path) -> None:
        """An error is one line, exit code 1, and no file."""
        arguments = ("export", file, "--to", "onnx", "-o", tmp_path / "x.onnx", "--atol", "1e-12")
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, "")
        assert err.startswith("i3dzoo: ")
        assert "was not written: onnxruntime differs from PyTorch" in err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--to", "onnx", "--dynamic", "depth"], "expected all, or some of frames"),
            (["--to", "onnx", "--pixels", "320"], "expected WIDTHxHEIGHT"),
            (["--to", "onnx", "--precision", "tf32"], "tf32 is how TensorRT computes"),
            (["--to", "onnx", "--shapes", "1,2,3"], "--shapes is for --to tensorrt"),
            (["--to", "onnx", "--workspace", "2"], "--workspace is for --to tensorrt"),
            (["--to", "onnx", "--workspace", "0"], "expected GiB, such as 4"),
            (["--to", "tensorrt", "--workspace", "nan"], "expected GiB, such as 4"),
            (["--to", "tensorrt", "--workspace", "1e30"], "expected GiB, such as 4"),
            (["--to", "onnx", "--opset", "0"], "0 is not in the range x>=13"),
            (["--to", "torchscript", "--opset", "13"], "--opset is for --to onnx or tensorrt"),
            (["--to", "tao", "--atol", "1"], "--atol is for networks that run"),
            (["--to", "onnx", "--seed", "-1"], "-1 is not in the range x>=0"),
            (["--to", "onnx", "--pixels", "9999999x9999999"], "such as 320x240, each 8192 at most"),
            (["--to", "onnx", "--clip", "gone.mp4"], "'gone.mp4' does not exist"),
        ],
    )
    def test_wrong_usage(
        self, capsys: Capture, file: Path, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        """Options that make no sense are usage errors."""
        code, _, err = run(capsys, "export", file, "-o", tmp_path / "x", *arguments)
        assert code == 2
        assert message in err

    def test_targets_of_one_stream(self, capsys: Capture, file: Path, tmp_path: Path) -> None:
        """Targets that take one stream say so."""
        flow = write_checkpoint(tmp_path / "flow.safetensors", noisy("flow", 5))
        for target in ("tao", "torchscript", "pt2"):
            path = tmp_path / "x"
            code, _, err = run(capsys, "export", file, "--flow", flow, "--to", target, "-o", path)
            assert code == 1
            assert f"{target} takes one stream" in err
            assert not path.exists()


class TestTorch:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_torchscript(self, checkpoint: Checkpoint, dtype: Any) -> None:
        """A scripted network pads rightly at sizes that it was not exported for."""
        checkpoint = change_dtype(checkpoint, dtype)
        data = portable.torchscript(
            checkpoint, ExportOptions(), describe([checkpoint], ExportOptions())
        )
        proof = prove(
            "x",
            portable.load_torchscript(data),
            "TorchScript",
            [checkpoint],
            ExportOptions(dynamic=AXES),
        )
        assert [case.error < 1e-4 * case.largest for case in proof.cases] == [True] * 3

    @pytest.mark.slow
    def test_pt2(self, checkpoint: Checkpoint) -> None:
        """A torch.export archive takes any batch."""
        data = portable.pt2(checkpoint, ExportOptions(), describe([checkpoint], ExportOptions()))
        proof = prove(
            "x",
            portable.load_pt2(data),
            "torch.export",
            [checkpoint],
            ExportOptions(),
        )
        assert [case.error < 1e-4 * case.largest for case in proof.cases] == [True] * 2

    @pytest.mark.parametrize("target", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
    def test_without_a_head(self, tmp_path: Path, target: str) -> None:
        """A network without a head gives its features."""
        made = export([noisy("rgb", 0)], target, tmp_path / "x", ExportOptions())
        assert made.proof is not None

    @pytest.mark.parametrize("options", [{"features": True}, {"precision": "fp16"}])
    def test_what_they_do_not_have(
        self, checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        """Options of ONNX are refused, not ignored."""
        with pytest.raises(MetadataError, match=r"tao has no .*; export to onnx for that"):
            export([checkpoint], "tao", tmp_path / "x.pt", ExportOptions(**options))
        with pytest.raises(MetadataError, match=r"torchscript has no .*; export to onnx for that"):
            portable.torchscript(checkpoint, ExportOptions(**options), {})
        with pytest.raises(MetadataError, match="pt2 has no dynamic frames"):
            portable.pt2(checkpoint, ExportOptions(dynamic=("frames",)), {})

    def test_description(self, checkpoint: Checkpoint) -> None:
        """What an export says of itself is read back as it was."""
        options = ExportOptions(dynamic=AXES)
        streams, found = read_description("x", describe([checkpoint], options))
        assert (streams, found) == ([checkpoint.metadata], options)
        labels = ("a\nb", "c\r\nd", "e", "f", "g")
        metadata = dataclasses.replace(checkpoint.metadata, labels=labels)
        texts = describe([dataclasses.replace(checkpoint, metadata=metadata)], options)
        assert texts["labels"] == "a b\nc d\ne\nf\ng"
        assert read_description("x", texts)[0][0].labels == labels


class TestEngines:
    def test_same_prediction(self, file: Path, onnx_file: Path, video: Path) -> None:
        """PyTorch, an .onnx file, and a checkpoint in onnxruntime name the same, over time too."""
        engines = [load_engine(file), load_engine(onnx_file), load_engine(file, "onnxruntime")]
        found = [predict_video(each, video, timeline=True) for each in engines]
        for other in found[1:]:
            np.testing.assert_allclose(other.logits, found[0].logits, atol=1e-4)
            assert [s.label for s in other.top] == [s.label for s in found[0].top]
            assert other.timeline is not None
            assert found[0].timeline is not None
            np.testing.assert_allclose(
                other.timeline.probabilities, found[0].timeline.probabilities, atol=1e-4
            )

    def test_on_the_command_line(
        self, capsys: Capture, file: Path, onnx_file: Path, video: Path
    ) -> None:
        """Predict takes an .onnx file as a model, and onnxruntime as the engine of a checkpoint."""
        tables = [
            run(capsys, "predict", video, "--model", file),
            run(capsys, "predict", video, "--model", onnx_file),
            run(capsys, "predict", video, "--model", file, "--engine", "onnxruntime"),
        ]
        assert [code for code, _, _ in tables] == [0, 0, 0]
        assert tables[0][1] == tables[1][1] == tables[2][1]

    def test_evaluate(self, capsys: Capture, file: Path, onnx_file: Path, tmp_path: Path) -> None:
        """Evaluate measures an .onnx file and a checkpoint in onnxruntime as it does PyTorch."""
        for label in ("action 1", "action 3"):
            folder = tmp_path / "data" / label / "clip" / "rgb"
            folder.mkdir(parents=True)
            for number, frame in enumerate(numbered(20, 40, 48)):
                Image.fromarray(frame).save(folder / f"{number:06d}.png")
        common = ("--data", tmp_path / "data", "--split", "none", "--workers", 0, "-o", tmp_path)
        codes = [
            run(capsys, "evaluate", file, *common)[0],
            run(capsys, "evaluate", file, "--engine", "onnxruntime", *common)[0],
        ]
        expected, found = (
            read_predictions(
                next(tmp_path.glob(f"x-????????-????????{name}_center_splitnone.jsonl"))
            )
            for name in ("", "_onnxruntime")
        )
        exported = run(capsys, "evaluate", onnx_file, *common, "--protocol", "tao")
        assert [*codes, exported[0]] == [0, 0, 0], exported[2]
        other = read_predictions(next(tmp_path.glob("x-*_tao_splitnone.jsonl")))
        assert found.videos == other.videos == expected.videos
        np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4)
        np.testing.assert_allclose(other.logits, expected.logits, atol=1e-4)

    @pytest.mark.parametrize("frames", [5, 12])
    def test_timeline_of_a_short_video(
        self, checkpoint: Checkpoint, tmp_path: Path, frames: int
    ) -> None:
        """A model of clips of one length is shown a loop, and its timeline ends with the video."""
        short = write_video(tmp_path / "a.mov", numbered(frames, 40, 48))
        longer = small(checkpoint, 32, 24)
        data = onnx.build([longer], ExportOptions(steps=True)).SerializeToString()
        found = predict_video(OnnxEngine(data), short, timeline=True)
        assert "looped" in found.notes[-1]
        assert found.timeline is not None
        assert found.timeline.ends[-1] == pytest.approx(found.info.duration)
        assert len(found.timeline.probabilities) == 1

    def test_timeline_without_steps(self, checkpoint: Checkpoint, video: Path) -> None:
        """A model that gives one answer a clip makes no timeline, and says how to get one."""
        made = OnnxEngine(onnx.build([checkpoint], ExportOptions()).SerializeToString())
        with pytest.raises(MetadataError, match="export it with --steps"):
            predict_video(made, video, timeline=True)
        assert len(predict_video(made, video).top) == 5

    @pytest.mark.parametrize(
        ("model", "engine", "message"),
        [
            ("onnx", "torch", "is for onnxruntime, and torch was asked for"),
            ("onnx", "tensorrt", "is for onnxruntime, and tensorrt was asked for"),
            ("file", "tensorrt", "is no TensorRT engine; make one with i3dzoo export"),
        ],
    )
    def test_engines_that_do_not_fit(
        self, file: Path, onnx_file: Path, model: str, engine: Any, message: str
    ) -> None:
        """A file that an engine cannot run is refused."""
        with pytest.raises(MetadataError, match=message):
            load_engine(file if model == "file" else onnx_file, engine)

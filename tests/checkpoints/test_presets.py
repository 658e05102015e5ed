"""Presets: the input and the network of projects, and who follows them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import described, edited_table, torch_state
from helpers.cli import fail, succeed

import i3dzoo
from i3dzoo.checkpoints import presets
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.describe import describe_as
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import ConverterError, MetadataError, OptionError
from i3dzoo.hub.package import preprocessor
from i3dzoo.network.architecture import DEEPMIND, Variant
from i3dzoo.video import normalise, preprocess

PIXELS = np.array([0, 51, 102], "u1")  # of red, green and blue
BGR = Input("bgr", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), None, 32, 16)


@pytest.fixture(scope="module")
def signs(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as bsl1k publishes it: 1064 classes, piergiaj's names after `module.`."""
    state = torch_state(change_head(rgb, 1064).tensors)
    path = tmp_path_factory.mktemp("signs") / "bsl.pth.tar"
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


def test_default_preset() -> None:
    """The preset deepmind is what files of the other layouts get."""
    preset = presets.preset("deepmind")
    assert preset.variant == DEEPMIND
    assert preset.inputs == {"rgb": default_input("rgb"), "flow": default_input("flow")}


@pytest.mark.parametrize(
    ("name", "values", "variant"),
    [
        ("video-features", (-1, -0.6, -0.2), Variant(epsilon=1e-5)),
        ("bsl1k", (-0.5, -0.3, -0.1), Variant(pooling="global")),
        ("wlasl", (-0.2, -0.6, -1), DEEPMIND),
        ("mmaction", (-2.1179, -1.1429, -0.0267), Variant(epsilon=1e-5, pooling="global")),
        ("gluoncv", (-2.1179, -1.1429, -0.0267), Variant(padding="symmetric", pooling="global")),
        ("tao", (-2.1179, -1.1429, -0.0267), DEEPMIND),
        ("torchvision", (-1, -0.6, -0.2), Variant(padding="ceil", pooling="global")),
        (
            "torchvision-no-transform",
            (-2.1179, -1.1429, -0.0267),
            Variant(padding="ceil", pooling="global"),
        ),
    ],
)
def test_values_and_variants(name: str, values: tuple[float, ...], variant: Variant) -> None:
    """Each preset turns pixels into the numbers of its project, and has its network."""
    preset = presets.preset(name)
    assert preset.variant == variant
    spec = preset.inputs["rgb"]
    frames = np.broadcast_to(PIXELS, (9, 256, 256, 3))
    clip = preprocess(np.ascontiguousarray(frames), spec)
    assert clip.shape == (3, 9, 224, 224)
    assert clip[:, 0, 0, 0].tolist() == pytest.approx(values, abs=1e-4)
    clips = torch.from_numpy(frames[None, :, :32, :32].copy()).permute(0, 4, 1, 2, 3)
    assert normalise(clips, spec)[0, :, 0, 0, 0].tolist() == pytest.approx(values, abs=1e-4)


def test_bgr_is_embedded_in_exports(rgb: Checkpoint, tmp_path: Path) -> None:
    """An ONNX model that takes pixels reverses them, and the mean follows the input's order."""
    checkpoint = described(rgb, input=BGR)
    export = i3dzoo.export(checkpoint, tmp_path / "x.onnx", "onnx", pixels=(32, 36))
    assert export.parity is not None
    assert export.parity.cases[0].error < 1e-5
    swapped = preprocess(np.ascontiguousarray(np.broadcast_to(PIXELS, (9, 32, 32, 3))), BGR)
    expected = [(102 / 255 - 0.1) / 0.5, (51 / 255 - 0.2) / 0.6, (0 - 0.3) / 0.7]
    assert swapped[:, 0, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert "image_processor_type" not in preprocessor(BGR)  # transformers would read RGB


def test_convert_describes(signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--input writes the preset into the description and the history; the tensors stay."""
    target = tmp_path / "bsl.safetensors"
    _, err = succeed(capsys, "convert", signs, target, "--input", "bsl1k")
    assert "global pooling" in err
    checkpoint = read_checkpoint(target)
    preset = presets.preset("bsl1k")
    assert checkpoint.metadata.input == preset.rgb
    assert checkpoint.metadata.variant == preset.variant
    assert [step.preset for step in checkpoint.metadata.history] == ["bsl1k"]
    assert i3dzoo.load(target).variant.pooling == "global"
    info = json.loads(succeed(capsys, "info", target, "--json")[0])
    assert info["variant"] == {"epsilon": 1e-3, "padding": "same", "pooling": "global"}


def test_likely_origin_is_said(
    signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A remark names the preset; nothing is changed, and a described file has no remark."""
    target = tmp_path / "plain.safetensors"
    _, err = succeed(capsys, "convert", signs, target)
    assert "1064 classes" in err
    assert "--input bsl1k" in err
    assert read_checkpoint(target).metadata.input == default_input("rgb")
    assert "--input bsl1k" in succeed(capsys, "identify", signs)[1]
    assert "--input bsl1k" in succeed(capsys, "info", target)[1]
    chosen = tmp_path / "chosen.safetensors"
    _, err = succeed(capsys, "convert", signs, chosen, "--input", "bsl1k")
    assert "--input" not in err
    assert "--input" not in succeed(capsys, "info", chosen)[1]


def test_networks_with_hassony2s_epsilon_are_said(
    rgb: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with hassony2's names, made from no published one, may need another epsilon."""
    file = tmp_path / "tuned.pth"
    torch.save(torch_state(rgb.tensors, "hassony2"), file)
    assert "--input video-features" in succeed(capsys, "info", file)[1]


def test_likely_multi_label_is_said(
    rgb: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many classes as Charades has get a remark, and its names describe them as multi-label."""
    file, target = tmp_path / "charades.pt", tmp_path / "x.safetensors"
    torch.save(torch_state(change_head(rgb, 157).tensors), file)
    for command in (("identify", file), ("convert", file, target)):
        _, err = succeed(capsys, *command)
        assert "157 classes" in err
        assert "charades" in err
        assert "--multi-label" in err
    options = ("--force", "--head", "keep")
    _, err = succeed(capsys, "convert", file, target, *options, "--labels", "charades")
    assert "may be those" not in err
    assert read_checkpoint(target).metadata.multi_label
    single = (*options, "--labels", "charades", "--single-label")
    succeed(capsys, "convert", file, target, *single)
    assert not read_checkpoint(target).metadata.multi_label
    (tmp_path / "own.txt").write_text("".join(f"action {i}\n" for i in range(157)))
    own = (*options, "--labels", tmp_path / "own.txt")
    assert "may be those" not in succeed(capsys, "convert", file, target, *own)[1]


def test_other_layouts_lose_the_description(
    signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A layout without a description is written with a remark about what its reader needs."""
    options = ("--to", "hassony2", "--input", "wlasl")
    _, err = succeed(capsys, "convert", signs, tmp_path / "x.pt", *options)
    assert "hassony2" in err
    assert "bgr" in err


def test_a_published_checkpoint_is_another_one(genuine: Checkpoint) -> None:
    """With another epsilon it is made from the published one; with its own description it stays."""
    assert describe_as(genuine, "deepmind") is genuine
    metadata = describe_as(genuine, "video-features").metadata
    assert (metadata.zoo, metadata.base) == (None, "rgb_scratch")
    assert metadata.variant.epsilon == 1e-5


def test_verify_names_the_networks(
    rgb_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tensors in two networks have other outputs, and both networks are named."""
    other = tmp_path / "other.safetensors"
    succeed(capsys, "convert", rgb_file, other, "--input", "video-features")
    out, err = succeed(capsys, "verify", other, "--against", rgb_file, "--numeric")
    assert "epsilon 1e-05" in err
    assert "epsilon 0.001" in err
    assert "Conv3d_1a_7x7 differs first" in out
    assert "the tensors agree, and the networks differ" in out


def test_layout_of_one_project(rgb: Checkpoint, tmp_path: Path) -> None:
    """A converter table with a preset describes its files by it."""
    table = edited_table(
        tmp_path, "piergiaj", 'format = "torch"', 'format = "torch"\npreset = "gluoncv"'
    )
    path = write_checkpoint(tmp_path / "x.pt", rgb, str(table))
    metadata = read_checkpoint(path, converter=table).metadata
    assert metadata.variant == Variant(padding="symmetric", pooling="global")
    assert metadata.input == presets.preset("gluoncv").rgb
    assert read_checkpoint(path).metadata.variant == DEEPMIND
    unknown = edited_table(
        tmp_path, "piergiaj", 'format = "torch"', 'format = "torch"\npreset = "x"'
    )
    with pytest.raises(ConverterError, match="preset is 'x'; expected one of bsl1k, deepmind"):
        read_checkpoint(path, converter=unknown)


def test_refused(
    rgb: Checkpoint,
    rgb_file: Path,
    genuine: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unknown presets, presets without the stream, and networks that TAO does not have."""
    err = fail(capsys, "convert", rgb_file, tmp_path / "y.safetensors", "--input", "kinetics")
    assert "'kinetics'; expected one of bsl1k, deepmind" in err
    flow = described(rgb, stream="flow", input=default_input("flow"))
    with pytest.raises(OptionError, match="bsl1k: describes rgb networks, and this one is flow"):
        describe_as(flow, "bsl1k")
    with pytest.raises(MetadataError, match=r"TAO's network has .*0\.001.*this one has .*1e-05"):
        i3dzoo.export(describe_as(genuine, "video-features"), tmp_path / "x.pt", "tao")
    with pytest.raises(MetadataError, match="takes BGR"):
        i3dzoo.export(describe_as(genuine, "wlasl"), tmp_path / "x.pt", "tao")
    assert not list(tmp_path.iterdir())


def test_wrong_variants_are_refused(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An epsilon out of range, or an unknown padding, is refused in writing and in reading."""
    bad = described(random_checkpoint, variant=Variant(epsilon=-1))
    with pytest.raises(MetadataError, match=r"variant.epsilon: expected .*0.*found -1"):
        write_checkpoint(tmp_path / "x.safetensors", bad)
    text = random_checkpoint.metadata.to_json().replace('"padding":"same"', '"padding":"valid"')
    with pytest.raises(
        MetadataError, match=r"variant\.padding: expected 'ceil' or 'same' or 'symmetric'"
    ):
        type(random_checkpoint.metadata).from_json(text)

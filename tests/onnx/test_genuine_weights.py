"""ONNX models of the genuine weights on real clips."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from helpers.exported import compare, compare_onnx, onnx_engine, pytorch_logits, small
from PIL import Image

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.streams import change_stream
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.errors import FormatError
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import AXES, ExportOptions
from i3dzoo.video import centre_clip, probe, stream
from i3dzoo.video.flow import flows, quantise, to_grey

pytestmark = pytest.mark.real_data

CLIPS = ("v_CricketShot_g04_c01_rgb.gif", "R6llTwEh07w.mp4")


@pytest.fixture(scope="module")
def scene(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of a real clip and their optical flow, in TAO's folders."""
    root = tmp_path_factory.mktemp("scene")
    info = probe(test_data / "clips" / "arm_wrestling.mp4")
    frames = [
        np.asarray(Image.fromarray(frame).resize((96, 72))) for _, frame in stream(info, range(21))
    ]
    fields = list(flows(map(to_grey, frames), "farneback"))
    for name in ("rgb", "u", "v"):
        (root / name).mkdir()
    for number, (frame, field) in enumerate(zip(frames, fields, strict=False)):
        stored = quantise(field)
        for name, image in (("rgb", frame), ("u", stored[..., 0]), ("v", stored[..., 1])):
            Image.fromarray(image).save(root / name / f"{number:06d}.png")
    return root


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(genuine: Checkpoint, test_data: Path, name: str) -> None:
    """Small real clips have PyTorch's numbers and first classes, at any size."""
    checkpoint = small(genuine, crop=96, frames=16)
    compare_onnx([checkpoint], ExportOptions(dynamic=AXES), clip=test_data / "clips" / name)


@pytest.mark.parametrize(
    ("streams", "classes", "dynamic"),
    [
        (("rgb",), 51, ()),
        (("flow",), 400, ()),
        (("flow",), 51, AXES),
        (("rgb", "flow"), 400, AXES),
        (("rgb", "flow"), 51, ()),
    ],
)
def test_streams_and_heads(
    genuine: Checkpoint,
    scene: Path,
    streams: tuple[str, ...],
    classes: int,
    dynamic: tuple[str, ...],
) -> None:
    """RGB, flow and both, with the Kinetics head and one of 51 classes.

    There are no genuine flow weights to be had, so the flow stream is the genuine trunk with
    its first kernels averaged over colours.
    """
    source = small(genuine, crop=64)
    if classes == 51:
        source = change_head(source, 51)
    checkpoints = [small(source if name == "rgb" else change_stream(source, 2)) for name in streams]
    compare_onnx(checkpoints, ExportOptions(dynamic=dynamic), clip=scene)


@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric"])
def test_large_pixels(genuine: Checkpoint, mode: str) -> None:
    """Large smooth frames pass; a graph that samples them at other places does not."""
    checkpoint = small(genuine, crop=112, frames=9)
    options = ExportOptions(pixels=(1080, 1920))
    model = build_model([checkpoint], options)
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    (attribute,) = (a for a in resize.attribute if a.name == "coordinate_transformation_mode")
    attribute.s = mode.encode()
    run = OnnxEngine(model.SerializeToString()).run
    batches = [(1, options.size(checkpoint.metadata.input))]
    wrong = pytest.raises(FormatError, match="differs from PyTorch")
    with wrong if mode == "asymmetric" else contextlib.nullcontext():
        compare(run, [checkpoint], options, batches)


@pytest.mark.parametrize("frames", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_full_size(genuine: Checkpoint, test_data: Path, frames: int) -> None:
    """Clips of 224x224 have PyTorch's logits, and the known class."""
    video = test_data / "clips" / "arm_wrestling.mp4"
    genuine = small(genuine, crop=224, frames=frames)
    clip = centre_clip(video, genuine.metadata.input)[None]
    logits = onnx_engine([genuine], ExportOptions()).run({"input_rgb": clip.numpy()})["fc_pred"]
    expected = pytorch_logits(genuine, clip)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert genuine.metadata.labels is not None
    assert genuine.metadata.labels[int(logits.argmax())] == "arm wrestling"

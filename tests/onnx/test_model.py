"""ONNX models: PyTorch's numbers, clean graphs, and refused options."""

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.exported import (
    compare,
    compare_onnx,
    noisy,
    onnx_engine,
    pytorch_logits,
    with_input,
)

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.errors import FormatError, MetadataError, OptionError, ShapeError
from i3dzoo.onnx.model import build_model, check_model, max_nodes, to_float32
from i3dzoo.onnx.options import AXES, ExportOptions
from i3dzoo.pretrained import build
from i3dzoo.video import preprocess


@pytest.fixture(scope="module")
def flow() -> Checkpoint:
    """A flow network of the same 5 classes."""
    return noisy("flow", 5, seed=1)


class TestNumbers:
    @pytest.mark.parametrize("dynamic", [(), AXES, ("frames",)])
    @pytest.mark.parametrize("name", ["rgb", "flow"])
    def test_both_streams(
        self, rgb: Checkpoint, flow: Checkpoint, name: str, dynamic: tuple[str, ...]
    ) -> None:
        """RGB and flow, at a fixed size and at any, equal PyTorch."""
        compare_onnx([rgb if name == "rgb" else flow], ExportOptions(dynamic=dynamic))

    @pytest.mark.parametrize("dynamic", [(), AXES])
    def test_joint(self, rgb: Checkpoint, flow: Checkpoint, dynamic: tuple[str, ...]) -> None:
        """Two streams are fused by adding their logits."""
        engine = compare_onnx([rgb, flow], ExportOptions(dynamic=dynamic, features=True))
        generator = np.random.default_rng(0)
        clips, fields = (
            generator.uniform(-1, 1, (1, channels, 16, 32, 32)).astype("f4") for channels in (3, 2)
        )
        expected = pytorch_logits(rgb, clips) + pytorch_logits(flow, fields)
        outputs = engine.run({"input_rgb": clips, "input_of": fields})
        np.testing.assert_allclose(outputs["fc_pred"], expected, atol=1e-4)
        assert set(outputs) == {"fc_pred", "features_rgb", "features_of"}

    @pytest.mark.parametrize("opset", [18, 22])
    def test_newer_opsets(self, rgb: Checkpoint, opset: int) -> None:
        """A newer opset uses the new form of the operators that changed."""
        options = ExportOptions(dynamic=AXES, opset=opset, features=True, steps=True)
        assert compare_onnx([rgb], options).has_steps
        assert build_model([rgb], options).opset_import[0].version == opset

    def test_kept_batch_norm(self, rgb: Checkpoint) -> None:
        """--keep-bn keeps 57 BatchNorms, and the numbers."""
        options = ExportOptions(keep_bn=True)
        compare_onnx([rgb], options)
        operators = [node.op_type for node in build_model([rgb], options).graph.node]
        assert operators.count("BatchNormalization") == 57

    @pytest.mark.parametrize("size", [(9, 32, 31), (10, 225, 193), (23, 33, 250)])
    def test_any_size(self, rgb: Checkpoint, size: tuple[int, int, int]) -> None:
        """A dynamic graph pads as TensorFlow does at even and odd sizes, small maps and large."""
        engine = onnx_engine([rgb], ExportOptions(dynamic=AXES, steps=True))
        clip = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, *size)).astype("f4"))
        with torch.inference_mode():
            expected = build(rgb).step_logits(clip)
        torch.testing.assert_close(engine.step_logits(clip), expected, atol=1e-4, rtol=1e-4)

    def test_pixels(self, rgb: Checkpoint) -> None:
        """The graph resizes, crops and scales as `preprocess` does."""
        engine = compare_onnx([rgb], ExportOptions(pixels=(90, 121)))
        frames = np.random.default_rng(0).integers(0, 256, (1, 16, 90, 121, 3), "u1")
        expected = pytorch_logits(rgb, preprocess(frames[0], rgb.metadata.input)[None])
        logits = engine.run({"frames_rgb": frames})["fc_pred"]
        np.testing.assert_allclose(logits, expected, atol=1e-4)

    @pytest.mark.parametrize(
        ("pixels", "dynamic"), [((36, 36), ()), ((32, 32), ()), ((90, 121), ("frames",))]
    )
    def test_pixels_that_need_less_preprocessing(
        self, rgb: Checkpoint, pixels: tuple[int, int], dynamic: tuple[str, ...]
    ) -> None:
        """Frames of the right size are not resized, and any number of frames is accepted."""
        compare_onnx([rgb], ExportOptions(dynamic=dynamic, pixels=pixels))

    @pytest.mark.parametrize(("frames", "crop"), [(16, 32), (10, 50), (17, 45), (16, 33)])
    def test_space_to_depth(self, rgb: Checkpoint, frames: int, crop: int) -> None:
        """Operators with fast GPU kernels equal PyTorch; the stem is changed at even sizes only."""
        sized = with_input(rgb, frames=frames, crop=crop, resize=crop)
        options = ExportOptions(space_to_depth=True)
        compare_onnx([sized], options)
        graph = build_model([sized], options).graph
        attributes = [a for node in graph.node if node.op_type == "MaxPool" for a in node.attribute]
        assert [len(a.ints) for a in attributes if a.name == "kernel_shape"] == [2] * 24
        even = frames % 2 == crop % 2 == 0
        assert [node.op_type for node in graph.node].count("Slice") == (8 if even else 0)
        assert len(graph.node) < 200

    @pytest.mark.parametrize(
        "changes",
        [{"dynamic": ("frames",)}, {"dynamic": AXES}, {"keep_bn": True}, {"pixels": (36, 40)}],
    )
    def test_space_to_depth_with_other_options(
        self, rgb: Checkpoint, flow: Checkpoint, changes: dict[str, Any]
    ) -> None:
        """It goes with all other options and with two streams; dynamic sizes stay as they are."""
        options = ExportOptions(space_to_depth=True, **changes)
        compare_onnx([rgb], options)
        compare_onnx([flow, rgb], options)

    def test_half_precision(self, rgb: Checkpoint) -> None:
        """fp16 computes in half precision, keeps float32 outputs, and halves the file."""
        fp16 = ExportOptions(precision="fp16")
        engine = compare_onnx([rgb], fp16, 1e-2)
        outputs = engine.run({"input_rgb": np.zeros((1, 3, 16, 32, 32), "f4")})
        assert outputs["fc_pred"].dtype == np.float32
        half = build_model([rgb], fp16).ByteSize()
        assert half < 0.51 * build_model([rgb], ExportOptions()).ByteSize()

    def test_bfloat16(self, rgb: Checkpoint) -> None:
        """bf16 is a valid graph; its weights, computed in float32, are near PyTorch's."""
        options = ExportOptions(precision="bf16", opset=22)
        model = build_model([rgb], options)
        types = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.BFLOAT16 in types
        assert onnx.TensorProto.FLOAT not in types
        run = OnnxEngine(to_float32(model).SerializeToString()).run
        case = compare(run, [rgb], options).cases[0]
        assert 1e-4 < case.error / case.largest < 0.1

    def test_without_a_head(self) -> None:
        """A network without a head returns features."""
        compare_onnx([noisy("rgb", 0)], ExportOptions())


class TestGraph:
    @pytest.mark.parametrize("dynamic", [(), AXES])
    @pytest.mark.parametrize("features", [False, True])
    def test_clean(self, rgb: Checkpoint, dynamic: tuple[str, ...], features: bool) -> None:
        """The graph has under 200 nodes, opset 13, no If, and no node without a name."""
        options = ExportOptions(dynamic=dynamic, features=features, steps=True)
        model = build_model([rgb], options)
        assert len(model.graph.node) < 200
        assert model.opset_import[0].version == 13
        assert model.ir_version == 7
        assert "If" not in {node.op_type for node in model.graph.node}
        assert all(node.name for node in model.graph.node)

    def test_names_and_shapes(self, rgb: Checkpoint, flow: Checkpoint) -> None:
        """Inputs and the output have TAO's names; the batch is dynamic."""
        graph = build_model([flow, rgb], ExportOptions(dynamic=("frames",))).graph
        assert [value.name for value in graph.input] == ["input_rgb", "input_of"]
        assert [value.name for value in graph.output] == ["fc_pred"]
        axes = [a.dim_param or a.dim_value for a in graph.input[1].type.tensor_type.shape.dim]
        assert axes == ["batch", 2, "of.frames", 32, 32]

    def test_too_many_nodes(self, rgb: Checkpoint) -> None:
        """A graph with too many nodes is refused."""
        model = build_model([rgb], ExportOptions())
        for number in range(100):
            name = f"extra {number}"
            model.graph.node.append(onnx.helper.make_node("Relu", ["fc_pred"], [name], name=name))
        with pytest.raises(FormatError, match="at most 200 nodes, found 239"):
            check_model(model, ExportOptions())
        assert max_nodes(ExportOptions(keep_bn=True), joint=False) == 257

    def test_invalid(self, rgb: Checkpoint) -> None:
        """A graph that onnx's checker rejects is refused."""
        model = build_model([rgb], ExportOptions())
        model.graph.node[0].input[0] = "nowhere"
        with pytest.raises(FormatError, match="the ONNX model is invalid"):
            check_model(model, ExportOptions())


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dynamic": ("depth",)}, "dynamic: .* found 'depth'"),
            ({"opset": 12}, "opset: expected 13 or newer, found 12"),
            ({"precision": "bf16"}, "bf16 needs 22 .* pass --opset 22"),
            ({"pixels": (90, 90), "dynamic": AXES}, "leave height and width out"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        """Options that contradict each other are refused."""
        with pytest.raises(OptionError, match=message):
            ExportOptions(**options)

    def test_unknown_opset(self, rgb: Checkpoint) -> None:
        """An opset that the installed onnx does not have is refused."""
        with pytest.raises(OptionError, match=r"opset: onnx .* has \d+ and older, found 99"):
            build_model([rgb], ExportOptions(opset=99))

    def test_streams_that_do_not_fit(self, rgb: Checkpoint) -> None:
        """Two streams must be RGB and flow, and have the same classes."""
        with pytest.raises(MetadataError, match=r"expected one, .*, found rgb, rgb"):
            build_model([rgb, rgb], ExportOptions())
        with pytest.raises(MetadataError, match=r"flow checkpoint: expected the 5 .* found 4"):
            build_model([rgb, noisy("flow", 4)], ExportOptions())

    def test_steps_of_two_streams(self, rgb: Checkpoint, flow: Checkpoint) -> None:
        """The steps of two streams are not fused."""
        with pytest.raises(OptionError, match="leave --steps or --flow out"):
            build_model([rgb, flow], ExportOptions(steps=True))

    def test_frames_smaller_than_the_crop(self, rgb: Checkpoint) -> None:
        """Frames that do not fill the crop are refused."""
        with pytest.raises(OptionError, match=r"--pixels 40x30: .* crop of 32 .* found 40x30"):
            build_model([with_input(rgb, resize=None)], ExportOptions(pixels=(30, 40)))

    def test_weights_that_float16_cannot_hold(self, rgb: Checkpoint) -> None:
        """A tensor that overflows is refused by its name."""
        key = "Logits.Conv3d_0c_1x1.conv.weight"
        tensors = dict(rgb.tensors) | {key: rgb.tensors[key] * np.float32(1e8)}
        large = dataclasses.replace(rgb, tensors=tensors)
        with pytest.raises(MetadataError, match=f"{key}: float16 holds .* 65504, found 3"):
            build_model([large], ExportOptions(precision="fp16"))

    def test_wrong_clips(self, rgb: Checkpoint) -> None:
        """A clip of another size and an input of another name are refused."""
        engine = onnx_engine([rgb], ExportOptions())
        with pytest.raises(ShapeError, match=r"expected .* to \[inf, 3, 16, 32, 32\]: export with"):
            engine.run({"input_rgb": np.zeros((1, 3, 17, 32, 32), "f4")})
        with pytest.raises(ShapeError, match="takes the inputs input_rgb; got x"):
            engine.run({"x": np.zeros(1, "f4")})
        with pytest.raises(ShapeError, match="takes uint8 frames; expected one input"):
            onnx_engine([rgb], ExportOptions(pixels=(90, 90))).step_logits(torch.zeros(1))

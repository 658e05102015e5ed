"""ONNX: the same numbers as PyTorch, clean graphs, what they say of themselves, what is refused."""

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import FormatError, MetadataError, MissingFileError, OutputError, ShapeError
from i3dzoo.export.describe import describe
from i3dzoo.export.onnx import build, check, node_limit, widened
from i3dzoo.export.options import AXES, ExportOptions
from i3dzoo.export.prove import prove
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.export.targets import export
from i3dzoo.head import change_head
from i3dzoo.loading import build as network
from i3dzoo.surgery import change_stream
from i3dzoo.video import load_clips, preprocess, probe, sampling, stream
from i3dzoo.video.flow import flows, quantise, to_grey

from .exported import noisy, small

FP32 = 1e-4  # the largest difference, as a part of the largest logit
CLIPS = ("v_CricketShot_g04_c01_rgb.gif", "R6llTwEh07w.mp4")


@pytest.fixture(scope="module")
def rgb() -> Checkpoint:
    """An RGB network of 51 classes."""
    return noisy("rgb", 51)


@pytest.fixture(scope="module")
def flow() -> Checkpoint:
    """A flow network of the same 51 classes."""
    return noisy("flow", 51, seed=1)


def engine(checkpoints: list[Checkpoint], options: ExportOptions) -> OnnxEngine:
    """Export in memory and load."""
    return OnnxEngine(build(checkpoints, options).SerializeToString(), threads=2)


def _kernel(node: onnx.NodeProto) -> list[int]:
    (kernel,) = (a.ints for a in node.attribute if a.name == "kernel_shape")
    return list(kernel)


def compare(
    checkpoints: list[Checkpoint], options: ExportOptions, tolerance: float = FP32
) -> OnnxEngine:
    """Check the export against PyTorch at two batch sizes and, if dynamic, two shapes."""
    made = engine(checkpoints, options)
    proof = prove("x.onnx", made.run, "onnxruntime", checkpoints, options)
    assert len(proof.cases) == (3 if options.dynamic else 2)
    for case in proof.cases:
        assert case.error <= tolerance * case.largest, str(case)
    return made


class TestNumbers:
    @pytest.mark.parametrize("dynamic", [(), AXES, ("frames",)])
    @pytest.mark.parametrize("stream", ["rgb", "flow"])
    def test_both_streams(
        self, rgb: Checkpoint, flow: Checkpoint, stream: str, dynamic: tuple[str, ...]
    ) -> None:
        """RGB and flow, at a fixed size and at any, equal PyTorch."""
        compare([rgb if stream == "rgb" else flow], ExportOptions(dynamic=dynamic))

    @pytest.mark.parametrize("dynamic", [(), AXES])
    def test_joint(self, rgb: Checkpoint, flow: Checkpoint, dynamic: tuple[str, ...]) -> None:
        """Two streams are fused by adding their logits."""
        made = compare([rgb, flow], ExportOptions(dynamic=dynamic, features=True))
        generator = np.random.default_rng(0)
        clips = {
            "input_rgb": generator.uniform(-1, 1, (1, 3, 16, 32, 32)).astype("f4"),
            "input_of": generator.uniform(-1, 1, (1, 2, 16, 32, 32)).astype("f4"),
        }
        with torch.inference_mode():
            parts = [
                network(each)(torch.from_numpy(clip)).numpy()
                for each, clip in zip((rgb, flow), clips.values(), strict=True)
            ]
        found = made.run(clips)
        np.testing.assert_allclose(found["fc_pred"], parts[0] + parts[1], atol=1e-4)
        assert set(found) == {"fc_pred", "features_rgb", "features_of"}

    @pytest.mark.parametrize("opset", [18, 22])
    def test_newer_opsets(self, rgb: Checkpoint, opset: int) -> None:
        """Newer opsets write the operators that changed in their own way."""
        options = ExportOptions(AXES, opset=opset, features=True, steps=True)
        made = compare([rgb], options)
        model = build([rgb], options)
        assert model.opset_import[0].version == opset
        assert made.has_steps

    def test_kept_batch_norm(self, rgb: Checkpoint) -> None:
        """--keep-bn keeps 57 BatchNorms, and the numbers."""
        compare([rgb], ExportOptions(keep_bn=True))
        kinds = [node.op_type for node in build([rgb], ExportOptions(keep_bn=True)).graph.node]
        assert kinds.count("BatchNormalization") == 57

    @pytest.mark.parametrize("size", [(9, 32, 31), (10, 225, 193), (23, 33, 250)])
    def test_any_size(self, rgb: Checkpoint, size: tuple[int, int, int]) -> None:
        """A dynamic graph pads as TensorFlow at even and odd sizes, small maps and large."""
        made = engine([rgb], ExportOptions(dynamic=AXES, steps=True))
        clip = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, *size)).astype("f4"))
        with torch.inference_mode():
            expected = network(rgb).step_logits(clip)
        torch.testing.assert_close(made.step_logits(clip), expected, atol=1e-4, rtol=1e-4)

    def test_pixels(self, rgb: Checkpoint) -> None:
        """Resizing, cropping and scaling within the graph are those of `preprocess`."""
        options = ExportOptions(pixels=(90, 121))
        made = compare([rgb], options)
        frames = np.random.default_rng(0).integers(0, 256, (1, 16, 90, 121, 3), "u1")
        with torch.inference_mode():
            clip = preprocess(frames[0], rgb.metadata.input)
            expected = network(rgb)(clip[None]).numpy()
        np.testing.assert_allclose(made.run({"frames_rgb": frames})["fc_pred"], expected, atol=1e-4)

    @pytest.mark.parametrize(
        ("pixels", "dynamic"), [((36, 36), ()), ((32, 32), ()), ((90, 121), ("frames",))]
    )
    def test_pixels_that_need_less(
        self, rgb: Checkpoint, pixels: tuple[int, int], dynamic: tuple[str, ...]
    ) -> None:
        """Frames of the right size are not resized, and any number of frames can be taken."""
        compare([rgb], ExportOptions(dynamic, pixels=pixels))

    @pytest.mark.parametrize(("frames", "crop"), [(16, 32), (10, 50), (17, 45), (16, 33)])
    def test_split(self, rgb: Checkpoint, frames: int, crop: int) -> None:
        """Split for GPUs, a graph computes the same; the first convolution only at even sizes."""
        spec = dataclasses.replace(rgb.metadata.input, frames=frames, crop=crop, resize=crop)
        sized = dataclasses.replace(rgb, metadata=dataclasses.replace(rgb.metadata, input=spec))
        compare([sized], ExportOptions(split=True))
        graph = build([sized], ExportOptions(split=True)).graph
        kernels = [len(_kernel(node)) for node in graph.node if node.op_type == "MaxPool"]
        assert kernels == [2] * 24
        even = frames % 2 == crop % 2 == 0
        assert [node.op_type for node in graph.node].count("Slice") == (8 if even else 0)
        assert len(graph.node) < 200

    @pytest.mark.parametrize(
        "options",
        [
            ExportOptions(split=True, dynamic=("frames",)),
            ExportOptions(split=True, dynamic=AXES),
            ExportOptions(split=True, keep_bn=True),
            ExportOptions(split=True, pixels=(36, 40)),
        ],
    )
    def test_split_otherwise(
        self, rgb: Checkpoint, flow: Checkpoint, options: ExportOptions
    ) -> None:
        """What is open is left as it is, and all else goes with it, two streams too."""
        compare([rgb], options)
        compare([flow, rgb], options)

    def test_half_precision(self, rgb: Checkpoint) -> None:
        """fp16 computes in half precision, takes and gives float32, and halves the file."""
        made = compare([rgb], ExportOptions(precision="fp16"), 1e-2)
        found = made.run({"input_rgb": np.zeros((1, 3, 16, 32, 32), "f4")})
        assert found["fc_pred"].dtype == np.float32
        half = build([rgb], ExportOptions(precision="fp16")).ByteSize()
        assert half < 0.51 * build([rgb], ExportOptions()).ByteSize()

    def test_bfloat16(self, rgb: Checkpoint) -> None:
        """bf16 is a sound graph; its weights, computed in float32, are near PyTorch's."""
        options = ExportOptions(precision="bf16", opset=22)
        model = build([rgb], options)
        types = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.BFLOAT16 in types
        assert onnx.TensorProto.FLOAT not in types
        run = OnnxEngine(widened(model).SerializeToString()).run
        proof = prove("x.onnx", run, "onnxruntime", [rgb], options)
        assert 1e-4 < proof.cases[0].error / proof.cases[0].largest < 0.1

    def test_without_a_head(self) -> None:
        """A network without a head gives features."""
        compare([noisy("rgb", 0)], ExportOptions())


class TestGraph:
    @pytest.mark.parametrize("dynamic", [(), AXES])
    @pytest.mark.parametrize("features", [False, True])
    def test_clean(self, rgb: Checkpoint, dynamic: tuple[str, ...], features: bool) -> None:
        """Under 200 nodes, opset 13, no If, no unnamed node."""
        model = build([rgb], ExportOptions(dynamic, features=features, steps=True))
        assert len(model.graph.node) < 200
        assert model.opset_import[0].version == 13
        assert model.ir_version == 7
        assert "If" not in {node.op_type for node in model.graph.node}
        assert all(node.name for node in model.graph.node)

    def test_names_and_shapes(self, rgb: Checkpoint, flow: Checkpoint) -> None:
        """Inputs and output are called as TAO calls them; the batch is open."""
        graph = build([flow, rgb], ExportOptions(dynamic=("frames",))).graph
        assert [each.name for each in graph.input] == ["input_rgb", "input_of"]
        assert [each.name for each in graph.output] == ["fc_pred"]
        axes = graph.input[1].type.tensor_type.shape.dim
        assert [axis.dim_param or axis.dim_value for axis in axes] == [
            "batch",
            2,
            "of.frames",
            32,
            32,
        ]

    def test_too_many_nodes(self, rgb: Checkpoint) -> None:
        """A graph that grew is refused."""
        model = build([rgb], ExportOptions())
        for number in range(100):
            name = f"extra {number}"
            model.graph.node.append(onnx.helper.make_node("Relu", ["fc_pred"], [name], name=name))
        with pytest.raises(FormatError, match="has 239 nodes; expected at most 200"):
            check(model, ExportOptions())
        assert node_limit(ExportOptions(keep_bn=True), joint=False) == 257

    def test_unsound(self, rgb: Checkpoint) -> None:
        """A graph that the checker finds fault with is refused."""
        model = build([rgb], ExportOptions())
        model.graph.node[0].input[0] = "nowhere"
        with pytest.raises(FormatError, match="the ONNX model is not sound"):
            check(model, ExportOptions())


class TestDescription:
    def test_what_travels_with_the_model(self, rgb: Checkpoint) -> None:
        """Labels, input and origin are read back as they were, by us and by others."""
        options = ExportOptions(("frames",), steps=True, pixels=(90, 120))
        made = engine([rgb], options)
        assert made.metadata == rgb.metadata
        assert made.labels == rgb.metadata.labels
        assert made.options == options
        texts = {p.key: p.value for p in build([rgb], options).metadata_props}
        assert texts["labels"].splitlines()[50] == "action 50"
        assert texts["source_sha256"] == "0" * 64
        assert texts["input"] == str(rgb.metadata.input)

    def test_foreign_model(self, tmp_path: Path) -> None:
        """A model without our description is refused, since its input is unknown."""
        x, y = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
        )
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        opsets = [onnx.helper.make_opsetid("", 13)]
        path = tmp_path / "foreign.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        with pytest.raises(MetadataError, match=r"foreign\.onnx: carries no description by i3dzoo"):
            OnnxEngine(path)

    def test_no_model(self, tmp_path: Path) -> None:
        """A missing file and one that is no model are told apart."""
        with pytest.raises(MissingFileError, match="there is no such file"):
            OnnxEngine(tmp_path / "gone.onnx")
        (tmp_path / "x.onnx").write_bytes(b"no model")
        with pytest.raises(FormatError, match=r"x\.onnx: onnxruntime cannot load it"):
            OnnxEngine(tmp_path / "x.onnx")

    def test_labels_of_another_model(self, rgb: Checkpoint) -> None:
        """Labels that are not as many as the logits are refused."""
        model = build([rgb], ExportOptions())
        metadata = dataclasses.replace(rgb.metadata, num_classes=2, labels=("a", "b"))
        for each in model.metadata_props:
            if each.key == "i3dzoo.rgb":
                each.value = metadata.to_json()
        with pytest.raises(MetadataError, match="gives 51 logits and describes 2 classes"):
            OnnxEngine(model.SerializeToString())

    @pytest.mark.parametrize("name", ["steps", "features"])
    def test_outputs_of_another_model(self, rgb: Checkpoint, name: str) -> None:
        """A description of an output that the graph does not give is refused."""
        model = build([rgb], ExportOptions())
        told = describe([rgb], ExportOptions(**{name: True}))  # type: ignore[arg-type] # of a dict
        for each in model.metadata_props:
            each.value = told[each.key]
        with pytest.raises(MetadataError, match=f"gives fc_pred and describes .*{name}; the file"):
            OnnxEngine(model.SerializeToString())


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"dynamic": ("depth",)}, "no axis is called 'depth'"),
            ({"opset": 12}, "opset is 12; expected 13 or newer"),
            ({"precision": "bf16"}, "bf16 convolutions came with opset 22"),
            ({"pixels": (90, 90), "dynamic": AXES}, "leave height and width out"),
        ],
    )
    def test_options(self, options: dict[str, object], message: str) -> None:
        """Options that contradict each other are refused."""
        with pytest.raises(MetadataError, match=message):
            ExportOptions(**options)  # type: ignore[arg-type] # wrong on purpose

    def test_opsets_to_come(self, rgb: Checkpoint) -> None:
        """An opset that onnx does not know yet is refused."""
        with pytest.raises(MetadataError, match=r"opset is 99, and onnx .* knows \d+ and older"):
            build([rgb], ExportOptions(opset=99))

    def test_streams_that_do_not_fit(self, rgb: Checkpoint) -> None:
        """Two streams must be two, and name the same classes."""
        with pytest.raises(MetadataError, match="the checkpoints are rgb, rgb; expected one"):
            build([rgb, rgb], ExportOptions())
        with pytest.raises(MetadataError, match="rgb checkpoint has 51 classes and the flow"):
            build([rgb, noisy("flow", 4)], ExportOptions())

    def test_frames_smaller_than_the_crop(self, rgb: Checkpoint) -> None:
        """Frames that would not fill the crop are refused."""
        spec = dataclasses.replace(rgb.metadata.input, resize=None)
        metadata = dataclasses.replace(rgb.metadata, input=spec)
        checkpoint = dataclasses.replace(rgb, metadata=metadata)
        with pytest.raises(MetadataError, match="smaller than the crop of 32"):
            build([checkpoint], ExportOptions(pixels=(30, 40)))

    def test_wrong_clips(self, rgb: Checkpoint) -> None:
        """A clip of another size, and an input of another name, are refused with what is taken."""
        made = engine([rgb], ExportOptions())
        with pytest.raises(ShapeError, match=r"expected \['batch', 3, 16, 32, 32\]: export with"):
            made.run({"input_rgb": np.zeros((1, 3, 17, 32, 32), "f4")})
        with pytest.raises(ShapeError, match="takes input_rgb; was given x"):
            made.run({"x": np.zeros(1, "f4")})
        with pytest.raises(ShapeError, match="takes frames_rgb; one clip of floats"):
            engine([rgb], ExportOptions(pixels=(90, 90))).step_logits(torch.zeros(1))


class TestExport:
    def test_an_export_that_differs_is_not_written(self, rgb: Checkpoint, tmp_path: Path) -> None:
        """More than --atol from PyTorch: an error with both numbers, and no file."""
        with pytest.raises(FormatError, match=r"was not written: .* where 1e-12 is allowed"):
            export([rgb], "onnx", tmp_path / "x.onnx", ExportOptions(), atol=1e-12)
        assert list(tmp_path.iterdir()) == []

    def test_altered_weights_are_noticed(self, rgb: Checkpoint) -> None:
        """The proof fails for an export of other weights."""
        tensors = dict(rgb.tensors)
        name = "Mixed_5c.Branch_1.Conv3d_0b_3x3.bn.bias"
        tensors[name] = tensors[name] + np.float32(0.5)
        other = dataclasses.replace(rgb, tensors=tensors)
        made = engine([other], ExportOptions())
        with pytest.raises(FormatError, match="onnxruntime differs from PyTorch by"):
            prove("x.onnx", made.run, "onnxruntime", [rgb], ExportOptions())

    def test_weights_that_float16_does_not_hold(self, rgb: Checkpoint) -> None:
        """A tensor that overflows is refused by its name."""
        key = "Logits.Conv3d_0c_1x1.conv.weight"
        tensors = dict(rgb.tensors) | {key: rgb.tensors[key] * np.float32(1e8)}
        large = dataclasses.replace(rgb, tensors=tensors)
        with pytest.raises(MetadataError, match=f"{key} reaches 3.*and float16 ends at"):
            build([large], ExportOptions(precision="fp16"))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_outputs_that_are_not_finite(self, rgb: Checkpoint, value: float) -> None:
        """They never pass, whatever is allowed and however right the other outputs are."""
        options = ExportOptions(features=True)
        made = engine([rgb], options)

        def broken(inputs: Mapping[str, Array]) -> dict[str, Array]:
            found = made.run(inputs)
            return found | {"fc_pred": np.full_like(found["fc_pred"], value)}

        with pytest.raises(FormatError, match="broken gives fc_pred that are not finite"):
            prove("x.onnx", broken, "broken", [rgb], options, atol=np.inf)

    def test_where_it_cannot_be_written(self, rgb: Checkpoint, tmp_path: Path) -> None:
        """An existing file and a missing folder are refused before any work."""
        path = tmp_path / "x.onnx"
        path.write_text("precious")
        with pytest.raises(OutputError, match="exists already; pass --force"):
            export([rgb], "onnx", path, ExportOptions())
        assert path.read_text() == "precious"
        with pytest.raises(OutputError, match="does not exist; create it first"):
            export([rgb], "onnx", tmp_path / "no" / "x.onnx", ExportOptions())


@pytest.fixture(scope="module")
def scene(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of a real clip and their optical flow, in TAO's folders."""
    root = tmp_path_factory.mktemp("scene")
    info = probe(test_data / "clips" / "arm_wrestling.mp4")
    frames = [
        np.asarray(Image.fromarray(frame).resize((96, 72))) for _, frame in stream(info, range(21))
    ]
    pairs = list(flows(map(to_grey, frames), "farneback"))
    for name in ("rgb", "u", "v"):
        (root / name).mkdir()
    for number, (frame, field) in enumerate(zip(frames, pairs, strict=False)):
        stored = quantise(field)
        for name, image in (("rgb", frame), ("u", stored[..., 0]), ("v", stored[..., 1])):
            Image.fromarray(image).save(root / name / f"{number:06d}.png")
    return root


@pytest.mark.real_data
class TestGenuineWeights:
    @pytest.mark.parametrize("name", CLIPS)
    def test_real_clips(self, genuine: Checkpoint, test_data: Path, name: str) -> None:
        """Small real clips give PyTorch's numbers and the same first classes, at any size."""
        checkpoint = small(genuine, crop=96, frames=16)
        options = ExportOptions(dynamic=AXES)
        proof = prove(
            "x.onnx",
            engine([checkpoint], options).run,
            "onnxruntime",
            [checkpoint],
            options,
            clip=test_data / "clips" / name,
        )
        for case in proof.cases:
            assert case.error <= FP32 * case.largest, str(case)
            assert case.same_top

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
        self,
        genuine: Checkpoint,
        scene: Path,
        streams: tuple[str, ...],
        classes: int,
        dynamic: tuple[str, ...],
    ) -> None:
        """RGB, flow and both, with Kinetics' head and one of 51 classes, at a fixed size and any.

        No index has genuine flow weights, so the flow stream is the genuine trunk with its first
        kernels averaged over colours.
        """
        found = small(genuine, crop=64)
        if classes == 51:
            found = change_head(found, 51)
        checkpoints = [found if name == "rgb" else change_stream(found, 2) for name in streams]
        checkpoints = [small(each) for each in checkpoints]
        options = ExportOptions(dynamic)
        run = engine(checkpoints, options).run
        proof = prove("x.onnx", run, "onnxruntime", checkpoints, options, clip=scene)
        for case in proof.cases:
            assert case.error <= FP32 * case.largest, str(case)
            assert case.same_top

    @pytest.mark.parametrize("mode", ["half_pixel", "asymmetric"])
    def test_large_pixels(self, genuine: Checkpoint, mode: str) -> None:
        """Large frames, smooth as those of videos, pass; those sampled elsewhere do not."""
        checkpoint = small(genuine, crop=112, frames=9)
        options = ExportOptions(pixels=(2160, 3840))
        model = build([checkpoint], options)
        (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
        (where,) = (a for a in resize.attribute if a.name == "coordinate_transformation_mode")
        where.s = mode.encode()
        run = OnnxEngine(model.SerializeToString()).run
        shown = [(1, options.size(checkpoint.metadata.input))]
        failing = pytest.raises(FormatError, match="differs from PyTorch")
        with nullcontext() if mode == "half_pixel" else failing:
            prove("x.onnx", run, "onnxruntime", [checkpoint], options, shown=shown)

    def test_full_size(self, genuine: Checkpoint, test_data: Path) -> None:
        """64 frames of 224x224: PyTorch's logits, and the known answer."""
        spec = genuine.metadata.input
        info = probe(test_data / "clips" / "arm_wrestling.mp4")
        (clip,) = sampling.clips(sampling.resample(info, spec.fps), spec.frames, 1)
        ((_, pixels),) = load_clips(info, [clip], spec)
        found = engine([genuine], ExportOptions()).run({"input_rgb": pixels[None].numpy()})
        with torch.inference_mode():
            expected = network(genuine)(pixels[None]).numpy()
        scale = np.abs(expected).max()
        assert np.abs(found["fc_pred"] - expected).max() <= FP32 * scale
        assert genuine.metadata.labels is not None
        assert genuine.metadata.labels[int(found["fc_pred"].argmax())] == "arm wrestling"

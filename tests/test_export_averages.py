"""What BatchNorm tells of the inputs of units, and what rounded weights do with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from i3dzoo.architecture import FEATURES, HEAD, UNITS
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.export.averages import average_inputs
from i3dzoo.export.network import fold
from i3dzoo.export.onnx import build
from i3dzoo.export.options import ExportOptions
from i3dzoo.export.prove import middle_clip
from i3dzoo.export.rounding import keep_bits
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.loading import build as network

from .exported import noisy, small


def test_averages_are_those_of_normal_channels() -> None:
    """Means after a ReLU, and after the pools' largest of 2 or 4, are those of drawn values."""
    tensors = noisy("flow", 7).tensors
    found = average_inputs(tensors)
    assert {name: len(mean) for name, mean in found.items()} == {
        unit.name: 2 if unit is UNITS[0] else unit.in_channels for unit in UNITS
    } | {HEAD: FEATURES}
    generator = np.random.default_rng(0)

    def drawn(unit: str, seen: int) -> Array:
        mean, spread = (tensors[f"{unit}.bn.{part}"] for part in ("bias", "weight"))
        values = generator.normal(mean, np.abs(spread), (50_000, seen, len(mean)))
        return np.maximum(values.max(1), 0).mean(0)

    before = "Conv3d_2b_1x1"
    np.testing.assert_allclose(found["Conv3d_2c_3x3"], drawn(before, 1), atol=0.03)
    np.testing.assert_allclose(found[before], drawn("Conv3d_1a_7x7", 2), atol=0.03)
    part = found["Mixed_3c.Branch_3.Conv3d_0b_1x1"][:64]
    np.testing.assert_allclose(part, drawn("Mixed_3b.Branch_0.Conv3d_0a_1x1", 4), atol=0.03)


@pytest.mark.parametrize("bits", [7, 10])
def test_kept_bits(bits: int) -> None:
    """Values are rounded to the nearest, and what is kept already stays."""
    generator = np.random.default_rng(0)
    exact = generator.normal(size=(64, 9)).astype("f4") * np.float32(10) ** generator.integers(
        -3, 3, (64, 9)
    ).astype("f4")
    found = keep_bits(exact, bits)
    kept = torch.from_numpy(exact).to(torch.bfloat16 if bits == 7 else torch.float16).float()
    if bits == 7:
        np.testing.assert_array_equal(found, kept.numpy())
    np.testing.assert_allclose(found, exact, rtol=2.0 ** -(bits + 1))
    np.testing.assert_array_equal(keep_bits(found, bits), found)
    assert (found != exact).mean() > 0.9


def test_biases_take_back_the_mean() -> None:
    """What rounding takes from a unit whose input is constant, its bias gives back."""
    rgb = noisy("rgb", 7)
    graph = build([rgb], ExportOptions(bits=7)).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    means = average_inputs(rgb.tensors)
    for unit in UNITS:
        weight, bias = fold(rgb.tensors, unit.name)
        rounded = constants[f"{unit.name}.conv.weight"]
        np.testing.assert_array_equal(rounded, keep_bits(weight, 7))
        given = np.broadcast_to(means[unit.name][:, None, None, None], weight.shape[1:])
        exact = np.tensordot(weight.astype("f8"), given, 4) + bias
        found = np.tensordot(rounded.astype("f8"), given, 4) + constants[f"{unit.name}.conv.bias"]
        np.testing.assert_allclose(found, exact, atol=1e-5)


@pytest.mark.real_data
def test_real_clips_gain(genuine: Checkpoint, test_data: Path) -> None:
    """On real video, the biases take back a good part of what rounding to bfloat16 does."""
    checkpoint = small(genuine, crop=112, frames=32)
    kept = OnnxEngine(build([checkpoint], ExportOptions(bits=7)).SerializeToString())
    model = network(checkpoint)
    rounded = _rounded_plainly(checkpoint)
    errors = []
    for name in ("arm_wrestling.mp4", "v_CricketShot_g04_c01_rgb.gif", "R6llTwEh07w.mp4"):
        clip = middle_clip(test_data / "clips" / name, checkpoint.metadata.input)[None]
        with torch.inference_mode():
            exact = model(clip).numpy()
        plain = rounded.run({"input_rgb": clip.numpy()})["fc_pred"]
        found = kept.run({"input_rgb": clip.numpy()})["fc_pred"]
        errors.append([float(np.linalg.norm(each - exact)) for each in (plain, found)])
    plainly, gained = np.mean(errors, axis=0)
    assert gained < 0.75 * plainly


def _rounded_plainly(checkpoint: Checkpoint) -> OnnxEngine:
    """Export with rounded weights, and biases that know nothing of it."""
    model = build([checkpoint], ExportOptions())
    for tensor in model.graph.initializer:
        if tensor.name.endswith("conv.weight"):
            values = keep_bits(numpy_helper.to_array(tensor), 7)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return OnnxEngine(model.SerializeToString())

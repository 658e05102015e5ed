"""Bias correction: means estimated from BatchNorm, and biases of rounded weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.exported import noisy, pytorch_logits, small
from onnx import numpy_helper

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.network.architecture import FEATURES, HEAD, UNITS
from i3dzoo.network.bias_correction import expected_inputs, round_mantissa
from i3dzoo.onnx.folding import fold_batch_norm
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.video import centre_clip

TF32 = ExportOptions(precision="tf32")


def test_expected_inputs_match_sampled_values() -> None:
    """The means behind a ReLU and a max pool of 2 or 4 values equal those of drawn values."""
    tensors = noisy("flow", 7).tensors
    means = expected_inputs(tensors)
    assert {name: len(mean) for name, mean in means.items()} == {
        unit.name: 2 if unit is UNITS[0] else unit.in_channels for unit in UNITS
    } | {HEAD: FEATURES}
    generator = np.random.default_rng(0)

    def sampled(unit: str, window: int) -> Array:
        mean, deviation = (tensors[f"{unit}.bn.{part}"] for part in ("bias", "weight"))
        values = generator.normal(mean, np.abs(deviation), (50_000, window, len(mean)))
        return np.maximum(values.max(1), 0).mean(0)

    np.testing.assert_allclose(means["Conv3d_2c_3x3"], sampled("Conv3d_2b_1x1", 1), atol=0.03)
    np.testing.assert_allclose(means["Conv3d_2b_1x1"], sampled("Conv3d_1a_7x7", 2), atol=0.03)
    first_branch = means["Mixed_3c.Branch_3.Conv3d_0b_1x1"][:64]
    expected = sampled("Mixed_3b.Branch_0.Conv3d_0a_1x1", 4)
    np.testing.assert_allclose(first_branch, expected, atol=0.03)


@pytest.mark.parametrize("bits", [7, 10])
def test_round_mantissa(bits: int) -> None:
    """Values are rounded to the nearest; values that have few bits already stay the same."""
    generator = np.random.default_rng(0)
    scale = np.float32(10) ** generator.integers(-3, 3, (64, 9)).astype("f4")
    exact = generator.normal(size=(64, 9)).astype("f4") * scale
    rounded = round_mantissa(exact, bits)
    if bits == 7:
        bfloat16 = torch.from_numpy(exact).to(torch.bfloat16).float()
        np.testing.assert_array_equal(rounded, bfloat16.numpy())
    np.testing.assert_allclose(rounded, exact, rtol=2.0 ** -(bits + 1))
    np.testing.assert_array_equal(round_mantissa(rounded, bits), rounded)
    assert (rounded != exact).mean() > 0.9


def test_biases_correct_the_mean() -> None:
    """For an input of the expected mean, a unit with rounded weights has the exact output."""
    rgb = noisy("rgb", 7)
    graph = build_model([rgb], TF32).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    means = expected_inputs(rgb.tensors)
    for unit in UNITS:
        weight, bias = fold_batch_norm(rgb.tensors, unit.name)
        rounded = constants[f"{unit.name}.conv.weight"]
        np.testing.assert_array_equal(rounded, round_mantissa(weight, 10))
        x = np.broadcast_to(means[unit.name][:, None, None, None], weight.shape[1:])
        exact = np.tensordot(weight.astype("f8"), x, 4) + bias
        output = np.tensordot(rounded.astype("f8"), x, 4) + constants[f"{unit.name}.conv.bias"]
        np.testing.assert_allclose(output, exact, atol=1e-5)


@pytest.mark.real_data
def test_real_clips_gain(genuine: Checkpoint, test_data: Path) -> None:
    """On real video, bias correction removes a good part of the error of rounded weights."""
    checkpoint = small(genuine, crop=112, frames=32)
    corrected = OnnxEngine(build_model([checkpoint], TF32).SerializeToString())
    uncorrected = _rounded_without_correction(checkpoint)
    errors = []
    for name in ("arm_wrestling.mp4", "v_CricketShot_g04_c01_rgb.gif", "R6llTwEh07w.mp4"):
        clip = centre_clip(test_data / "clips" / name, checkpoint.metadata.input)[None]
        exact = pytorch_logits(checkpoint, clip)
        outputs = [engine.run({"input_rgb": clip.numpy()}) for engine in (uncorrected, corrected)]
        errors.append([float(np.linalg.norm(output["fc_pred"] - exact)) for output in outputs])
    before, after = np.mean(errors, axis=0)
    assert after < 0.75 * before


def _rounded_without_correction(checkpoint: Checkpoint) -> OnnxEngine:
    """Export with rounded weights and the original biases."""
    model = build_model([checkpoint], ExportOptions())
    for tensor in model.graph.initializer:
        if tensor.name.endswith("conv.weight"):
            values = round_mantissa(numpy_helper.to_array(tensor), 10)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return OnnxEngine(model.SerializeToString())

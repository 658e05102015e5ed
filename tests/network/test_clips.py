"""What the network does with clips of other types, and with wrong ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exported import pytorch_logits

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.streams import change_dtype
from i3dzoo.errors import InputTypeError, ShapeError
from i3dzoo.network.i3d import I3D

CLIP = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def model() -> I3D:
    """A network with seeded random weights."""
    torch.manual_seed(0)
    return I3D(num_classes=5).eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.inference_mode()
def test_clips_take_the_type_of_the_weights(model: I3D, dtype: torch.dtype) -> None:
    """A clip and weights of any two float types work, in every method."""
    expected = model(CLIP)
    assert model(CLIP.to(dtype)).dtype == torch.float32
    torch.testing.assert_close(model(CLIP.to(dtype)), expected, atol=1e-2, rtol=1e-2)
    other = I3D(num_classes=5).eval()
    other.load_state_dict(model.state_dict())
    other.to(dtype)
    assert other(CLIP).dtype == dtype
    torch.testing.assert_close(other(CLIP).float(), expected, atol=2e-2, rtol=2e-2)
    assert other.features(CLIP).dtype == other.endpoints(CLIP, ["Mixed_3b"])["Mixed_3b"].dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_lines_of_the_readme_with_half_precision(
    rgb: Checkpoint, tmp_path: Path, dtype: Any
) -> None:
    """A file in half precision is loaded in it, and takes what its preprocessing returns."""
    path = write_checkpoint(tmp_path / "half.safetensors", change_dtype(rgb, dtype))
    model = i3dzoo.load(path)
    frames = torch.randint(0, 256, (16, 40, 48, 3), dtype=torch.uint8)
    clip = model.preprocess(frames)
    logits = model(clip[None])
    assert str(logits.dtype) == f"torch.{dtype}"
    expected = pytorch_logits(rgb, clip[None])
    np.testing.assert_allclose(logits.detach().float().numpy(), expected, atol=0.02)


def test_autocast(model: I3D) -> None:
    """Under autocast, PyTorch chooses the type."""
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert model(CLIP).dtype == torch.bfloat16
        assert model(CLIP.double()).dtype == torch.bfloat16


@pytest.mark.slow
def test_compiled_and_meta(model: I3D) -> None:
    """Values are not looked at where there are none."""
    with torch.device("meta"):
        assert I3D(2).eval()(torch.empty(1, 3, 9, 32, 32)).shape == (1, 2)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(CLIP), model(CLIP))
    program = torch.export.export(model, (CLIP,))
    torch.testing.assert_close(program.module()(CLIP), model(CLIP))


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        (CLIP.numpy(), InputTypeError, r"is a numpy\.ndarray; expected a torch\.Tensor"),
        (torch.zeros(1, 3, 9, 32, 32, dtype=torch.uint8), InputTypeError, "uint8.*preprocess"),
        (torch.zeros(1, 3, 9, 32, 32, dtype=torch.complex64), InputTypeError, "complex64"),
        (CLIP[0], ShapeError, r"\(3, 9, 32, 32\).*clip\[None\]"),
        (torch.zeros(9, 32, 32, 3), ShapeError, r"model\.preprocess"),
        (CLIP.permute(0, 2, 3, 4, 1), ShapeError, r"permute\(0, 4, 1, 2, 3\)"),
        (CLIP.transpose(1, 2), ShapeError, r"\[B, T, C, H, W\].*transpose\(1, 2\)"),
        (CLIP[:, :2], ShapeError, "takes RGB, and this is optical flow"),
        (torch.zeros(1), ShapeError, r"expected \[B, 3, T, H, W\]$"),
        ((CLIP + 1) * 127.5, ShapeError, "values from .* to 25.*normalised"),
    ],
)
def test_wrong_clips(model: I3D, clip: Any, error: type[Exception], message: str) -> None:
    """A wrong clip is an error that says what to pass."""
    for method in (model, model.features, model.step_logits, model.endpoints):
        with pytest.raises(error, match=message):
            method(clip)


def test_errors_are_builtins(model: I3D) -> None:
    """They can be caught as TypeError and ValueError."""
    with pytest.raises(TypeError):
        model(np.zeros(3))
    with pytest.raises(ValueError, match="frames"):
        model(CLIP[:, :, :8])

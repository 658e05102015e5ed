"""The network: SAME padding at any size, endpoints, heads and errors."""

import copy

import pytest
import torch
import torch.nn.functional as F

from i3dzoo.errors import ShapeError, UnknownNameError
from i3dzoo.network.architecture import ENDPOINTS, canonical_shapes, same_padding
from i3dzoo.network.i3d import I3D, max_pool


@pytest.fixture(scope="module")
def model() -> I3D:
    """A network with seeded random weights."""
    torch.manual_seed(0)
    return I3D(num_classes=5).eval()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (225, 7, 2, (3, 3)),
        (8, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (9, 1, 1, (0, 0)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    """The padding is what TensorFlow's documentation computes, an odd element at the end."""
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [(5, 7, 8), (4, 9, 9), (3, 6, 11)])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))]
)
def test_max_pool_equals_padding_first(
    size: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    """Pooling without a padded copy equals zero padding and VALID pooling after a ReLU."""
    x = torch.rand(2, 3, *size)
    pads = [same_padding(n, k, s) for n, k, s in zip(size, kernel, stride, strict=True)]
    padded = F.pad(x, [side for pair in reversed(pads) for side in pair])
    assert torch.equal(max_pool(x, kernel, stride), F.max_pool3d(padded, kernel, stride))


def test_state_dict_is_canonical(model: I3D) -> None:
    """The parameters and buffers have the canonical names and shapes."""
    state = {k: tuple(v.shape) for k, v in model.state_dict().items() if "num_batches" not in k}
    assert state == canonical_shapes(5)


@pytest.mark.parametrize("size", [(9, 64, 50), (17, 105, 111), (12, 230, 258)])
def test_any_size(model: I3D, size: tuple[int, int, int]) -> None:
    """Any T >= 9 and any H, W give logits, step logits and features of the documented shapes."""
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        logits, steps, features = model(x), model.step_logits(x), model.features(x)
    assert logits.shape == (1, 5)
    assert steps.shape == (1, -(-size[0] // 8) - 1, 5)
    assert features.shape == (1, 1024)
    torch.testing.assert_close(logits, steps.mean(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model: I3D, dtype: torch.dtype) -> None:
    """Logits and features have the dtype of the network, and are close to float32."""
    half = copy.deepcopy(model).to(dtype)
    x = torch.randn(1, 3, 9, 64, 50)
    with torch.inference_mode():
        for output, exact in (
            (half(x.to(dtype)), model(x)),
            (half.features(x.to(dtype)), model.features(x)),
        ):
            assert output.dtype == dtype
            torch.testing.assert_close(output.float(), exact, atol=0.02, rtol=0.05)


def test_double_precision(model: I3D) -> None:
    """A network in double precision rounds nothing to single precision."""
    double = copy.deepcopy(model).double()
    x = torch.randn(1, 1024, 3, 7, 7, dtype=torch.float64)
    expected = torch.stack([x[:, :, i : i + 2].mean((2, 3, 4)) for i in (0, 1)], 2)
    torch.testing.assert_close(double._pool(x)[..., 0, 0], expected, rtol=1e-14, atol=1e-14)


def test_endpoints(model: I3D) -> None:
    """One endpoint alone equals the same endpoint among all."""
    x = torch.randn(1, 3, 9, 64, 64)
    with torch.inference_mode():
        every = model.endpoints(x)
        one = model.endpoints(x, ["Mixed_4c"])
    assert list(every) == list(ENDPOINTS)
    assert list(one) == ["Mixed_4c"]
    assert torch.equal(one["Mixed_4c"], every["Mixed_4c"])
    assert every["Conv3d_1a_7x7"].shape == (1, 64, 5, 32, 32)
    assert every["Mixed_5c"].shape == (1, 1024, 2, 2, 2)


def test_flow_and_no_head() -> None:
    """Two channels make a flow network; no classes make a feature extractor."""
    model = I3D(num_classes=0, in_channels=2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 2, 9, 32, 32)).shape == (1, 1024)


def test_errors(model: I3D) -> None:
    """Wrong channels, short clips and unknown endpoints are errors."""
    with pytest.raises(ShapeError, match=r"expected \[B, 3, T, H, W\]"):
        model(torch.zeros(1, 2, 16, 224, 224))
    with pytest.raises(ShapeError, match="8 frames; I3D takes 9 or more"):
        model(torch.zeros(1, 3, 8, 224, 224))
    with pytest.raises(UnknownNameError, match="no endpoint is called 'Mixed_9z'"):
        model.endpoints(torch.zeros(1, 3, 9, 32, 32), ["Mixed_9z"])


def test_training_mode_uses_dropout_and_batch_statistics() -> None:
    """In training, gradients reach the first convolution."""
    model = I3D(num_classes=3, dropout=0.5).train()
    model(torch.randn(2, 3, 9, 32, 32)).sum().backward()
    gradient = model.get_parameter("Conv3d_1a_7x7.conv.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0

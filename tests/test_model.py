"""The network: SAME padding at any size, endpoints, heads, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F

from i3dzoo.architecture import ENDPOINTS, canonical_shapes, same_padding
from i3dzoo.errors import MetadataError, ShapeError, UnknownNameError
from i3dzoo.model import InceptionI3d, max_pool_same


@pytest.fixture(scope="module")
def model() -> InceptionI3d:
    """A network with seeded random weights."""
    torch.manual_seed(0)
    return InceptionI3d(num_classes=5).eval()


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
    """The padding is what TensorFlow's documentation computes, the odd one at the end."""
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize("size", [(5, 7, 8), (4, 9, 9), (3, 6, 11)])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))]
)
def test_max_pool_equals_padding_first(
    size: tuple[int, int, int], kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    """Pooling without a padded copy gives what zero padding and VALID pooling give after a ReLU."""
    x = torch.rand(2, 3, *size)
    pads = [same_padding(n, k, s) for n, k, s in zip(size, kernel, stride, strict=True)]
    padded = F.pad(x, [side for pair in reversed(pads) for side in pair])
    assert torch.equal(max_pool_same(x, kernel, stride), F.max_pool3d(padded, kernel, stride))


def test_state_dict_is_canonical(model: InceptionI3d) -> None:
    """The parameters and buffers are the canonical tensors, in name and shape."""
    state = {k: tuple(v.shape) for k, v in model.state_dict().items() if "num_batches" not in k}
    assert state == canonical_shapes(5)


@pytest.mark.parametrize("size", [(9, 224, 224), (9, 64, 50), (17, 210, 218), (12, 260, 300)])
def test_any_size(model: InceptionI3d, size: tuple[int, int, int]) -> None:
    """Any T >= 9 and any H, W give logits, step logits and features of the documented shapes."""
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        logits, steps, features = model(x), model.step_logits(x), model.features(x)
    assert logits.shape == (1, 5)
    assert steps.shape == (1, -(-size[0] // 8) - 1, 5)
    assert features.shape == (1, 1024)
    torch.testing.assert_close(logits, steps.mean(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model: InceptionI3d, dtype: torch.dtype) -> None:
    """Logits and features come out in the network's own dtype, near those of float32."""
    half = copy.deepcopy(model).to(dtype)
    x = torch.randn(1, 3, 9, 64, 50)
    with torch.inference_mode():
        for found, exact in (
            (half(x.to(dtype)), model(x)),
            (half.features(x.to(dtype)), model.features(x)),
        ):
            assert found.dtype == dtype
            torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.05)


def test_double_precision(model: InceptionI3d) -> None:
    """Nothing of a network in double precision is rounded to single."""
    double = copy.deepcopy(model).double()
    x = torch.randn(1, 1024, 3, 7, 7, dtype=torch.float64)
    expected = torch.stack([x[:, :, i : i + 2].mean((2, 3, 4)) for i in (0, 1)], 2)
    torch.testing.assert_close(double._pool(x)[..., 0, 0], expected, rtol=1e-14, atol=1e-14)


def test_endpoints(model: InceptionI3d) -> None:
    """Every endpoint comes out, and asking for one computes the same as asking for all."""
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
    model = InceptionI3d(num_classes=0, in_channels=2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 2, 9, 32, 32)).shape == (1, 1024)


def test_refusals(model: InceptionI3d) -> None:
    """Wrong axes, wrong channels, short clips and unknown endpoints are refused in a sentence."""
    with pytest.raises(ShapeError, match=r"expected \[B, 3, T, H, W\]"):
        model(torch.zeros(1, 2, 16, 224, 224))
    with pytest.raises(ShapeError, match="has 8 frames; I3D takes 9 or more"):
        model(torch.zeros(1, 3, 8, 224, 224))
    with pytest.raises(UnknownNameError, match="no endpoint is called 'Mixed_9z'"):
        model.endpoints(torch.zeros(1, 3, 9, 32, 32), ["Mixed_9z"])
    with pytest.raises(MetadataError, match="the model has no metadata"):
        _ = model.preprocess


def test_training_mode_uses_dropout_and_batch_statistics() -> None:
    """In training the network differentiates down to the stem."""
    model = InceptionI3d(num_classes=3, dropout=0.5).train()
    model(torch.randn(2, 3, 9, 32, 32)).sum().backward()
    gradient = model.get_parameter("Conv3d_1a_7x7.conv.weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0

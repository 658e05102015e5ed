"""Parameters, FLOP, shapes and memory, compared with PyTorch's own counters."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from i3dzoo.errors import ShapeError
from i3dzoo.network.architecture import Variant
from i3dzoo.network.cost import cost
from i3dzoo.network.i3d import I3D

VARIANTS = (
    Variant(),
    Variant(padding="symmetric", pooling="global"),
    Variant(padding="ceil"),
)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and remembers the most."""

    def __init__(self, clip: torch.Tensor) -> None:
        super().__init__()
        self.now = self.most = clip.untyped_storage().nbytes()
        self._known = {clip.untyped_storage()._cdata}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize(
    ("size", "classes", "channels"),
    [((64, 224, 224), 400, 3), ((17, 112, 160), 51, 2), ((16, 40, 32), 0, 3)],
)
def test_equals_pytorch(
    variant: Variant, size: tuple[int, int, int], classes: int, channels: int
) -> None:
    """PyTorch counts the same parameters, FLOP and shapes, on a network without values."""
    expected = cost(size, classes, channels, variant)
    with torch.device("meta"):
        network = I3D(classes, channels, variant=variant).eval()
        clip = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        output = network.step_logits(clip) if classes else network(clip)
    assert counter.get_total_flops() == expected.flop
    assert sum(tensor.numel() for tensor in network.parameters()) == expected.parameters
    assert tuple(output.shape[1:]) == expected.endpoints["logits" if classes else "pooled"]
    with torch.inference_mode():
        endpoints = network.endpoints(clip)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in endpoints.items()}
    assert shapes == dict(list(expected.endpoints.items())[: len(shapes)])
    tensors = [value for name, value in network.state_dict().items() if "num_batches" not in name]
    assert sum(4 * tensor.numel() for tensor in tensors) == expected.weight_bytes


@pytest.mark.parametrize("size", [(64, 224, 224), (16, 40, 64)])
def test_memory(size: tuple[int, int, int]) -> None:
    """The tensors that PyTorch keeps at once in a forward pass take as much."""
    with torch.device("meta"):
        network, clip = I3D().eval(), torch.empty(1, 3, *size)
    with torch.no_grad(), LiveBytes(clip) as live:
        network(clip)
    assert live.most == pytest.approx(cost(size).activation_bytes, rel=0.02)


def test_published_numbers() -> None:
    """A clip of 64x224x224 takes 222.3 GFLOP, at two a multiply-add, and 12.3 M weights."""
    whole = cost((64, 224, 224))
    assert f"{whole.flop / 1e9:.1f}" == "222.3"
    assert f"{(whole.parameters - whole.head_parameters) / 1e6:.1f}" == "12.3"


@pytest.mark.parametrize("size", [(8, 224, 224), (64, 0, 224), (64, 224, 5000), (9999, 224, 224)])
def test_impossible_clips(size: tuple[int, int, int]) -> None:
    """Clips that the network does not take are refused with the limits."""
    with pytest.raises(ShapeError, match=r"expected .* to "):
        cost(size)

"""A network that names its modules as piergiaj's port does, which NVIDIA TAO's I3D is.

It can also have the BatchNorm epsilon, the padding and the pooling of other ports.

Written for these tests from the description of the port, without i3dzoo's own tables, so that a
wrong table cannot agree with itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def _same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads)


def _pool(
    x: Tensor,
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    padding: str = "same",
) -> Tensor:
    if padding == "ceil":
        return F.max_pool3d(x, kernel, stride, ceil_mode=True)
    if padding == "symmetric":
        return F.max_pool3d(x, kernel, stride, [(k - 1) // 2 for k in kernel])
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


class _Unit(nn.Module):
    symmetric = False

    def __init__(self, cin: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(cin, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        if self.symmetric:
            sides = [self.kernel[0] // 2] * 3
            return F.relu(self.bn(F.conv3d(x, self.conv3d.weight, None, self.stride, sides)))
        return F.relu(self.bn(self.conv3d(_same(x, self.kernel, self.stride))))


class _Block(nn.Module):
    def __init__(self, cin: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3: int) -> None:
        super().__init__()
        self.b0 = _Unit(cin, b0)
        self.b1a, self.b1b = _Unit(cin, b1a), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(cin, b2a), _Unit(b2a, b2b, 3)
        self.b3b = _Unit(cin, b3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))  # both kinds of padding are the same here
        parts = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled))
        return torch.cat(parts, 1)


class _Logits(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, classes, 1)


class Peer(nn.Module):
    """I3D under piergiaj's names."""

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        eps: float = 0.001,
        padding: str = "same",
        global_pool: bool = False,
    ) -> None:
        super().__init__()
        self.padding, self.global_pool = padding, global_pool
        self.Conv3d_1a_7x7 = _Unit(channels, 64, 7, 2)
        self.Conv3d_2b_1x1 = _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name, sizes in _BLOCKS.items():
            self.add_module(f"Mixed_{name}", _Block(*sizes))
        self.logits = _Logits(classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = eps
            elif isinstance(module, _Unit):
                module.symmetric = padding != "same"

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T, H, W] to logits [B, classes], averaged over time."""
        plane = (1, 3, 3), (1, 2, 2)
        x = _pool(self.Conv3d_1a_7x7(x), *plane, self.padding)
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), *plane, self.padding)
        for name in _BLOCKS:
            if name == "4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2), self.padding)
            if name == "5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2), self.padding)
            x = self.get_submodule(f"Mixed_{name}")(x)
        if self.global_pool:
            x = F.adaptive_avg_pool3d(x, 1)
        else:
            x = F.avg_pool3d(x, (2, *x.shape[3:]), 1)
        logits: Tensor = self.logits.conv3d(x).mean((2, 3, 4))
        return logits

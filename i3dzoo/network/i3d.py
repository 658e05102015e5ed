"""The I3D network: Inception-v1 inflated to 3D, in each `Variant`; the default is DeepMind's.

Source: Carreira and Zisserman, arXiv:1705.07750; DeepMind's kinetics-i3d, i3d.py. Names, shapes
and order are those of `i3dzoo.network.architecture`.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo import kernels
from i3dzoo.errors import UnknownNameError
from i3dzoo.network.architecture import (
    BLOCKS,
    DEEPMIND,
    ENDPOINTS,
    FEATURES,
    HEAD,
    POOLS,
    STEM,
    Padding,
    Unit,
    Variant,
    block_units,
    output_size,
    pad_axis,
)
from i3dzoo.network.clips import as_input

_Pool = tuple[Sequence[int], Sequence[int]]  # kernel and stride
_BLOCK_POOL: Final[_Pool] = ((3, 3, 3), (1, 1, 1))


def check_endpoints(names: Collection[str]) -> None:
    """Check that there are such endpoints."""
    if unknown := set(names) - set(ENDPOINTS):
        raise UnknownNameError(
            f"no endpoint is called {min(unknown)!r}; there are {', '.join(ENDPOINTS)}"
        )


def max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Padding = "same"
) -> Tensor:
    """Max-pool [B, C, T, H, W] with padding, without a padded copy of the input."""
    size, before = _pool_sizes(x, kernel, stride, padding)
    if kernels.can_max_pool(x):
        return kernels.max_pool(x, kernel, stride, before, size)
    # PyTorch pads both ends by what is before; `ceil_mode` adds the rest at the end, where windows
    # ignore what lies outside of the input.
    return F.max_pool3d(x, list(kernel), list(stride), before, ceil_mode=padding != "symmetric")


def _pool_sizes(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Padding
) -> tuple[list[int], list[int]]:
    """Return the size of a pool's result and the padding before, along T, H and W."""
    axes = list(zip(x.shape[2:], kernel, stride, strict=True))
    before = [pad_axis(padding, *axis, pool=True)[0] for axis in axes]
    return [output_size(padding, *axis, pool=True) for axis in axes], before


class ConvUnit(nn.Module):
    """A convolution without bias, its BatchNorm and a ReLU."""

    def __init__(
        self, unit: Unit, in_channels: int, variant: Variant = DEEPMIND, stride: int = 1
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = variant.padding
        # at stride 1, padding does not depend on the size, so the convolution can do it
        padding = unit.kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv3d(
            in_channels, unit.out_channels, unit.kernel, stride, padding, bias=False
        )
        self.bn = nn.BatchNorm3d(unit.out_channels, eps=variant.epsilon, momentum=0.1)

    def forward(self, x: Tensor, pool: _Pool | None = None) -> Tensor:
        """Map [B, in, T, H, W] to [B, out, T', H', W'] with T' = ceil(T / stride) and so on.

        With the kernel and stride of a max pool, the result is pooled.
        """
        x = self._convolve(x)
        if not kernels.can_batch_norm(x, self.bn):
            x = F.relu(self.bn(x), inplace=True)
            return x if pool is None else max_pool(x, *pool, self.padding)
        if pool is None:
            return kernels.batch_norm_relu(x, self.bn)
        size, before = _pool_sizes(x, *pool, self.padding)
        return kernels.batch_norm_relu(x, self.bn, (*size, *before, *pool[0], *pool[1]))

    def _convolve(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            convolved: Tensor = self.conv(x)
            return convolved
        edge = self.conv.kernel_size[0]
        pads = [pad_axis(self.padding, n, edge, self.stride, pool=False) for n in x.shape[2:]]
        if kernels.can_window_conv(x, self.stride, edge):
            sizes = [output_size(self.padding, n, edge, 2, pool=False) for n in x.shape[2:]]
            return kernels.window_conv(x, self.conv.weight, [before for before, _ in pads], sizes)
        padded: Tensor = self.conv(F.pad(x, [side for pair in reversed(pads) for side in pair]))
        return padded


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a unit that nobody watches or has changed, so that others may run it."""
    return type(module) is ConvUnit and not any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks
        for part in module.modules()
    )


class Mixed(nn.Module):
    """An Inception block: four branches, concatenated along the channels."""

    def __init__(self, block: str, variant: Variant) -> None:
        super().__init__()
        self.padding = variant.padding
        branches: list[OrderedDict[str, nn.Module]] = [OrderedDict() for _ in range(4)]
        for unit in block_units(block):
            _, branch, name = unit.name.split(".")
            branches[int(branch[-1])][name] = ConvUnit(unit, unit.in_channels, variant)
        self.Branch_0, self.Branch_1, self.Branch_2, self.Branch_3 = map(nn.Sequential, branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, T, H, W] to [B, out, T, H, W]."""
        branches = (self.Branch_0, self.Branch_1, self.Branch_2, self.Branch_3)
        units = [cast(ConvUnit, unit) for branch in branches for unit in branch]
        if kernels.can_run_block(x, units) and all(map(_is_plain, units)):
            size, before = _pool_sizes(x, *_BLOCK_POOL, self.padding)
            window = (*size, *before, *_BLOCK_POOL[0], *_BLOCK_POOL[1])
            return kernels.inception_block(x, units, window)
        pooled = max_pool(x, *_BLOCK_POOL, self.padding)
        return torch.cat(
            [self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(pooled)], dim=1
        )


class I3D(nn.Module):
    """I3D.

    Args:
        num_classes: Number of classes; 0 builds no head, and `forward` returns features.
        in_channels: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before the head, in training.
        variant: BatchNorm epsilon, padding and pooling.
    """

    def __init__(
        self,
        num_classes: int = 400,
        in_channels: int = 3,
        dropout: float = 0.5,
        variant: Variant = DEEPMIND,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.num_classes = num_classes
        self.in_channels = in_channels
        first, *others = STEM
        self.add_module(first.name, ConvUnit(first, in_channels, variant, stride=2))
        for unit in others:
            self.add_module(unit.name, ConvUnit(unit, unit.in_channels, variant))
        for block in BLOCKS:
            self.add_module(block, Mixed(block, variant))
        self.dropout = nn.Dropout(dropout)
        if num_classes:
            logits, conv = HEAD.split(".")
            head = nn.ModuleDict({"conv": nn.Conv3d(FEATURES, num_classes, 1)})
            self.add_module(logits, nn.ModuleDict({conv: head}))

    def forward(self, x: Tensor) -> Tensor:
        """Classify clips.

        Args:
            x: Float [B, C, T, H, W], T >= 9, values as the checkpoint's metadata says, such as
                `InceptionI3d.preprocess` returns them. It is moved to the network's device and cast
                to its dtype.

        Returns:
            Logits [B, num_classes], averaged over time; features [B, 1024] without a head.

        Raises:
            InputTypeError: The input is not a tensor of floats.
            ShapeError: The input has the wrong axes or channels, is too short, or has values that
                no normalised pixels have.
        """
        return self.step_logits(x).mean(1) if self.num_classes else self.features(x)

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits before they are averaged: [B, steps, num_classes].

        Steps are 8 frames of input apart; 64 frames give 7 steps, and 8 with global pooling.
        """
        pooled = self.dropout(self._pool(self.endpoints(x, ["Mixed_5c"])["Mixed_5c"]))
        logits: Tensor = self.get_submodule(f"{HEAD}.conv")(pooled)
        return logits.flatten(2).transpose(1, 2)

    def step_features(self, x: Tensor) -> Tensor:
        """Return the pooled features before they are averaged over time: [B, steps, 1024]."""
        pooled = self._pool(self.endpoints(x, ["Mixed_5c"])["Mixed_5c"])
        return pooled.flatten(2).transpose(1, 2)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features before the head, averaged over time: [B, 1024]."""
        return self._pool(self.endpoints(x, ["Mixed_5c"])["Mixed_5c"]).mean((2, 3, 4))

    def endpoints(self, x: Tensor, names: Iterable[str] = ENDPOINTS) -> dict[str, Tensor]:
        """Return activations, each [B, C', T', H', W'], and compute no further than needed.

        Args:
            x: Float [B, C, T, H, W], as for `forward`.
            names: Names in `i3dzoo.network.architecture.ENDPOINTS`.

        Raises:
            UnknownNameError: There is no such endpoint.
        """
        wanted = set(names)
        check_endpoints(wanted)
        weight = next(self.parameters())
        x = as_input(x, self.in_channels, self.variant.min_frames, weight, self.training)
        outputs: dict[str, Tensor] = {}
        is_pooled = False
        for name, following in zip(ENDPOINTS, (*ENDPOINTS[1:], ""), strict=True):
            if len(outputs) == len(wanted):
                break
            module = None if name in POOLS else self.get_submodule(name)
            if is_pooled:
                is_pooled = False
            elif module is None:
                x = max_pool(x, *POOLS[name], self.variant.padding)
            elif following in POOLS and name not in wanted and _is_plain(module):
                x, is_pooled = module(x, POOLS[following]), True  # writes only what the pool leaves
            else:
                x = module(x)
            if name in wanted:
                outputs[name] = x
        return outputs

    def _pool(self, x: Tensor) -> Tensor:
        """Average over 2 steps and 7x7 positions, or fewer; average what larger frames leave."""
        if self.variant.pooling == "global":
            return x.mean((3, 4), keepdim=True)
        height, width = x.shape[3:]
        # PyTorch has no average pooling in half precision on CPUs
        half_on_cpu = x.dtype in (torch.float16, torch.bfloat16) and not x.is_cuda
        full = x.float() if half_on_cpu else x
        pooled = F.avg_pool3d(full, (2, min(7, height), min(7, width)), 1).to(x.dtype)
        return pooled.mean((3, 4), keepdim=True)

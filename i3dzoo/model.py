"""The I3D network: Inception-v1 inflated to 3D, with TensorFlow's SAME padding exactly.

Source: Carreira and Zisserman, arXiv:1705.07750; DeepMind's kinetics-i3d, i3d.py. Names, shapes
and order are those of `i3dzoo.architecture`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo import kernels
from i3dzoo.architecture import (
    BLOCKS,
    BN_EPSILON,
    ENDPOINTS,
    FEATURES,
    HEAD,
    MIN_FRAMES,
    POOLS,
    STEM,
    Unit,
    block_units,
    same_padding,
)
from i3dzoo.errors import MetadataError, ShapeError, UnknownNameError

if TYPE_CHECKING:
    from i3dzoo.metadata import Metadata

__all__ = ["InceptionI3d"]

_UNITS: Final = {unit.name: unit for unit in STEM}


def max_pool_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Max-pool with SAME padding, without making a padded copy.

    Args:
        x: [B, C, T, H, W].
        kernel: Along T, H and W.
        stride: Along T, H and W.
    """
    before = [same_padding(n, k, s)[0] for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    if kernels.can_pool(x):
        size = [-(-n // s) for n, s in zip(x.shape[2:], stride, strict=True)]
        return kernels.max_pool(x, kernel, stride, before, size)
    # What SAME adds before an axis is the pool's own padding, and what it adds after more than
    # before is what `ceil_mode` takes: windows that end past the edge see only what is there.
    return F.max_pool3d(x, list(kernel), list(stride), before, ceil_mode=True)


class ConvUnit(nn.Module):
    """A convolution without bias, its BatchNorm and a ReLU."""

    def __init__(self, unit: Unit, in_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        # at stride 1 SAME is the same at every size, so the convolution can do it itself
        padding = unit.kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv3d(
            in_channels, unit.out_channels, unit.kernel, stride, padding, bias=False
        )
        self.bn = nn.BatchNorm3d(unit.out_channels, eps=BN_EPSILON, momentum=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, T, H, W] to [B, out, T', H', W'] with T' = ceil(T / stride) and so on."""
        if kernels.can_fold(x, self.stride):
            return F.relu(self.bn(kernels.folded_conv(x, self.conv.weight)), inplace=True)
        if self.stride > 1:
            (kernel, *_), stride = self.conv.kernel_size, self.stride
            pads = [same_padding(size, kernel, stride) for size in reversed(x.shape[2:])]
            x = F.pad(x, [side for pair in pads for side in pair])
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """An Inception block: four branches, concatenated along the channels."""

    def __init__(self, block: str) -> None:
        super().__init__()
        branches: list[OrderedDict[str, nn.Module]] = [OrderedDict() for _ in range(4)]
        for unit in block_units(block):
            _, branch, name = unit.name.split(".")
            branches[int(branch[-1])][name] = ConvUnit(unit, unit.in_channels)
        self.Branch_0, self.Branch_1, self.Branch_2, self.Branch_3 = map(nn.Sequential, branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in, T, H, W] to [B, out, T, H, W]."""
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat(
            [self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(pooled)], dim=1
        )


class InceptionI3d(nn.Module):
    """I3D.

    Args:
        num_classes: Classes of the head; 0 builds no head, and `forward` gives features.
        in_channels: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before the head, in training.

    Attributes:
        metadata: The description of the checkpoint that was loaded, or None.
    """

    def __init__(self, num_classes: int = 400, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.metadata: Metadata | None = None
        for name in ENDPOINTS:
            if name in _UNITS:
                unit = _UNITS[name]
                first = unit is STEM[0]
                cin, stride = (in_channels, 2) if first else (unit.in_channels, 1)
                self.add_module(name, ConvUnit(unit, cin, stride))
            elif name in BLOCKS:
                self.add_module(name, Mixed(name))
        self.dropout = nn.Dropout(dropout)
        if num_classes:
            logits, conv = HEAD.split(".")
            head = nn.ModuleDict({"conv": nn.Conv3d(FEATURES, num_classes, 1)})
            self.add_module(logits, nn.ModuleDict({conv: head}))

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, where the checkpoint knows them."""
        return self.metadata.labels if self.metadata else None

    @property
    def preprocess(self) -> Callable[[Tensor], Tensor]:
        """The transform that this checkpoint's clips need.

        It maps uint8 frames [T, H, W, C] to float32 [C, T, H', W'].

        Raises:
            MetadataError: The model was not loaded from a checkpoint, so its input is unknown.
        """
        if self.metadata is None:
            raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
        from i3dzoo.video import preprocess

        return partial(preprocess, spec=self.metadata.input)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "InceptionI3d":
        """Return a network in eval mode from a repository on the Hub or a folder, verified.

        Args:
            name: `USER/NAME`, or what `save_pretrained` made.
            options: Those of the Hub's model mixin: `revision`, `token`, `cache_dir`,
                `force_download`, `local_files_only`; and `verify`, as in `i3dzoo.load`.
        """
        from i3dzoo.hub.mixin import HubModel

        return HubModel.load(name, **options)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write into a folder what `push_to_hub` would push; options are the Hub's mixin's."""
        from i3dzoo.hub.mixin import HubModel

        HubModel(self).save_pretrained(folder, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Push to the Hub in one commit, and return the address of its page.

        Args:
            repository: `USER/NAME`.
            options: Those of the Hub's model mixin: `private`, `commit_message`, `token`,
                `branch`; further `tag`, and what `i3dzoo.hub.About` holds, such as `licence`.
        """
        from i3dzoo.hub.mixin import HubModel

        return HubModel(self).push_to_hub(repository, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Classify clips.

        Args:
            x: Float [B, C, T, H, W], T >= 9, values as the checkpoint's metadata says.

        Returns:
            Logits [B, num_classes], averaged over time; features [B, 1024] if there is no head.

        Raises:
            ShapeError: The input has other axes or channels, or is too short.
        """
        return self.step_logits(x).mean(1) if self.num_classes else self.features(x)

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits before they are averaged: [B, steps, num_classes].

        A step spans 8 frames of input; 64 frames give 7 steps.
        """
        pooled = self.dropout(self._pool(self.endpoints(x, ["Mixed_5c"])["Mixed_5c"]))
        logits: Tensor = self.get_submodule(f"{HEAD}.conv")(pooled)
        return logits.flatten(2).transpose(1, 2)

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features before the head, averaged over time: [B, 1024]."""
        return self._pool(self.endpoints(x, ["Mixed_5c"])["Mixed_5c"]).mean((2, 3, 4))

    def endpoints(self, x: Tensor, names: Iterable[str] = ENDPOINTS) -> dict[str, Tensor]:
        """Return named activations, each [B, C', T', H', W'], computing no further than needed.

        Args:
            x: Float [B, C, T, H, W].
            names: Of `i3dzoo.architecture.ENDPOINTS`.

        Raises:
            UnknownNameError: There is no endpoint of that name.
            ShapeError: The input has other axes or channels, or is too short.
        """
        wanted = set(names)
        unknown = wanted - set(ENDPOINTS)
        if unknown:
            raise UnknownNameError(
                f"no endpoint is called {min(unknown)!r}; there are {', '.join(ENDPOINTS)}"
            )
        self._check(x)
        found: dict[str, Tensor] = {}
        for name in ENDPOINTS:
            if len(found) == len(wanted):
                break
            x = max_pool_same(x, *POOLS[name]) if name in POOLS else self.get_submodule(name)(x)
            if name in wanted:
                found[name] = x
        return found

    def _pool(self, x: Tensor) -> Tensor:
        """Average over 2 steps and 7x7 positions; then over the positions of larger frames.

        Frames under about 200 pixels leave fewer than 7x7 positions: their average is taken.
        """
        _, _, _, height, width = x.shape
        half = x.dtype in (torch.float16, torch.bfloat16)
        full = x.float() if half and not x.is_cuda else x  # a CPU averages no half precision
        pooled = F.avg_pool3d(full, (2, min(7, height), min(7, width)), 1).to(x.dtype)
        return pooled.mean((3, 4), keepdim=True)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 5 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"the input has shape {tuple(x.shape)}; expected [B, {self.in_channels}, T, H, W]"
            )
        if x.shape[2] < MIN_FRAMES:
            raise ShapeError(
                f"the clip has {x.shape[2]} frames; I3D takes {MIN_FRAMES} or more: repeat them"
            )

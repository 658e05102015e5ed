"""The trained network: one or two streams, frozen parts, and a moving average of the weights."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i3dzoo.network.architecture import ENDPOINTS, HEAD
from i3dzoo.network.i3d import I3D, ConvUnit, Mixed
from i3dzoo.training.recipe import Network, Optim


class Streams(nn.Module):
    """One network for each stream, with summed logits, as in the paper's two-stream model.

    Source: arXiv:1705.07750, section 3.5. The paper averages predictions at test time; the sum of
    the logits ranks the classes in the same order.
    """

    def __init__(self, networks: Mapping[str, I3D]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(dict(networks))
        self._frozen: tuple[str, ...] = ()
        self._keep_statistics = False

    def forward(self, clips: Mapping[str, Tensor]) -> Tensor:
        """Map clips by stream, each float32 [B, C, T, H, W], to logits [B, classes]."""
        logits = [network(clips[stream]) for stream, network in self.networks.items()]
        return torch.stack(logits).sum(0)

    def train(self, mode: bool = True) -> "Streams":
        """Set training mode, except for BatchNorm layers that keep their statistics."""
        super().train(mode)
        if mode:
            for name, module in self.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                    self._keep_statistics or _is_below(name, self._frozen)
                ):
                    module.eval()
        return self

    def freeze(self, prefixes: tuple[str, ...], keep_statistics: bool) -> None:
        """Freeze the modules below `prefixes`, such as `Mixed_5b`, and unfreeze all others.

        With `keep_statistics`, all BatchNorm layers keep their statistics.
        """
        self._frozen, self._keep_statistics = prefixes, keep_statistics
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not _is_below(name, prefixes))
        self.train(self.training)


def _is_below(name: str, prefixes: tuple[str, ...]) -> bool:
    """Return whether the parameter `networks.STREAM.UNIT…` is below one of the prefixes."""
    path = name.split(".", 2)[-1]
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def frozen_prefixes(freeze: str) -> tuple[str, ...]:
    """Return the module names that `none`, `trunk` or `until:ENDPOINT` stands for."""
    if freeze in ("none", "trunk"):
        return ENDPOINTS if freeze == "trunk" else ()
    return ENDPOINTS[: ENDPOINTS.index(freeze.removeprefix("until:")) + 1]


def apply_freeze(streams: Streams, recipe: Network, epoch: int) -> None:
    """Freeze and unfreeze the modules of an epoch."""
    unfrozen = recipe.unfreeze_epoch is not None and epoch >= recipe.unfreeze_epoch
    prefixes = () if unfrozen else frozen_prefixes(recipe.freeze)
    streams.freeze(prefixes, recipe.batchnorm == "frozen")


def parameter_groups(streams: Streams, optim: Optim) -> list[dict[str, Any]]:
    """Return the optimiser's groups, trunk and head, with the `scale` of their learning rate."""
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in streams.named_parameters():
        groups[f".{HEAD}." in name].append(parameter)
    return [
        {"params": groups[head], "scale": optim.head_lr_scale if head else 1.0, "lr": optim.lr}
        for head in (False, True)
    ]


def recompute_activations(streams: Streams) -> None:
    """Compute the activations of units and blocks again in the backward pass, to save memory.

    A block then sees its batch twice, so BatchNorm updates its statistics twice. With a momentum of
    1 - sqrt(1 - m), two updates by the same batch equal one update with momentum m exactly.
    """
    wrapped: set[nn.Module] = set()
    for module in streams.modules():
        if isinstance(module, ConvUnit | Mixed) and module not in wrapped:
            wrapped.update(module.modules())
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign] # wrapping it is the point
    for module in streams.modules():
        if isinstance(module, nn.BatchNorm3d) and module.momentum:
            module.momentum = 1 - (1 - module.momentum) ** 0.5


class ModelEma:
    """An exponential moving average of a network's weights and statistics; `decay` is 0..1."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the current values of the network."""
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - self.decay)
            else:
                self.values[name].copy_(value)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the values of the network with the average; calling it twice restores both."""
        for name, value in module.state_dict().items():
            current = value.clone()
            value.copy_(self.values[name])
            self.values[name].copy_(current)

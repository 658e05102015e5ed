"""The network as training needs it: streams together, parts frozen, statistics kept, averages."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i3dzoo.architecture import ENDPOINTS, HEAD
from i3dzoo.errors import RecipeError
from i3dzoo.model import ConvUnit, InceptionI3d, Mixed
from i3dzoo.training.recipe import Network, Optim

__all__ = ["Average", "Streams", "frozen_prefixes", "parameter_groups", "prepare"]


class Streams(nn.Module):
    """One network a stream; their logits are summed, as the paper's two-stream model does.

    Source: arXiv:1705.07750, section 3.5 (predictions averaged at test time; here summed logits,
    which rank the same).

    Args:
        networks: By stream, `rgb` and/or `flow`; all with the same classes.
    """

    def __init__(self, networks: Mapping[str, InceptionI3d]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(dict(networks))
        self._frozen: tuple[str, ...] = ()
        self._keep_statistics = False

    def forward(self, clips: Mapping[str, Tensor]) -> Tensor:
        """Map clips by stream, each [B, C, T, H, W], to logits [B, classes]."""
        logits = [network(clips[stream]) for stream, network in self.networks.items()]
        return torch.stack(logits).sum(0)

    def train(self, mode: bool = True) -> "Streams":
        """Set training mode; BatchNorm that is to keep its statistics stays in eval mode."""
        super().train(mode)
        if mode:
            for name, module in self.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
                    self._keep_statistics or _within(name, self._frozen)
                ):
                    module.eval()
        return self

    def freeze(self, prefixes: tuple[str, ...], keep_statistics: bool) -> None:
        """Stop what lies below `prefixes` of each network from learning, and let all else learn."""
        self._frozen, self._keep_statistics = prefixes, keep_statistics
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not _within(name, prefixes))
        self.train(self.training)


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether `networks.STREAM.UNIT…` lies below one of the prefixes."""
    path = name.split(".", 2)[-1]
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def frozen_prefixes(freeze: str) -> tuple[str, ...]:
    """Return the modules that a recipe's `freeze` names.

    Raises:
        RecipeError: It is neither `none`, `trunk` nor `until:ENDPOINT`.
    """
    if freeze == "none":
        return ()
    if freeze == "trunk":
        return ENDPOINTS
    word, _, endpoint = freeze.partition(":")
    if word != "until" or endpoint not in ENDPOINTS:
        raise RecipeError(
            f"network.freeze is {freeze!r}; expected none, trunk, or until: and one of "
            f"{', '.join(ENDPOINTS)}"
        )
    return ENDPOINTS[: ENDPOINTS.index(endpoint) + 1]


def prepare(streams: Streams, recipe: Network, epoch: int) -> None:
    """Freeze and unfreeze as a recipe says for an epoch."""
    thawed = recipe.unfreeze_epoch is not None and epoch >= recipe.unfreeze_epoch
    prefixes = () if thawed else frozen_prefixes(recipe.freeze)
    streams.freeze(prefixes, recipe.batchnorm == "frozen")


def parameter_groups(streams: Streams, optim: Optim) -> list[dict[str, Any]]:
    """Return the optimiser's groups: trunk and head, with their own learning rates.

    `scale` is what the learning rate of the group is multiplied by at every step.
    """
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in streams.named_parameters():
        groups[f".{HEAD}." in name].append(parameter)
    return [
        {"params": groups[head], "scale": optim.head_lr_scale if head else 1.0, "lr": optim.lr}
        for head in (False, True)
    ]


def recompute_activations(streams: Streams) -> None:
    """Make units and blocks compute their activations again in the backward pass.

    A block then sees its batch twice, so BatchNorm updates its statistics twice. With a momentum of
    1 - sqrt(1 - m) two updates by the same batch are one by m, exactly.
    """
    inside: set[nn.Module] = set()
    for module in streams.modules():
        if isinstance(module, ConvUnit | Mixed) and module not in inside:
            inside.update(module.modules())
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign] # wrapping it is the point
    for module in streams.modules():
        if isinstance(module, nn.BatchNorm3d) and module.momentum:
            module.momentum = 1 - (1 - module.momentum) ** 0.5


class Average:
    """An exponential moving average of a network's weights and statistics.

    Args:
        module: The network.
        decay: What is kept of the average at each step, 0..1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in _state(module)}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the network as it is now."""
        for name, value in _state(module):
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - self.decay)
            else:
                self.values[name].copy_(value)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the network's values with the average; twice is as before."""
        for name, value in _state(module):
            kept = value.clone()
            value.copy_(self.values[name])
            self.values[name].copy_(kept)


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.state_dict(keep_vars=False).items()

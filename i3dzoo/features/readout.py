"""From batches of clips to the outputs of a network: an endpoint, and what becomes of its steps."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from i3dzoo.engines.base import Engine
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import MetadataError, UnknownNameError
from i3dzoo.features.settings import LOGITS, Steps
from i3dzoo.network.architecture import ENDPOINTS, FEATURES, POOLED, endpoint_channels


@dataclass(frozen=True)
class Readout:
    """What is read of a network.

    Attributes:
        endpoint: `pooled`, `logits`, or a name of `i3dzoo.network.architecture.ENDPOINTS`.
        steps: The `mean` or the `max` of the steps in time, or each of them (`keep`).
    """

    endpoint: str = POOLED
    steps: Steps = "mean"

    def check(self, engine: Engine) -> None:
        """Check that an engine can return this.

        Raises:
            UnknownNameError: The engine does not return the endpoint, or not its steps.
            MetadataError: The network has no head, or was exported without features or steps.
        """
        if self.endpoint != LOGITS:
            engine.check_endpoint(self.endpoint)
            if self.steps != "mean" and not isinstance(engine, TorchEngine):
                raise UnknownNameError(
                    f"only PyTorch returns the steps of {self.endpoint}; use the checkpoint with "
                    "--engine torch, or steps mean"
                )
        elif not engine.num_classes:
            raise MetadataError("the model has no head, so it has no logits; choose pooled")
        elif self.steps != "mean" and not engine.has_steps:
            raise MetadataError(
                "the model was exported without the steps of its logits; export it with --steps"
            )


def readout_channels(endpoint: str, num_classes: int) -> int:
    """Return the number of channels of an endpoint; 0 if there is no such endpoint."""
    if endpoint == POOLED:
        return FEATURES
    if endpoint == LOGITS:
        return num_classes
    return endpoint_channels(endpoint) if endpoint in ENDPOINTS else 0


def stream(engine: Engine, batches: Iterable[Tensor], readout: Readout) -> Iterator[Tensor]:
    """Run batches of clips in order, taken as they are needed.

    Args:
        engine: The network.
        batches: Float [B, C, T, H, W].
        readout: What is read.

    Yields:
        For each batch, float [B, steps, channels]; one step unless the steps are kept.
    """
    if readout.endpoint == LOGITS:
        for logits in engine.stream(batches):
            yield _reduced(logits, readout.steps)
    elif readout.steps == "mean":
        for features in engine.stream(batches, readout.endpoint):
            yield features[:, None]
    elif isinstance(engine, TorchEngine):
        for batch in batches:
            yield _reduced(engine.step_features(batch, readout.endpoint), readout.steps)


def _reduced(steps: Tensor, how: Steps) -> Tensor:
    """Return [B, 1, channels] of [B, steps, channels], unless the steps are kept."""
    if how == "keep":
        return steps
    return steps.mean(1, keepdim=True) if how == "mean" else steps.amax(1, keepdim=True)

"""The part that the engines of exported networks share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from i3dzoo.arrays import Array
from i3dzoo.engines.torch import check_name
from i3dzoo.errors import MetadataError, ShapeError, UnknownNameError
from i3dzoo.network.architecture import POOLED
from i3dzoo.onnx.description import read_description
from i3dzoo.onnx.options import INPUT, OUTPUT, Precision


class ExportedEngine(ABC):
    """A network in the form of `i3dzoo export`; an `i3dzoo.engines.base.Engine`.

    Args:
        where: The file, for messages.
        texts: The description that i3dzoo embedded in the export.
        outputs: Shape of each output, by name.

    Attributes:
        streams: The description of the checkpoint of each stream; `metadata` is the first.
        options: How the network was exported.
        build_endpoint: Returns an engine whose features are those of an endpoint; None if there is
            only the exported file, not the checkpoint.

    Raises:
        MetadataError: The description is missing or malformed, or has other classes.
    """

    name: ClassVar[str]

    def __init__(
        self, where: str, texts: Mapping[str, str], outputs: Mapping[str, Sequence[Any]]
    ) -> None:
        self.where = where
        self.streams, self.options = read_description(where, texts)
        self.metadata = self.streams[0]
        self.num_classes = self.metadata.num_classes
        self.labels = self.metadata.labels
        self.device = torch.device("cpu")  # clips are copied from there
        self.precision: Precision = self.options.precision
        self.build_endpoint: Callable[[str], ExportedEngine] | None = None
        self._endpoints: dict[str, ExportedEngine] = {}
        self.has_steps = self.options.steps
        self.fixed_frames = "frames" not in self.options.dynamic
        if OUTPUT in outputs and outputs[OUTPUT][-1] != self.num_classes:
            raise MetadataError(
                f"{where}: {OUTPUT} has shape {list(outputs[OUTPUT])}; its description has "
                f"{self.num_classes} classes: the file was altered, export it again"
            )

    @property
    def batch_limit(self) -> int | None:
        """Most clips of a batch; None if there is no limit."""
        return None

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch: from an array for each input to an array for each output, by name.

        Raises:
            ShapeError: An input is missing, or the network does not accept its shape.
        """

    @abstractmethod
    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches in order, taken as they are needed; see `run`."""

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, steps, classes] of float clips [B, C, T, H, W]."""
        (steps,) = self.stream([x])
        return steps

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features [B, channels] of float clips [B, C, T, H, W]."""
        (features,) = self.stream([x], endpoint)
        return features

    def check_endpoint(self, endpoint: str) -> None:
        """Check that there is such an endpoint, and that an exported file returns it."""
        check_name(endpoint)
        if endpoint != POOLED and self.build_endpoint is None:
            raise UnknownNameError(
                f"{self.where}: an exported network returns the endpoint {POOLED}, not {endpoint}; "
                "use the checkpoint with --engine torch"
            )
        if self.num_classes and not self.options.features:
            raise MetadataError(f"{self.where}: has no features; export it with --features")

    def stream(self, clips: Iterable[Tensor], endpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the `step_logits` of each batch, or its `features`.

        Raises:
            ShapeError: The network takes clips of another size, two streams, or uint8 frames.
        """
        if endpoint is not None:
            self.check_endpoint(endpoint)
        if endpoint is not None and endpoint != POOLED:
            yield from self._of_endpoint(endpoint).stream(clips, POOLED)
            return
        name = INPUT[self.metadata.stream]
        if len(self.streams) > 1 or self.options.pixels:
            kind = "uint8 frames" if self.options.pixels else "two streams"
            raise ShapeError(
                f"{self.where}: takes {kind}; expected one input of float clips, {name}: export "
                "one stream without --pixels"
            )
        output = "features" if endpoint else "fc_steps" if self.has_steps else OUTPUT
        for outputs in self.run_all({name: batch.cpu().float().numpy()} for batch in clips):
            result = torch.from_numpy(outputs[output])
            yield result[:, None] if output == OUTPUT else result

    def _of_endpoint(self, endpoint: str) -> "ExportedEngine":
        if endpoint not in self._endpoints:
            assert self.build_endpoint is not None  # noqa: S101 - check_endpoint has checked it
            self._endpoints[endpoint] = self.build_endpoint(endpoint)
        return self._endpoints[endpoint]

    def check_shapes(
        self,
        shapes: Mapping[str, Sequence[int]],
        limits: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        remedy: str,
    ) -> None:
        """Raise ShapeError if an input is missing, or outside of its smallest and largest shape."""
        if set(shapes) != set(limits):
            raise ShapeError(
                f"{self.where}: takes the inputs {', '.join(limits)}; got {', '.join(shapes)}"
            )
        for name, (smallest, largest) in limits.items():
            shape = shapes[name]
            axes = zip(smallest, shape, largest, strict=False)
            if len(shape) != len(smallest) or any(not a <= n <= b for a, n, b in axes):
                raise ShapeError(
                    f"{self.where}: {name} has shape {list(shape)}; expected {list(smallest)} to "
                    f"{list(largest)}: {remedy}"
                )

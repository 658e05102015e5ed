"""I3D networks with the metadata of their checkpoint: load, save, and push to the Hub."""

import copy
import logging
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.errors import ChecksumError, MetadataError, OptionError
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.gpu_tiles import find_tiles
from i3dzoo.network.architecture import DEEPMIND, ENDPOINTS, POOLED, Variant
from i3dzoo.network.clips import check_shape
from i3dzoo.network.fused import LOGITS, MINIMUM, FusedI3D, can_fuse
from i3dzoo.network.i3d import I3D, check_endpoints
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import preprocess
from i3dzoo.zoo.identify import check_claim

_LOG: Final = logging.getLogger("i3dzoo")


class InceptionI3d(I3D):
    """I3D with the metadata of the checkpoint that it was loaded from.

    Examples:
        >>> import i3dzoo, torch
        >>> model = i3dzoo.InceptionI3d(num_classes=5).eval()
        >>> model(torch.zeros(1, 3, 16, 32, 32)).shape
        torch.Size([1, 5])

    Args:
        num_classes: Number of classes; 0 builds no head, and `forward` returns features.
        in_channels: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before the head, in training.
        variant: BatchNorm epsilon, padding and pooling; the default is DeepMind's.

    Attributes:
        metadata: Metadata of the checkpoint, or None for a network that was not loaded from one.
    """

    def __init__(
        self,
        num_classes: int = 400,
        in_channels: int = 3,
        dropout: float = 0.5,
        variant: Variant = DEEPMIND,
    ) -> None:
        super().__init__(num_classes, in_channels, dropout, variant)
        self.metadata: Metadata | None = None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, or None if they are unknown."""
        return self.metadata.labels if self.metadata else None

    @property
    def preprocess(self) -> Callable[[Tensor], Tensor]:
        """Preprocessing of the checkpoint: uint8 frames [T, H, W, C] to float32 [C, T, H', W']."""
        if self.metadata is None:
            raise MetadataError("the model has no metadata; load it with i3dzoo.load")
        return partial(preprocess, spec=self.metadata.input)

    def optimize(self, dtype: torch.dtype | None = None) -> "InceptionI3d | DeployedI3d":
        """Return a copy for inference, in the form that is fast on the network's device.

            model = i3dzoo.load("rgb_scratch").cuda().optimize()
            logits = model(clip)

        Args:
            dtype: Number format of weights and activations; None is float16 on a GPU and float32 on
                a CPU. A CPU takes float32 and bfloat16.

        Returns:
            In float16 and bfloat16 on a GPU that `i3dzoo.network.fused` supports, a `DeployedI3d`.
            Otherwise a network with its weights in channels-last order.

        Raises:
            OptionError: The device does not compute in this format.
        """
        device = next(self.parameters()).device
        on_gpu = device.type == "cuda"
        dtype = dtype or (torch.float16 if on_gpu else torch.float32)
        formats = (torch.float32, torch.bfloat16, *((torch.float16,) if on_gpu else ()))
        if dtype not in formats:
            raise OptionError(
                f"dtype: expected {' or '.join(map(str, formats))} on the device {device.type}, "
                f"found {dtype}"
            )
        if on_gpu and dtype != torch.float32:
            if can_fuse(device):
                try:
                    return DeployedI3d(self, dtype)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # Triton fails in many ways
                    _LOG.warning(
                        "the GPU kernels of i3dzoo failed (%s); the network runs in PyTorch", error
                    )
            else:
                _LOG.warning(
                    "the GPU kernels of i3dzoo need Triton and an NVIDIA GPU of compute capability "
                    "%d.%d or more; the network runs in PyTorch",
                    *MINIMUM,
                )
        network = copy.deepcopy(self).eval().requires_grad_(False).to(dtype)
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return] # torch's types lack 3d

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "InceptionI3d":
        """Load a network in eval mode from a repository on the Hub or from a folder.

        Args:
            name: `USER/NAME`, or a folder that `save_pretrained` wrote.
            options: Options of the Hub's model mixin: `revision`, `token`, `cache_dir`,
                `force_download`, `local_files_only`; and `verify`, as in `i3dzoo.load`.
        """
        from i3dzoo.hub.mixin import HubModel

        return build(HubModel.load(name, **options))

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write or replace the files of a repository in a folder, with the mixin's options."""
        from i3dzoo.hub.mixin import HubModel

        HubModel(to_checkpoint(self)).save_pretrained(folder, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Push to the Hub in one commit, and return the address of its page.

        Args:
            repository: `USER/NAME`.
            options: Options of the Hub's model mixin: `private`, `commit_message`, `token`,
                `branch`; also `tag`, and the fields of `i3dzoo.hub.About`, such as `licence`.

        Raises:
            PushError: The Hub refuses.
            MetadataError: The licence or the names of the classes are missing.
        """
        from i3dzoo.hub.mixin import HubModel

        return HubModel(to_checkpoint(self)).push_to_hub(repository, **options)


class DeployedI3d:
    """I3D as `i3dzoo.network.fused.FusedI3D`, with the metadata; inference only.

    Args:
        network: The network, on a GPU that `i3dzoo.network.fused` supports; its weights are copied.
        dtype: `torch.float16` or `torch.bfloat16`, of weights and activations.
        progress: Receives remarks on what takes long: on a GPU that i3dzoo was not timed on, the
            search for the fastest kernels, once; and compiling kernels for the first clips.

    Attributes:
        metadata: Metadata of the checkpoint, or None.
        device: The device of the network, to which clips are moved.
    """

    def __init__(
        self,
        network: InceptionI3d,
        dtype: torch.dtype = torch.float16,
        progress: Progress = SILENT,
    ) -> None:
        self.metadata, self.labels = network.metadata, network.labels
        self.num_classes, self.in_channels = network.num_classes, network.in_channels
        self.variant = network.variant
        self.device = next(network.parameters()).device
        self._progress, self._was_run = progress, False
        tensors, pixels = network.state_dict(), None
        if self.metadata is not None:
            spec = self.metadata.input
            scale = [1 / (255 * std) for std in spec.std]
            pixels = scale, [-mean / std for mean, std in zip(spec.mean, spec.std, strict=True)]
        tiles = find_tiles(tensors, self.variant, self.device, dtype, progress)
        self._fused = FusedI3D(tensors, self.variant, self.device, dtype, pixels, tiles)

    @property
    def preprocess(self) -> Callable[[Tensor], Tensor]:
        """Preprocessing of the checkpoint: uint8 frames [T, H, W, C] to float32 [C, T, H', W']."""
        if self.metadata is None:
            raise MetadataError("the model has no metadata; load it with i3dzoo.load")
        return partial(preprocess, spec=self.metadata.input)

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits, float32 [B, classes], or features [B, 1024] without a head; see `I3D`.

        Args:
            x: A clip as of `preprocess`, [B, C, T, H, W]; or, for a network with metadata, its
                pixels as uint8, 0..255, RGB or (x, y) flow, which are normalised on the way.
        """
        return self.step_logits(x).mean(1) if self.num_classes else self.features(x)

    def step_logits(self, x: Tensor) -> Tensor:
        """Return the logits of each step, float32 [B, steps, classes]."""
        return self._run(x, [LOGITS])[LOGITS]

    def features(self, x: Tensor) -> Tensor:
        """Return the pooled features, float32 [B, 1024]."""
        return self._run(x, [POOLED])[POOLED]

    def endpoints(self, x: Tensor, names: Collection[str] = ENDPOINTS) -> dict[str, Tensor]:
        """Return activations [B, C', T', H', W'] in half precision.

        Raises:
            UnknownNameError: There is no such endpoint.
        """
        check_endpoints(names)
        return self._run(x, names)

    def _run(self, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        check_shape(tuple(x.shape), self.in_channels, self.variant.min_frames)
        if not self._was_run:
            size = "x".join(map(str, x.shape))
            self._progress.message(
                f"compiling the kernels of the engine fused for clips of {size}, for up to a "
                "minute; Triton keeps them"
            )
            self._was_run = True
        with torch.inference_mode():
            clips = x.to(self.device)
            if x.dtype == torch.uint8 and self.metadata and self.metadata.input.channels == "bgr":
                clips = clips.flip(1)
            return self._fused(clips, wanted)


def load(
    model: str | Path, offline: bool = False, verify: bool = False, key: str | None = None
) -> InceptionI3d:
    """Load a network in eval mode, with its weights, labels and preprocessing.

    Examples:
        >>> import i3dzoo, numpy as np
        >>> model = i3dzoo.load("mine.safetensors")
        >>> frames = np.zeros((16, 48, 64, 3), np.uint8)
        >>> model(model.preprocess(frames)[None]).shape
        torch.Size([1, 2])

    Args:
        model: A zoo name such as `rgb_scratch`, a file of any layout, a folder that
            `save_pretrained` wrote, or a repository on the Hub such as `USER/NAME`,
            `USER/NAME@REVISION` or `hf://USER/NAME/FILE`.
        offline: Do not use the network.
        verify: Fail if a cached file of a repository is corrupt, instead of downloading it again.
        key: The network to read of a file with several, as in `i3dzoo.open_checkpoint`.

    Raises:
        I3DZooError: The model is unknown, cannot be downloaded, or its file is corrupt.
    """
    return build(open_checkpoint(find(model, offline, verify), key=key))


def build(checkpoint: Checkpoint) -> InceptionI3d:
    """Return a network in eval mode with the weights of a checkpoint, in their number format."""
    metadata = checkpoint.metadata
    with torch.device("meta"):
        channels = 3 if metadata.stream == "rgb" else 2
        model = InceptionI3d(metadata.num_classes, channels, variant=metadata.variant)
    state = {}
    for name, array in checkpoint.tensors.items():
        own = np.require(array, requirements=["C", "W", "O"])
        bfloat = own.dtype.name == "bfloat16"
        tensor = torch.from_numpy(own.view("u2") if bfloat else own)
        state[name] = tensor.view(torch.bfloat16) if bfloat else tensor
    for name in model.state_dict().keys() - state.keys():  # num_batches_tracked
        state[name] = torch.zeros((), dtype=torch.int64)
    model.load_state_dict(state, assign=True)
    model.metadata = metadata
    return model.eval()


def to_checkpoint(model: InceptionI3d) -> Checkpoint:
    """Return the current weights of a network as a checkpoint.

    The metadata names a published checkpoint only if the weights and labels still are the published
    ones. If the head was replaced, the labels are dropped. Number formats other than float16,
    bfloat16 and float32 become float32.
    """
    metadata = model.metadata
    if metadata is None:
        raise MetadataError("the model has no metadata; load it with i3dzoo.load")
    arrays: dict[str, Array] = {}
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.bfloat16:
            arrays[name] = tensor.cpu().view(torch.int16).numpy().view(bfloat16())
        elif not name.endswith("num_batches_tracked"):
            keep = tensor.dtype == torch.float16
            arrays[name] = (tensor if keep else tensor.float()).cpu().numpy()
    tensors = dict(convert.to_canonical("the model", arrays, converter.table("canonical")).tensors)
    if (classes := convert.num_classes(tensors)) != metadata.num_classes:
        metadata = metadata.replace(num_classes=classes, labels=None, multi_label=False)
    metadata = metadata.replace(variant=model.variant)
    checkpoint = Checkpoint(tensors, metadata)
    try:
        published = check_claim(checkpoint, "the model")
    except (ChecksumError, MetadataError):
        published = False
    if metadata.zoo and not published:
        step = HistoryStep(operation="change", base_model=metadata.zoo)
        checkpoint = Checkpoint(tensors, metadata.changed(step))
    return checkpoint

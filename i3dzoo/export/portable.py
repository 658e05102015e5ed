"""I3D for TorchScript and torch.export: the same layers, with padding that follows the input.

`i3dzoo.model` computes SAME padding in Python, which tracing would freeze at the size that it saw.
Here it is arithmetic on the input's own size, without a branch, which both compilers keep.
"""

import io
import warnings
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo.architecture import BLOCKS, ENDPOINTS, HEAD, POOLS, STEM
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import MetadataError
from i3dzoo.export.options import OUTPUT, ExportOptions
from i3dzoo.export.prove import Runner
from i3dzoo.loading import build
from i3dzoo.model import InceptionI3d

__all__ = ["PortableI3d", "load_pt2", "load_torchscript", "pt2", "torchscript"]

_LACKING: Final = ("keep_bn", "features", "steps", "pixels")


class _Pad(nn.Module):
    """SAME padding with zeros: in all max(k - s, (k - 1) - (n - 1) mod s), half of it before."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        t = self.kernel[0] - 1 - (x.size(2) - 1) % self.stride[0]
        h = self.kernel[1] - 1 - (x.size(3) - 1) % self.stride[1]
        w = self.kernel[2] - 1 - (x.size(4) - 1) % self.stride[2]
        return F.pad(x, [w // 2, w - w // 2, h // 2, h - h // 2, t // 2, t - t // 2])


class _Mixed(nn.Module):
    """An Inception block."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branch_0, self.branch_1, self.branch_2, self.branch_3 = branches

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], 1
        )


class _AverageAny(nn.Module):
    """The average over 2 steps and 7x7 positions, or as many as there are."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.size(3), x.size(4)
        filled = F.pad(x, [0, max(7 - width, 0), 0, max(7 - height, 0)])
        mean = F.avg_pool3d(filled, [2, 7, 7], [1, 1, 1])
        return mean * (49.0 / (min(height, 7) * min(width, 7)))


class PortableI3d(nn.Module):
    """I3D in eval mode, made of the parameters of an `InceptionI3d`.

    Args:
        model: What to take the parameters from; they are shared.
        window: Positions that the last pool averages, high and wide; None takes 7x7, or as many
            as there are.
    """

    def __init__(self, model: InceptionI3d, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for name in ENDPOINTS:
            if name in POOLS:
                kernel, stride = POOLS[name]
                layers += [_Pad(kernel, stride), nn.MaxPool3d(kernel, stride)]
            elif name in BLOCKS:
                layers.append(_Mixed(_branches(model.get_submodule(name))))
            else:
                if name == STEM[0].name:
                    layers.append(_Pad((7, 7, 7), (2, 2, 2)))
                layers.append(_unit(model.get_submodule(name)))
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.AvgPool3d((2, *window), 1) if window else _AverageAny()
        self.head = model.get_submodule(f"{HEAD}.conv") if model.num_classes else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips [B, C, T, H, W] to logits [B, classes], or to features without a head."""
        logits: Tensor = self.head(self.pool(self.trunk(clip)))
        return logits.mean([2, 3, 4])


def torchscript(checkpoint: Checkpoint, options: ExportOptions, texts: Mapping[str, str]) -> bytes:
    """Return a TorchScript archive for any batch and size, with the texts as extra files."""
    options.refuse("torchscript", *_LACKING)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # it says that torch.export is the future, which i3dzoo writes as well
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        module = torch.jit.script(PortableI3d(build(checkpoint).float()).eval())
        torch.jit.save(module, file, _extra_files={k: v.encode() for k, v in texts.items()})
    return file.getvalue()


def load_torchscript(data: bytes, output: str = OUTPUT) -> Runner:
    """Return what runs a TorchScript archive, and calls its output so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        module = torch.jit.load(io.BytesIO(data), "cpu")  # type: ignore[no-untyped-call] # PyTorch
    return _runner(module, output)


def pt2(checkpoint: Checkpoint, options: ExportOptions, texts: Mapping[str, str]) -> bytes:
    """Return a torch.export archive for any batch of one size.

    Raises:
        MetadataError: Another axis than the batch is to be dynamic, or another option is not had.
    """
    options.refuse("pt2", *_LACKING)
    if options.dynamic:
        # five stages of SAME padding make guards that torch.export's solver does not finish with
        raise MetadataError(
            f"pt2 has no dynamic {', '.join(options.dynamic)}: torch.export takes this network at "
            "one size; export to onnx or torchscript for any"
        )
    spec = checkpoint.metadata.input
    window = min(7, -(-spec.crop // 32))
    program = torch.export.export(
        PortableI3d(build(checkpoint).float(), (window, window)).eval(),
        (torch.zeros(2, len(spec.mean), spec.frames, spec.crop, spec.crop),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
    )
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


def load_pt2(data: bytes, output: str = OUTPUT) -> Runner:
    """Return what runs a torch.export archive, and calls its output so."""
    return _runner(torch.export.load(io.BytesIO(data)).module(), output)


def _runner(module: Any, output: str) -> Runner:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        (clip,) = inputs.values()
        with torch.inference_mode():
            return {output: module(torch.from_numpy(clip)).numpy()}

    return run


def _unit(unit: nn.Module) -> nn.Module:
    return nn.Sequential(unit.get_submodule("conv"), unit.get_submodule("bn"), nn.ReLU())


def _branches(block: nn.Module) -> list[nn.Module]:
    branches: list[nn.Module] = []
    for number in range(4):
        units = [_unit(unit) for unit in block.get_submodule(f"Branch_{number}").children()]
        pool = [nn.MaxPool3d(3, 1, 1)] if number == 3 else []
        branches.append(nn.Sequential(*pool, *units))
    return branches

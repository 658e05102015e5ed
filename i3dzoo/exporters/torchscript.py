"""Export to TorchScript and torch.export.

`i3dzoo.network.i3d` computes padding in Python, and tracing would freeze it at the size of the
example. Here, padding is arithmetic on the size of the input, without branches, which both
compilers keep.
"""

import io
import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.exporters.job import Export, ExportJob
from i3dzoo.exporters.parity import check_parity
from i3dzoo.network.architecture import (
    BLOCKS,
    ENDPOINTS,
    HEAD,
    POOLS,
    STEM,
    Padding,
)
from i3dzoo.onnx.description import describe
from i3dzoo.onnx.options import main_output
from i3dzoo.pretrained import InceptionI3d, build


class _SamePad(nn.Module):
    """SAME padding with zeros: max(k - s, (k - 1) - (n - 1) mod s) in total, half of it before."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        t = self.kernel[0] - 1 - (x.size(2) - 1) % self.stride[0]
        h = self.kernel[1] - 1 - (x.size(3) - 1) % self.stride[1]
        w = self.kernel[2] - 1 - (x.size(4) - 1) % self.stride[2]
        return F.pad(x, [w // 2, w - w // 2, h // 2, h - h // 2, t // 2, t - t // 2])


def _max_pool(
    padding: Padding, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    """Return a max pool with a stride, and its padding."""
    if padding == "ceil":
        return [nn.MaxPool3d(kernel, stride, ceil_mode=True)]
    return [_pad(padding, kernel, stride), nn.MaxPool3d(kernel, stride)]


def _pad(padding: Padding, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Module:
    """Return padding with zeros; a max pool after it has no negative inputs."""
    if padding == "same":
        return _SamePad(kernel, stride)
    t, h, w = ((k - 1) // 2 for k in kernel)
    return nn.ConstantPad3d((w, w, h, h, t, t), 0.0)


def _unit(unit: nn.Module) -> nn.Module:
    return nn.Sequential(unit.get_submodule("conv"), unit.get_submodule("bn"), nn.ReLU())


class _Mixed(nn.Module):
    """An Inception block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.branch_0, self.branch_1, self.branch_2, self.branch_3 = (
            nn.Sequential(
                *([nn.MaxPool3d(3, 1, 1)] if branch == "Branch_3" else []),
                *map(_unit, units.children()),
            )
            for branch, units in block.named_children()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(x)], 1
        )


class _AverageAny(nn.Module):
    """The average over 2 steps and 7x7 positions, or over fewer if the map is smaller."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.size(3), x.size(4)
        filled = F.pad(x, [0, max(7 - width, 0), 0, max(7 - height, 0)])
        mean = F.avg_pool3d(filled, [2, 7, 7], [1, 1, 1])
        return mean * (49.0 / (min(height, 7) * min(width, 7)))


class PortableI3d(nn.Module):
    """I3D in eval mode, which shares the parameters of an `InceptionI3d`.

    `window` is the size of the last average pool; None is 7x7, or less if the map is smaller.
    """

    def __init__(self, model: InceptionI3d, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        padding = model.variant.padding
        for name in ENDPOINTS:
            if name in POOLS:
                kernel, stride = POOLS[name]
                layers += _max_pool(padding, kernel, stride)
            elif name in BLOCKS:
                layers.append(_Mixed(model.get_submodule(name)))
            else:
                if name == STEM[0].name:
                    layers.append(_pad(padding, (7, 7, 7), (2, 2, 2)))
                layers.append(_unit(model.get_submodule(name)))
        self.trunk = nn.Sequential(*layers)
        # the mean over time and space at the end is global pooling
        self.pool: nn.Module = nn.Identity()
        if model.variant.pooling == "window":
            self.pool = nn.AvgPool3d((2, *window), 1) if window else _AverageAny()
        self.head = model.get_submodule(f"{HEAD}.conv") if model.num_classes else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        """Map clips [B, C, T, H, W] to logits [B, classes], or to features without a head."""
        logits: Tensor = self.head(self.pool(self.trunk(clip)))
        return logits.mean([2, 3, 4])


def export_torch(job: ExportJob) -> Export:
    """Write a TorchScript or a torch.export archive whose output equals PyTorch's."""
    (checkpoint,) = job.checkpoints
    make, runner = (_pt2, "torch.export") if job.target == "pt2" else (_script, "TorchScript")
    file = io.BytesIO()
    network = make(checkpoint, describe(job.checkpoints, job.options), file)
    output = main_output(checkpoint.metadata)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        (clip,) = inputs.values()
        with torch.inference_mode():
            return {output: network(torch.from_numpy(clip)).numpy()}

    return job.write({job.path: file.getvalue()}, check_parity(job, run, runner))


def _script(checkpoint: Checkpoint, texts: Mapping[str, str], file: io.BytesIO) -> nn.Module:
    """Write a TorchScript archive for any batch and size, with the texts as extra files."""
    with warnings.catch_warnings():
        # PyTorch recommends torch.export, which i3dzoo writes as well
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        module = torch.jit.script(PortableI3d(build(checkpoint).float()).eval())
        torch.jit.save(module, file, _extra_files={k: v.encode() for k, v in texts.items()})
        file.seek(0)
        loaded: nn.Module = torch.jit.load(file, "cpu")  # type: ignore[no-untyped-call] # PyTorch
    return loaded


def _pt2(checkpoint: Checkpoint, texts: Mapping[str, str], file: io.BytesIO) -> nn.Module:
    """Write a torch.export archive for any batch of one size, with the texts as extra files.

    Other axes cannot be dynamic: five stages of SAME padding make guards that torch.export's solver
    does not finish with.
    """
    spec = checkpoint.metadata.input
    window = min(7, -(-spec.crop // 32))
    program = torch.export.export(
        PortableI3d(build(checkpoint).float(), (window, window)).eval(),
        (torch.zeros(2, len(spec.mean), spec.frames, spec.crop, spec.crop),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
    )
    torch.export.save(program, file, extra_files=dict(texts))
    file.seek(0)
    return torch.export.load(file).module()

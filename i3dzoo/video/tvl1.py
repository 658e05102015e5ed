"""TV-L1 optical flow in PyTorch, for many pairs of frames at once.

The method is by Zach, Pock and Bischof (2007). This implementation and its names follow the
description by Sánchez, Meinhardt-Llopis and Facciolo (IPOL 2013, doi:10.5201/ipol.2013.26).
"""

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from i3dzoo.video.info import Frames

_TAU = 0.25
_LAMBDA = 0.15  # weight of the data term, for grey values in 0..255
_THETA = 0.3
_WARPS = 5
_ITERATIONS = 25
_MIN_SIDE = 16  # pixels of the short side of the coarsest level
_LEVELS = 6


def tvl1(first: Frames, second: Frames, device: str = "cpu") -> npt.NDArray[np.float32]:
    """Compute the flow of pairs of uint8 frames [N, H, W]: float32 [N, H, W, 2] in pixels."""
    with torch.inference_mode():
        pyramid = [
            (_smooth(_tensor(first, device)), _smooth(_tensor(second, device))),
        ]
        while len(pyramid) < _LEVELS:
            height, width = (math.ceil(side / 2) for side in pyramid[-1][0].shape[2:])
            if min(height, width) < _MIN_SIDE:
                break
            size = height, width
            pyramid.append((_shrink(pyramid[-1][0], size), _shrink(pyramid[-1][1], size)))
        coarsest = pyramid[-1][0]
        flow = coarsest.new_zeros((len(first), 2, *coarsest.shape[2:]))
        for before, after in reversed(pyramid):
            flow = _solve(before, after, _grow(flow, before))
        result: npt.NDArray[np.float32] = flow.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return result


def _tensor(frames: Frames, device: str) -> torch.Tensor:
    return torch.from_numpy(np.array(frames)).to(device)[:, None].float()


def _smooth(image: torch.Tensor) -> torch.Tensor:
    kernel = torch.tensor([0.0545, 0.2442, 0.4026, 0.2442, 0.0545], device=image.device)  # sigma 1
    kernel = kernel / kernel.sum()
    wide = F.conv2d(F.pad(image, (2, 2, 0, 0), "replicate"), kernel.view(1, 1, 1, 5))
    return F.conv2d(F.pad(wide, (0, 0, 2, 2), "replicate"), kernel.view(1, 1, 5, 1))


def _shrink(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(_smooth(image), size, mode="bilinear", align_corners=False)


def _grow(flow: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Resize a flow to the size of an image, and scale the displacements."""
    if flow.shape[2:] == image.shape[2:]:
        return flow
    scale = [image.shape[3] / flow.shape[3], image.shape[2] / flow.shape[2]]
    flow = F.interpolate(flow, image.shape[2:], mode="bilinear", align_corners=False)
    return flow * flow.new_tensor(scale).view(1, 2, 1, 1)


def _solve(before: torch.Tensor, after: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Refine the flow at one level of the pyramid."""
    slope = torch.cat([after, *_central(after)], dim=1)
    dual = before.new_zeros((2, *flow.shape))  # of u and v, along x and y
    for _ in range(_WARPS):
        warped = _warp(slope, flow)
        gradient = warped[:, 1:]
        power = gradient.square().sum(1, keepdim=True)
        constant = warped[:, :1] - (gradient * flow).sum(1, keepdim=True) - before
        limit = _LAMBDA * _THETA
        for _ in range(_ITERATIONS):
            rho = constant + (gradient * flow).sum(1, keepdim=True)
            # One clamped division covers the three cases of the thresholding step.
            step = (-rho / power.clamp_min(1e-9)).clamp(-limit, limit)
            flow = flow + step * gradient + _THETA * _divergence(dual)
            ahead = _forward(flow)
            ratio = _TAU / _THETA
            length = ahead.square().sum(0, keepdim=True).sqrt()
            dual = (dual + ratio * ahead) / (1 + ratio * length)
        flow = _median(flow)
    return flow


def _central(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide, high = F.pad(image, (1, 1, 0, 0), "replicate"), F.pad(image, (0, 0, 1, 1), "replicate")
    return (wide[..., 2:] - wide[..., :-2]) / 2, (high[..., 2:, :] - high[..., :-2, :]) / 2


def _forward(field: torch.Tensor) -> torch.Tensor:
    """Return forward differences along x and y, zero at the far border: [2, ...]."""
    across = F.pad(field[..., 1:] - field[..., :-1], (0, 1))
    down = F.pad(field[..., 1:, :] - field[..., :-1, :], (0, 0, 0, 1))
    return torch.stack([across, down])


def _divergence(dual: torch.Tensor) -> torch.Tensor:
    """Return the negative adjoint of `_forward`; the dual is zero at the far border."""
    across = dual[0] - F.pad(dual[0][..., :-1], (1, 0))
    down = dual[1] - F.pad(dual[1][..., :-1, :], (0, 0, 1, 0))
    return across + down


def _warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Sample an image where the flow points to, with the edge repeated beyond the border."""
    height, width = image.shape[2:]
    across = torch.arange(width, device=image.device) + flow[:, 0]
    down = torch.arange(height, device=image.device)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * across + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)


def _median(flow: torch.Tensor) -> torch.Tensor:
    """Apply a 3x3 median filter, which removes single outliers between warps."""
    around = F.pad(flow, (1, 1, 1, 1), "replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    return around.flatten(-2).median(dim=-1).values

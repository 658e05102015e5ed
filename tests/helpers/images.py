"""Networks of images as other projects compute them, and the law of the boring video.

On a clip of one repeated image, away from its ends, every endpoint of an inflated network is that
of the network of images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.network.architecture import ENDPOINTS
from i3dzoo.pretrained import build

FRAMES = 112
"""More than the 99 frames that the middle step of the last endpoint sees."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(height: int, width: int) -> Array:
    """A random image: uint8 [H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype="u1")


def randomise(module: nn.Module) -> None:
    """Give a network weights that keep the scale of the activations, and other statistics."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 4:
                fan = tensor[0].numel()
                tensor.normal_(0, (2 / fan) ** 0.5, generator=generator)
            elif name.endswith(("bn.weight", "running_var")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)


def torchvision_endpoints(network: Any, pixels: Array) -> dict[str, Array]:
    """The endpoints of torchvision's GoogLeNet on an image, and its logits, each [C, ...]."""
    modules = [
        *("conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b"),
        *("maxpool3", *(f"inception4{block}" for block in "abcde")),
        *("maxpool4", "inception5a", "inception5b"),
    ]
    outputs: dict[str, Array] = {}

    def keep(endpoint: str) -> Any:
        return lambda _module, _inputs, output: outputs.update({endpoint: output[0].numpy()})

    hooks = [
        network.get_submodule(name).register_forward_hook(keep(endpoint))
        for name, endpoint in zip(modules, ENDPOINTS, strict=True)
    ]
    x = (torch.from_numpy(pixels.astype("f4")) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.inference_mode():
        logits = network.eval()(x.permute(2, 0, 1)[None])
    for hook in hooks:
        hook.remove()
    return {**outputs, "logits": logits[0].numpy()}


def boring_endpoints(
    checkpoint: Checkpoint, pixels: Array, frames: int = FRAMES, at: float = 0.5
) -> dict[str, Array]:
    """The endpoints of an inflated network on a clip of one image: the middle step, or another."""
    spec = checkpoint.metadata.input
    x = (torch.from_numpy(pixels.astype("f4")) / 255 - torch.tensor(spec.mean)) / torch.tensor(
        spec.std
    )
    clip = x.permute(2, 0, 1)[None, :, None].expand(1, -1, frames, -1, -1).contiguous()
    model = build(checkpoint).eval()
    with torch.inference_mode():
        outputs: Mapping[str, Tensor] = model.endpoints(clip)
        middle = {
            name: x[0, :, int(at * (x.shape[2] - 1) + 0.5)].numpy() for name, x in outputs.items()
        }
        steps = model.step_logits(clip)
    return {**middle, "logits": steps[0, int(at * (steps.shape[1] - 1) + 0.5)].numpy()}


def largest_difference(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> float:
    """The largest difference of any endpoint, as a part of the largest value of the endpoint."""
    assert list(actual) == list(expected)
    differences = []
    for name, array in expected.items():
        assert actual[name].shape == array.shape, name
        assert array.std() > 0.01, name
        differences.append(float(np.abs(actual[name] - array).max() / np.abs(array).max()))
    return max(differences)

"""GPU kernels: Triton max pooling and a space-to-depth stem, equal to PyTorch's results.

PyTorch's `max_pool3d` takes many times as long as its memory traffic needs, and its gradient is not
deterministic. The first convolution has three input channels, too few for tensor cores.
"""

from i3dzoo.kernels.dispatch import set_enabled
from i3dzoo.kernels.max_pool import can_max_pool, max_pool
from i3dzoo.kernels.space_to_depth import can_space_to_depth, space_to_depth_conv

__all__ = ["can_max_pool", "can_space_to_depth", "max_pool", "set_enabled", "space_to_depth_conv"]

"""GPU kernels for PyTorch's network, equal to PyTorch's results.

PyTorch's `max_pool3d` and BatchNorm take many times as long as their memory traffic needs, and the
gradient of its pools is not deterministic. The first convolution has three input channels, too few
for tensor cores.
"""

from i3dzoo.kernels.batch_norm import batch_norm_relu, can_batch_norm
from i3dzoo.kernels.dispatch import set_enabled
from i3dzoo.kernels.inception import can_run_block, inception_block
from i3dzoo.kernels.max_pool import can_max_pool, max_pool
from i3dzoo.kernels.window_conv import can_window_conv, window_conv

__all__ = [
    "batch_norm_relu",
    "can_batch_norm",
    "can_max_pool",
    "can_run_block",
    "can_window_conv",
    "inception_block",
    "max_pool",
    "set_enabled",
    "window_conv",
]

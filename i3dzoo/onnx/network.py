"""Write one stream of I3D as ONNX nodes, from the canonical tensors, without tracing.

Symmetric padding, `ceil_mode`, and SAME padding where a size is fixed, are attributes of the
convolution or the pool. Where the size is dynamic, four nodes compute SAME padding: with stride 2
and an odd kernel k, TensorFlow pads k // 2 after and k // 2 - 1 + size mod 2 before; with an even
kernel, size mod 2 more after. Source: `i3dzoo.network.architecture.same_padding`.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from i3dzoo.arrays import Array, Tensors, bfloat16
from i3dzoo.errors import MetadataError
from i3dzoo.network.architecture import (
    DEEPMIND,
    ENDPOINTS,
    HEAD,
    POOLS,
    STEM,
    Unit,
    Variant,
    block_units,
    output_size,
    pad_axis,
)
from i3dzoo.network.bias_correction import MANTISSA_BITS, expected_inputs, round_weights
from i3dzoo.onnx.folding import BN_PARTS, fold_batch_norm
from i3dzoo.onnx.graph import GraphBuilder
from i3dzoo.onnx.options import Size
from i3dzoo.onnx.space_to_depth import separable_max_pool, space_to_depth, space_to_depth_stem

_STEM: Final = {unit.name: unit for unit in STEM}


class StreamBuilder:
    """Adds one stream of I3D to a graph.

    `prefix` begins every name, so that two streams fit into one graph.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        tensors: Tensors,
        variant: Variant = DEEPMIND,
        prefix: str = "",
    ) -> None:
        self.graph = graph
        self.tensors = tensors
        self.variant = variant
        self.options = graph.options
        self.prefix = prefix
        # with BatchNorm kept, convolutions have no bias to correct
        self._bits = 0 if self.options.keep_bn else MANTISSA_BITS.get(self.options.precision, 0)
        self._mean_inputs = expected_inputs(tensors) if self._bits else {}

    def trunk(self, x: str, size: Size) -> str:
        """Add everything up to the last average pool: [B, C, T, H, W] to [B, 1024, steps, h, w].

        `size` is T, H and W of the clip; None means any.
        """
        return self._average(*self.activations(x, size, ENDPOINTS[-1]))

    def activations(self, x: str, size: Size, endpoint: str) -> tuple[str, Size]:
        """Add everything up to an endpoint; return its activations and their T, H and W."""
        for name in ENDPOINTS:
            if name in POOLS:
                x = self._pool(x, name, size, *POOLS[name])
                size = self._size_after(size, *POOLS[name], pool=True)
            elif name in _STEM:
                stride = (2, 2, 2) if _STEM[name] is STEM[0] else (1, 1, 1)
                x = self._unit(x, _STEM[name], size, stride)
                size = self._size_after(size, (_STEM[name].kernel,) * 3, stride, pool=False)
            else:
                x = self._block(x, name, size)
            if name == endpoint:
                break
        return x, size

    def head(self, pooled: str) -> str:
        """Add the classifier: [B, 1024, steps, h, w] to [B, classes, steps, h, w]."""
        keys = [f"{HEAD}.conv.{part}" for part in ("weight", "bias")]
        values = self._rounded(HEAD, *(np.asarray(self.tensors[key]) for key in keys))
        inputs = [self._constant(key, value) for key, value in zip(keys, values, strict=True)]
        return self.graph.node("Conv", [pooled, *inputs], self.prefix + HEAD)

    def _constant(self, name: str, value: Array) -> str:
        precision = self.options.precision
        dtype = (
            bfloat16() if precision == "bf16" else np.dtype("f2" if precision == "fp16" else "f4")
        )
        with np.errstate(over="ignore"):
            typed = np.asarray(value).astype(dtype)
        if precision == "fp16" and not np.isfinite(typed).all():
            raise MetadataError(
                f"{self.prefix}{name}: float16 holds at most 65504, found "
                f"{np.abs(value).max():.3g}; use --precision bf16 or fp32"
            )
        return self.graph.constant(self.prefix + name, typed)

    def _rounded(self, name: str, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Round weights to the bits that the precision keeps, and correct the bias."""
        if not self._bits:
            return weight, bias
        return round_weights(weight, bias, self._bits, self._mean_inputs[name])

    def _unit(
        self, x: str, unit: Unit, size: Size = (None,) * 3, stride: Sequence[int] = (1, 1, 1)
    ) -> str:
        """Add a convolution, its BatchNorm if that is kept, and a ReLU."""
        kernel, name = [unit.kernel] * 3, f"{self.prefix}{unit.name}"
        arrange: Callable[[Array], Array] = np.asarray
        attributes: dict[str, list[int]]
        fixed = self._gpu_size(size)
        if fixed and stride[0] == 2 and not any(n % 2 for n in fixed):
            x = space_to_depth(self.graph, x, fixed, f"{name}.space_to_depth")
            before, _ = pad_axis(self.variant.padding, fixed[0], unit.kernel, stride[0], pool=False)
            arrange, attributes = space_to_depth_stem(before)
        else:
            x, pads = self._pad(x, unit.name, size, kernel, stride, pool=False)
            attributes = {"kernel_shape": kernel, "strides": list(stride), "pads": pads}
        key = f"{unit.name}.conv.weight"
        if self.options.keep_bn:
            inputs = [x, self._constant(key, arrange(np.asarray(self.tensors[key])))]
        else:
            weight, bias = self._rounded(
                unit.name, *fold_batch_norm(self.tensors, unit.name, self.variant.epsilon)
            )
            inputs = [x, self._constant(key, arrange(weight))]
            inputs.append(self._constant(f"{unit.name}.conv.bias", bias))
        x = self.graph.node("Conv", inputs, f"{name}.conv", **attributes)
        if self.options.keep_bn:
            keys = [f"{unit.name}.bn.{part}" for part in BN_PARTS]
            inputs = [x, *(self._constant(key, self.tensors[key]) for key in keys)]
            epsilon = self.variant.epsilon
            x = self.graph.node("BatchNormalization", inputs, f"{name}.bn", epsilon=epsilon)
        return self.graph.node("Relu", [x], name)

    def _block(self, x: str, block: str, size: Size) -> str:
        """Add an Inception block."""
        outputs: dict[str, str] = {}
        pooled = self._pool(x, f"{block}.Branch_3.MaxPool3d_0a_3x3", size, (3,) * 3, (1,) * 3)
        for unit in block_units(block):
            branch = unit.name.split(".")[1]
            before = outputs.get(branch, pooled if branch == "Branch_3" else x)
            outputs[branch] = self._unit(before, unit)
        return self.graph.node("Concat", list(outputs.values()), self.prefix + block, axis=1)

    def _pool(
        self, x: str, name: str, size: Size, kernel: Sequence[int], stride: Sequence[int]
    ) -> str:
        """Add a max pool."""
        # the input is not negative, since it comes from a ReLU, so padding with zeros is neutral
        x, pads = self._pad(x, name, size, kernel, stride, pool=True)
        name = self.prefix + name
        if fixed := self._gpu_size(size):
            return separable_max_pool(self.graph, x, name, fixed, kernel, stride, pads)
        ceil = {"ceil_mode": 1} if self.variant.padding == "ceil" and None in size else {}
        shape = {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads}
        return self.graph.node("MaxPool", [x], name, **shape, **ceil)

    def _gpu_size(self, size: Size) -> list[int]:
        """Return a size if operators with fast GPU kernels are wanted and it is fixed, else []."""
        fixed = [n for n in size if n is not None]
        return fixed if self.options.space_to_depth and len(fixed) == len(size) else []

    def _size_after(
        self, size: Size, kernel: Sequence[int], stride: Sequence[int], *, pool: bool
    ) -> Size:
        """Return the size of the output of a convolution or a pool."""
        frames, height, width = (
            None if n is None else output_size(self.variant.padding, n, k, s, pool=pool)
            for n, k, s in zip(size, kernel, stride, strict=True)
        )
        return frames, height, width

    def _pad(
        self,
        x: str,
        name: str,
        size: Size,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        pool: bool,
    ) -> tuple[str, list[int]]:
        """Pad an input; return it, and the padding that its consumer must still apply."""
        padding = self.variant.padding
        known = [
            padding != "same" or s == 1 or n is not None for n, s in zip(size, stride, strict=True)
        ]
        # for an unknown size stands an even one, as nodes add the parity below, or, for ceil_mode,
        # one window
        unknown = stride if padding == "same" else kernel
        sizes = [u if n is None else n for n, u in zip(size, unknown, strict=True)]
        pairs = [
            pad_axis(padding, n, k, s, pool=pool)
            for n, k, s in zip(sizes, kernel, stride, strict=True)
        ]
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
        if all(known):
            return x, pads
        # the remainder of a division by 1 is 0, so the other axes stay as they are
        before = [2 if not fixed and k % 2 else 1 for fixed, k in zip(known, kernel, strict=True)]
        after = [1 if fixed or k % 2 else 2 for fixed, k in zip(known, kernel, strict=True)]
        divisors = [1, 1, *before, 1, 1, *after]
        graph, name = self.graph, f"{self.prefix}{name}.same"
        shape = graph.node("Shape", [x], f"{name}.shape")
        twice = graph.node("Concat", [shape, shape], f"{name}.twice", axis=0)
        parity = graph.node("Mod", [twice, graph.integers(*divisors)], f"{name}.parity")
        base = graph.integers(0, 0, *pads[:3], 0, 0, *pads[3:])
        total = graph.node("Add", [parity, base], f"{name}.pads")
        return graph.node("Pad", [x, total], name), [0] * 6

    def _average(self, x: str, size: Size) -> str:
        """Average over 2 steps and 7x7 positions, or over fewer if the map is smaller.

        Global pooling is left to the outputs, which are averaged over time and space; the head
        between is linear.
        """
        if self.variant.pooling == "global":
            return x
        _, height, width = size
        name = f"{self.prefix}AvgPool3d"
        if height is not None and width is not None:
            kernel = [2, min(7, height), min(7, width)]
            return self.graph.node("AveragePool", [x], name, kernel_shape=kernel)
        # a map of unknown size is padded with zeros to 7x7, and the mean is scaled back
        graph = self.graph
        shape = graph.node("Shape", [x], f"{name}.shape")
        missing = graph.node("Sub", [graph.integers(0, 0, 0, 7, 7), shape], f"{name}.missing")
        after = graph.node("Max", [missing, graph.integers(0)], f"{name}.after")
        pads = graph.node("Concat", [graph.integers(0, 0, 0, 0, 0), after], f"{name}.pads", axis=0)
        padded = graph.node("Pad", [x, pads], f"{name}.padded")
        mean = graph.node("AveragePool", [padded], f"{name}.mean", kernel_shape=[2, 7, 7])
        valid = graph.node("Min", [shape, graph.integers(1, 1, 1, 7, 7)], f"{name}.valid")
        valid = graph.to_float(valid, f"{name}.valid_float")
        count = graph.reduce("ReduceProd", valid, [0], f"{name}.count")
        whole = graph.constant("const.49", np.array(49, "f4"))
        factor = graph.node("Div", [whole, count], f"{name}.factor")
        factor = graph.to_element(factor, f"{name}.factor_typed")
        return graph.node("Mul", [mean, factor], name)

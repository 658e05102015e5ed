"""I3D as ONNX nodes, written from the canonical tensors: no tracing, so no surprises.

SAME padding is attributes where the size is known. Where it is not, four nodes compute it: with
stride 2 and an odd kernel k, TensorFlow pads k // 2 after and k // 2 - 1 + size mod 2 before; with
an even kernel, size mod 2 more after. Source: `i3dzoo.architecture.same_padding`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from onnx import TensorProto

from i3dzoo.architecture import (
    BN_EPSILON,
    ENDPOINTS,
    HEAD,
    POOLS,
    STEM,
    Unit,
    block_units,
    same_padding,
)
from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import MetadataError
from i3dzoo.export.averages import average_inputs
from i3dzoo.export.graph import ELEMENT, Graph, numpy_type
from i3dzoo.export.options import ExportOptions, Size
from i3dzoo.export.rounding import BITS, LEVELS, Rounding, filter_scales, keep_bits
from i3dzoo.export.split import CELLS, cell_weight, cells, split_pool

__all__ = ["Network", "fold"]

_POOLED: Final = (2, 7, 7)  # the last average pool
_STEM: Final = {unit.name: unit for unit in STEM}
_NEVER_INT8: Final = {unit.name for unit in STEM[:2]}
"""Units that stay in float in an int8 graph: they made half of its error (docs/export.md)."""


def fold(tensors: Tensors, unit: str) -> tuple[Array, Array]:
    """Fold a unit's BatchNorm into its convolution: weight and bias, float32.

    Computed in double precision: y = g * (conv(x) - m) / sqrt(v + eps) + b.
    """
    scale, shift, mean, variance = (
        np.asarray(tensors[f"{unit}.bn.{part}"], "f8")
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / np.sqrt(variance + BN_EPSILON)
    weight = np.asarray(tensors[f"{unit}.conv.weight"], "f8") * factor.reshape(-1, 1, 1, 1, 1)
    return weight.astype("f4"), (shift - mean * factor).astype("f4")


class Network:
    """One stream of I3D, node by node.

    Args:
        graph: What the nodes are added to.
        tensors: The canonical state dict.
        options: Precision, BatchNorm.
        prefix: Put before every name, so that two streams fit in one graph.
        rounding: How each unit computes in int8; None for the other precisions.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Tensors,
        options: ExportOptions,
        prefix: str = "",
        rounding: Mapping[str, Rounding] | None = None,
    ) -> None:
        self.graph = graph
        self.tensors = tensors
        self.options = options
        self.prefix = prefix
        self.rounding = rounding or {}
        self.dtype = numpy_type(options.precision)
        # with BatchNorm kept there is no bias to take anything back
        self.bits = 0 if options.keep_bn else options.bits or BITS.get(options.precision, 0)
        self._averages = average_inputs(tensors) if self.bits else {}
        self._rounded: dict[str, str] = {}
        self._pools: set[str] = set()

    def trunk(self, x: str, size: Size) -> str:
        """Add everything up to the pooled features.

        Args:
            x: The clip, [B, C, T, H, W], in the type of computation.
            size: Its T, H and W; None is any.

        Returns:
            The features before the head, [B, 1024, steps, h, w].
        """
        for name in ENDPOINTS:
            if name in POOLS:
                x = self._pool(x, name, size, *POOLS[name])
                size = _halved(size, POOLS[name][1])
            elif name in _STEM:
                stride = (2, 2, 2) if _STEM[name] is STEM[0] else (1, 1, 1)
                x = self._unit(x, _STEM[name], size, stride)
                size = _halved(size, stride)
            else:
                x = self._block(x, name, size)
        return self._average(x, size)

    def head(self, pooled: str) -> str:
        """Add the classifier: [B, 1024, steps, h, w] to [B, classes, steps, h, w]."""
        keys = [f"{HEAD}.conv.{part}" for part in ("weight", "bias")]
        values = self._kept(HEAD, *(np.asarray(self.tensors[key]) for key in keys))
        inputs = [self._constant(key, value) for key, value in zip(keys, values, strict=True)]
        return self.graph.node("Conv", [pooled, *inputs], self.prefix + HEAD)

    def _constant(self, name: str, value: Array) -> str:
        with np.errstate(over="ignore"):
            typed = np.asarray(value).astype(self.dtype)
        if self.options.precision == "fp16" and not np.isfinite(typed).all():
            raise MetadataError(
                f"{self.prefix}{name} reaches {np.abs(value).max():.3g}, and float16 ends at "
                "65504; use --precision bf16 or fp32"
            )
        return self.graph.constant(self.prefix + name, typed)

    def _kept(self, name: str, weight: Array, bias: Array) -> tuple[Array, Array]:
        """Round weights to what is kept of them; the bias takes back what that does to the mean."""
        if not self.bits:
            return weight, bias
        rounded = keep_bits(weight, self.bits)
        lost = (weight - rounded).sum((2, 3, 4), dtype="f8") @ self._averages[name]
        return rounded, (bias + lost).astype("f4")

    def _unit(
        self, x: str, unit: Unit, size: Size = (None,) * 3, stride: Sequence[int] = (1, 1, 1)
    ) -> str:
        kernel, name = [unit.kernel] * 3, f"{self.prefix}{unit.name}"
        arranged: Callable[[Array], Array] = np.asarray
        fixed = self._split(size)
        if fixed and stride[0] == 2 and not any(n % 2 for n in fixed):
            x = cells(self.graph, x, fixed, f"{name}.cells")
            arranged, attributes = cell_weight, CELLS
        else:
            x, pads = self._same(x, unit.name, size, kernel, stride)
            attributes = {"kernel_shape": kernel, "strides": list(stride), "pads": pads}
        if not self.options.keep_bn:
            folded, bias = self._kept(unit.name, *fold(self.tensors, unit.name))
            weight = self._constant(f"{unit.name}.conv.weight", arranged(folded))
            rounding = self.rounding.get(unit.name)
            if rounding is not None and unit.name not in _NEVER_INT8:
                x = self._round_input(x, rounding.largest)
                weight = self._round(weight, filter_scales(folded), axis=0)
                bias = bias + np.asarray(rounding.shift, "f4")
            inputs = [x, weight, self._constant(f"{unit.name}.conv.bias", bias)]
            x = self.graph.node("Conv", inputs, f"{name}.conv", **attributes)
            return self.graph.node("Relu", [x], name)
        key = f"{unit.name}.conv.weight"
        weight = self._constant(key, arranged(np.asarray(self.tensors[key])))
        x = self.graph.node("Conv", [x, weight], f"{name}.conv", **attributes)
        keys = [
            f"{unit.name}.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")
        ]
        inputs = [x, *(self._constant(key, self.tensors[key]) for key in keys)]
        x = self.graph.node("BatchNormalization", inputs, f"{name}.bn", epsilon=BN_EPSILON)
        return self.graph.node("Relu", [x], name)

    def _round_input(self, x: str, largest: float) -> str:
        """Round what a unit is given to 8 bits, once for all units that are given the same."""
        if x not in self._rounded:
            given = x
            if self.options.split and x in self._pools:
                # else TensorRT 8 rounds before it pools, finds that it cannot pool int8, and fails
                zero = self.graph.constant("const.zero", np.zeros((1,) * 5, "f4"))
                given = self.graph.node("Add", [x, zero], f"{x}.kept")
            self._rounded[x] = self._round(given, np.array(largest / LEVELS, "f4"))
        return self._rounded[x]

    def _round(self, x: str, scales: Array, **axis: int) -> str:
        """Quantise to int8 and back; engines compute in int8 between the two."""
        scale = self.graph.constant(f"{x}.scale", scales)
        zero = self.graph.constant(f"{x}.zero", np.zeros(scales.shape, "i1"))
        small = self.graph.node("QuantizeLinear", [x, scale, zero], f"{x}.int8", **axis)
        return self.graph.node("DequantizeLinear", [small, scale, zero], f"{x}.rounded", **axis)

    def _block(self, x: str, block: str, size: Size) -> str:
        ends: dict[str, str] = {}
        pooled = self._pool(x, f"{block}.Branch_3.MaxPool3d_0a_3x3", size, (3,) * 3, (1,) * 3)
        for unit in block_units(block):
            branch = unit.name.split(".")[1]
            before = ends.get(branch, pooled if branch == "Branch_3" else x)
            ends[branch] = self._unit(before, unit)
        return self.graph.node("Concat", list(ends.values()), self.prefix + block, axis=1)

    def _pool(
        self, x: str, name: str, size: Size, kernel: Sequence[int], stride: Sequence[int]
    ) -> str:
        # what is pooled comes from a ReLU, so that padding with zeros never wins
        x, pads = self._same(x, name, size, kernel, stride)
        name = self.prefix + name
        self._pools.add(name)
        if fixed := self._split(size):
            return split_pool(self.graph, x, name, fixed, kernel, stride, pads)
        shape = {"kernel_shape": list(kernel), "strides": list(stride), "pads": pads}
        return self.graph.node("MaxPool", [x], name, **shape)

    def _split(self, size: Size) -> list[int]:
        """Return a size if what has it shall be split, else nothing."""
        fixed = [n for n in size if n is not None]
        return fixed if self.options.split and len(fixed) == len(size) else []

    def _same(
        self, x: str, name: str, size: Size, kernel: Sequence[int], stride: Sequence[int]
    ) -> tuple[str, list[int]]:
        """Pad an input; return it and what the convolution or pool shall pad itself."""
        known = [s == 1 or n is not None for n, s in zip(size, stride, strict=True)]
        # an even size stands for the unknown ones: their parity is added to it below
        pairs = [
            same_padding(n if n is not None else s, k, s)
            for n, k, s in zip(size, kernel, stride, strict=True)
        ]
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
        if all(known):
            return x, pads
        # the remainder by 1 is 0, so the other places of the vector gain nothing
        odd = [False, False] + [
            not yes and k % 2 == 1 for yes, k in zip(known, kernel, strict=True)
        ]
        even = [False, False] + [
            not yes and k % 2 == 0 for yes, k in zip(known, kernel, strict=True)
        ]
        divisors = [2 if each else 1 for each in (*odd, *even)]
        graph, name = self.graph, f"{self.prefix}{name}.same"
        shape = graph.node("Shape", [x], f"{name}.shape")
        twice = graph.node("Concat", [shape, shape], f"{name}.twice", axis=0)
        parity = graph.node("Mod", [twice, graph.integers(*divisors)], f"{name}.parity")
        base = graph.integers(0, 0, *pads[:3], 0, 0, *pads[3:])
        total = graph.node("Add", [parity, base], f"{name}.pads")
        return graph.node("Pad", [x, total], name), [0] * 6

    def _average(self, x: str, size: Size) -> str:
        """Average over 2 steps and 7x7 positions, or fewer where the map is smaller."""
        _, height, width = size
        name = f"{self.prefix}AvgPool3d"
        if height is not None and width is not None:
            kernel = [2, min(7, height), min(7, width)]
            return self.graph.node("AveragePool", [x], name, kernel_shape=kernel)
        # small maps of unknown size: zeros fill them up to 7x7, and the mean is scaled back
        graph = self.graph
        shape = graph.node("Shape", [x], f"{name}.shape")
        lacking = graph.node("Sub", [graph.integers(0, 0, 0, 7, 7), shape], f"{name}.lacking")
        fill = graph.node("Max", [lacking, graph.integers(0)], f"{name}.fill")
        pads = graph.node("Concat", [graph.integers(0, 0, 0, 0, 0), fill], f"{name}.pads", axis=0)
        padded = graph.node("Pad", [x, pads], f"{name}.padded")
        mean = graph.node("AveragePool", [padded], f"{name}.mean", kernel_shape=list(_POOLED))
        seen = graph.node("Min", [shape, graph.integers(1, 1, 1, 7, 7)], f"{name}.seen")
        element = ELEMENT[self.options.precision]
        count = graph.product(
            graph.cast(seen, TensorProto.FLOAT, f"{name}.seen_float"), f"{name}.count"
        )
        whole = graph.constant("const.49", np.array(49, "f4"))
        factor = graph.node("Div", [whole, count], f"{name}.factor")
        if element != TensorProto.FLOAT:
            factor = graph.cast(factor, element, f"{name}.factor_typed")
        return graph.node("Mul", [mean, factor], name)


def _halved(size: Size, stride: Sequence[int]) -> Size:
    frames, height, width = (
        None if n is None else -(-n // s) for n, s in zip(size, stride, strict=True)
    )
    return frames, height, width

"""Collecting ONNX nodes: constants are stored once, results are named after what made them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from i3dzoo.arrays import Array, bfloat16
from i3dzoo.errors import MetadataError
from i3dzoo.export.options import Precision

__all__ = ["ELEMENT", "Graph", "numpy_type"]

ELEMENT: dict[Precision, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.FLOAT,
}
"""Type of the tensors between nodes; int8 is pairs of nodes that quantise and restore."""


def numpy_type(precision: Precision) -> np.dtype[Any]:
    """Return numpy's dtype of a precision."""
    if precision == "bf16":
        return bfloat16()
    return np.dtype("f2" if precision == "fp16" else "f4")


class Graph:
    """Nodes and constants in the making, in the order of computation.

    Args:
        opset: Of the default operator set; the few operators that changed since 13 are written as
            this version wants them.

    Raises:
        MetadataError: The installed onnx knows no such version.
    """

    def __init__(self, opset: int) -> None:
        newest = onnx.defs.onnx_opset_version()
        if opset > newest:
            raise MetadataError(
                f"opset is {opset}, and onnx {onnx.__version__} knows {newest} and older; upgrade "
                "onnx, or pass another --opset"
            )
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one result, which has the node's name, and return that name."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array) -> str:
        """Store an array under a name, once, and return the name."""
        if name not in self._constants:
            tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            self._constants[name] = tensor
        return name

    def integers(self, *values: int) -> str:
        """Store an int64 vector, once for all who want the same, and return its name."""
        name = "const." + "_".join(map(str, values))
        return self.constant(name, np.array(values, "i8"))

    def mean(self, x: str, axes: Sequence[int], name: str) -> str:
        """Average over axes, which then are gone; their place in the node moved in opset 18."""
        if self.opset < 18:
            return self.node("ReduceMean", [x], name, axes=list(axes), keepdims=0)
        return self.node("ReduceMean", [x, self.integers(*axes)], name, keepdims=0)

    def product(self, x: str, name: str) -> str:
        """Multiply the elements of a vector; the result is a scalar."""
        if self.opset < 18:
            return self.node("ReduceProd", [x], name, axes=[0], keepdims=0)
        return self.node("ReduceProd", [x, self.integers(0)], name, keepdims=0)

    def cast(self, x: str, element: int, name: str) -> str:
        """Change the type of the elements."""
        return self.node("Cast", [x], name, to=element)

    def take(self, name: str, element: int, shape: Sequence[int | str]) -> str:
        """Declare an input and return its name."""
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def give(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare a float32 output."""
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, name: str, doc: str, producer_version: str) -> onnx.ModelProto:
        """Return the model, in the oldest file version that its operators allow."""
        graph = helper.make_graph(
            self.nodes,
            name,
            self.inputs,
            self.outputs,
            list(self._constants.values()),
            doc_string=doc,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="i3dzoo",
            producer_version=producer_version,
        )

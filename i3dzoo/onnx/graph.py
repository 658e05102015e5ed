"""Collect the nodes, constants, inputs and outputs of an ONNX graph."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from i3dzoo.arrays import Array
from i3dzoo.errors import OptionError
from i3dzoo.onnx.options import ExportOptions
from i3dzoo.version import __version__

FLOAT: Final[int] = TensorProto.FLOAT
_ELEMENTS: Final = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


class GraphBuilder:
    """Collects nodes in the order of computation. Equal constants are stored once.

    A few operators changed after opset 13; they are written in the form of the options' opset.
    `element` is the type of the tensors between nodes.
    """

    def __init__(self, options: ExportOptions) -> None:
        newest = onnx.defs.onnx_opset_version()
        if options.opset > newest:
            raise OptionError(
                f"opset: onnx {onnx.__version__} has {newest} and older, found {options.opset}; "
                "upgrade onnx, or pass an older --opset"
            )
        self.options = options
        self.element: int = _ELEMENTS.get(options.precision, FLOAT)
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node with one result, named after the node, and return the name."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Array) -> str:
        """Store an array under a name if the name is new, and return the name."""
        if name not in self._constants:
            tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            self._constants[name] = tensor
        return name

    def integers(self, *values: int) -> str:
        """Store an int64 vector and return its name, which is the same for equal vectors."""
        name = "const." + "_".join(map(str, values))
        return self.constant(name, np.array(values, "i8"))

    def reduce(self, operator: str, x: str, axes: Sequence[int], name: str) -> str:
        """Reduce axes, and remove them. Since opset 18 the axes are an input."""
        if self.options.opset < 18:
            return self.node(operator, [x], name, axes=list(axes), keepdims=0)
        return self.node(operator, [x, self.integers(*axes)], name, keepdims=0)

    def to_float(self, x: str, name: str) -> str:
        """Change the type to float32."""
        return self.node("Cast", [x], name, to=FLOAT)

    def to_element(self, x: str, name: str) -> str:
        """Change float32 to the type of computation, if they differ."""
        return x if self.element == FLOAT else self.node("Cast", [x], name, to=self.element)

    def add_input(self, name: str, element: int, shape: Sequence[int | str]) -> str:
        """Declare an input and return its name."""
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def add_output(self, x: str, name: str, *axes: int | str) -> None:
        """Declare the result of the last node as an output, in float32."""
        if self.element == FLOAT:
            self.nodes[-1].output[0] = name
        else:
            self.to_float(x, name)
        self.outputs.append(helper.make_tensor_value_info(name, FLOAT, ["batch", *axes]))

    def to_model(self, name: str, doc: str) -> onnx.ModelProto:
        """Return the model, in the oldest file version that its operators allow."""
        constants = list(self._constants.values())
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, constants, doc)
        opsets = [helper.make_opsetid("", self.options.opset)]
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="i3dzoo",
            producer_version=__version__,
        )

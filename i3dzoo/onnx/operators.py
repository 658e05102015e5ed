"""The operators of exported networks, and a check before a model is loaded.

onnxruntime computes what depends on constants alone when it loads a model, so a file of a few bytes
could make it fill the memory. An export has no such node.
"""

from collections.abc import Iterable
from typing import Final

from i3dzoo.errors import UnsafeFileError
from i3dzoo.formats.onnx_file import Node
from i3dzoo.text import shorten

_OPERATORS: Final = frozenset(
    (
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "Conv", "Div", "Max"),
        *("MaxPool", "Min", "Mod", "Mul", "Pad", "ReduceMean", "ReduceProd", "Relu", "Reshape"),
        *("Resize", "Shape", "Slice", "Sub", "Transpose"),
    )
)


def check_nodes(where: str, nodes: Iterable[Node], constants: frozenset[str]) -> None:
    """Check that a graph has only the operators of exports, and computes none of its constants.

    `where` is the name of the file, for messages.
    """
    for node in nodes:
        if node.operator not in _OPERATORS:
            raise UnsafeFileError(
                f"{where}: has the operator {shorten(node.operator)!r}, which i3dzoo export does "
                "not write; export the checkpoint with i3dzoo export"
            )
        if constants.issuperset(name for name in node.inputs if name):
            raise UnsafeFileError(
                f"{where}: {node.operator} computes a constant, which i3dzoo export does "
                "not write; export the checkpoint with i3dzoo export"
            )

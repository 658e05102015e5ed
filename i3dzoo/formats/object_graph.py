"""The object graph of TensorFlow 2 checkpoints, which knows the variables' own names.

A checkpoint of TensorFlow 2 names tensors by the path through Python objects that leads to them,
`layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`; its entry `_CHECKPOINTABLE_OBJECT_GRAPH`
tells each variable's name. Source: tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from typing import Final

from i3dzoo.formats._protobuf import TruncatedError, fields, varint

__all__ = ["KEY", "variable_names"]

KEY: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"


def variable_names(raw: memoryview, keys: list[str]) -> dict[str, str]:
    """Return a name for each key of a checkpoint: the variable's, where it is known and unique.

    Args:
        raw: The graph's bytes in the data file: length, masked CRC32C of the length, message.
        keys: Names of the checkpoint's tensors.

    Raises:
        ValueError: The graph is truncated.
    """
    try:
        length, at = varint(raw, 0)
        at += 4
        if at + length != len(raw):
            raise TruncatedError("the object graph's length is wrong")
        full = dict(_attributes(raw[at:]))
    except IndexError as error:
        raise TruncatedError("the object graph is truncated") from error
    names = {key: full.get(key) or key.removesuffix(_SUFFIX) for key in keys}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else key for key, name in names.items()}


def _attributes(graph: memoryview) -> list[tuple[str, str]]:
    """Return (checkpoint key, full name) of every saved tensor."""
    found = []
    for number, node in fields(graph):
        if number != 1 or isinstance(node, int):
            continue
        for field, attribute in fields(node):
            if field == 2 and not isinstance(attribute, int):
                parts = {n: v for n, v in fields(attribute) if not isinstance(v, int)}
                key, name = (str(parts.get(part, b""), "utf-8") for part in (3, 2))
                found.append((key, name))
    return found

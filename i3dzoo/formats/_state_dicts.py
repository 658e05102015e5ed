"""Find the state dicts in a training checkpoint of PyTorch, and the one that tools load."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from i3dzoo.formats import flax_pickle
from i3dzoo.formats._pickle_machine import Opaque
from i3dzoo.formats.limits import MAX_TENSORS

USUAL: Final = ("state_dict", "model_state_dict", "model", "net")
"""The keys that training tools load."""

_MAX_KEYS: Final = 2  # before a state dict, such as ema.shadow


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides are in elements."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def usual(root: Any) -> tuple[str, Any]:
    """Return the key and the value that training tools load of a checkpoint."""
    keys = []
    for key in USUAL:
        if isinstance(root, Mapping) and isinstance(root.get(key), Mapping | Opaque):
            keys.append(key)
            root = root[key]
    return ".".join(keys), root


def find_states(root: Any, first: str, first_node: Any) -> dict[str, Any]:
    """Return all state dicts and models below `root` by key; `first_node` is searched first."""
    states: dict[str, Any] = {}
    seen: set[int] = set()  # a dict may be under several keys
    nodes = [(first, first_node, 0), ("", root, 0)]
    for key, node, depth in nodes:
        if id(node) in seen:
            continue
        seen.add(id(node))
        if _is_state_dict(node) or _is_model(node, is_first=node is first_node):
            states[key] = node
        elif isinstance(node, Mapping) and depth < _MAX_KEYS and not _has_tensors(node):
            nodes += [
                (f"{key}.{name}" if key else name, value, depth + 1)
                for name, value in node.items()
                if isinstance(name, str) and isinstance(value, Mapping | Opaque)
            ]
    if sum(len(state) for state in states.values() if isinstance(state, Mapping)) > MAX_TENSORS:
        return {key: state for key, state in states.items() if key == first}
    return states


def is_tensor(value: Any) -> bool:
    """Whether this is a tensor or an array."""
    return isinstance(value, Tensor) or flax_pickle.as_array(value) is not None


def _is_state_dict(node: Any) -> bool:
    return (
        isinstance(node, Mapping)
        and _has_tensors(node)
        and all(isinstance(name, str) and is_tensor(value) for name, value in node.items())
    )


def _has_tensors(node: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in node.values())


def _is_model(node: Any, *, is_first: bool) -> bool:
    """Whether this is a pickled module; only the first one may be of TorchScript."""
    is_module = isinstance(node, Opaque) and isinstance(node.state, Mapping)
    return is_module and (is_first or "_modules" in node.state)

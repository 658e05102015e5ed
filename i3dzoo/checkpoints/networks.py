"""Find the networks in a file, and choose the one to read.

A network exists where all convolutions and BatchNorm layers of a layout stand behind one prefix, in
one of the state dicts of the file. Its key is the key of the state dict and the prefix, such as
`state_dict_ema` or `encoder_q`.
"""

import contextlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.architectures import find_architecture
from i3dzoo.checkpoints.converter import Table
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.errors import MappingError
from i3dzoo.formats import Container
from i3dzoo.formats.tensorflow_bundle import index_path
from i3dzoo.network.architecture import HEAD_BIAS, HEAD_WEIGHT, STEM_WEIGHT, UNITS

_LOG: Final = logging.getLogger("i3dzoo")
HEAD: Final = (HEAD_WEIGHT, HEAD_BIAS)


@dataclass(frozen=True)
class Network:
    """The tensors of one network.

    Attributes:
        table: The layout of its names.
        prefix: Before its names.
        tensors: All tensors of its state dict.
        part: The key of the state dict, if the file has several.
        head: The key of the state dict of its head, if it has one of its own.
    """

    table: Table
    prefix: str
    tensors: Tensors = field(repr=False, compare=False)
    part: str = ""
    head: str | None = None

    @property
    def key(self) -> str:
        """The key that chooses this network."""
        return ".".join(filter(None, (self.part, self.prefix.strip("./"))))

    @property
    def stream(self) -> Stream:
        """The stream, by the input channels of the first convolution."""
        stem = next(rule for rule in self.table.rules if rule.target == STEM_WEIGHT)
        shape = self.tensors[self.prefix + stem.source].shape
        axis = -2 if stem.layouts[0].endswith("IO") else 1
        return "flow" if len(shape) > 3 and shape[axis] == 2 else "rgb"

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there is no head."""
        bias = self.tensors.get(self.prefix + _head(self.table)[HEAD_BIAS])
        return 0 if bias is None else bias.size

    @property
    def names(self) -> set[str]:
        """All names that the network may have."""
        return {self.prefix + rule.source for rule in self.table.rules}

    def __str__(self) -> str:
        classes = f"{self.num_classes} classes" if self.num_classes else "no head"
        return f"{self.stream} under {self.key!r} (layout {self.table.name}, {classes})"


def split_key(path: str | Path) -> tuple[str, str | None]:
    """Return the file and the key of `FILE#KEY`; a file with # in its name needs no key."""
    file, mark, key = str(path).rpartition("#")
    with contextlib.suppress(OSError):  # the name may be too long
        if not mark or Path(path).exists() or index_path(Path(path)):
            return str(path), None
    return file, key


def with_key(path: str | Path, key: str | None) -> str:
    """Return `FILE#KEY`; the path itself without a key."""
    return str(path) if key is None else f"{path}#{key}"


def find_networks(parts: Mapping[str, Tensors], tables: Iterable[Table]) -> tuple[Network, ...]:
    """Return the whole networks of all state dicts of a file, with or without heads."""
    candidates = tables if len(parts) == 1 else tuple(tables)
    return tuple(
        network
        for part, tensors in parts.items()
        if len(tensors) > len(UNITS)  # a network has more, and tables take time
        for network in _find(part, tensors, candidates).values()
    )


def _find(part: str, tensors: Tensors, tables: Iterable[Table]) -> dict[str, Network]:
    found: dict[str, Network] = {}
    tried = []
    for table in tables:
        tried.append(table)
        present = _prefixes(tensors.keys(), table)
        for prefix in (prefix for prefix in table.prefixes if prefix in present):
            found.setdefault(prefix, Network(table, prefix, tensors, part))
        named = {name for network in found.values() for name in network.names}
        if found and len(tensors.keys() - named) <= len(UNITS):
            return found  # the rest is too little for another network
    # a network may be within another one, behind a prefix that no table has
    for table in tried:
        for prefix in _prefixes(tensors.keys(), table):
            found.setdefault(prefix, Network(table, prefix, tensors, part))
    return found


def _prefixes(names: Collection[str], table: Table) -> list[str]:
    """Return the prefixes of whole networks, in the order of the names."""
    trunk = [rule.source for rule in table.rules if rule.target not in HEAD]
    stem = next(rule.source for rule in table.rules if rule.target == STEM_WEIGHT)
    prefixes = [name.removesuffix(stem) for name in names if name.endswith(stem)]
    return [prefix for prefix in prefixes if all(prefix + source in names for source in trunk)]


def nearest(where: str, parts: Mapping[str, Tensors], tables: Iterable[Table]) -> Network:
    """Return the incomplete network that the names fit best; its conversion lists what is missing.

    Raises:
        MappingError: It is another architecture, or of several layouts no name is that of one.
    """
    candidates = tuple(tables)
    images = candidates[0].images
    for tensors in parts.values():
        other = find_architecture(tensors)
        if other and not (images and other.inflates):
            raise MappingError(
                f"{where}: expected an I3D network (Inception-v1), found another architecture: "
                f"{other.name} (keys such as {next(iter(other.keys))}, as in {other.source})"
                f"{'; i3dzoo inflate makes an I3D network of it' if other.inflates else ''}"
            )
    best, best_count = None, 0 if len(candidates) > 1 else -1
    for table in candidates:
        for prefix in table.prefixes:
            sources = {prefix + rule.source for rule in table.rules}
            for part, tensors in parts.items():
                count = len(sources.intersection(tensors))
                if count > best_count:
                    best, best_count = Network(table, prefix, tensors, part), count
    if best is None:
        names = (f"{part}.{name}" if part else name for part in parts for name in parts[part])
        sample = ", ".join(sorted(names)[:3]) or "none"
        raise MappingError(
            f"{where}: expected the tensor names of a known layout, found {sample}, …; "
            "write a converter table and pass it with --converter"
        )
    return best


def select(
    where: str,
    networks: Sequence[Network],
    container: Container,
    stream: Stream | None = None,
    key: str | None = None,
) -> Network:
    """Return the network of a file to read, with its head; log what else could be read.

    Raises:
        MappingError: See `choose` and `_with_head`.
    """
    network = choose(where, networks, stream, key, container.main)
    if key is not None:
        return network
    network = _with_head(where, network, container)
    others = [n for n in networks if n.key != network.key and stream in (None, n.stream)]
    if others:
        _LOG.warning(
            "%s: reads the network under %r; the file also has %s, which --key %s reads",
            *(where, network.key, ", ".join(map(str, others)), others[0].key or "''"),
        )
    return network


def choose(
    where: str,
    networks: Sequence[Network],
    stream: Stream | None = None,
    key: str | None = None,
    main: str | None = None,
) -> Network:
    """Return the network to read.

    Args:
        where: Of messages.
        networks: At least one.
        stream: Its stream, if given.
        key: Its key, or a part of it that no other network has.
        main: The state dict to prefer if there is neither.

    Raises:
        MappingError: No network or several fit; the message lists all.
    """
    fitting = networks if key is None else _with_key(networks, key)
    matching = [network for network in fitting if stream in (None, network.stream)]
    if key is None and len(matching) > 1:
        matching = [network for network in matching if network.part == main] or matching
    if len(matching) == 1:
        return matching[0]
    found = ", ".join(str(network) for network in networks)
    if key is not None and not fitting:
        raise MappingError(f"{where}: expected a network under {key!r}, found {found}")
    if not matching:
        found = f"one for {networks[0].stream}" if len(networks) == 1 else found
        raise MappingError(f"{where}: expected a network for {stream}, found {found}")
    options = [f"--key {network.key or repr('')}" for network in matching]
    if len({network.stream for network in matching}) == len(matching):
        options = ["--stream rgb", "--stream flow", *options]
    raise MappingError(
        f"{where}: expected one network, found {found}; choose one with {' or '.join(options)}"
    )


def _with_key(networks: Sequence[Network], key: str) -> Sequence[Network]:
    exact = [network for network in networks if network.key == key]
    if exact or not key:
        return exact
    wanted = re.compile(rf"(^|[./]){re.escape(key.strip('./'))}($|[./])")
    return [network for network in networks if wanted.search(network.key)]


def _with_head(where: str, network: Network, container: Container) -> Network:
    """Return a network with the head that is a state dict of its own in the same file.

    Raises:
        MappingError: The network has no head, and no state dict or several may be it.
    """
    others = {part: own for part, own in container.parts.items() if part != network.part}
    if network.num_classes or not others:
        return network
    heads = {part: _as_head(network.table, tensors) for part, tensors in others.items()}
    fitting = [part for part, head in heads.items() if head]
    if len(fitting) == 1:
        head = {network.prefix + name: array for name, array in heads[fitting[0]].items()}
        return replace(network, tensors={**network.tensors, **head}, head=fitting[0])
    some = [f"{part!r} ({', '.join(list(own)[:3])})" for part, own in others.items()]
    found = ", ".join((*some[:5], *(["…"] if some[5:] else [])))
    if container.main is None:
        raise MappingError(
            f"{where}: expected the head of the network under {network.key!r}, found {found}; read "
            f"the network without a head with --key {network.key}"
        )
    _LOG.warning(
        "%s: reads the network under %r, which has no head; %s is not read",
        *(where, network.key, found),
    )
    return network


def _as_head(table: Table, tensors: Tensors) -> Tensors:
    """Return a state dict that is a head, by the layout's names; empty if it is not one.

    Its names are ends of the layout's names, or end with them.
    """
    head = {}
    for target, source in _head(table).items():
        for name, array in tensors.items():
            alike = f".{source}".endswith(f".{name}") or name.endswith(f".{source}")
            if alike and array.ndim == (5 if target == HEAD_WEIGHT else 1):
                head[source] = array
    return head if len(head) == len(tensors) == len(HEAD) else {}


def _head(table: Table) -> dict[str, str]:
    """Return the layout's names of the head, by canonical name."""
    return {rule.target: rule.source for rule in table.rules if rule.target in HEAD}

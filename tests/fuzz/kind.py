"""What a kind of input is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.mutators import Mutator


@dataclass(frozen=True)
class Kind:
    """A kind of input: a valid seed, how it is mutated, and the command that reads it.

    Attributes:
        name: Its name.
        build: Writes the files of the seed into a folder.
        mutators: By glob pattern of the files; each mutant has one damaged file.
        command: Arguments of `i3dzoo`, in the folder of the files; `{shared}` is the folder of
            inputs that are not damaged. A first argument `module:function` is called instead.
        weight: Share of the mutants, compared with other kinds; those of slow commands are lower.
        code: Exit code of the command on the seed; 1 if this machine cannot do what it asks for.
        partial: Patterns of files that a refused command may leave in `out`, as documented.
        hub: How answers of the loopback Hub are damaged: `answers`, `headers` or not at all.
    """

    name: str
    build: Callable[[Path, Any], None]  # the second is what kinds share: `shared.Shared`
    mutators: Mapping[str, Mutator]
    command: tuple[str, ...]
    weight: float = 1.0
    code: int = 0
    partial: tuple[str, ...] = ()
    hub: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

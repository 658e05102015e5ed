"""What tests of the kinds share."""

import os
from collections.abc import Callable, Iterator

import pytest

from fuzz.kinds import shares
from fuzz.server import ForkServer

COUNT = int(os.environ.get("I3DZOO_FUZZ", "3000"))


@pytest.fixture(scope="module")
def find_escapes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], list[str]]]:
    """A function that runs the mutants of a kind, and returns how to reproduce each escape.

    There are 3,000 mutants of all kinds, or as many as I3DZOO_FUZZ says; `make fuzz` tries 20,000.
    """
    with ForkServer(tmp_path_factory.mktemp("fuzz") / "server") as server:

        def find(kind: str) -> list[str]:
            outcomes = {n: server.run(kind, n) for n in range(shares(COUNT)[kind])}
            return [
                f'python -m fuzz --kind "{kind}" --seed {number}: {outcome["reason"]}'
                for number, outcome in outcomes.items()
                if outcome["verdict"] == "escape"
            ]

        yield find

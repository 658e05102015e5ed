"""No mutant of any kind is an escape.

Without I3DZOO_FUZZ, 3,000 mutants are tried; `make fuzz` tries 20,000.
"""

import os
from collections.abc import Iterator

import pytest

from fuzz.kinds import KINDS, shares
from fuzz.server import ForkServer

COUNT = int(os.environ.get("I3DZOO_FUZZ", "3000"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A fork server."""
    with ForkServer(tmp_path_factory.mktemp("fuzz") / "server") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_no_escapes(server: ForkServer, kind: str) -> None:
    """Each mutant is accepted, or refused by one sentence, within the limits."""
    outcomes = {number: server.run(kind, number) for number in range(shares(COUNT)[kind])}
    escapes = [
        f'python -m fuzz --kind "{kind}" --seed {number}: {outcome["reason"]}'
        for number, outcome in outcomes.items()
        if outcome["verdict"] == "escape"
    ]
    assert escapes == []


def test_there_are_enough() -> None:
    """There are at least 56 kinds, and 3,000 mutants of them."""
    assert len(KINDS) >= 56
    assert sum(shares(COUNT).values()) >= COUNT

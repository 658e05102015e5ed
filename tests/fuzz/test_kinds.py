"""No mutant of a checkpoint, a run or an answer of a Hub is an escape.

`test_kinds_of_videos` has the other half of the kinds, so that two workers share them.
"""

from collections.abc import Callable

import pytest

from fuzz.kinds import KINDS, OF_VIDEOS, shares


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in OF_VIDEOS])
def test_no_escapes(find_escapes: Callable[[str], list[str]], kind: str) -> None:
    """Each mutant is accepted, or refused by one sentence, within the limits."""
    assert find_escapes(kind) == []


def test_there_are_enough() -> None:
    """There are at least 56 kinds, 3,000 mutants of all and a handful of each."""
    assert len(KINDS) >= 56
    assert sum(shares(3000).values()) >= 3000
    assert min(shares(3000).values()) >= 2

"""No mutant of a video, of images, or of a dataset is an escape."""

from collections.abc import Callable

import pytest

from fuzz.kinds import OF_VIDEOS


@pytest.mark.parametrize("kind", OF_VIDEOS)
def test_no_escapes(find_escapes: Callable[[str], list[str]], kind: str) -> None:
    """Each mutant is accepted, or refused by one sentence, within the limits."""
    assert find_escapes(kind) == []

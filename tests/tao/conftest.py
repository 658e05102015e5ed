"""Data that the tests of TAO specs share."""

from pathlib import Path

import pytest
from helpers.tao_data import write_motions


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames and flow of three motions in TAO's layout, in train/ and test/."""
    root = tmp_path_factory.mktemp("tao")
    write_motions(root)
    return root

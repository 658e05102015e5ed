"""TensorFlow and Keras, imported by the first test that uses them: that takes ten seconds."""

from typing import Any

import pytest


class _Lazy:
    """A module that is imported when it is used; where it is not installed, that skips a test."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        reason = "the extra tensorflow is not installed"
        return getattr(pytest.importorskip(self._name, reason=reason), name)


tensorflow: Any = _Lazy("tensorflow")
keras: Any = _Lazy("keras")

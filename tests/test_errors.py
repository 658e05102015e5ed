"""The tree of errors."""

import re

from i3dzoo import errors


def test_tree_lists_each_error_once() -> None:
    """The tree in the docstring of the module has every error class once."""
    tree = errors.__doc__ or ""
    classes = [name for name in vars(errors) if name.endswith("Error")]
    assert sorted(re.findall(r"\w+Error(?= +\(| {2,}|\n)", tree)) == sorted(classes)

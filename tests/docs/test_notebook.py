"""The notebook runs from top to bottom on a CPU."""

import ast
import json
from pathlib import Path

import pytest
from helpers.docs import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"


def test_cells_run_in_order(
    rgb_scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each cell runs with the names of those before it; the last values are what the text says."""
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {"__name__": "__main__"}
    values = []
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text("utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            values.append(_run("".join(cell["source"]), names, f"cell {number}"))
    assert "rgb_scratch: 230 of 230 tensors" in values
    assert values[-1] == (("brush_hair", "fencing", "kick_ball"), "rgb_scratch")


def test_it_is_stored_without_outputs() -> None:
    """Outputs would change with every run, and are not reviewed."""
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


def _run(source: str, names: dict[str, object], where: str) -> object:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(source, where)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)  # noqa: S102 - our own notebook
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), where, "eval"), names)  # noqa: S307
    return None

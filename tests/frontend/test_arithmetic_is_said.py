"""Converters say whose arithmetic they want: the default is Relay's, and PyTorch rounds in other ways."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "qtorch_relay" / "frontend").rglob("*.py"))
# Ops that both have an arithmetic and are converted to, with the attributes that a converter must give.
MUST_SAY = {
    "quantize": ("arithmetic",),
    "avg_pool2d": ("arithmetic", "layout"),
    "requantize": ("arithmetic",),
    "add": ("arithmetic",),
    "mul": ("arithmetic",),
}


def _imported(tree: ast.AST) -> dict[str, str]:
    """Returns the names that a file imports from the dialect, by the name it gives them."""
    return {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "qtorch_relay.qnn"
        for alias in node.names
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_arithmetic_is_said(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = _imported(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        op = names.get(called) or (called.removeprefix("qnn.") if called.startswith("qnn.") else None)
        given = {keyword.arg for keyword in node.keywords}
        if None not in given:  # **options may hold it
            missing = set(MUST_SAY.get(op or "", ())) - given
            assert not missing, f"{path.name}:{node.lineno}: {called} leaves out {sorted(missing)}"

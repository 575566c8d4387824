"""Imports go one way, and torch stays where it belongs: the rules of the layout, read from the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("qtorch_relay", "calibration", "accuracy_reports")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Where torch (and torchvision) may be imported.
TORCH_FOLDERS = ("qtorch_relay/capture", "qtorch_relay/demo", "qtorch_relay/peers", "calibration", "accuracy_reports")

# Ops that become TIR, each file on those before it.
TIR = (
    "qtorch_relay.tir.functions",
    "qtorch_relay.tir.ops",
    "qtorch_relay.tir.indices",
    "qtorch_relay.tir.grid_sample",
    "qtorch_relay.tir.qparams",
    "qtorch_relay.tir.recurrent",
    "qtorch_relay.tir.linear_fp16",
    "qtorch_relay.tir.pair_sums",
    "qtorch_relay.tir.softmax",
    "qtorch_relay.tir.gelu",
    "qtorch_relay.tir.layer_norm",
    "qtorch_relay.tir.matmul",
    "qtorch_relay.tir.attention",
    "qtorch_relay.tir.cpu_description",
)

# A layer may import from itself and from what is listed before it, never from what comes after.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("qtorch_relay._version", "qtorch_relay.errors", "qtorch_relay.layout", "qtorch_relay.boards"),
    ("qtorch_relay.qparams", "qtorch_relay.output_files", "qtorch_relay._tvm", "qtorch_relay.target"),
    ("qtorch_relay.dimensions", "qtorch_relay.tir", "qtorch_relay.tir.math"),
    ("qtorch_relay.generalize",),
    ("qtorch_relay.numerics", "qtorch_relay.engine_constants", *TIR),
    ("qtorch_relay.expressions",),
    ("qtorch_relay.runtime", "qtorch_relay.capture", "qtorch_relay.qnn", "qtorch_relay.kernels"),
    ("qtorch_relay.frontend", "qtorch_relay.lowering"),
    ("qtorch_relay.pipeline", "qtorch_relay.coverage", "qtorch_relay.golden", "qtorch_relay.relay"),
    ("qtorch_relay.peers",),
    ("calibration", "qtorch_relay.demo"),
    ("accuracy_reports.record", "accuracy_reports.environment", "accuracy_reports.gate", "accuracy_reports.zoo"),
    ("accuracy_reports.layers",),
    ("accuracy_reports.runs",),
    ("accuracy_reports.pages",),
    ("accuracy_reports",),
    ("qtorch_relay.cli", "qtorch_relay.__main__"),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# Packages of one layer that must not know each other.
STRANGERS = ("qtorch_relay.runtime", "qtorch_relay.capture", "qtorch_relay.qnn", "qtorch_relay.kernels")
# The neutral graph has no torch in it; what reads it may import it.
NEUTRAL = "qtorch_relay.capture.graph"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_top_only: bool = False) -> Iterator[str]:
    """Yields the modules a file imports at run time; those under `if TYPE_CHECKING` are not among them."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be read and checked"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        todo.extend(ast.iter_child_nodes(node))


def layer_of(module: str) -> str | None:
    """Returns the longest name in LAYERS that a module is or lies in."""
    return max((name for name in RANKS if f"{module}.".startswith(f"{name}.")), key=len, default=None)


def is_within(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_torch_is_imported_only_where_models_are_read(path: Path) -> None:
    found = [name for name in imports(path) if name.split(".")[0] in ("torch", "torchvision")]
    assert not found or is_within(path, TORCH_FOLDERS), f"{module_name(path)} imports {found}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    own = layer_of(module_name(path))
    if module_name(path) == "qtorch_relay":
        return  # the public names, from everywhere
    assert own is not None, f"{module_name(path)} has no place in LAYERS; give it one"
    for name in imports(path):
        other = layer_of(name)
        if other is None:
            continue
        assert RANKS[other] <= RANKS[own], f"{module_name(path)} imports {name}, which lies above it"
        if own in STRANGERS and other in STRANGERS and not f"{name}.".startswith(f"{NEUTRAL}."):
            assert own == other, f"{module_name(path)} imports {name}; these packages do not know each other"


@pytest.mark.parametrize("path", [p for p in FILES if is_within(p, ("qtorch_relay/cli",))], ids=module_name)
def test_the_command_line_imports_heavy_things_late(path: Path) -> None:
    heavy = (
        "torch",
        "tvm",
        "qtorch_relay.capture",
        "qtorch_relay.frontend",
        "qtorch_relay.pipeline",
        "accuracy_reports",
    )
    found = [name for name in imports(path, at_top_only=True) if name.startswith(heavy)]
    assert not found


@pytest.mark.parametrize("path", [p for p in FILES if is_within(p, ("qtorch_relay/runtime",))], ids=module_name)
def test_only_build_needs_the_compiler(path: Path) -> None:
    found = [name for name in imports(path) if name.split(".")[0] == "tvm" or name.startswith("qtorch_relay._tvm")]
    assert not found or path.name == "build.py"


def test_no_file_is_pickled_or_unpickled_by_the_product() -> None:
    found = [module_name(path) for path in FILES if any(name.split(".")[0] == "pickle" for name in imports(path))]
    assert not found

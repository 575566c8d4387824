"""Our canonicalization beside Relay's: the same calls made by both, every element of their integers compared.

`python -m tests.qnn.relay_comparison > docs/relay_canonicalization.md` makes the page. Needs QTORCH_RELAY_ERA_PYTHON,
the interpreter of a TVM that still has Relay (0.17 or so).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qtorch_relay import qnn
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.transform.rules import relay as relays_arithmetic
from qtorch_relay.qnn.verify import qnn_ops_in, verify
from tests.qnn.relay_cases import CASES, Array, Config, RelayCase

PYTHON = os.environ.get("QTORCH_RELAY_ERA_PYTHON", "")
SCRIPT = Path(__file__).parent / "relay_era.py"
# Without FMA instructions: with them LLVM fuses Relay's multiplications and additions, and its codes change.
TARGET = "llvm"


def as_constant(name: str, value: Any) -> Array | list[Array]:
    """Returns a scale as float32, a zero point as int32."""
    if isinstance(value, list) and name.endswith("s"):
        return [np.asarray(item, np.float32 if "scale" in name else np.int32) for item in value]
    return np.asarray(value, np.float32 if "scale" in name else np.int32)


def arguments(case: RelayCase) -> dict[str, Any]:
    """Returns all arguments by name, arrays as they are."""
    constants = {name: as_constant(name, value) for name, value in case.constants.items()}
    return {**case.tensors, **constants, **case.attributes}


def program(group: list[RelayCase]) -> tuple[Any, list[Array]]:
    """Returns a module with these calls, and its inputs."""
    inputs: list[tuple[Any, Array]] = []

    def variable(array: Array) -> Any:
        inputs.append((relax.Var(f"in_{len(inputs)}", relax.TensorType(array.shape, str(array.dtype))), array))
        return inputs[-1][0]

    made = []
    for case in group:
        tensors = {
            name: [variable(item) for item in value] if isinstance(value, list) else variable(value)
            for name, value in case.tensors.items()
        }
        made.append({**arguments(case), **tensors})
    builder = relax.BlockBuilder()
    with builder.function("main", [var for var, _ in inputs]):
        with builder.dataflow():
            outputs = [builder.emit(getattr(qnn, case.op)(**each)) for case, each in zip(group, made, strict=True)]
            result = builder.emit_output(relax.Tuple(outputs))
        builder.emit_func_output(result)
    return builder.finalize(), [array for _, array in inputs]


def ours(group: list[RelayCase], config: Config) -> list[Array]:
    """Returns what our canonicalization of a program with these calls computes."""
    mod, inputs = program(group)
    verify(mod)
    with qnn.requantize_config(rounding=config[0], compute_dtype=config[1]):
        mod = CanonicalizeOps()(mod)
    assert qnn_ops_in(mod) == []
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    machine = relax.VirtualMachine(tvm.compile(mod, target=target), tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(array) for array in inputs])
    return [result.numpy() for result in results]


def relays(groups: dict[Config, list[RelayCase]], folder: Path) -> dict[str, Array]:
    """Returns Relay's results by "<rounding>/<compute_dtype>/<index>"."""
    arrays: dict[str, Array] = {}

    def describe(name: str, value: Any, case: RelayCase) -> Any:
        if isinstance(value, list):
            return {"list": [describe(name, item, case) for item in value]}
        if isinstance(value, np.ndarray):
            key = f"a{len(arrays)}"
            arrays[key] = value
            return {"tensor" if name in case.tensors else "constant": key}
        return {"value": value}

    programs = [
        {
            "rounding": rounding,
            "compute_dtype": compute_dtype,
            "target": TARGET,
            "calls": [
                {
                    "op": case.op,
                    "arguments": {name: describe(name, value, case) for name, value in arguments(case).items()},
                    "result": f"{rounding}/{compute_dtype}/{index}",
                }
                for index, case in enumerate(group)
            ],
        }
        for (rounding, compute_dtype), group in groups.items()
    ]
    (folder / "cases.json").write_text(json.dumps(programs))
    np.savez(folder / "arrays.npz", **arrays)
    paths = [str(folder / name) for name in ("cases.json", "arrays.npz", "results.npz")]
    subprocess.run([PYTHON, str(SCRIPT), *paths], check=True, timeout=1800)
    return dict(np.load(paths[2]))


def by_config(cases: tuple[RelayCase, ...]) -> dict[Config, list[RelayCase]]:
    """Returns the cases of each config."""
    groups: dict[Config, list[RelayCase]] = defaultdict(list)
    for case in cases:
        for config in case.configs:
            groups[config].append(case)
    return groups


@dataclass(frozen=True)
class Comparison:
    """A call under a config of requantize: how many elements, how many of them are not Relay's."""

    op: str
    variant: str
    config: Config
    elements: int
    differing: int


def compare(cases: tuple[RelayCase, ...], folder: Path) -> Iterator[Comparison]:
    """Yields how each call compares, made by both; files are written to a folder."""
    groups = by_config(cases)
    expected = relays(groups, folder)
    for config, group in groups.items():
        for index, (case, result) in enumerate(zip(group, ours(group, config), strict=True)):
            other = expected[f"{config[0]}/{config[1]}/{index}"]
            assert (result.dtype, result.shape) == (other.dtype, other.shape)
            yield Comparison(case.op, case.variant, config, other.size, int((result != other).sum()))


_HEAD = """# Canonicalization beside Relay's

Made by `python -m tests.qnn.relay_comparison > docs/relay_canonicalization.md` with a TVM 0.17: every op of Relay's QNN
is called with a grid of attributes, dtypes, scales and zero points, once by that TVM, which canonicalizes, builds and
runs it (target `llvm`), and once by our op of the same name through `qnn.transform.CanonicalizeOps`. Where an op
requantizes, each call is made under rounding UPWARD and TONEAREST, computing in int64, float32 and float64.

| op | calls | with each rounding and compute type | elements | that differ |
|---|---|---|---|---|"""


def page(found: list[Comparison]) -> str:
    """Returns the table by op, what differs, and what was left out of the grid because Relay leaves it open."""
    by_op: dict[str, list[Comparison]] = defaultdict(list)
    for each in found:
        by_op[each.op].append(each)
    lines = [_HEAD]
    for op, group in sorted(by_op.items()):
        calls = len({each.variant for each in group})
        elements, differing = (sum(getattr(each, name) for each in group) for name in ("elements", "differing"))
        lines.append(f"| `qnn.{op}` | {calls} | {len(group)} | {elements} | {differing} |")
    total = sum(each.differing for each in found)
    lines += ["", f"{total} of {sum(each.elements for each in found)} elements differ."]
    lines += [
        f"- `qnn.{each.op}` {each.variant}, {' '.join(each.config)}: {each.differing} of {each.elements}"
        for each in found
        if each.differing
    ]
    lines += ["", "`qnn.contrib_dense_pack` is not among them: Relay has no canonicalization of it.", ""]
    lines += ["## Where Relay leaves its codes open", "", "The grid has none of these; ours are these:", ""]
    text = str(relays_arithmetic.__doc__)
    reasons = re.findall(r"^- (.*(?:\n  .*)*)", text, re.MULTILINE)
    return "\n".join([*lines, *(f"- {' '.join(reason.split())}" for reason in reasons), ""])


def main() -> None:
    """Prints the page."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for cases in CASES.values():
            found += compare(cases, Path(folder))
    print(page(found), end="")


if __name__ == "__main__":
    main()

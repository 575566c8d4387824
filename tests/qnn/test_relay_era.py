"""Our canonicalization gives Relay's own integers, for every op: the same calls made by a Relay-era TVM.

Runs when QTORCH_RELAY_ERA_PYTHON names the interpreter of a TVM that still has Relay (0.17 or so).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay._tvm import relax, tvm
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import qnn_ops_in, verify
from tests.qnn.relay_cases import CASES, Array, Config, RelayCase

PYTHON = os.environ.get("QTORCH_RELAY_ERA_PYTHON", "")
SCRIPT = Path(__file__).parent / "relay_era.py"
# Without FMA instructions: with them LLVM fuses Relay's multiplications and additions, and its codes change.
TARGET = "llvm"
# qnn.contrib_dense_pack has no canonicalization in Relay.
NOT_IN_RELAY = {"contrib_dense_pack"}
OURS = {"choose_qparams", "lookup", "requantize_add", "transform", "current_requantize_config", "requantize_config"}
OURS |= {"save_module", "load_module"}


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


def test_every_op_of_relay_is_compared() -> None:
    compared = {case.op for cases in CASES.values() for case in cases}
    assert compared | NOT_IN_RELAY == set(qnn.__all__) - OURS
    assert len(compared | NOT_IN_RELAY) == 26


@pytest.mark.skipif(not PYTHON, reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay")
@pytest.mark.parametrize("family", CASES)
def test_codes_are_relays_own(family: str, tmp_path: Path) -> None:
    groups = by_config(CASES[family])
    expected = relays(groups, tmp_path)
    wrong = []
    for config, group in groups.items():
        results = ours(group, config)
        for index, (case, result) in enumerate(zip(group, results, strict=True)):
            other = expected[f"{config[0]}/{config[1]}/{index}"]
            assert result.dtype == other.dtype
            different = int((result != other).sum())
            if different:
                wrong.append(f"{case.op} {case.variant} {config}: {different} of {other.size}")
    assert not wrong, "\n".join(wrong)

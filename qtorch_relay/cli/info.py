"""`qtorch-relay ops` and `qtorch-relay targets`: what can be imported, and what can be compiled for."""

from __future__ import annotations

from qtorch_relay.cli.console import print_json, print_table
from qtorch_relay.cli.options import Json


def ops(as_json: Json = False) -> None:
    """List every PyTorch op that can be imported, and what it becomes.

    Example: qtorch-relay ops --json
    """
    from qtorch_relay import supported_ops

    rows = supported_ops()
    if as_json:
        print_json(rows)
        return
    print_table(f"{len(rows)} ops", ("op", "becomes"), [(row["op"], row["lowering"]) for row in rows])


def targets(as_json: Json = False) -> None:
    """List the targets, whether they have int8 kernels, and whether this machine runs them.

    Example: qtorch-relay targets
    """
    from qtorch_relay.target import host_cpu, resolve
    from qtorch_relay.target import targets as target_rows

    rows, best = target_rows(), resolve("host").name
    if as_json:
        print_json({"cpu": host_cpu().model, "host": best, "targets": rows})
        return
    print_table(
        f"{host_cpu().model}; host is {best}",
        ("target", "instructions", "int8 kernels", "runs here"),
        [
            (
                row["name"],
                row["isa"],
                "yes" if row["has_kernels"] else "portable path",
                "yes" if row["missing"] is None else f"no: needs {row['missing']}",
            )
            for row in rows
        ],
    )

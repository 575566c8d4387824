"""`qtorch-relay ops` and `qtorch-relay targets`: what can be imported, and what can be compiled for."""

from __future__ import annotations

from typing import Annotated

import typer

from qtorch_relay.cli.console import print_json, print_table
from qtorch_relay.cli.options import Json


def ops(
    pattern: Annotated[str, typer.Argument(help="Show only ops whose name contains this.")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole table as a Markdown page.")] = False,
    as_json: Json = False,
) -> None:
    """List PyTorch's ops: what is converted and into what, what is folded away, what is refused and why.

    Example: qtorch-relay ops conv2d
    """
    from qtorch_relay.frontend.supported import ops_page, supported_ops

    if markdown:
        print(ops_page(), end="")
        return
    rows = [row for row in supported_ops() if pattern in row["op"]]
    if as_json:
        print_json(rows)
        return
    columns = ("op", "kind", "becomes, or why not", "equal to PyTorch")
    cells = [(row["op"], row["kind"], row["lowering"], row["exact"]) for row in rows]
    print_table(f"{len(rows)} ops", columns, cells)


def targets(as_json: Json = False) -> None:
    """List the targets, whether they have int8 kernels and whether this machine runs them, and the boards by name.

    Example: qtorch-relay targets
    """
    from qtorch_relay.target import boards, host_cpu, resolve
    from qtorch_relay.target import targets as target_rows

    rows, best = target_rows(), resolve("host").name
    if as_json:
        print_json({"cpu": host_cpu().model, "host": best, "targets": rows, "boards": boards()})
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
    print_table(
        "boards and CPUs, which --target takes as well",
        ("board", "what it is", "CPU", "target"),
        [(row["name"], row["what"], row["cpu"], row["target"]) for row in boards()],
    )

"""`qtorch-relay export-relay`: a model as text for a TVM that has Relay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qtorch_relay.cli.console import print_json, working
from qtorch_relay.cli.options import Engine, Inputs, Json, Model, parse_inputs


def export_relay(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write, new or there.")],
    inputs: Inputs = None,
    engine: Engine = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Plain ops (cast, add, multiply, ...) where Relay's qnn ops round otherwise."),
    ] = False,
    rounding: Annotated[
        str, typer.Option(metavar="MODE", help="qnn.requantize's: TONEAREST (ties away from zero) or UPWARD.")
    ] = "TONEAREST",
    compute_dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="What qnn.requantize multiplies in: float32, float64 or int64.")
    ] = "float32",
    as_json: Json = False,
) -> None:
    """Write a model as Relay text with qnn ops, for a vendor's toolchain on a TVM that still has Relay.

    DIR gets model.relay (text), model.params (the weights) and build_with_relay.py, which builds both there. The
    defaults are nearest to PyTorch; with --exact the codes are PyTorch's. docs/relay.md says what each op becomes.

    Example: qtorch-relay export-relay resnet18.pt --input x:1,3,224,224 --engine fbgemm -o resnet18-relay
    """
    from qtorch_relay.pipeline import import_model
    from qtorch_relay.relay.export import check_folder, export_folder
    from qtorch_relay.relay.options import Options

    options = Options(exact, rounding, compute_dtype)
    check_folder(output)
    with working("writing Relay text"):
        sizes = export_folder(import_model(str(model), parse_inputs(model, inputs), engine), output, options)
    if as_json:
        print_json({"output": str(output), "exact": exact, "files": sizes})
        return
    for name, size_bytes in sizes.items():
        print(f"{output / name}: {size_bytes / 1e6:.2f} MB")

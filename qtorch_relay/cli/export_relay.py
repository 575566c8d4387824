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
        typer.Option("--exact", help="No op whose codes hang on the libraries of the machine that builds the text."),
    ] = False,
    requantize: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="plain (the default): PyTorch's rounding by plain ops. qnn: qnn.requantize of the sums, as toolchains "
            "match it; 2 to 8 codes in 10,000 of each layer differ, many after many layers.",
        ),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="Of --requantize qnn: TONEAREST (ties away from zero) or UPWARD."),
    ] = None,
    compute_dtype: Annotated[
        str | None,
        typer.Option(metavar="DTYPE", help="What --requantize qnn multiplies in: float32, float64 or int64."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as Relay text with qnn ops, for a vendor's toolchain on a TVM that still has Relay.

    DIR gets model.relay (text), model.params (the weights) and build_with_relay.py, which builds both there. The codes
    are PyTorch's, unless --requantize qnn asks for what costs some. Ops that Relay has no form for (an LSTM) are all
    named, and nothing is written then. docs/relay.md says what each op becomes.

    Example: qtorch-relay export-relay resnet18.pt --input x:1,3,224,224 --engine fbgemm -o resnet18-relay
    """
    from qtorch_relay.pipeline import import_model
    from qtorch_relay.relay.export import check_folder, export_folder
    from qtorch_relay.relay.options import Options

    options = Options(exact, requantize, rounding, compute_dtype)
    check_folder(output)
    with working("writing Relay text"):
        sizes = export_folder(import_model(str(model), parse_inputs(model, inputs), engine), output, options)
    if as_json:
        print_json({"output": str(output), "exact": exact, "mode": options.mode, "files": sizes})
        return
    for name, size_bytes in sizes.items():
        print(f"{output / name}: {size_bytes / 1e6:.2f} MB")

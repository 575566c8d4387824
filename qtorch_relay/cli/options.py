"""Options that are spelled alike in every command, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from qtorch_relay.errors import InvalidInputError, ModelFileError

Model: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A TorchScript file (.pt), or an exported program (.pt2).")
]
Inputs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:SHAPE[:DTYPE]",
        help="An input of the model, such as x:1,3,224,224 or ids:1,128:int64; x:n,3,224,224 takes any batch, "
        "x:1,3,8,8:quint8:0.05:128 is quantized (scale, zero point). Once for each input.",
    ),
]
Engine: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="Whose rounding to reproduce: fbgemm, onednn, x86 or qnnpack. Default: what the file names, else "
        "the engine PyTorch has set.",
    ),
]
TargetName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="What to compile for, `qtorch-relay targets` lists them; of a bundle, which of its programs to take.",
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", help="Threads to run on.", show_default="one for each physical core"),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

_EXAMPLE = "--input x:1,3,224,224 or --input ids:1,128:int64"


def parse_inputs(model: Path, inputs: list[str] | None) -> list[tuple[str, tuple[Any, ...]]]:
    """Returns input_infos as `qtorch_relay.from_pytorch` takes them.

    Raises:
        ModelFileError: there is no such model file, or, where no input is given, it is not one.
        InvalidInputError: no input is given, or one is not NAME:SHAPE[:DTYPE].
    """
    if not model.exists():
        raise ModelFileError(f"{model}: no such file")
    if not inputs:
        from qtorch_relay.capture.files import load_model
        from qtorch_relay.capture.notes import read_notes

        load_model(model)  # that it is no model at all is the better message
        notes = read_notes(model)
        if notes is not None:
            return notes.input_infos
        raise InvalidInputError(f"{model} does not say what the model takes; say it with {_EXAMPLE}")
    return [parse_input(text) for text in inputs]


def parse_input(text: str) -> tuple[str, tuple[Any, ...]]:
    """Returns the input_info of one --input.

    Raises: InvalidInputError if it is not NAME:SHAPE[:DTYPE[:SCALE:ZERO_POINT]].
    """
    name, *rest = text.split(":")
    if not name or len(rest) not in (1, 2, 4):
        raise InvalidInputError(f"'{text}' is not NAME:SHAPE[:DTYPE]; write it as in {_EXAMPLE}")
    try:
        shape = tuple(size if size.isidentifier() else int(size) for size in rest[0].split(",") if rest[0])
    except ValueError:
        raise InvalidInputError(
            f"'{text}' has the shape '{rest[0]}'; a shape is integers with commas, as in {_EXAMPLE}"
        ) from None
    if len(rest) < 4:
        return name, (shape, rest[1] if len(rest) == 2 else "float32")
    try:
        return name, (shape, rest[1], float(rest[2]), int(rest[3]))
    except ValueError:
        raise InvalidInputError(
            f"'{text}' ends in '{rest[2]}:{rest[3]}'; a quantized input is NAME:SHAPE:quint8:SCALE:ZERO_POINT"
        ) from None


def set_threads(threads: int | None) -> None:
    """Sets the number of threads of this process if one is given."""
    if threads is not None:
        from qtorch_relay.runtime import set_num_threads

        set_num_threads(threads)


def summarize_report(report: dict[str, Any]) -> list[str]:
    """Returns the lines that tell what a compilation did: kernels by kind, forms of products, then its messages."""
    counted = {title: dict(report.get(title, {})) for title in ("kernels", "products")}
    lines = [
        f"{title}: {', '.join(f'{count} x {name}' for name, count in counts.items())}"
        for title, counts in counted.items()
        if counts
    ]
    return [*lines, *map(str, report.get("messages", ()))]

"""`qtorch-relay calibrate`: a float model and data to an int8 model that `qtorch-relay compile` takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtorch_relay.cli.console import note, print_json, print_table, progress
from qtorch_relay.cli.data_options import (
    Crop,
    Interpolation,
    Mean,
    PreprocessingName,
    Resize,
    Std,
    check_installed,
    choose_preprocessing,
)
from qtorch_relay.cli.options import Inputs, Json, parse_input
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.output_files import check_output_path

if TYPE_CHECKING:
    from calibration.batches import Track
    from calibration.open_data import Data
    from calibration.run import Result
    from calibration.sensitivity import LayerCost
    from qtorch_relay.capture.notes import NotedInput

_DATA = "Images as `accuracy` takes them, or a .npz file with the model's inputs [N, ...] in order, and labels."


def calibrate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The float model: package.module:function, which without arguments returns an nn.Module; or a file of "
            "torch.save that holds a module of torch.nn's own layers.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The int8 model to write (.pt).")],
    data: Annotated[str | None, typer.Option(metavar="PATH", help=_DATA)] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="static_w8c_a8 (default): scales per channel; static_w8t_a8: per tensor; dynamic_w8c: linear and "
            "recurrent layers, no data; qat_w8c_a8: trains on with quantization simulated.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="ENGINE", help="Whose kernels it is for: fbgemm (default), onednn, x86 or qnnpack."),
    ] = None,
    observer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How ranges of activations are chosen: histogram (PyTorch's default), minmax, moving_average, "
            "percentile:99.99, entropy (TensorRT's) or mse.",
        ),
    ] = None,
    weight_observer: Annotated[
        str | None, typer.Option(metavar="NAME", help="How ranges of weights are: minmax (default) or mse.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="eager (models with QuantStub), fx (others), auto.")
    ] = "auto",
    equalize: Annotated[bool, typer.Option("--equalize", help="Equalize neighbouring layers' weights first.")] = False,
    correct_bias: Annotated[
        bool, typer.Option("--correct-bias", help="Take the mean error of rounded weights out of the biases.")
    ] = False,
    float_layer: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="A layer that stays in float. Once for each.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Leave the fewest layers in float with which accuracy drops by no more than so many points of a "
            "hundred; tells which and why.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Tell what quantizing each layer alone costs, worst first.")
    ] = False,
    evaluate: Annotated[
        str | None, typer.Option("--eval", metavar="PATH", help="Measure accuracy on this. Default: the --data.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A state dict to load into the model first.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take all ranges from this table; no calibration.")
    ] = None,
    table_output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the table is written. Default: the output with .calibration.json."),
    ] = None,
    inputs: Inputs = None,
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="Samples to take, evenly spaced.")] = 512,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Samples of a call.")] = 32,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="qat: epochs over the samples.")] = 3,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="qat: Adam's, at its highest.")] = 1e-4,
    seed: Annotated[int, typer.Option(metavar="N", help="qat: of the order of samples and of dropout.")] = 0,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads of PyTorch.")] = None,
    preprocessing: PreprocessingName = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    mean: Mean = None,
    std: Std = None,
    as_json: Json = False,
) -> None:
    """Quantize a float model with calibration data: writes TorchScript that `qtorch-relay compile` takes as it is.

    Beside it a table of all ranges is written; with --table it makes the same codes again without data.

    Example: qtorch-relay calibrate qtorch_relay.demo.digits:trained --data digits-train --eval digits -o int8.pt
    """
    check_installed("PIL")
    from calibration.float_model import open_float_model
    from calibration.qat import Training
    from calibration.recipes import DEFAULT_ENGINE, DEFAULT_RECIPE, scheme_of
    from calibration.run import Request, run, set_torch_threads
    from calibration.save import save_int8
    from calibration.table import read_table, write_table, zeros

    chosen = choose_preprocessing(preprocessing, resize, crop, interpolation, mean, std)
    known = None if table is None else read_table(table)
    request = Request(
        scheme_of(
            recipe or (known.recipe if known else DEFAULT_RECIPE),
            engine or (known.engine if known else DEFAULT_ENGINE),
            observer or (known.observer if known else None),
            weight_observer or (known.weight_observer if known else None),
        ),
        mode,
        equalize=equalize,
        correct_bias=correct_bias,
        in_float=tuple(float_layer or ()),
        max_drop=max_drop,
        sensitivity=sensitivity,
        training=Training(epochs, learning_rate, seed),
    )
    written = table_output or output.with_suffix(".calibration.json")
    for path in (output, written):
        check_output_path(path)
    set_torch_threads(threads)
    float_model = open_float_model(model, weights)
    given = None if data is None else _open(data, samples, batch, chosen, seed if request.trains else None)
    labelled = given if evaluate is None else _open(evaluate, None, batch, chosen, None)
    noted = _noted(inputs)
    with _tracking() as track:
        result = run(float_model, request, given, labelled, known, zeros(noted), track)
    made = result.quantized.table
    save_int8(result.quantized.model, result.example, made.engine, output)
    write_table(made, written)
    for source in {id(source): source for source in (given, labelled) if source is not None}.values():
        for line in source.broken:
            note(f"left out: {line}")
    for message in result.quantized.messages:
        note(message)
    if as_json:
        print_json(result.to_json() | {"output": str(output), "table": str(written)})
    else:
        _print(result, output, written)


def _open(path: str, samples: int | None, batch: int, preprocessing: Any, shuffled_by: int | None) -> Data:
    """Opens data; digits, which are preprocessed, take no preprocessing."""
    from calibration.open_data import open_data

    return open_data(path, samples, batch, preprocessing, shuffled_by)


def _noted(inputs: list[str] | None) -> tuple[NotedInput, ...]:
    """Returns what --input describes."""
    from qtorch_relay.capture.notes import noted_inputs

    found = [(text, *parse_input(text)) for text in inputs or ()]
    try:
        return noted_inputs([{"name": name, "shape": info[0], "dtype": info[1]} for _, name, info in found])
    except (ValueError, TypeError):
        raise InvalidInputError(
            f"--input is {', '.join(inputs or ())}; a float model takes NAME:SHAPE[:DTYPE] of numbers, as x:1,3,224,224"
        ) from None


@contextmanager
def _tracking() -> Iterator[Track]:
    """Yields what shows a bar, with the time that is left, for each part of the work."""
    with progress() as bars:

        def track(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
            task = bars.add_task(description, total=total, detail="")
            for done, item in enumerate(items, 1):
                yield item
                left = _left(bars.tasks[task].time_remaining) if done < total else ""
                bars.update(task, completed=done, detail=f"{done}/{total}{left}")

        yield track


def _left(seconds: float | None) -> str:
    return "" if not seconds else f", {seconds:.0f} s left"


def _print(result: Result, output: Path, table: Path) -> None:
    made = result.quantized.table
    rows: list[tuple[object, ...]] = [
        (name, answers.samples, _percent(answers.accuracy), "" if name == "float" else _decibels(answers.sqnr_db))
        for name, answers in (("float", result.float_answers), ("int8", result.int8_answers))
        if answers is not None
    ]
    if rows:
        print_table(
            f"{made.recipe}, engine {made.engine}, observer {made.observer}, {made.mode} mode; {result.data}",
            ("model", "samples>", "accuracy>", "SQNR of the outputs>"),
            rows,
        )
    if result.costs:
        print_table(
            "what quantizing a layer alone costs",
            ("layer", "SQNR of the outputs>", "accuracy, points>", "cross entropy>", "in float"),
            [_cost_cells(cost, made.in_float) for cost in result.costs],
        )
    for line in result.sentences():
        print(line)
    print(
        f"{output}: TorchScript for {made.engine}; next: qtorch-relay compile {output} -o {output.with_suffix('.qtr')}"
    )
    print(f"{table}: the table; --table {table} makes the same codes again")


def _cost_cells(cost: LayerCost, in_float: tuple[str, ...]) -> tuple[object, ...]:
    drop = "" if cost.accuracy_drop is None else f"{0 - cost.accuracy_drop:+.2f}"
    rise = "" if cost.loss_rise is None else f"{cost.loss_rise:+.4f}"
    return cost.layer, _decibels(cost.sqnr_db), drop, rise, "yes" if cost.layer in in_float else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _decibels(value: float) -> str:
    return f"{value:.1f} dB"

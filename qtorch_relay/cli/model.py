"""`qtorch-relay import`, `compile` and `compare`: what is done with a model file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtorch_relay.cli.board_options import Key, Rpc, Timeout, Tracker
from qtorch_relay.cli.console import note, print_json, print_table, working
from qtorch_relay.cli.open_model import placer
from qtorch_relay.cli.options import (
    Engine,
    Inputs,
    Json,
    Model,
    TargetName,
    Threads,
    parse_inputs,
    set_threads,
    summarize_report,
)
from qtorch_relay.cli.three_ways import ThreeWaysRequest, check_three_ways, compare_layers, print_layers, to_json
from qtorch_relay.errors import OutputPathError
from qtorch_relay.output_files import atomic_write, check_output_path
from qtorch_relay.runtime.remote import choose_boards
from qtorch_relay.runtime.remote_session import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from accuracy_reports.layers.compare import Comparison, LayerComparison

DIFFERS_STATUS = 1


def import_model(
    model: Model,
    inputs: Inputs = None,
    engine: Engine = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the IR here instead of printing it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a model as QNN IR, and how often each op occurs in it, as int8 or as float.

    Example: qtorch-relay import resnet18.pt --input x:1,3,224,224 -o resnet18.qnn
    """
    from qtorch_relay.coverage import cover

    if output is not None:
        check_output_path(output)
    with working("importing"):
        covered = cover(str(model), parse_inputs(model, inputs), engine)
    if output is not None:
        with atomic_write(output) as file:
            file.write(covered.ir.encode())
    if as_json:
        print_json({"ops": [row.to_json() for row in covered.rows], "ir": covered.ir})
        return
    if output is None:
        print(covered.ir)
    print_table(
        f"{model.name}: {covered.int8_count} of {covered.count} tensors are int8",
        ("op", "result", "times>", "becomes"),
        [(row.op, row.kind, row.count, row.lowering) for row in covered.rows],
    )


def compile_model(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The bundle to write (.qtr).")],
    inputs: Inputs = None,
    engine: Engine = None,
    target: TargetName = "host",
    tune: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time kernels on this host and keep what is found for the next time. The codes are the same.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a model into a one-file bundle, which runs without PyTorch and without a compiler.

    What --tune finds is kept in $QTORCH_RELAY_CACHE_DIR, by default the user's cache folder; --tune 0 only reads it.

    Several targets, as in --target arm-neon,arm-dotprod, make one bundle; the best for a CPU is taken there.

    Example: qtorch-relay compile resnet18.pt --input x:1,3,224,224 --target x86-avx512vnni -o resnet18.qtr
    """
    from qtorch_relay.pipeline import compile as compile_for
    from qtorch_relay.runtime.interface import SOURCES
    from qtorch_relay.target import resolve_all

    input_infos, resolved = parse_inputs(model, inputs), resolve_all(target)
    names = ",".join(one.name for one in resolved)
    check_output_path(output)
    if output.suffix != ".qtr":
        raise OutputPathError(f"cannot write {output}: give a bundle a name that ends in .qtr")
    start = time.perf_counter()
    with working(f"compiling for {names}", "tuning") as tell:
        compiled = compile_for(str(model), input_infos, resolved, engine, tune=tune, progress=tell)
        compiled.save(output)
    seconds, size_bytes = time.perf_counter() - start, output.stat().st_size
    if as_json:
        reports = {variant.target.name: variant.report for variant in compiled.variants}
        data = {"output": str(output), "target": names, "engine": compiled.engine, "report": compiled.report}
        print_json({**data, "reports": reports, "seconds": seconds, "size_bytes": size_bytes})
        return
    print(f"{output}: {size_bytes / 1e6:.1f} MB, target {names}, engine {compiled.engine}, {seconds:.1f} s")
    for variant in compiled.variants:
        for line in summarize_report(variant.report):
            print(f"  {line}" if len(resolved) == 1 else f"  {variant.target.name}: {line}")
    if compiled.golden is not None:
        print(f"  golden output, for the self-test: {SOURCES[compiled.golden.source]}")


def compare(
    model: Model,
    inputs: Inputs = None,
    engine: Engine = None,
    target: TargetName = "host",
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs (.npy or .npz). Default: seeded random ones.")
    ] = None,
    portable: Annotated[bool, typer.Option("--portable", help="Compare the portable path, not the kernels.")] = False,
    float_model: Annotated[
        Path | None,
        typer.Option(
            "--float", metavar="FILE", help="The float model (TorchScript): tells what each layer loses by it."
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --float: random inputs to compare the layers on.")
    ] = 4,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="With --float: record.json, for `qtorch-relay report`."),
    ] = None,
    threads: Threads = None,
    rpc: Rpc = None,
    tracker: Tracker = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Compare every layer with PyTorch's own. Exit status 1 if a code differs, or a float by more than rounding.

    A float layer reads PyTorch's floats. It may differ by 32 float32 steps at its largest value, or by the root of as
    many as it adds up. With --rpc or --tracker our layers run on a board, PyTorch's here. With --float every layer is
    compared three ways, and its loss told as the quantization's or the compiler's, the worst layer first.

    Example: qtorch-relay compare resnet18.pt --input x:1,3,224,224 --engine fbgemm
    Example: qtorch-relay compare resnet18_int8.pt --input x:1,3,224,224 --float resnet18.pt -o record.json
    Example: qtorch-relay compare resnet18.pt --input x:1,3,224,224 --target arm-neon --rpc 192.168.1.20:9090
    """
    from accuracy_reports.layers.compare import compare_model, here
    from qtorch_relay.runtime.arrays import input_infos_of, read_arrays
    from qtorch_relay.target import check_runnable, resolve

    check_three_ways(float_model, output)
    boards = choose_boards(rpc, tracker, key, timeout)
    resolved = resolve(target)
    if boards is None:
        set_threads(threads)
        check_runnable(resolved)
    place = here if boards is None else placer(boards, threads)
    arrays = None if data is None else read_arrays(data)
    input_infos = input_infos_of(arrays) if arrays and not inputs else parse_inputs(model, inputs)
    given = None if arrays is None else list(arrays.values())
    with working("comparing layer by layer"):
        result = compare_model(
            str(model), input_infos, engine, resolved, kernels=not portable, inputs=given, place=place
        )
    layers = None
    if float_model is not None:
        asked = ThreeWaysRequest(model, float_model, input_infos, result.engine, resolved, not portable, given, images)
        layers = compare_layers(asked, place, output)
    if as_json:
        print_json(result.to_json() | ({} if layers is None else {"three_ways": to_json(layers)}))
    else:
        print_table(
            f"{model.name}: engine {result.engine}, target {result.target}, {result.path}",
            ("layer", "op", "compared", "shape", "elements>", "differ>", "largest difference>", "ulp>", "source"),
            [_cells(layer) for layer in (*result.layers, *result.outputs)],
        )
        for message in result.messages:
            note(message)
        for line in _summary(result):
            print(line)
        if layers is not None:
            print_layers(layers)
            if given is None:
                note("the inputs are random, unlike those the model was calibrated with; give real ones with --data")
    if result.wrong:
        raise typer.Exit(DIFFERS_STATUS)


def _summary(result: Comparison) -> list[str]:
    first = result.first_differing
    where = "" if first is None else f"; first in {first.scope or first.name} ({first.op}) {first.source}"
    lines = [f"{result.differing} differing elements{where}"]
    if result.differing:
        codes = sum(layer.differing for layer in result.layers if layer.kind == "codes")
        wrong = ", ".join(f"{layer.scope or layer.name} ({layer.op})" for layer in result.wrong)
        lines.append(f"{codes} codes differ; float layers differ by at most {result.largest_steps:.3g} ulp")
        lines.append(f"beyond the rounding of floats: {wrong or 'none'}")
    return lines


def _cells(layer: LayerComparison) -> tuple[object, ...]:
    largest, steps = f"{layer.largest_difference:g}", f"{layer.steps:.3g}"
    name, shape = layer.scope or layer.name, list(layer.shape)
    return name, layer.op, layer.kind, shape, layer.elements, layer.differing, largest, steps, layer.source

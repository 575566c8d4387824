"""`qtorch-relay accuracy` and `qtorch-relay merge`: how many images a model gets right, beside PyTorch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtorch_relay.cli.console import note, print_table, progress, working
from qtorch_relay.cli.data_options import (
    Crop,
    Interpolation,
    Mean,
    PreprocessingName,
    Resize,
    Std,
    choose_preprocessing,
)
from qtorch_relay.cli.open_model import HOST
from qtorch_relay.cli.options import Engine, Json, TargetName
from qtorch_relay.errors import InvalidInputError, OutputPathError

if TYPE_CHECKING:
    from accuracy_reports.record import Program, Record, Share
    from accuracy_reports.totals import Totals

DIFFERS_STATUS = 1
_DIGITS = "digits"
_SHOWN_CHANGES = 10


def accuracy(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A TorchScript file (.pt), or a bundle (.qtr). Default: the digits demo's."
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The images: a folder with a folder for each class; ImageNet's validation set, flat, with the "
            "devkit's ground truth in it or near it; a .npz file of images and labels; digits.",
        ),
    ] = _DIGITS,
    float_model: Annotated[
        Path | None, typer.Option("--float", metavar="FILE", help="The float model (TorchScript), to compare with.")
    ] = None,
    int8_model: Annotated[
        Path | None, typer.Option("--int8", metavar="FILE", help="Of a bundle: the TorchScript file it was made of.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Keep the journal, record.json and report.html here. Default: accuracy-MODEL.",
        ),
    ] = None,
    preprocessing: PreprocessingName = None,
    resize: Resize = None,
    crop: Crop = None,
    interpolation: Interpolation = None,
    mean: Mean = None,
    std: Std = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Only N images, evenly spaced. Default: all.", min=1)
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Flat ImageNet: the ground truth, if it is elsewhere.")
    ] = None,
    synsets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Flat ImageNet: meta.mat, or a text file with the synset of each ILSVRC2012_ID."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class folders: their names in the model's order. Default: sorted."),
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Flat ImageNet: accept that images of the ground truth are missing.")
    ] = False,
    engine: Engine = None,
    target: TargetName = HOST,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Threads for every program.")] = 1,
    batch: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images of a call. Default: 1, or the bundle's.")
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images that are recorded, and lost by a kill, together.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Threads that decode. Default: one for each CPU.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts; `qtorch-relay merge` joins them.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Run ONNX Runtime beside it, where it takes the model.")] = True,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what the folder's journal has.")] = False,
    as_json: Json = False,
) -> None:
    """Count how many images a model gets right, and whether every answer and code is PyTorch's. Exit status 1 if not.

    PyTorch in float (--float) and int8, the compiled program and ONNX Runtime see the same images. A run that was
    stopped goes on where it was when the same command is given again.

    Example: qtorch-relay accuracy resnet50_int8.pt --float resnet50.pt --data imagenet/val
    --preprocessing resnet50/IMAGENET1K_FBGEMM_V2 --threads 2
    """
    _check_extra()
    from accuracy_reports.prepare import Request, prepare
    from accuracy_reports.setup import Data

    chosen = choose_preprocessing(preprocessing, resize, crop, interpolation, mean, std)
    folder = output or Path(f"accuracy-{_DIGITS if model is None else model.stem}")
    _make_folder(folder, restart=restart)
    request = Request(
        Data(data, chosen, labels, synsets, classes, incomplete, images),
        model,
        int8_model,
        float_model,
        engine,
        target,
        threads,
        batch,
        chunk,
        workers,
        peers,
        _shard(shard),
        shlex.join(["qtorch-relay", *sys.argv[1:]]),
    )
    setup, header = prepare(request, folder, working)
    note(f"{header.question.dataset.name}; {header.question.dataset.preprocessing}")
    from accuracy_reports.run import run

    with _shown(folder) as tell:
        record = run(setup, header, folder, tell=tell)
    _finish(record, folder, as_json=as_json)


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="The folders of all shards of a run.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where record.json is written.")],
    as_json: Json = False,
) -> None:
    """Join the shards of an accuracy run, each exactly once.

    Example: qtorch-relay merge part1 part2 -o whole
    """
    _check_extra()
    from accuracy_reports.merge import merge as merge_shards

    record = merge_shards(folders, shlex.join(["qtorch-relay", *sys.argv[1:]]))
    _make_folder(output, restart=False)
    _finish(record, output, as_json=as_json)


def _check_extra() -> None:
    """Raises InvalidInputError where what only this command needs is not installed."""
    try:
        import PIL  # noqa: F401
        import pydantic  # noqa: F401
    except ImportError as error:
        raise InvalidInputError(f"{error.name} is not installed; pip install 'qtorch-relay[accuracy]'") from error


def _make_folder(folder: Path, *, restart: bool) -> None:
    """Makes a run's folder. restart: without the journal that it may have."""
    from accuracy_reports.journal import JOURNAL

    try:
        folder.mkdir(exist_ok=True)
        if restart:
            (folder / JOURNAL).unlink(missing_ok=True)
    except FileExistsError:
        raise OutputPathError(f"cannot write to {folder}: it is a file; give the name of a folder") from None
    except FileNotFoundError:
        raise OutputPathError(
            f"cannot write {folder}: the folder {folder.parent} does not exist; make it first"
        ) from None
    except OSError as error:
        raise OutputPathError(f"cannot write {folder}: {error.strerror}") from error


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    i, slash, n = text.partition("/")
    if not slash or not i.isdecimal() or not n.isdecimal() or not 1 <= int(i) <= int(n):
        raise InvalidInputError(f"--shard is '{text}'; accepted is I/N, such as 2/4 for the second of four parts")
    return int(i), int(n)


@contextmanager
def _shown(folder: Path) -> Iterator[Callable[[int, int, Totals], None]]:
    """Shows how far a run is; stopped by the user, it says how to go on."""
    with progress() as bars:
        task = bars.add_task("evaluating", total=None, detail="")
        told = False

        def tell(done: int, images: int, totals: Totals) -> None:
            nonlocal told
            if done and not told:
                note(f"{done} of {images} images are in {folder} from before")
            told = True
            bars.update(task, total=images, completed=done, detail=f"{done}/{images}  {_so_far(totals)}")

        try:
            yield tell
        except KeyboardInterrupt:
            note(f"stopped; what is done is in {folder}, the same command goes on from there")
            raise


def _so_far(totals: Totals) -> str:
    from accuracy_reports.record import OURS

    ours = next((program for program in totals.programs if program.name == OURS and program.images), None)
    if ours is None or ours.top1 is None:
        return ""
    differing = "" if ours.differing_codes is None else f", {ours.differing_codes.count} codes differ"
    return f"top-1 {ours.top1.value:.2%}{differing}"


def _finish(record: Record, folder: Path, *, as_json: bool) -> None:
    """Writes the record, prints it, and exits with status 1 if an answer or code is not PyTorch's."""
    from accuracy_reports import record as records
    from accuracy_reports.run import RECORD

    records.write_record(record, folder / RECORD)
    if as_json:
        print(records.to_json(record).decode(), end="")
    else:
        _print(record)
        print(f"{folder / RECORD}")
    ours = record.program(records.OURS)
    if ours is not None and any(_differs(share) for share in (ours.differing_codes, ours.differing_images)):
        raise typer.Exit(DIFFERS_STATUS)
    if ours is not None and ours.agreement is not None and ours.agreement.count != ours.agreement.of:
        raise typer.Exit(DIFFERS_STATUS)


def _differs(share: Share | None) -> bool:
    return share is not None and share.count > 0


def _print(record: Record) -> None:
    columns = (
        "program",
        "top-1>",
        "top-5>",
        "answers as PyTorch int8>",
        "codes that differ>",
        "latency (median)>",
        "images/s>",
    )
    title = (
        f"{record.model.name} on {record.dataset.name}: {record.dataset.images} images, {len(record.broken)} broken, "
        f"engine {record.model.engine}, target {record.model.target}"
    )
    print_table(title, columns, [_cells(program) for program in record.programs if program.problem is None])
    for program in record.programs:
        if program.problem is not None:
            note(f"{program.name}: {program.problem}")
    for broken in record.broken:
        note(f"broken: {broken.id}: {broken.reason}")
    for change in record.changed[:_SHOWN_CHANGES]:
        names = record.dataset.classes
        label = "" if change.label is None else f" where {names[change.label]} is right"
        answers = f"{names[change.found]} in place of {names[change.expected]}{label}"
        note(f"{change.program}: {answers}: {change.images} x")


def _cells(program: Program) -> tuple[str, ...]:
    codes, latency = program.differing_codes, program.latency_ms
    return (
        program.name,
        _share(program.top1),
        _share(program.top5),
        "" if program.agreement is None else f"{program.agreement.count} of {program.agreement.of}",
        "" if codes is None else f"{codes.count} of {codes.of}",
        "" if latency is None else f"{latency:.3f} ms",
        "" if program.images_per_s is None else f"{program.images_per_s:.1f}",
    )


def _share(share: Share | None) -> str:
    """Returns a share with its 95 % interval."""
    return "" if share is None else f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"

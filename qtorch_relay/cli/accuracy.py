"""`qtorch-relay accuracy`: how many images a model gets right, beside PyTorch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qtorch_relay.cli.accuracy_results import check_extra, finish, new_folder
from qtorch_relay.cli.board_options import Key, Ray, Rpc, Timeout, Tracker
from qtorch_relay.cli.console import note, progress, working
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
from qtorch_relay.errors import InvalidInputError, QTorchRelayError
from qtorch_relay.runtime.remote import Boards, choose_boards
from qtorch_relay.runtime.remote_session import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from accuracy_reports.record import Record
    from accuracy_reports.runs.coordinator import Schedule
    from accuracy_reports.runs.setup import Setup
    from accuracy_reports.runs.totals import Totals

_DIGITS = "digits"


def accuracy(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="TorchScript (.pt), an exported program (.pt2) or a bundle (.qtr). Default: the digits demo's.",
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
    layers: Annotated[
        int, typer.Option(metavar="N", min=0, help="Compare every layer, too, on N of the images; 0 = none.")
    ] = 4,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what the folder's journal has.")] = False,
    ray: Ray = None,
    rpc: Rpc = None,
    tracker: Tracker = None,
    key: Key = None,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    as_json: Json = False,
) -> None:
    """Count how many images a model gets right, and whether every answer and code is PyTorch's. Exit status 1 if not.

    PyTorch in float (--float) and int8, the compiled program and ONNX Runtime see the same images. A run that was
    stopped goes on where it was when the same command is given again.
    With --ray it runs on a cluster; with --rpc or --tracker the compiled program runs on boards, and its latency is
    told with the network. A worker or board that dies loses no image and counts none twice.

    Example: qtorch-relay accuracy resnet50_int8.pt --float resnet50.pt --data imagenet/val
    --preprocessing resnet50/IMAGENET1K_FBGEMM_V2 --threads 2
    Example: qtorch-relay accuracy model.qtr --int8 model.pt --data imagenet/val --tracker 192.168.1.2:9190 --key rpi4
    """
    check_extra()
    boards = choose_boards(rpc, tracker, key, timeout)
    if boards is not None and ray is not None:
        raise InvalidInputError("give --ray for a cluster, or --rpc or --tracker for boards, not both")
    from accuracy_reports.runs.prepare import Request, prepare
    from accuracy_reports.runs.setup import Data

    chosen = choose_preprocessing(preprocessing, resize, crop, interpolation, mean, std)
    folder = output or Path(f"accuracy-{_DIGITS if model is None else model.stem}")
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
        peers and boards is None,
        _shard(shard),
        restart,
        shlex.join(["qtorch-relay", *sys.argv[1:]]),
        boards is not None,
    )
    with new_folder(folder):
        setup, header = prepare(request, folder, working)
    note(f"{header.question.dataset.name}; {header.question.dataset.preprocessing}")
    from accuracy_reports.runs.coordinator import run

    with _shown(folder) as tell:
        record = run(setup, header, folder, _schedule(boards, ray), tell)
    if layers and boards is None and setup.int8_model is not None and header.shard == (1, 1):
        record = _with_layers(record, setup, folder, layers)
    finish(record, folder, as_json=as_json)


def _schedule(boards: Boards | None, ray: str | None) -> Schedule:
    """Returns what gives the chunks away: to boards, to a cluster, or to this process."""
    from accuracy_reports.runs.coordinator import here

    if boards is not None:
        from accuracy_reports.runs.boards import on_boards

        note(f"{boards}: our latency there is told with the network; `qtorch-relay bench` tells it without")
        return on_boards(boards, _go_on_without)
    if ray is not None:
        from accuracy_reports.runs.ray_cluster import on_ray

        return on_ray(ray, _go_on_without)
    return here


def _go_on_without(reason: str) -> None:
    note(f"{reason}; its images go to others")


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
            bars.update(task, total=images, completed=done, detail=f"{done}/{images}  {totals.in_short}")

        try:
            yield tell
        except KeyboardInterrupt:
            note(f"stopped; what is done is in {folder}, the same command goes on from there")
            raise


def _with_layers(record: Record, setup: Setup, folder: Path, count: int) -> Record:
    """Returns the record with what each layer does; without it, and a note, where the model cannot be taken apart."""
    from accuracy_reports.record import write_record
    from accuracy_reports.runs.coordinator import RECORD, with_layers

    write_record(record, folder / RECORD)  # it has taken longer than what follows
    try:
        with working("comparing layers"):
            return with_layers(record, setup, count)
    except QTorchRelayError as error:
        note(f"layers: {error}")
        return record

"""A model to run, here or on a board: a bundle, or a TorchScript file that is compiled first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtorch_relay.cli.console import note, working
from qtorch_relay.cli.options import parse_inputs, summarize_report
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import CompiledModel

if TYPE_CHECKING:
    from qtorch_relay.runtime.remote import Boards
    from qtorch_relay.runtime.remote_model import RemoteModel
    from qtorch_relay.runtime.remote_session import Session

HOST = "host"


def open_model(model: Path, input_infos: Any, engine: str | None, target: str) -> CompiledModel:
    """Returns the model of a bundle, or compiles a TorchScript file. input_infos, engine: None if not given.

    target: of a bundle, which of its programs; HOST takes the most able.

    Raises: InvalidInputError if a bundle is given what only compiling can change, or a TorchScript file no inputs.
    """
    if model.suffix == ".qtr":
        _refuse_compile_options(model, input_infos, engine)
        from qtorch_relay.runtime import load

        return load(model, None if target == HOST else target)
    from qtorch_relay.target import check_runnable, resolve

    check_runnable(resolve(target))
    return _compile(model, input_infos, engine, target)


def open_on_board(model: Path, input_infos: Any, engine: str | None, target: str, boards: Boards) -> RemoteModel:
    """Returns the same on a board, of several targets the named or the most able. No code is loaded here, so it may be
    for any CPU.

    Raises: RemoteError or TargetError if there is no such board, or it cannot run the model.
    """
    from qtorch_relay.runtime.bundle import read_variants
    from qtorch_relay.runtime.remote_model import place, place_compiled
    from qtorch_relay.runtime.variants import named

    if model.suffix == ".qtr":
        _refuse_compile_options(model, input_infos, engine)
        variants = read_variants(model)
        if target != HOST:
            variants = (variants[named([variant.interface.target for variant in variants], target)],)
        with working("taking it to the board"):
            return place(boards.connect(), variants, model.name)
    session = boards.connect()  # that there is no board is said before the work of compiling
    compiled = _compile(model, input_infos, engine, target)
    with working("taking it to the board"):
        return place_compiled(session, compiled)


def placer(boards: Boards, threads: int | None) -> Callable[[CompiledModel], RemoteModel]:
    """Returns a function that takes compiled programs to one board."""
    from qtorch_relay.runtime.remote_model import place_compiled

    session = boards.connect()
    set_board_threads(session, threads)
    return lambda compiled: place_compiled(session, compiled)


def set_board_threads(session: Session, threads: int | None) -> int:
    """Sets the number of threads on a board, if one is given, and returns the number it uses."""
    used = session.set_num_threads(threads)
    if threads is not None and used != threads:
        note(f"{session.name} uses {used} of the {threads} threads asked for: its server has no more")
    return used


def _compile(model: Path, input_infos: Any, engine: str | None, target: str) -> CompiledModel:
    from qtorch_relay.pipeline import compile as compile_for
    from qtorch_relay.target import resolve_all

    resolved = resolve_all(target)
    infos = parse_inputs(model, None) if input_infos is None else input_infos
    with working(f"compiling for {', '.join(one.name for one in resolved)}"):
        compiled = compile_for(str(model), infos, resolved, engine)
    for line in summarize_report(compiled.report):
        note(line)
    return compiled


def _refuse_compile_options(model: Path, input_infos: Any, engine: str | None) -> None:
    given = {"--input": input_infos, "--engine": engine}
    names = [name for name, value in given.items() if value]
    if names:
        raise InvalidInputError(
            f"{model} is compiled already, so {', '.join(names)} cannot change it; leave that out, or take the .pt file"
        )

"""A model to run: a bundle, or a TorchScript file that is compiled first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtorch_relay.cli.console import note, working
from qtorch_relay.cli.options import parse_inputs, summarize_report
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.runtime import CompiledModel

HOST = "host"


def open_model(model: Path, input_infos: Any, engine: str | None, target: str) -> CompiledModel:
    """Returns the model of a bundle, or compiles a TorchScript file. input_infos, engine: None if not given.

    Raises: InvalidInputError if a bundle is given what only compiling can change, or a TorchScript file no inputs.
    """
    if model.suffix == ".qtr":
        _refuse_compile_options(model, input_infos, engine, target)
        from qtorch_relay.runtime import load

        return load(model)
    from qtorch_relay.pipeline import compile as compile_for
    from qtorch_relay.target import check_runnable, resolve

    resolved = resolve(target)
    check_runnable(resolved)
    infos = parse_inputs(model, None) if input_infos is None else input_infos
    with working(f"compiling for {resolved.name}"):
        compiled = compile_for(str(model), infos, resolved, engine)
    for line in summarize_report(compiled.report):
        note(line)
    return compiled


def _refuse_compile_options(model: Path, input_infos: Any, engine: str | None, target: str) -> None:
    given = {"--input": input_infos, "--engine": engine, "--target": None if target == HOST else target}
    names = [name for name, value in given.items() if value]
    if names:
        raise InvalidInputError(
            f"{model} is compiled already, so {', '.join(names)} cannot change it; leave that out, or take the .pt file"
        )

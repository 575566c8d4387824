"""Rows of the op matrix in a real TVM with Relay: many in one program, each output against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accuracy_reports.relay_era.job import run_text
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.packed import quantized_tensor
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import QTorchRelayError, UnsupportedOpError
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text
from tests.matrix.case import Case
from tests.matrix.run import Rows


@dataclass(frozen=True)
class Result:
    """A row in Relay: how many of its elements are not PyTorch's, or the error that kept it from running.

    kind: "codes", or "floats" (then only what is off by more than rounding counts).
    """

    id: str
    kind: str = "codes"
    elements: int = 0
    differing: int = 0
    error: str = ""


# Floats may differ by the order of additions and by Relay's own functions; codes may not.
FLOAT_FRACTION = 1e-5


def text_of(case: Case, engine: str, *, exact: bool) -> str | None:
    """Returns a row's Relay text, None if an op of it is refused by name."""
    try:
        return imported_text(_imported([case], engine), Options(exact=exact))[0]
    except UnsupportedOpError:
        return None


def results(cases: Sequence[Case], engine: str, *, exact: bool) -> list[Result]:
    """Returns a result per row. A program that cannot be run is taken apart, so that the row to blame is named."""
    try:
        return list(_run(cases, engine, exact=exact))
    except QTorchRelayError as error:
        if len(cases) == 1:
            return [Result(cases[0].id, error=f"{type(error).__name__}: {error}")]
        half = len(cases) // 2
        return results(cases[:half], engine, exact=exact) + results(cases[half:], engine, exact=exact)


def _imported(cases: Sequence[Case], engine: str) -> Any:
    with quantized_engine(engine), torch.no_grad():
        module = Rows(cases).eval()
    return import_graph(capture_model(module, _infos(cases), engine).graph)


def _infos(cases: Sequence[Case]) -> list[tuple[str, torch.Tensor]]:
    return [(f"x{i}", torch.from_numpy(array.copy())) for i, array in enumerate(_arrays(cases))]


def _arrays(cases: Sequence[Case]) -> list[npt.NDArray[Any]]:
    return [array for case in cases for array in case.inputs]


def _run(cases: Sequence[Case], engine: str, *, exact: bool) -> Iterator[Result]:
    with quantized_engine(engine), torch.no_grad():
        module = Rows(cases).eval()
        expected = module.each([tensor for _, tensor in _infos(cases)])
        imported = import_graph(capture_model(module, _infos(cases), engine).graph)
    text, params = imported_text(imported, Options(exact=exact))
    ran = run_text(text, params, {f"x{i}": array for i, array in enumerate(_arrays(cases))})
    ours = iter(ran.outputs)
    for case, tensors in zip(cases, expected, strict=True):
        compared = [_compare(tensor, next(ours)) for tensor in tensors]
        codes = [found for found in compared if found[0] == "codes"]
        kind, chosen = ("codes", codes) if codes else ("floats", compared)
        yield Result(case.id, kind, sum(found[1] for found in chosen), sum(found[2] for found in chosen))


def _compare(tensor: torch.Tensor, ours: npt.NDArray[Any]) -> tuple[str, int, int]:
    """Returns the kind, the number of elements and how many of them differ."""
    theirs = quantized_tensor(tensor).codes if tensor.is_quantized else tensor.detach().numpy()
    assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
    unequal = theirs != ours
    if theirs.dtype.kind != "f":
        return "codes", theirs.size, int(unequal.sum())
    unequal &= ~(np.isnan(theirs) & np.isnan(ours))
    magnitude = np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)
    unequal &= ~(np.abs(theirs.astype(np.float64) - ours) <= FLOAT_FRACTION * magnitude)
    return "floats", theirs.size, int(unequal.sum())

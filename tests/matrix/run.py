"""Runs rows of the matrix: many in one program, each output against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.graph import Graph
from qtorch_relay.capture.packed import quantized_tensor
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.frontend.importer import import_graph, output_interface
from qtorch_relay.frontend.registry import FOLDINGS
from qtorch_relay.pipeline import compile_imported
from qtorch_relay.qparams import PerTensor, QuantizedTensor
from tests.frontend.models import UNOPTIMIZED
from tests.matrix.case import Case

# fbgemm and onednn between them hold x86's arithmetic, so x86 is where the optimized program is run.
PATHS = {"fbgemm": UNOPTIMIZED, "onednn": UNOPTIMIZED, "qnnpack": UNOPTIMIZED, "x86": "host"}


class Rows(nn.Module):
    """The modules of several rows side by side."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.rows = nn.ModuleList(case.make() for case in cases)
        self.counts = [len(case.inputs) for case in cases]

    def each(self, inputs: Sequence[Any]) -> list[list[torch.Tensor]]:
        """Returns the outputs of each row, flat."""
        outputs, start = [], 0
        for row, count in zip(self.rows, self.counts, strict=True):
            outputs.append(list(flatten(row(*inputs[start : start + count]))))
            start += count
        return outputs

    def forward(self, *inputs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(tensor for row in self.each(inputs) for tensor in row)


def flatten(output: Any) -> Iterator[Any]:
    """Yields the tensors of a nested output."""
    if isinstance(output, list | tuple):
        for item in output:
            yield from flatten(item)
    elif isinstance(output, dict):
        for item in output.values():
            yield from flatten(item)
    else:
        yield output


def failures(cases: Sequence[Case], engine: str) -> list[str]:
    """Returns one line per row that is not equal to PyTorch. Rows are run together; a program that cannot be made is
    taken apart, so that the row to blame is named."""
    try:
        return _compare(cases, engine)
    except Exception as error:
        if len(cases) == 1:
            return [f"{cases[0].id}: {type(error).__name__}: {error}"]
        half = len(cases) // 2
        return failures(cases[:half], engine) + failures(cases[half:], engine)


def _compare(cases: Sequence[Case], engine: str) -> list[str]:
    arrays = [array for case in cases for array in case.inputs]
    with quantized_engine(engine), torch.no_grad():
        module = Rows(cases).eval()
        expected = module.each([torch.from_numpy(array.copy()) for array in arrays])
    infos = [(f"x{i}", torch.from_numpy(array.copy())) for i, array in enumerate(arrays)]
    graph = capture_model(module, infos, engine).graph
    imported = import_graph(graph)
    _, qparams = output_interface(imported.mod)
    ours = iter(zip(compile_imported(imported, PATHS[engine]).run_flat(arrays), qparams, strict=True))
    lines = [f"{op} of {case.id} is not in the program" for case in cases for op in case.ops if _is_missing(op, graph)]
    for case, tensors in zip(cases, expected, strict=True):
        for i, tensor in enumerate(tensors):
            found = _difference(case, tensor, *next(ours))
            if found:
                lines.append(f"{case.id} output {i}: {found}")
    return lines


def _is_missing(op: str, graph: Graph) -> bool:
    """Tells whether a program is without an op that it is to prove; what is folded away at import cannot be seen."""
    return op.startswith("quantized::") and op not in FOLDINGS and all(node.name != op for node in graph.walk())


def _difference(case: Case, tensor: torch.Tensor, ours: npt.NDArray[Any], qparams: PerTensor | None) -> str:
    """Returns in what way an output differs from PyTorch's, "" if it does not."""
    if tensor.is_quantized:
        expected: QuantizedTensor = quantized_tensor(tensor)
        if expected.qparams != qparams:
            return f"parameters {qparams}, PyTorch's are {expected.qparams}"
        theirs = expected.codes
    else:
        theirs = tensor.detach().numpy()
    if theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        return f"{ours.dtype}{list(ours.shape)}, PyTorch's is {theirs.dtype}{list(theirs.shape)}"
    unequal = theirs != ours
    if theirs.dtype.kind == "f":
        unequal &= ~(np.isnan(theirs) & np.isnan(ours))
        if case.ulp and unequal.any():
            scale = np.spacing(np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0).astype(np.float32))
            unequal &= ~(np.abs(theirs.astype(np.float64) - ours) <= case.ulp * np.float64(scale))
        unequal |= (theirs == 0) & (ours == 0) & (np.signbit(theirs) != np.signbit(ours))
    if not unequal.any():
        return ""
    where = tuple(int(axis[0]) for axis in np.nonzero(unequal))
    return (
        f"{int(unequal.sum())} of {theirs.size} differ, first at {where}: {ours[where]}, PyTorch's is {theirs[where]}"
    )

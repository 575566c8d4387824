"""Golden outputs of programs that this machine cannot run: PyTorch's own, or the same module's, compiled for here.

Where the program can be run, `runtime.bundle` takes its own outputs when it is saved.
"""

from __future__ import annotations

from typing import Any

from qtorch_relay.capture.packed import UnreadableParamsError
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.qparams import QuantizedTensor
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.golden import GOLDEN_SIZE, golden_inputs
from qtorch_relay.runtime.interface import HOST_PROGRAM, PYTORCH, Golden, Interface


def golden_by_pytorch(model: Any, input_infos: Any, interface: Interface) -> Golden:
    """Returns what PyTorch computes from seeded inputs, on the engine the program is for.

    model, input_infos: what the program was compiled from.
    """
    sizes = dict.fromkeys(interface.dimension_names, GOLDEN_SIZE)
    try:
        captured = capture_model(model, input_infos, interface.engine, sizes)
    except UnreadableParamsError:
        # as from_torch does: the codes of weights are the same in every engine's packing
        captured = capture_model(model, input_infos, "fbgemm", sizes)
    inputs = golden_inputs(interface)
    found = run_reference(captured, inputs, interface.engine).flat_outputs
    outputs = tuple(leaf.codes if isinstance(leaf, QuantizedTensor) else leaf for leaf in found)
    return Golden(inputs, outputs, PYTORCH)


def golden_by(program: CompiledModel) -> Golden:
    """Returns what the same module computes from seeded inputs, compiled for this machine."""
    inputs = golden_inputs(program.interface)
    return Golden(inputs, program.run_flat(inputs), HOST_PROGRAM)

"""Which codes a value of the program can hold, as far as the ops that make it tell."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.kernels.pair_sums import CodeRange
from qtorch_relay.lowering.match import Program
from qtorch_relay.lowering.rebuild import op_name
from qtorch_relay.qnn.op_def import Operands
from qtorch_relay.qparams import code_range

MAX_STEPS = 16
"""Ops followed back from a value; what is before them is taken for unknown."""

_MOVES = ("relax.reshape", "relax.permute_dims", "relax.strided_slice", "relax.flatten", "relax.squeeze")


def range_of(program: Program, value: Any, steps: int = MAX_STEPS) -> CodeRange:
    """Returns the least and the greatest code of an expression: the dtype's where nothing narrower is known."""
    low, high = code_range(str(value.ty.dtype))
    binding = program.definition(value) if isinstance(value, relax.Var) else None
    if binding is None or steps == 0:
        return low, high
    call = binding.value
    name = op_name(call)
    if name == "qnn.lookup":
        table = Operands(call).constant("table")
        return int(table.min()), int(table.max())
    if name in ("relax.maximum", "relax.minimum") and is_constant(call.args[1]):
        bound, (below, above) = constant_array(call.args[1]), range_of(program, call.args[0], steps - 1)
        if name == "relax.maximum":
            return max(below, int(bound.min())), max(above, int(bound.max()))
        return min(below, int(bound.min())), min(above, int(bound.max()))
    if name in _MOVES:
        return range_of(program, call.args[0], steps - 1)
    if name == "relax.nn.max_pool2d":
        # a window without pixels holds the lowest code
        return low, range_of(program, call.args[0], steps - 1)[1]
    return low, high

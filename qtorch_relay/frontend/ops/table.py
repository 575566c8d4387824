"""A unary op on a quantized tensor as a table of what PyTorch returns for each code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qtorch_relay.capture.graph import Node
from qtorch_relay.capture.unary_table import unary_table
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.frontend.values import QuantizedValue
from qtorch_relay.qnn import lookup
from qtorch_relay.qparams import is_identity


def emit_table(
    context: ImportContext, node: Node, value: QuantizedValue, others: Mapping[str, Any], op: str | None = None
) -> QuantizedValue:
    """Returns the value that a unary op makes of one, with the output parameters that PyTorch gives it.

    others: the op's other arguments, by their schema names. op: the op to run, if it is not the node's own.
    """
    table = unary_table(op or node.op, others, value.qparams, context.engine)
    if table.output_qparams == value.qparams and is_identity(table.codes):
        return value
    expr = lookup(
        value.expr,
        table.codes,
        np.float32(value.qparams.scale),
        value.qparams.zero_point,
        np.float32(table.output_qparams.scale),
        table.output_qparams.zero_point,
        node.function,
    )
    return QuantizedValue(context.emit(expr, node.scope or node.function), table.output_qparams)

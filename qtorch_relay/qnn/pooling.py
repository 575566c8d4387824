"""qnn.avg_pool2d: the mean of a window of codes, again as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.conv import four_paddings
from qtorch_relay.qnn.op_def import (
    CODES_8BIT,
    Expr,
    Operands,
    as_scale,
    as_zero_point,
    check_choice,
    check_dtype,
    check_scale,
    check_zero_point,
    define_op,
    tensor_type,
)

"""requantize_config: Relay's names, defaults and nesting."""

from __future__ import annotations

import pytest

from qtorch_relay import qnn
from qtorch_relay._tvm import tvm
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.requantize_config import resolve


def test_defaults_depend_on_the_current_target() -> None:
    assert resolve() == ("UPWARD", "int64")
    with tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}):
        assert resolve() == ("UPWARD", "float32")
    with tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"}):
        assert resolve() == ("UPWARD", "int64")


def test_the_innermost_config_holds_until_it_is_left() -> None:
    with qnn.requantize_config(rounding="TONEAREST"):
        with qnn.requantize_config(compute_dtype="float64"):
            assert resolve() == ("UPWARD", "float64")
        assert resolve() == ("TONEAREST", "int64")
    assert qnn.current_requantize_config().rounding == "UPWARD"


def test_an_op_that_says_it_is_not_asked() -> None:
    with qnn.requantize_config(rounding="TONEAREST", compute_dtype="float64"):
        assert resolve("UPWARD", "float32") == ("UPWARD", "float32")
        assert resolve("TONEAREST_EVEN") == ("TONEAREST_EVEN", "float32")


@pytest.mark.parametrize("options", [{"rounding": "DOWN"}, {"compute_dtype": "int32"}, {"round": "UPWARD"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(VerifyError, match="requantize_config"):
        qnn.requantize_config(**options)

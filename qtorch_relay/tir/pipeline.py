"""TVM's pipeline from TIR to machine code, without the checks of arguments that nothing can fail."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import tirx, tvm

NAME = "qtorch_relay"


def _factory() -> tuple[Any, Any, Any]:
    """Returns TVM's passes before, on and after the split of host and device, as its registry of pipelines wants them.

    MakePackedAPI gives every function a dozen asserts for each argument: number of dimensions, dtype, shape, strides,
    device. Only the virtual machine calls these functions, with tensors that it made for their types; what a user hands
    in is checked before (tensors.to_array) and copied to memory of its own. Asserts were half of the machine code of a
    small program.
    """
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0, name="LowerWithoutArgumentChecks")
    def lower_without_argument_checks(mod: Any, _context: Any) -> Any:
        checking = _functions_with_asserts(mod)
        lowered = lower(mod)
        without = tirx.transform.SkipAssert()(lowered)
        for global_var, function in lowered.functions_items():
            if global_var.name_hint in checking:
                without.update_func(without.get_global_var(global_var.name_hint), function)
        return without

    return lower_without_argument_checks, finalize_host, finalize_device


def _functions_with_asserts(mod: Any) -> set[str]:
    """Returns the names of functions that assert something themselves; they keep all their asserts."""
    without = tirx.transform.SkipAssert()(mod)
    return {
        global_var.name_hint
        for global_var, function in mod.functions_items()
        if not function.body.same_as(without[global_var.name_hint].body)
    }


tirx.register_tir_pipeline(NAME, _factory)

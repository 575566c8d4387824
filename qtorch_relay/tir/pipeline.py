"""TVM's pipeline from TIR to machine code, without what it takes for granted of arguments or checks in vain."""

from __future__ import annotations

from typing import Any

from tvm_ffi import structural_map

from qtorch_relay._tvm import tirx, tvm

NAME = "qtorch_relay"


def _factory() -> tuple[Any, Any, Any]:
    """Returns TVM's passes before, on and after the split of host and device, as its registry of pipelines wants them.

    MakePackedAPI gives every function a dozen asserts for each argument: number of dimensions, dtype, shape, strides,
    device. Only the virtual machine calls these functions, with tensors that it made for their types; what a user hands
    in is checked before (tensors.to_array). Asserts were half of the machine code of a small program.

    It also has LLVM assume that data begins at a multiple of 64 bytes, which is true of what the virtual machine
    allocates and of weights, but not of a user's arrays: those would have to be copied for every call.
    """
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0, name="LowerWithoutArgumentChecks")
    def lower_without_argument_checks(mod: Any, _context: Any) -> Any:
        checking = _functions_with_asserts(mod)
        lowered = lower(mod)
        without = tirx.transform.SkipAssert()(lowered)
        for global_var, function in lowered.functions_items():
            name = global_var.name_hint
            kept = function if name in checking else without[name]
            without.update_func(without.get_global_var(name), _of_any_alignment(kept))
        return without

    return lower_without_argument_checks, finalize_host, finalize_device


def _of_any_alignment(function: Any) -> Any:
    """Returns the function for arguments whose data begins at any multiple of an element's size.

    No instruction asks for more: x86 with AVX and ARM load and store vectors from any address, at the same speed where
    they happen to be aligned. LLVM takes the element's size where nothing larger is said.
    """

    def attribute(statement: Any) -> Any:
        if statement.attr_key != "storage_alignment":
            return statement
        return tirx.AttrStmt(statement.node, statement.attr_key, tirx.IntImm("int32", 1), statement.body)

    def check(statement: Any) -> Any:
        aligned = any("Misaligned" in str(part.value) for part in statement.message_parts)
        return tirx.Evaluate(0) if aligned else statement

    return structural_map(function, [(tirx.AttrStmt, attribute), (tirx.AssertStmt, check)])


def _functions_with_asserts(mod: Any) -> set[str]:
    """Returns the names of functions that assert something themselves; they keep all their asserts."""
    without = tirx.transform.SkipAssert()(mod)
    return {
        global_var.name_hint
        for global_var, function in mod.functions_items()
        if not function.body.same_as(without[global_var.name_hint].body)
    }


tirx.register_tir_pipeline(NAME, _factory)

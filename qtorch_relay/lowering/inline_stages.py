"""InlineStages: a fused function computes an element in one go, where TVM keeps a loop and memory for each op.

Fused functions of forty ops, and as many loops, took LLVM seconds to compile, and every op went through memory.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from qtorch_relay._tvm import FloatImm, PrimFunc, tirx, tvm

# TVM's name for the block around a function's stages.
ROOT = "root"


@tvm.transform.module_pass(opt_level=0, name="InlineStages")
class InlineStages:
    """Puts each element-wise stage of a function into the one stage that reads it, once for each element.

    A product of floats stays where it is: LLVM would make one fused multiply-add of it and an addition that follows,
    which is another rounding.

    Before: for i: t[i] = a[i] + b[i]          After: for i: y[i] = max(a[i] + b[i], 0)
            for i: y[i] = max(t[i], 0)
    """

    def transform_module(self, mod: Any, _context: Any) -> Any:
        """Returns the module with stages inlined."""
        result = mod.clone()
        for global_var, function in mod.functions_items():
            if isinstance(function, PrimFunc) and _has_stages(function):
                result.update_func(global_var, _inline(function))
        return result


def _has_stages(function: Any) -> bool:
    """Says whether a function is what TVM fused of several loops; kernels and functions of ours have none."""
    body = function.body
    return isinstance(body, tvm.s_tir.SBlockRealize) and body.block.name_hint == ROOT and bool(body.block.alloc_buffers)


def _inline(function: Any) -> Any:
    schedule = tvm.s_tir.Schedule(function)
    for stage in schedule.get_child_blocks(schedule.get_sblock(ROOT)):
        if _is_inlined(schedule, stage):
            schedule.compute_inline(stage)
    return schedule.mod["main"]


def _is_inlined(schedule: Any, stage: Any) -> bool:
    block, readers = schedule.get(stage), schedule.get_consumers(stage)
    if len(readers) != 1 or not _is_element_wise(block) or _is_product(block.body.value):
        return False
    return _extents(block) == _extents(schedule.get(readers[0]))


def _is_element_wise(block: Any) -> bool:
    """Says whether a block computes each element of one buffer once, whatever it reads for that."""
    if block.init is not None or not isinstance(block.body, tirx.BufferStore):
        return False
    indices = list(block.body.indices)
    return len(indices) == len(block.iter_vars) and all(
        index.same_as(axis.var) for index, axis in zip(indices, block.iter_vars, strict=True)
    )


def _is_product(value: Any) -> bool:
    """Says whether a value is a product of floats that is rounded; TVM writes -x as x * -1."""
    if not isinstance(value, tirx.Mul) or not str(value.ty.dtype).startswith("float"):
        return False
    return not any(isinstance(factor, FloatImm) and abs(factor.value) == 1 for factor in (value.a, value.b))


def _extents(block: Any) -> Counter[str]:
    """Returns the extents of a block's loops, but for those of one iteration."""
    return Counter(str(axis.dom.extent) for axis in block.iter_vars if str(axis.dom.extent) != "1")

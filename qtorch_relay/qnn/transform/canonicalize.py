"""qnn.transform.CanonicalizeOps: every qnn op becomes plain Relax ops on integers and floats.

The result runs on any TVM target and is the reference that the int8 kernels must equal. The rules are in rules/, one
file per op family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtorch_relay._tvm import Op, mutator, relax, tvm
from qtorch_relay.qnn.op_def import OPS, Expr, Operands
from qtorch_relay.qnn.transform.rules import RULES


@tvm.transform.module_pass(opt_level=0, name="CanonicalizeOps")
class CanonicalizeOps:
    """Replaces every qnn.* call by plain Relax ops with the same codes.

    Before: lv = qnn.dequantize(x, 0.5, 3)          x: uint8
    After:  lv = R.multiply(R.astype(R.subtract(R.astype(x, "int32"), 3), "float32"), 0.5)
    """

    def __init__(
        self,
        keep: Callable[[Operands], bool] = lambda _: False,
        finish: Callable[[Operands, Expr], Expr] = lambda _, expr: expr,
    ) -> None:
        """keep: calls for which it is true stay as they are; none by default.

        finish: what becomes of a call's plain ops before they take its place; by default they are left as they are.
        """
        self.keep, self.finish = keep, finish

    if TYPE_CHECKING:  # TVM's decorator makes the class a pass, which is called with a module

        def __call__(self, mod: Any) -> Any:
            """Returns the module without qnn ops."""

    def transform_module(self, mod: Any, _context: Any) -> Any:
        """Returns the module without qnn ops."""
        rewriter = _Canonicalizer(mod, self.keep, self.finish)
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(global_var, rewriter.visit_expr(function))
        return rewriter.builder_.get()


@mutator
class _Canonicalizer(relax.PyExprMutator):
    def __init__(self, mod: Any, keep: Callable[[Operands], bool], finish: Callable[[Operands, Expr], Expr]) -> None:
        super().__init__(mod)
        self._keep, self._finish = keep, finish

    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if not isinstance(call.op, Op) or call.op.name not in OPS:
            return call
        operands = Operands(call)
        if self._keep(operands):
            return call
        return self.builder_.normalize(self._finish(operands, RULES[call.op.name](operands)))

"""Matrix products of tensors that are not quantized: linear layers, matmul, addmm, baddbmm, einsum.

Those of float32 add in the order of Intel MKL, which PyTorch calls (tir/matmul.py); the others equal PyTorch up to the
order of float additions, and run as TVM's generic code.
"""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import Node
from qtorch_relay.dimensions import is_fixed
from qtorch_relay.expressions import constant
from qtorch_relay.frontend.context import ImportContext, describe
from qtorch_relay.frontend.ops.floating_elementwise import FLOAT_DTYPES, float_tensor
from qtorch_relay.frontend.registry import IN_MKLS_ORDER, UP_TO_ORDER, converter, converter_of
from qtorch_relay.frontend.values import TensorValue
from qtorch_relay.tir.matmul import linear as linear_f32


@converter("aten::linear", lowering="matmul of float tensors", exact=IN_MKLS_ORDER)
def linear(context: ImportContext, node: Node) -> TensorValue:
    """aten::linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor

    Shapes: input [..., K]; weight [N, K]; bias [N].
    Source: aten/src/ATen/native/Linear.cpp, which adds the bias last to an input of 3 or more dimensions that is not
    contiguous, and to all others first.
    """
    value, weight = (float_tensor(context, node, name) for name in ("input", "weight"))
    bias = None if node.args["bias"] is None else float_tensor(context, node, "bias").expr
    if len(weight.shape) != 2:
        raise context.unsupported(node, f"a weight of shape {weight.shape}; accepted are 2 dimensions")
    name, layout = node.scope or "linear", context.layout(node, "input")
    if bias is not None and len(value.shape) > 2 and layout is not None and not layout.is_contiguous:
        product = emit_linear(context, value.expr, weight.expr, None, name)
        return TensorValue(context.emit(relax.op.add(product, bias), name))
    return TensorValue(emit_linear(context, value.expr, weight.expr, bias, name))


def emit_linear(context: ImportContext, expr: Any, weight: Any, bias: Any | None, name: str) -> Any:
    """Returns expr @ weight.T + bias."""
    transposed = context.emit(relax.op.permute_dims(weight, [1, 0]))
    if bias is None:
        return context.emit(relax.op.matmul(expr, transposed), name)
    return emit_product_plus(context, expr, transposed, bias, name)


def emit_product_plus(context: ImportContext, lhs: Any, rhs: Any, addend: Any, name: str) -> Any:
    """Returns lhs @ rhs + addend, the sums of float32 products added to a vector in PyTorch's order."""
    shapes = [list(expr.ty.shape.values) for expr in (lhs, rhs, addend)]
    fits = [len(shape) for shape in shapes[1:]] == [2, 1] and len(shapes[0]) > 1 and all(map(is_fixed, shapes[1]))
    if fits and {str(expr.ty.dtype) for expr in (lhs, rhs, addend)} == {"float32"}:
        return context.emit(linear_f32(lhs, rhs, addend), name)
    return context.emit(relax.op.add(relax.op.matmul(lhs, rhs), addend), name)


@converter(
    "aten::matmul", "aten::mm", "aten::bmm", "aten::mv", "aten::dot", lowering="matmul of floats", exact=IN_MKLS_ORDER
)
def matmul(context: ImportContext, node: Node) -> TensorValue:
    """aten::matmul(Tensor self, Tensor other) -> Tensor"""
    lhs, rhs = (context.tensor(node, name) for name in list(node.args)[:2])
    if lhs.dtype not in FLOAT_DTYPES or rhs.dtype != lhs.dtype:
        raise context.unsupported(node, f"{describe(lhs)} and {describe(rhs)}; accepted are floats of one dtype")
    return TensorValue(context.emit(relax.op.matmul(lhs.expr, rhs.expr), node.scope or "matmul"))


@converter_of(
    {"aten::addmm": False, "aten::baddbmm": False, "aten::addbmm": True, "aten::addmv": False},
    lowering="matmul of floats",
    exact=UP_TO_ORDER,
)
def add_product(context: ImportContext, node: Node, sums_batch: bool) -> TensorValue:
    """aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor, which is
    beta * self + alpha * (mat1 @ mat2); a beta of 0 leaves self out, also where it is NaN.

    aten::addbmm adds up the products of the batch.
    """
    addend, lhs, rhs = (float_tensor(context, node, name) for name in list(node.args)[:3])
    beta, alpha = context.number(node, "beta"), context.number(node, "alpha")
    name = node.scope or node.function
    if (beta, alpha, sums_batch) == (1, 1, False):
        return TensorValue(emit_product_plus(context, lhs.expr, rhs.expr, addend.expr, name))
    total = relax.op.matmul(lhs.expr, rhs.expr)
    if sums_batch:
        total = relax.op.sum(total, 0)
    if alpha != 1:
        total = relax.op.multiply(total, constant(alpha, lhs.dtype))
    if beta != 0:
        scaled = addend.expr if beta == 1 else relax.op.multiply(addend.expr, constant(beta, lhs.dtype))
        total = relax.op.add(total, scaled)
    return TensorValue(context.emit(total, name))


@converter("aten::einsum", lowering="einsum of float tensors", exact=UP_TO_ORDER)
def einsum(context: ImportContext, node: Node) -> TensorValue:
    """aten::einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor"""
    tensors = context.argument(node, "tensors")
    for tensor in tensors:
        if not isinstance(tensor, TensorValue) or tensor.dtype not in FLOAT_DTYPES:
            raise context.unsupported(node, f"tensors must be floats, found {describe(tensor)}")
    equation = _explicit(str(context.argument(node, "equation")), [len(tensor.shape) for tensor in tensors])
    total = relax.op.einsum([tensor.expr for tensor in tensors], equation)
    return TensorValue(context.emit(total, node.scope or "einsum"))


def _explicit(equation: str, ranks: list[int]) -> str:
    """Returns an equation with its result written out, and letters for the dimensions of an ellipsis."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in equation]
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    letters = "".join(reversed(free[: max(counts, default=0)]))
    terms = [
        term.replace("...", letters[len(letters) - (rank - len(term.replace("...", ""))) :])
        for term, rank in zip(terms, ranks, strict=True)
    ]
    if not arrow:
        named = "".join(sorted({letter for letter in inputs if letter.isalpha() and inputs.count(letter) == 1}))
        output = "..." + named if letters else named
    return ",".join(terms) + "->" + output.replace("...", letters)

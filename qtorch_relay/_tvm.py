"""The one place that names what TVM moves between releases; everything else imports from here."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.ir import Call, GenericConst, GlobalVar, Op, make_node
from tvm.ir.op import _ffi_api as _op_ffi
from tvm.ir.op import register_op_attr
from tvm.relax.expr import _update_type as update_type
from tvm.relax.expr_functor import mutator
from tvm.script import parser as script_parser
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.tirx import FloatImm, IntImm, PrimFunc
from tvm_ffi import register_error, register_global_func, structural_equal

from qtorch_relay.errors import INDEX_ERROR_FUNCTION, raise_index_error

__all__ = [
    "BINARY_PRIM_OPS",
    "Call",
    "FloatImm",
    "GlobalVar",
    "IRBuilder",
    "IntImm",
    "Op",
    "PrimFunc",
    "T",
    "TensorType",
    "attr_fields",
    "constant_array",
    "define_relax_op",
    "dict_attrs",
    "is_constant",
    "make_node",
    "mutator",
    "parse_script",
    "register_error",
    "register_op_attr",
    "relax",
    "structural_equal",
    "target_has_feature",
    "te",
    "tirx",
    "tvm",
    "update_type",
]

TensorType = relax.TensorType
register_global_func(INDEX_ERROR_FUNCTION, raise_index_error, override=True)
# What symbolic extents are made of, by class name.
BINARY_PRIM_OPS = {
    kind.__name__: kind
    for kind in (
        tvm.tirx.Add,
        tvm.tirx.Sub,
        tvm.tirx.Mul,
        tvm.tirx.FloorDiv,
        tvm.tirx.FloorMod,
        tvm.tirx.Min,
        tvm.tirx.Max,
    )
}


def target_has_feature(feature: str, target: Any) -> bool:
    """Says whether a target's CPU has a feature that LLVM knows by this name, such as "sse4.1"."""
    return bool(tvm.get_global_func("target.target_has_feature")(feature, target))


def define_relax_op(name: str, doc: str, argument_names: tuple[str, ...], infer_type: Any) -> Op:
    """Registers a pure Relax op in this process and returns it.

    infer_type: (call, block_builder) -> the call's type, as TVM's FInferType.
    """
    _op_ffi.RegisterOp(name, doc)
    op = Op.get(name)
    for argument in argument_names:
        op.add_argument(argument, "Tensor", argument)
    register_op_attr(name, "FInferType", infer_type)
    register_op_attr(name, "FPurity", True)
    # Calls of an op of function type print as Relax, name(operands, attribute=...); others as a raw T.Call(...).
    update_type(op, relax.FuncType.opaque_func(purity=True))
    return op


def dict_attrs(attrs: dict[str, Any]) -> Any:
    """Returns a DictAttrs node with these entries."""
    return make_node("ir.DictAttrs", **attrs)


def attr_fields(attrs: Any) -> tuple[str, dict[str, Any]]:
    """Returns the type key of an attributes node and its values by name."""
    info = type(attrs).__tvm_ffi_type_info__
    if info.type_key == "ir.DictAttrs":
        return info.type_key, {str(key): attrs[key] for key in attrs.keys()}  # noqa: SIM118
    return info.type_key, {field.name: getattr(attrs, field.name) for field in info.fields}


def parse_script(text: str, names: dict[str, Any]) -> Any:
    """Returns the module of TVMScript text that uses these names besides I, R and T."""
    return tvm.script.from_source(text, extra_vars={"I": script_parser.ir, "R": script_parser.relax, "T": T, **names})


def is_constant(expr: Any) -> bool:
    """Says whether an expression is a tensor constant."""
    return isinstance(expr, GenericConst)


def constant_array(expr: Any) -> Any:
    """Returns a tensor constant's value as a numpy array."""
    return expr.value.numpy()

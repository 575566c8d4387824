"""to_text: a module of the dialect as Relay text, and its parameters as Relay's binary."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from qtorch_relay._tvm import Call, Op, constant_array, is_constant, relax
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.context import identifier
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.frontend.pair import import_pair
from qtorch_relay.generalize import dimension_names
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from qtorch_relay.qnn.op_def import OPS, Operands
from qtorch_relay.qnn.printer import type_text
from qtorch_relay.qnn.transform import CanonicalizeOps
from qtorch_relay.qnn.verify import verify
from qtorch_relay.relay import forms as _forms  # noqa: F401  (fills the table)
from qtorch_relay.relay.finish import finish
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.params import save_params
from qtorch_relay.relay.registry import RELAX_FORMS, find_qnn_form
from qtorch_relay.relay.writer import Writer, tensor_type

_LOOP = "its steps are one loop in one function"
# Ops without a form, in words, and why. Functions that are called by name are known by that name.
WITHOUT_FORM = {
    "torch.lstm_int8": ("LSTM and its cell, int8", _LOOP),
    "torch.lstm_fp16": ("LSTM and its cell, float16", _LOOP),
    "torch.rnn_int8": ("GRU, RNN and their cells, int8", _LOOP),
    "torch.rnn_fp16": ("GRU, RNN and their cells, float16", _LOOP),
    "torch.linear_fp16": ("linear with float16 weights", "Relay has no float32 product that rounds as PyTorch's does"),
    "torch.grid_sample": ("grid_sample of codes", "Relay's works on floats"),
    "embedding": ("embedding and embedding_bag of packed codes", "rows are unpacked and added in one function"),
}


def to_text(
    mod: Any,
    params: Any,
    *,
    exact: bool = False,
    requantize: str | None = None,
    rounding: str | None = None,
    compute_dtype: str | None = None,
) -> tuple[str, bytes]:
    """Returns a module as text that `tvm.relay.parse` reads, and its parameters for `tvm.relay.load_param_dict`.

    Args:
        mod: what from_pytorch returned: a module of qnn ops, before CanonicalizeOps.
        params: its weights, by name.
        exact: write no op whose codes hang on the libraries of the machine that builds the text. The default keeps
            PyTorch's codes too, where that machine's libm rounds as this one's.
        requantize: "plain" (the default) rounds as PyTorch by plain ops, and leaves to qnn.requantize the zero point
            and the narrowing. "qnn" writes qnn.requantize of the sums, as toolchains match it, and qnn.quantize and
            qnn.mul likewise; docs/relay.md says op by op what that costs in codes.
        rounding: of "qnn", which it implies: "TONEAREST" (the nearest to PyTorch) or "UPWARD".
        compute_dtype: what "qnn", which it implies, multiplies in: "float32" (the nearest), "float64" or "int64".

    Raises:
        UnsupportedOpError: ops have no form in Relay; the message lists all of them.
        InvalidInputError: mod and params are no pair of from_pytorch, or an option has no such value.
    """
    return imported_text(import_pair((mod, params)), Options(exact, requantize, rounding, compute_dtype))


def imported_text(imported: ImportedModule, options: Options) -> tuple[str, bytes]:
    """Returns the text and the parameters of an imported module; to_text has the arguments."""
    _refuse_named_dimensions(imported.mod)
    verify(imported.mod)
    mode = options.mode
    mod = CanonicalizeOps(lambda operands: find_qnn_form(operands, mode) is not None, finish)(imported.mod)
    main = mod["main"]
    _refuse_unwritable(mod)
    count = int(main.attrs["num_input"]) if main.attrs and "num_input" in main.attrs else len(main.params)
    inputs = {
        identifier(str(param.name)): tensor_type(param.ty.shape.values, str(param.ty.dtype))
        for param in main.params[:count]
    }
    writer = Writer(inputs, imported.params, options, _names_of_constants(imported.mod))
    bindings = bindings_of(main)
    for binding, layer in zip(bindings, _layers(bindings), strict=True):
        writer.layer = layer
        name = binding.var.name if _is_named(binding.var) else f"part of {layer}"
        writer.bind(binding.var, _value(writer, binding.value, options), f"{name}: {type_text(binding.var)}")
    return writer.text(main.body.body, _types(main.body.body)), save_params(writer.params)


def _names_of_constants(mod: Any) -> dict[tuple[str, bytes], str]:
    """Returns what vectors of qnn ops are called there, by dtype and bytes; a factor may be written as float64."""
    names: dict[tuple[str, bytes], str] = {}
    for binding in bindings_of(mod["main"]):
        if not isinstance(binding.value, Call) or op_name(binding.value) not in OPS:
            continue
        operands = Operands(binding.value)
        for name in operands.op.operand_names(operands.attrs):
            if not is_constant(operands[name]):
                continue
            array = constant_array(operands[name])
            for dtype in {str(array.dtype), "float64"}:
                names.setdefault((dtype, array.astype(dtype).tobytes()), name)
    return names


def _layers(bindings: list[Any]) -> list[str]:
    """Returns the layer that each binding is part of: the next value that has a name of the model's."""
    names: list[str] = []
    layer = "output"
    for binding in reversed(bindings):
        if _is_named(binding.var):
            layer = str(binding.var.name)
        names.append(layer)
    return names[::-1]


def _is_named(var: Any) -> bool:
    """Says whether a value has a name of the model's, not one that TVM numbered."""
    return re.fullmatch(r"[lg]v\d*", str(var.name)) is None


def _value(writer: Writer, expr: Any, options: Options) -> str:
    if not isinstance(expr, Call):
        return writer.operand(expr)
    name = str(expr.op.name)
    if name not in OPS:
        return RELAX_FORMS[name].write(writer, expr)
    operands = Operands(expr)
    form = find_qnn_form(operands, options.mode)
    assert form is not None
    return form.write(writer, operands)


def _refuse_named_dimensions(mod: Any) -> None:
    names = dimension_names(mod)
    if names:
        raise UnsupportedOpError(
            f"the size {', '.join(names)} is a name; Relay text is for fixed sizes: give it as a number"
        )


def _refuse_unwritable(mod: Any) -> None:
    """Raises UnsupportedOpError with all that has no form, how often and where first."""
    found: Counter[str] = Counter()
    first: dict[str, str] = {}
    bindings = bindings_of(mod["main"])
    for binding, layer in zip(bindings, _layers(bindings), strict=True):
        name = _unwritable(binding.value)
        if name:
            found[name] += 1
            first.setdefault(name, layer)
    if found:
        lines = [f"  {name} ({count} times, first in {first[name]})" for name, count in sorted(found.items())]
        raise UnsupportedOpError(
            "the model has ops that have no form in Relay:\n"
            + "\n".join(lines)
            + "\nkeep such parts in PyTorch, outside "
            "the exported module; what else the model has can be exported"
        )


def _unwritable(expr: Any) -> str:
    """Returns the name of what an expression calls, if that has no form; "" if it has one."""
    if isinstance(expr, relax.Var | relax.Tuple | relax.TupleGetItem) or not isinstance(expr, Call):
        return "if (a branch on data)" if isinstance(expr, relax.If) else ""
    if not isinstance(expr.op, Op):
        return f"a call of {expr.op}"
    name = str(expr.op.name)
    if name == "relax.call_tir":
        name = re.sub(r"\d+$", "", str(expr.args[0].name_hint))
    if name in OPS or name in RELAX_FORMS:
        return ""
    return WITHOUT_FORM[name][0] if name in WITHOUT_FORM else name.removeprefix("relax.")


def _types(expr: Any) -> str:
    ty = expr.ty
    if hasattr(ty, "fields"):
        written = [tensor_type(field.shape.values, str(field.dtype)) for field in ty.fields]
        return f"({', '.join(written)}{',' if len(written) == 1 else ''})"
    return tensor_type(ty.shape.values, str(ty.dtype))

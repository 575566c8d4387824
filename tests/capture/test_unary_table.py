"""A table of 256 codes gives what the op gives on any tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qtorch_relay.capture.engine import ENGINES, quantized_engine
from qtorch_relay.capture.graph import TensorConstant, Value
from qtorch_relay.capture.unary_table import unary_table
from qtorch_relay.errors import UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import PerTensor

OUT = {"output_scale": 0.021, "output_zero_point": 17}
CASES = [
    ("quantized::hardswish", OUT),
    ("quantized::leaky_relu", {"negative_slope": 0.1, "inplace": False, **OUT}),
    ("quantized::elu", {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0, **OUT}),
    ("quantized::celu", {"alpha": 0.7, **OUT}),
    ("quantized::sigmoid", {"output_scale": 1 / 256, "output_zero_point": 0}),
    ("quantized::relu6", {}),
    ("quantized::threshold", {"threshold": 0.1, "value": 0.3}),
    ("aten::hardsigmoid", {}),
    ("aten::sigmoid", {}),
    ("aten::tanh", {}),
    ("aten::hardtanh", {}),
    ("aten::relu", {}),
    ("aten::relu_", {}),
    ("aten::clamp", {"min": -0.5, "max": 0.7}),
    ("aten::leaky_relu", {"negative_slope": 0.2}),
    ("aten::gelu", {}),
]


def call(op, args, tensor):
    namespace, name = op.split("::")
    operation = getattr(getattr(torch.ops, namespace), name).default
    others = {a.name: args[a.name] for a in operation._schema.arguments if a.name in args}
    return operation(tensor, **others)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("op", "args"), CASES, ids=[op for op, _ in CASES])
def test_table_equals_the_op(op, args, engine):
    for dtype, zero_point in (("uint8", 113), ("int8", -9)):
        qparams = PerTensor(0.037, zero_point, dtype)
        table = unary_table(op, args, qparams, engine)
        low = np.iinfo(dtype).min
        codes = np.random.default_rng(0).integers(low, low + 256, 4096 + 5).astype(dtype)
        tensor = torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), qparams.scale, qparams.zero_point)
        with quantized_engine(engine):
            expected = call(op, args, tensor.clone())
        index = codes.astype(int) - low
        # One thread's share of a short tensor is vectors of 64 elements and a tail of the rest.
        found = np.concatenate([table.codes[index[:4096]], table.tail_codes[index[4096:]]])
        np.testing.assert_array_equal(found, expected.int_repr().numpy())
        out = table.output_qparams
        assert (out.scale, out.zero_point) == (expected.q_scale(), expected.q_zero_point())
        assert table.codes.shape == table.tail_codes.shape == (256,)
        assert str(table.codes.dtype) == out.dtype == dtype


def test_the_input_among_the_arguments_is_replaced():
    qparams = PerTensor(0.037, 113, "uint8")
    given = unary_table("quantized::hardswish", {"input": Value("x"), **OUT}, qparams, "fbgemm")
    np.testing.assert_array_equal(given.codes, unary_table("quantized::hardswish", OUT, qparams, "fbgemm").codes)


def test_index_zero_is_the_lowest_code():
    for dtype in ("uint8", "int8"):
        codes = unary_table("aten::relu", {}, PerTensor(0.1, 0, dtype), "fbgemm").codes
        assert codes[-1] == np.iinfo(dtype).max
        assert codes[0] == 0


def test_the_engine_matters():
    args, qparams = {"output_scale": 0.02, "output_zero_point": 17}, PerTensor(0.045, 7, "uint8")
    fbgemm, qnnpack = (unary_table("quantized::hardswish", args, qparams, e).codes for e in ("fbgemm", "qnnpack"))
    assert (fbgemm != qnnpack).any()


REFUSED = [
    ("aten::silu", {}, UnsupportedOpError, r"aten::silu does not run on torch.quint8 tensors.*'fbgemm'; PyTorch says"),
    ("aten::no_such_op", {}, UnsupportedOpError, "this build of PyTorch has no op aten::no_such_op"),
    ("aten::relu", {"slope": 1}, UnsupportedOpError, "aten::relu has no argument slope; it has self"),
    ("quantized::hardswish", {}, UnsupportedOpError, "needs a value for output_scale, output_zero_point"),
    ("aten::dequantize.self", {}, UnsupportedQuantSchemeError, "does not give one quantized element"),
    ("aten::gt.Scalar", {"other": 1.0}, UnsupportedQuantSchemeError, "does not give one quantized element"),
]


@pytest.mark.parametrize(("op", "args", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_has_no_table_is_refused(op, args, error, message):
    with pytest.raises(error, match=message):
        unary_table(op, args, PerTensor(0.1, 3, "uint8"), "fbgemm")


def test_int32_codes_are_refused():
    with pytest.raises(UnsupportedQuantSchemeError, match="int32; accepted are uint8 and int8"):
        unary_table("aten::relu", {}, PerTensor(0.1, 0, "int32"), "fbgemm")


def test_tensor_constants_are_arguments_too():
    args = {"other": TensorConstant(np.float32([2.0]))}
    with pytest.raises(UnsupportedOpError, match="PyTorch says"):
        unary_table("aten::mul.Tensor", args, PerTensor(0.1, 0, "uint8"), "fbgemm")

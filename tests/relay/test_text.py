"""Relay text, read as text: names, one line per op, options, refusals. test_era.py gives it to a real Relay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.ao import quantization

import qtorch_relay as qr
from qtorch_relay._tvm import relax
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import InvalidInputError, QTorchRelayError, UnsupportedOpError
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.qnn.op_def import OPS
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.page import relay_page
from qtorch_relay.relay.registry import QNN_FORMS, RELAX_FORMS, relax_form
from qtorch_relay.relay.text import imported_text
from qtorch_relay.relay.writer import attribute, literal
from tests.relay.programs import digits_network, imported, lstm

PAGE = Path(__file__).parents[2] / "docs" / "relay.md"
LINE = re.compile(r"  %(\d+) = ([\w.]+)\(.*\); /\* (.+) \*/|  %(\d+) = \(.*\); /\* (.+) \*/")


@pytest.fixture(scope="module")
def digits() -> ImportedModule:
    return imported(digits_network())


def body(text: str) -> list[str]:
    """Returns the lines of main's body."""
    return text.split(") -> ", 1)[1].split("\n")[1:-3]


def test_the_cnn_is_one_line_per_op_with_the_names_of_its_layers(digits: ImportedModule) -> None:
    text, _ = imported_text(digits, Options())
    assert text.startswith('#[version = "0.0.5"]\n/*\n  One op a line; ')
    assert "*/\ndef @main(\n  %x: Tensor[(4, 1, 8, 8), float32],\n" in text
    found = [LINE.fullmatch(line) for line in body(text)]
    assert all(found)
    assert [int(match[1]) for match in found if match] == list(range(len(found)))
    comments = " ".join(match[3] for match in found if match)
    assert all(f"network_{layer}:" in comments for layer in ("stem_0", "body_0", "down_0", "classifier"))
    params = re.findall(r"^  %(\w+): Tensor", text, re.MULTILINE)[1:]
    assert {"network_stem_0_weight", "network_classifier_bias", "network_classifier_weight"} <= set(params)
    assert all(name.startswith("network_") for name in params)


def ops_of(text: str) -> list[str]:
    """Returns the ops of main's lines."""
    return re.findall(r"= ([\w.]+)\(", text)


def test_the_default_keeps_qnn_ops_and_says_every_attribute(digits: ImportedModule) -> None:
    ops = ops_of(imported_text(digits, Options())[0])
    assert (ops.count("qnn.conv2d"), ops.count("qnn.dense"), ops.count("qnn.requantize")) == (3, 1, 6)
    assert (ops.count("qnn.quantize"), ops.count("qnn.dequantize")) == (1, 1)
    assert "round" not in ops
    conv = next(line for line in body(imported_text(digits, Options())[0]) if "qnn.conv2d" in line)
    names = "strides padding dilation groups channels kernel_size data_layout kernel_layout out_layout out_dtype"
    for name in names.split():
        assert f" {name}=" in conv


def test_the_legend_is_about_what_the_text_has(digits: ImportedModule) -> None:
    plain, qnn = (imported_text(digits, Options(requantize=form))[0].split("*/", 1)[0] for form in ("plain", "qnn"))
    assert "ties to even" in plain
    assert "qnn.requantize from a scale to the same scale" in plain
    assert "qnn.quantize gets multiples of its scale" in plain
    assert "qnn.requantize from a scale to the same scale" in qnn  # of the mean, which plain ops round
    assert "qnn.quantize gets" not in qnn
    assert "stop_fusion" not in plain


def test_a_constant_divisor_is_a_parameter_unless_its_reciprocal_is_exact() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            third = builder.emit(relax.op.divide(x, relax.const(3.0, "float32")))
            result = builder.emit_output(relax.op.divide(third, relax.const(4.0, "float32")))
        builder.emit_func_output(result)
    text, params = imported_text(ImportedModule(builder.finalize(), {}, ()), Options())
    assert re.search(r"divide\(%x, %output_divisor\)", text)
    assert re.search(r"divide\(%\d+, 4f\)", text)
    assert np.float32(3).tobytes() in params


def test_a_scale_chosen_at_run_time_is_computed_once() -> None:
    with quantized_engine("fbgemm"):
        network = quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(4, 3)), dtype=torch.qint8)
    lines = body(imported_text(imported(network, (2, 4)), Options())[0])
    chosen = [line.partition(" = ")[2].partition(";")[0] for line in lines if "qparams" in line]
    assert len(set(chosen)) == len(chosen)
    assert sum("annotation.stop_fusion" in line for line in chosen) == 2


def test_what_relay_requantizes_is_rounded_already(digits: ImportedModule) -> None:
    text, _ = imported_text(digits, Options())
    makers = dict(re.findall(r"(%\d+) = ([\w.]+)\(", text))
    calls = re.findall(r"qnn\.requantize\((%\d+), (\S+f), 0, (\S+f), \d+, ", text)
    assert len(calls) == 6
    assert all(scale == output_scale for _, scale, output_scale in calls)
    assert {makers[name] for name, _, _ in calls} == {"cast"}


def test_requantize_qnn_is_what_toolchains_match(digits: ImportedModule) -> None:
    ops = ops_of(imported_text(digits, Options(requantize="qnn"))[0])
    assert (ops.count("qnn.conv2d"), ops.count("qnn.dense"), ops.count("qnn.quantize")) == (3, 1, 2)
    assert [ops[i + 1] for i, op in enumerate(ops) if op == "qnn.conv2d"] == ["qnn.requantize"] * 3
    dense = ops.index("qnn.dense")
    assert ops[dense : dense + 3] == ["qnn.dense", "nn.bias_add", "qnn.requantize"]


def test_exact_text_takes_no_table_that_another_machine_makes() -> None:
    class Sigmoid(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)).dequantize()

    module = imported(Sigmoid(), (2, 3))
    assert "qnn.sigmoid" in ops_of(imported_text(module, Options())[0])
    ops = ops_of(imported_text(module, Options(exact=True))[0])
    assert "take" in ops
    assert "qnn.sigmoid" not in ops


def test_text_keeps_relay_from_distributing_products_over_sums(digits: ImportedModule) -> None:
    text, _ = imported_text(digits, Options())
    makers = dict(re.findall(r"(%\d+) = ([\w.]+)\(", text))
    scaled = re.findall(r"= multiply\((%\d+), (?!%\d)", text)
    assert len(scaled) >= 4
    assert {makers[name] for name in scaled}.isdisjoint({"add", "subtract", "multiply", "divide"})


def test_rounding_and_compute_type_are_the_callers(digits: ImportedModule) -> None:
    text, _ = imported_text(digits, Options(rounding="UPWARD", compute_dtype="float64"))
    assert text.count('rounding="UPWARD", compute_dtype="float64"') == 4
    text, _ = imported_text(digits, Options(requantize="qnn"))
    assert text.count('rounding="TONEAREST", compute_dtype="float32"') == 4


def test_to_text_takes_what_from_pytorch_returned() -> None:
    network = digits_network()
    mod, params = qr.from_pytorch(network, [("x", (4, 1, 8, 8))], engine="fbgemm")
    assert qr.relay.to_text(mod, params) == imported_text(imported(network), Options())


@pytest.mark.parametrize(
    ("name", "value"), [("rounding", "nearest"), ("compute_dtype", "int32"), ("requantize", "both")]
)
def test_an_unknown_option_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is '{value}'; accepted are"):
        Options(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exact": True, "requantize": "qnn"}, "requantize 'qnn' costs codes, and exact text may cost none"),
        ({"exact": True, "rounding": "UPWARD"}, "rounding costs codes, and exact text may cost none"),
        ({"requantize": "plain", "compute_dtype": "float64"}, "compute_dtype is for requantize 'qnn'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Options(**options)


def test_what_relay_has_no_form_for_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"no form in Relay:\n  LSTM and its cell, int8 \(1 times, first in "):
        imported_text(imported(lstm(), (2, 1, 4)), Options())


def test_a_named_dimension_is_refused() -> None:
    mod, params = qr.from_pytorch(torch.nn.ReLU(), [("x", ("n", 4))], engine="fbgemm")
    with pytest.raises(QTorchRelayError, match="the size n is a name; Relay text is for fixed sizes"):
        qr.relay.to_text(mod, params)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (np.float32(0.1), "0.100000001f"),
        (np.float64(0.1), "0.10000000000000001f64"),
        (np.int32(-3), "-3"),
        (np.int64(3), "3i64"),
        (np.uint8(7), 'cast(7, dtype="uint8")'),
        (np.float32("-inf"), "divide(-1f, 0f)"),
        (np.float32("nan"), "divide(0f, 0f)"),
        (np.bool_(True), "True"),
    ],
)
def test_literals(number: np.generic, text: str) -> None:
    assert literal(number) == text


def test_an_attribute_past_float32_is_a_float64() -> None:
    assert [attribute(-3e38), attribute(1e300)] == ["-3e+38f", "1e+300f64"]


def test_the_table_names_ops_of_the_dialect_and_no_plain_op_twice() -> None:
    assert set(QNN_FORMS) <= set(OPS)
    with pytest.raises(ValueError, match=r"relax\.add has two Relay forms"):
        relax_form("relax.add", becomes="")(lambda writer, call: "")
    assert not set(RELAX_FORMS) & set(OPS)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == relay_page(), "make it anew: python -m qtorch_relay.relay.page > docs/relay.md"

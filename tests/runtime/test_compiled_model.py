"""Calling a compiled model: values, structure, types and bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qtorch_relay import target as targets
from qtorch_relay.errors import InvalidInputError, TargetError, VerifyError
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.interface import ModuleInterface

Make = Callable[[], Any]


def test_outputs_nest_as_the_structure_says(linear: CompiledModel, random_input: Make, linear_weight: Any) -> None:
    x = random_input()
    outputs = linear(x)
    assert list(outputs) == ["positive", "all"]
    product, nothing, [positive] = outputs["all"]
    assert isinstance(outputs["all"], tuple)
    assert nothing is None
    np.testing.assert_allclose(product, x @ linear_weight, rtol=1e-5, atol=1e-5)
    assert (positive == np.maximum(product, 0)).all()
    assert (positive == outputs["positive"]).all()


def test_torch_in_torch_out_numpy_in_numpy_out(linear: CompiledModel, random_input: Make) -> None:
    x = random_input()
    from_numpy, from_torch = linear(x)["positive"], linear(torch.from_numpy(x))["positive"]
    assert isinstance(from_numpy, np.ndarray)
    assert isinstance(from_torch, torch.Tensor)
    assert (from_torch.numpy() == from_numpy).all()


def test_inputs_by_name(codes: CompiledModel) -> None:
    x, index = np.zeros((2, 3), "uint8"), np.zeros((), "int64")
    assert (codes(index=index, codes=x) == codes(x, index)).all()
    assert (codes(x, index=index) == 3).all()


def test_outputs_of_two_calls_do_not_share_memory(linear: CompiledModel, random_input: Make) -> None:
    first = linear(random_input())["positive"]
    kept = first.copy()
    linear(random_input())
    assert (first == kept).all()


def test_quantized_output_is_codes_in_numpy_and_quantized_in_torch(codes: CompiledModel) -> None:
    x = np.arange(6, dtype="uint8").reshape(2, 3)
    out = codes(torch.from_numpy(x), torch.tensor(0))
    assert (codes(x, np.array(0)) == x + 3).all()
    assert out.is_quantized
    assert (out.q_scale(), out.q_zero_point(), out.dtype) == (0.5, 10, torch.quint8)
    assert (out.int_repr().numpy() == x + 3).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.concatenate([x, x], axis=1)[:, :8],
        lambda x: np.frombuffer(b"\0" * 4 + x.tobytes(), "float32")[1:].reshape(2, 8),
        lambda x: x[::-1][::-1],
        lambda x: torch.from_numpy(np.concatenate([x, x], axis=1))[:, :8],
        lambda x: torch.cat([torch.zeros(1), torch.from_numpy(x).flatten()])[1:].view(2, 8),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch._neg_view(torch.from_numpy(-x)),
    ],
    ids=[
        "fortran",
        "columns",
        "misaligned, read-only",
        "reversed twice",
        "torch columns",
        "torch misaligned",
        "grad",
        "negative view",
    ],
)
def test_any_memory_layout_is_read_right(linear: CompiledModel, random_input: Make, change: Callable[..., Any]) -> None:
    x = random_input()
    assert (np.asarray(linear(change(x))["positive"]) == linear(x)["positive"]).all()


@pytest.mark.parametrize("offset", range(17))
def test_an_input_may_begin_at_any_address(parallel: CompiledModel, offset: int) -> None:
    memory = np.arange(64 * 32 + 17, dtype="float32")
    x = memory[offset : offset + 64 * 32].reshape(64, 32)
    assert (parallel(x) == 2 * x).all()


def test_a_dense_input_is_read_where_it_is(parallel: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(*_: object) -> None:
        raise AssertionError("the input was copied")

    x = np.ones((64, 32), "float32")
    expected = parallel(x[::-1])
    monkeypatch.setattr("qtorch_relay.runtime.compiled_model.np.copyto", copied)
    assert (parallel(x) == expected).all()
    assert (np.asarray(parallel(torch.from_numpy(x))) == expected).all()
    with pytest.raises(AssertionError, match="copied"):
        parallel(np.ones((32, 64), "float32").T)


def test_nan_and_infinity_pass_through(linear: CompiledModel) -> None:
    x = np.zeros((2, 8), "float32")
    x[0, 0], x[1, 1] = np.nan, np.inf
    product = linear(x)["all"][0]
    assert np.isnan(product[0]).all()
    assert np.isinf(product[1]).all()


def test_changing_a_returned_weight_does_not_change_the_model(weight: CompiledModel) -> None:
    x = np.zeros(2, "float32")
    weight(x)[1][:] = 100
    assert weight(x)[0].tolist() == [1, 2]


ACCEPTED = r"accepted is float32 \[2, 8\]"
TAKES = r"the model takes 1 input \(x: float32 \[2, 8\]\)"
GOOD = np.zeros((2, 8), "float32")


@pytest.mark.parametrize(
    ("args", "by_name", "message"),
    [
        ((), {}, f"0 were given; {TAKES}"),
        ((GOOD, GOOD), {}, f"2 were given; {TAKES}"),
        ((GOOD,), {"x": GOOD}, f"input x is given by position and by name; {TAKES}"),
        ((), {"y": GOOD}, f"no input is named y; {TAKES}"),
        ((GOOD[:1],), {}, rf"input x is float32 \[1, 8\]; {ACCEPTED}"),
        ((GOOD.astype("float64"),), {}, rf"input x is float64 \[2, 8\]; {ACCEPTED}"),
        ((GOOD.astype(">f4"),), {}, rf"input x is >f4 \[2, 8\]; {ACCEPTED}"),
        ((torch.zeros(2, 9),), {}, rf"input x is float32 \[2, 9\]; {ACCEPTED}"),
        ((torch.zeros(2, 8, dtype=torch.bfloat16),), {}, rf"input x is bfloat16 \[2, 8\]; {ACCEPTED}"),
        (
            (torch.zeros(2, 8, device="meta"),),
            {},
            "input x is a torch.strided tensor on meta; accepted are",
        ),
        (
            (torch.zeros(2, 8).to_sparse(),),
            {},
            "input x is a torch.sparse_coo tensor on cpu; accepted are",
        ),
        ((torch.quantize_per_tensor(torch.zeros(2, 8), 1.0, 0, torch.quint8),), {}, "input x is a quantized tensor"),
        ((GOOD.tolist(),), {}, "input x is a list; accepted are numpy arrays and torch tensors"),
        ((None,), {}, "input x is a NoneType"),
    ],
)
def test_wrong_inputs_are_named(linear: CompiledModel, args: Any, by_name: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        linear(*args, **by_name)
    linear(GOOD)


def test_a_program_for_another_machine_says_so_when_called(build_linear: Callable[..., CompiledModel]) -> None:
    other = "arm-neon" if targets.host_cpu().machine == "x86_64" else "x86-avx2"
    with pytest.raises(TargetError, match=f"target {other} .* needs an .* CPU; this host"):
        build_linear(targets.resolve(other))(GOOD)


@pytest.mark.parametrize(
    ("structure", "message"),
    [(2, "beyond the program's 2"), ({"tuple": [0, -1]}, "beyond the program's 2")],
)
def test_structure_must_fit_the_outputs(
    build_linear: Callable[..., CompiledModel], structure: Any, message: str
) -> None:
    with pytest.raises(VerifyError, match=message):
        build_linear(targets.resolve("host"), said=ModuleInterface(structure=structure))


def test_weights_must_be_the_last_parameters(build_linear: Callable[..., CompiledModel]) -> None:
    with pytest.raises(VerifyError, match=r"main takes \['x', 'w'\]; its last 1 parameters must be"):
        build_linear(targets.resolve("host"), weights={"x": GOOD})
    with pytest.raises(VerifyError, match=r"weight w: float32 \[8, 4\] of main was given as float32 \[2, 8\]"):
        build_linear(targets.resolve("host"), weights={"w": GOOD})


def test_repr_tells_inputs_outputs_target_and_engine(linear: CompiledModel) -> None:
    assert repr(linear).startswith(
        "CompiledModel(x: float32 [2, 8] -> output0: float32 [2, 4]; output1: float32 [2, 4]; "
    )

"""Small compiled models for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from qtorch_relay import target as targets
from qtorch_relay.qparams import PerTensor
from qtorch_relay.runtime.build import build
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.interface import ModuleInterface


@I.ir_module
class Linear:
    """relu(x @ w) and x @ w."""

    @R.function
    def main(x: R.Tensor((2, 8), "float32"), w: R.Tensor((8, 4), "float32")):
        with R.dataflow():
            product = R.matmul(x, w)
            positive = R.nn.relu(product)
            R.output(product, positive)
        return (positive, product)


@I.ir_module
class Codes:
    """A quantized output: codes of a quantized tensor with 3 added."""

    @R.function
    def main(codes: R.Tensor((2, 3), "uint8"), index: R.Tensor((), "int64")):
        with R.dataflow():
            moved = R.add(codes, R.const(3, "uint8"))
            R.output(moved)
        return moved


@I.ir_module
class Weight:
    """Returns its weight."""

    @R.function
    def main(x: R.Tensor((2,), "float32"), w: R.Tensor((2,), "float32")):
        return (R.add(x, w), w)


@I.ir_module
class Parallel:
    """2 * x, shared among the threads of the pool."""

    @T.prim_func
    def double(x: T.Buffer((64, 32), "float32"), y: T.Buffer((64, 32), "float32")):
        for i in T.parallel(64):
            for j in range(32):
                y[i, j] = x[i, j] * T.float32(2)

    @R.function
    def main(x: R.Tensor((64, 32), "float32")):
        cls = Parallel
        return R.call_tir(cls.double, (x,), out_ty=R.Tensor((64, 32), "float32"))


WEIGHT = np.arange(32, dtype="float32").reshape(8, 4) / 7 - 2


@pytest.fixture(scope="session")
def build_linear() -> Callable[..., CompiledModel]:
    """Returns a function that builds `Linear` for a target."""

    def make(target: targets.Target, **options: Any) -> CompiledModel:
        return build(Linear, options.pop("weights", {"w": WEIGHT}), target, **options)

    return make


@pytest.fixture
def linear_weight() -> npt.NDArray[np.float32]:
    """Returns the weight of `linear`."""
    return WEIGHT


@pytest.fixture(scope="session")
def linear(build_linear: Callable[..., CompiledModel]) -> CompiledModel:
    """Returns relu(x @ WEIGHT) and x @ WEIGHT, nested in a dict."""
    return build_linear(
        targets.resolve("host"),
        said=ModuleInterface(structure={"dict": [["positive", 0], ["all", {"tuple": [1, None, {"list": [0]}]}]]}),
        engine="fbgemm",
        report={"kernels": {"matmul": 1}},
    )


@pytest.fixture(scope="session")
def codes() -> CompiledModel:
    """Returns a model with a quantized output and no weights."""
    return build(Codes, {}, targets.resolve("host"), ModuleInterface(output_qparams=(PerTensor(0.5, 10, "uint8"),)))


@pytest.fixture(scope="session")
def parallel() -> CompiledModel:
    """Returns a model that uses the thread pool: 2 * x."""
    return build(Parallel, {}, targets.resolve("host"))


@pytest.fixture(scope="session")
def weight() -> CompiledModel:
    """Returns a model that returns its own weight."""
    return build(Weight, {"w": np.array([1, 2], "float32")}, targets.resolve("host"))


@pytest.fixture
def random_input() -> Callable[[], Any]:
    """Returns a function that makes the next input of `linear`."""
    rng = np.random.default_rng(1)
    return lambda: rng.standard_normal((2, 8)).astype("float32")

"""Recipes, engines and modes: what PyTorch itself would make, and refusals in words."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.ao import quantization as q
from torch.ao.quantization import quantize_fx

from calibration.batches import ArrayBatches
from calibration.engines import ENGINE_LIMITS
from calibration.evaluate import evaluate, expected_outputs
from calibration.observed import TensorRange
from calibration.quantize import Options, quantize, quantize_dynamic, quantize_with_table
from calibration.recipes import RECIPES, scheme_of
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.demo.digits import Digits
from qtorch_relay.errors import CalibrationError
from tests.calibration.networks import Branching, Residual, Stubbed, images, mobile, seeded

ENGINES = tuple(ENGINE_LIMITS)
DATA = ArrayBatches((images(),), batch_size=16)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("recipe", ["static_w8c_a8", "static_w8t_a8"])
@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_digits_keep_their_accuracy(
    mode: str, recipe: str, engine: str, network: nn.Module, training: ArrayBatches, test: ArrayBatches
) -> None:
    made = quantize(network, scheme_of(recipe, engine, "minmax"), training, Options(mode))
    expected = expected_outputs(network, test)
    with quantized_engine(engine):
        found = evaluate(made.model, test, expected, "")
    assert expected.answers().accuracy - found.accuracy <= 0.01
    assert found.sqnr_db > 20
    assert made.table.mode == mode
    limits = {(tensor.quant_min, tensor.quant_max) for tensor in made.table.tensors}
    assert limits == {(0, ENGINE_LIMITS[engine].quant_max)}
    sizes = {len(weight.scales) for weight in made.table.weights}
    assert sizes == ({1} if recipe == "static_w8t_a8" else {16, 32, 10})


@pytest.mark.parametrize("engine", ENGINES)
def test_with_pytorchs_observers_it_is_pytorchs_own_default(engine: str) -> None:
    model, recipe = mobile(), "static_w8t_a8" if engine == "qnnpack" else "static_w8c_a8"
    made = quantize(model, scheme_of(recipe, engine, "histogram"), DATA)
    with quantized_engine(engine):
        prepared = quantize_fx.prepare_fx(copy.deepcopy(model), q.get_default_qconfig_mapping(engine), DATA.inputs)
        for batch in DATA:
            prepared(*batch.inputs)
        expected = quantize_fx.convert_fx(prepared)(images(seed=9))
        assert torch.equal(made.model(images(seed=9)), expected)


def test_the_model_that_is_given_stays_as_it_is() -> None:
    model = mobile()
    before, kinds = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    quantize(model, scheme_of("static_w8c_a8", "fbgemm", "minmax"), DATA, Options("fx", True, True))
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(hasattr(module, "qconfig") for module in model.modules())


@pytest.mark.parametrize("mode", ["eager", "fx"])
def test_a_layer_stays_in_float(mode: str) -> None:
    model = Stubbed(mobile()).eval()
    made = quantize(
        model, scheme_of("static_w8c_a8", "fbgemm", "minmax"), DATA, Options(mode, in_float=("network.grouped.0",))
    )
    float_layers = [module for module in made.model.modules() if type(module) is nn.Conv2d]
    assert [layer.groups for layer in float_layers] == [4]
    assert made.table.in_float == ("network.grouped.0",)
    assert "network.grouped.0" not in [weight.layer for weight in made.table.weights]
    again = quantize_with_table(model, made.table)
    with quantized_engine("fbgemm"):
        x = images(seed=8)
        assert torch.equal(made.model(x), again.model(x))
        assert float((made.model(x) - model(x)).abs().mean()) < 0.1


@pytest.mark.parametrize(("observer", "mode"), [("moving_average", "eager"), ("entropy", "fx"), ("mse", "eager")])
def test_runs_are_repeated_to_the_bit(observer: str, mode: str, network: nn.Module, training: ArrayBatches) -> None:
    scheme = scheme_of("static_w8c_a8", "onednn", observer, "mse")
    options = Options(mode, equalize=True, correct_bias=True)
    first, second = (quantize(network, scheme, training, options).table for _ in range(2))
    assert first == second


def test_our_observers_do_not_see_how_the_data_is_split(network: nn.Module, digits: Digits) -> None:
    # a network that gives the same activations for any batch size: one layer alone, without sums in another order
    model, x = nn.Sequential(nn.ReLU(), nn.Linear(64, 4)), digits.train_images[:100].flatten(1)
    tables = [
        quantize(model, scheme_of("static_w8c_a8", "fbgemm", "entropy"), ArrayBatches((x,), batch_size=size)).table
        for size in (1, 33, 100)
    ]
    assert tables[0].tensors[0] == tables[1].tensors[0] == tables[2].tensors[0]


def test_dynamic_recipe_has_a_scale_for_each_channel() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval().requires_grad_(False)
    x = torch.randn(5, 8)
    made = quantize_dynamic(model, scheme_of("dynamic_w8c", "fbgemm"), (x,))
    assert [len(weight.scales) for weight in made.table.weights] == [6, 3]
    assert made.model[0].weight().qscheme() == torch.per_channel_affine
    with quantized_engine("fbgemm"):
        assert float((made.model(x) - model(x)).abs().max()) < 0.05
        assert torch.equal(quantize_with_table(model, made.table).model(x), made.model(x))


class WithNaN(nn.Module):
    """Divides zero by zero in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) / (x - x))


def refusal(call) -> str:
    with pytest.raises(CalibrationError) as caught:
        call()
    return str(caught.value)


def test_what_cannot_be_is_said_in_a_sentence() -> None:
    static = scheme_of("static_w8c_a8", "fbgemm", "minmax")
    rows = ArrayBatches((torch.randn(4, 4),))
    assert "no calibration data" in refusal(lambda: ArrayBatches((torch.empty(0, 4),)))
    assert "different numbers of samples" in refusal(lambda: ArrayBatches((torch.ones(3, 1),), torch.ones(2)))
    found = refusal(lambda: quantize(WithNaN(), static, rows))
    assert "the output of 'first' holds" in found or "the output of 'truediv' holds" in found
    found = refusal(lambda: quantize(mobile(), static, ArrayBatches((images() * torch.nan,))))
    assert "the output of 'x' holds NaN on the calibration data" in found
    found = refusal(lambda: quantize(Branching(), static, rows))
    assert "torch.fx cannot trace the model" in found
    assert "QuantStub" in found
    assert "the model does not take the data (float32 [4, 4])" in refusal(lambda: quantize(mobile(), static, rows))
    assert "no convolution and no linear layer" in refusal(lambda: quantize(nn.ReLU(), static, rows))
    found = refusal(lambda: quantize(mobile(), static, DATA, Options(in_float=("nowhere",))))
    assert "no layers nowhere" in found
    assert "classifier" in found
    assert "no torch.ao.quantization.QuantStub" in refusal(lambda: quantize(mobile(), static, DATA, Options("eager")))
    assert "mode 'jit' is unknown; accepted are auto, eager, fx" in refusal(
        lambda: quantize(mobile(), static, DATA, Options("jit"))
    )
    assert "of which the model has none" in refusal(
        lambda: quantize_dynamic(nn.ReLU(), scheme_of("dynamic_w8c", "fbgemm"), (torch.ones(1),))
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("int4", "fbgemm"), f"recipe 'int4' is unknown; accepted are {', '.join(RECIPES)}"),
        (("static_w8c_a8", "xnnpack"), "engine 'xnnpack' is unknown; accepted are fbgemm, x86, onednn, qnnpack"),
        (("static_w8c_a8", "fbgemm", "maxmin"), "observer 'maxmin' is unknown; accepted are minmax"),
        (("static_w8c_a8", "fbgemm", "minmax:3"), "observer minmax takes no number"),
        (("static_w8c_a8", "fbgemm", "percentile:x"), "'x' is no number; write percentile:99.99"),
        (("static_w8c_a8", "fbgemm", "percentile:101"), "accepted is above 50, up to 100"),
        (
            ("static_w8c_a8", "fbgemm", "mse", "entropy"),
            "weight observer 'entropy' is unknown; accepted are minmax, mse",
        ),
        (("qat_w8c_a8", "fbgemm", "entropy"), "recipe qat_w8c_a8 trains its ranges; leave out the observer entropy"),
        (("dynamic_w8c", "fbgemm", "mse"), "finds its ranges when the model runs; leave out the observer mse"),
    ],
)
def test_names_that_are_unknown(names: tuple[str, ...], message: str) -> None:
    assert message in refusal(lambda: scheme_of(*names))


def test_a_layer_that_never_runs_is_told() -> None:
    model = Stubbed(mobile())
    model.spare = nn.Conv2d(3, 3, 1)
    made = quantize(model.eval(), scheme_of("static_w8c_a8", "fbgemm", "minmax"), DATA)
    assert made.messages == ("never ran on the data, so their outputs have scale 1: spare",)


def test_a_sum_that_a_block_lacks_is_no_layer_that_never_runs() -> None:
    model = Stubbed(mobile())
    model.spare = torch.ao.nn.quantized.FloatFunctional()
    assert quantize(model.eval(), scheme_of("static_w8c_a8", "fbgemm", "minmax"), DATA).messages == ()


@pytest.mark.parametrize("engine", ["qnnpack", "fbgemm"])
def test_layers_that_pytorch_gets_wrong_are_told(engine: str) -> None:
    model = seeded(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 1)))
    made = quantize(model, scheme_of("static_w8c_a8", engine, "minmax"), DATA)
    with quantized_engine(engine):
        largest_error = float((made.model(images()) - model(images())).abs().max())
    assert bool(made.messages) == (largest_error > 0.5) == (engine == "qnnpack")
    assert all("scrambles channels-last results of ReLU6 and Hardtanh (1)" in message for message in made.messages)


def test_residual_sums_and_layers_that_run_twice_have_ranges_of_their_own() -> None:
    made = quantize(seeded(Residual()), scheme_of("static_w8c_a8", "fbgemm", "minmax"), DATA)
    names = [tensor.name for tensor in made.table.tensors]
    assert "add" in names
    assert names[0] == "x"
    assert isinstance(made.table.tensors[0], TensorRange)


def test_it_works_where_tvm_is_not_installed() -> None:
    program = """
import sys
sys.modules["tvm"] = sys.modules["tvm_ffi"] = None
import warnings; warnings.simplefilter("ignore")
import torch
from calibration.batches import ArrayBatches
from calibration.open_data import Data
from calibration.recipes import scheme_of
from calibration.run import Request, run
from calibration.save import save_int8
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
data = Data("rows", ArrayBatches((torch.randn(8, 4),), torch.arange(8) % 4), 8)
result = run(model, Request(scheme_of("static_w8c_a8", "fbgemm", "mse"), max_drop=100.0), data, data)
save_int8(result.quantized.model, result.example, "fbgemm", __import__("pathlib").Path(sys.argv[1]))
"""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", program, f"{folder}/int8.pt"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

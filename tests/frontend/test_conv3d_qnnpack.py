"""Three-dimensional convolutions with qnnpack's codes: PyTorch packs them for qnnpack and cannot unpack them again, so
the model is packed for another engine and imported for qnnpack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.packed import quantized_tensor
from qtorch_relay.capture.torchscript import from_torch
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.frontend.importer import import_graph, output_interface
from qtorch_relay.pipeline import compile_imported
from tests.frontend.models import UNOPTIMIZED
from tests.matrix.conv import SHAPES, input_of, module

CONVS = {name: shape for name, shape in SHAPES.items() if shape.dims == 3}
CONVS |= {
    f"{name}-per_tensor-asymmetric-relu": replace(shape, per_channel=False, weight_zero_point=True, relu=True)
    for name, shape in CONVS.items()
}


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[torch.Tensor, object, object]]:
    """PyTorch's result, ours and its parameters by name, all compiled as one program."""
    cases = list(CONVS.values())
    inputs = [torch.from_numpy(input_of(conv)) for conv in cases]
    with quantized_engine("qnnpack"), torch.no_grad():
        expected = [module(conv)(x) for conv, x in zip(cases, inputs, strict=True)]

    class All(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.ModuleList(module(conv) for conv in cases)

        def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(row(value) for row, value in zip(self.rows, values, strict=True))

    with quantized_engine("fbgemm"):
        model = All().eval()
    infos = [(f"x{i}", tuple(x.shape)) for i, x in enumerate(inputs)]
    imported = import_graph(from_torch(model, infos, "qnnpack"))
    _, qparams = output_interface(imported.mod)
    ours = compile_imported(imported, UNOPTIMIZED).run_flat([x.numpy() for x in inputs])
    return dict(zip(CONVS, zip(expected, ours, qparams, strict=True), strict=True))


@pytest.mark.parametrize("name", CONVS)
def test_codes_are_those_of_qnnpack(name: str, programs: dict[str, tuple[torch.Tensor, object, object]]) -> None:
    theirs, ours, qparams = programs[name]
    expected = quantized_tensor(theirs)
    assert expected.qparams == qparams
    assert (expected.codes == ours).all()


def test_weights_packed_for_qnnpack_are_refused_with_what_to_do() -> None:
    conv = SHAPES["3d-k1"]
    with quantized_engine("qnnpack"):
        model = module(conv).eval()
    with pytest.raises(UnsupportedQuantSchemeError, match="pass the model's file, or the model packed for fbgemm"):
        from_torch(model, [("x", (conv.batch, conv.channels, *conv.size))], "qnnpack")

"""Control flow, in-place ops and state: folded, kept or refused, each with its line."""

# No `from __future__ import annotations`: torch.jit.script cannot read annotations that are strings.
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model, from_torch
from qtorch_relay.errors import InvalidInputError, UnsupportedOpError
from tests.capture.captures import check, only, quantize

pytestmark = [
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning"),
    pytest.mark.usefixtures("fbgemm"),
]


class ChannelLoop(nn.Module):
    def forward(self, x):
        parts = []
        for i in range(x.size(1)):
            parts.append(x[:, i : i + 1] * i)
        if x.dim() != 2:
            raise ValueError("two dimensions, please")
        return torch.cat(parts, 1)


def test_shapes_unroll_loops_and_fold_branches():
    graph = check(torch.jit.script(ChannelLoop()), (2, 3))
    assert {n.op for n in graph.walk()} == {
        "aten::slice.Tensor",
        "aten::mul.Scalar",
        "prim::ListConstruct",
        "aten::cat",
    }


def test_an_exception_that_is_certain_is_an_input_error():
    with pytest.raises(InvalidInputError, match=r"test_capture_control_flow.py:\d+.*two dimensions, please"):
        from_torch(torch.jit.script(ChannelLoop()), [("x", (2, 3, 4))])


class DataBranch(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0):
            y = quantize(x)
        else:
            y = quantize(x * 2)
        while bool(x.sum() < 100):
            x = x + 10
        return y.dequantize() + x


def test_branches_and_loops_on_data_stay():
    graph = check(torch.jit.script(DataBranch()), (4,))
    branch, loop = only(graph, "prim::If"), only(graph, "prim::Loop")
    assert len(branch.blocks) == 2
    assert [n.name for n in branch.blocks[1].nodes] == ["aten::mul", "aten::quantize_per_tensor"]
    assert len(loop.blocks) == 1
    assert len(loop.blocks[0].inputs) == 2


class SizeOfNonzero(nn.Module):
    def forward(self, x):
        return torch.zeros(x.nonzero().size(0) + 1)


def test_sizes_that_depend_on_data_are_not_folded():
    graph = check(torch.jit.script(SizeOfNonzero()), (4,))
    assert "aten::size" in [node.name for node in graph.nodes]


class Optional(nn.Module):
    def forward(self, x, mask: torch.Tensor | None = None):
        if mask is not None:
            x = x * mask
        return x


def test_inputs_with_a_default_may_be_left_out():
    script = torch.jit.script(Optional())
    assert from_torch(script, [("x", (2, 2))]).nodes == ()
    assert len(from_torch(script, [("x", (2, 2)), ("mask", (2, 2))]).nodes) == 1


class Relu(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x, y):
        if self.how == "input":
            return x.relu_() + y
        x = x * 2
        if self.how == "itself":
            torch.relu_(x)
            return x + y
        if self.how == "view":
            torch.relu_(x.view(-1))
            return x + y
        x[:, 0] = 0.0
        return x + y


@pytest.mark.parametrize("how", ["input", "itself"])
def test_in_place_ops_become_functional(how):
    for model in (Relu(how), torch.jit.script(Relu(how))):
        assert "aten::relu" in [node.op for node in check(model, (2, 3), (2, 3)).nodes]


@pytest.mark.parametrize("how", ["view", "slice"])
def test_in_place_ops_through_another_name_reach_the_tensor(how):
    for model in (Relu(how), torch.jit.script(Relu(how))):
        check(model, (2, 3), (2, 3))


class Counter(nn.Module):
    count: int

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.count = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.count = self.count + 1
            self.seen.add_(1)
        if self.how == "tensor":
            self.seen.add_(1)
        return x + self.seen


def test_models_that_keep_state_are_refused():
    for model in (Counter("tensor"), torch.jit.script(Counter("tensor"))):
        with pytest.raises(
            UnsupportedOpError, match=r"changes its own tensors.*add_ \(test_capture_control_flow.py:\d+\).*self\.seen"
        ):
            from_torch(model, [("x", (2,))])


def test_state_kept_only_in_training_does_not_matter():
    graph = from_torch(torch.jit.script(Counter("no")).train(), [("x", (2,))])
    assert [node.name for node in graph.nodes] == ["aten::add"]


class Talkative(nn.Module):
    def forward(self, x):
        print("hello", x.size())
        warnings.warn("take care", stacklevel=1)
        return x + 1


def test_prints_and_warnings_are_said_at_import():
    with pytest.warns(UserWarning, match="is left out") as said:
        graph = from_torch(torch.jit.script(Talkative()), [("x", (2,))])
    assert [node.name for node in graph.nodes] == ["aten::add"]
    messages = [str(w.message) for w in said]
    assert any("print 'hello' (test_capture_control_flow.py" in m for m in messages)
    assert any("warning 'take care' (test_capture_control_flow.py" in m for m in messages)


def test_a_reference_run_keeps_the_values_that_are_wanted():
    class Branches(nn.Module):
        def forward(self, x):
            y = x * 2
            z = x + y
            for _ in range(3):
                z = z + torch.relu(y - 1)
            y.add_(1)  # what was recorded before stays
            return z * y, y

    captured = capture_model(torch.jit.script(Branches()), [("x", (2, 3))], "fbgemm")
    inputs = [torch.randn(2, 3, generator=torch.Generator().manual_seed(1))]
    whole = run_reference(captured, inputs)
    names = [name for name, value in whole.values.items() if isinstance(value, np.ndarray) and value.ndim]
    assert len(names) >= 4
    for name in names:
        part = run_reference(captured, inputs, keep={name})
        assert [kept for kept, value in part.values.items() if isinstance(value, np.ndarray) and value.ndim] == [name]
        np.testing.assert_array_equal(part.values[name], whole.values[name])
        for found, expected in zip(part.output, whole.output, strict=True):
            assert torch.equal(found, expected)

"""Random networks as data: what the property test draws, shrinks and prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

FLOWS = ("eager", "eager_qat", "fx", "fx_qat")
ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")
MIN_STEPS, MAX_STEPS = 3, 15

Shape = tuple[int, ...]  # without the batch: (C, H, W) or (F,)


@dataclass(frozen=True)
class Step:
    """One op of a network. inputs: numbers of earlier values, 0 is the network's input, i + 1 what step i gives.

    options: the op's own; module_of: the number of the step whose module (weights) this one uses too.
    """

    op: str
    inputs: tuple[int, ...]
    options: dict[str, Any]
    module_of: int | None = None


@dataclass(frozen=True)
class Network:
    """A float network and how it is quantized; every value nobody reads is an output."""

    batch: int
    shape: Shape
    steps: tuple[Step, ...]
    flow: str
    engine: str
    seed: int


# PyTorch rounds some codes of these ops with other code where a tensor's size is no multiple of a vector of 64; only
# tensors that fill their vectors are given to them.
VECTOR = 64
NEEDS_FULL_VECTORS = {"add", "mul", "hardswish", "leaky_relu", "elu", "hardsigmoid", "sigmoid", "tanh"}
# qnnpack's clamp returns the codes of a channels-last tensor in another order.
WRONG_IN_PYTORCH = {"qnnpack": {"relu6", "hardtanh"}}

POINTWISE = ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "leaky_relu", "elu")
Draw = Callable[[st.SearchStrategy[Any]], Any]


def _size(batch: int, shape: Shape) -> int:
    size = batch
    for extent in shape:
        size *= extent
    return size


@st.composite
def networks(draw: Draw) -> Network:
    """Draws a network of 3 to 15 ops with branches, views and modules used twice."""
    flow, engine = draw(st.sampled_from(FLOWS)), draw(st.sampled_from(ENGINES))
    batch = draw(st.sampled_from((1, 2)))
    shape = (draw(st.sampled_from((8, 16, 3, 5))), draw(st.sampled_from((8, 4, 7))), draw(st.sampled_from((8, 16, 5))))
    shapes: list[Shape] = [shape]
    steps: list[Step] = []
    for _ in range(draw(st.integers(MIN_STEPS, MAX_STEPS))):
        step, made = _draw_step(draw, batch, shapes, steps, WRONG_IN_PYTORCH.get(engine, set()))
        steps.append(step)
        shapes.append(made)
    return Network(batch, shape, tuple(steps), flow, engine, draw(st.integers(0, 99)))


def _draw_step(draw: Draw, batch: int, shapes: list[Shape], steps: list[Step], wrong: set[str]) -> tuple[Step, Shape]:
    # the latest values come first: a network grows in depth unless hypothesis finds a reason to branch
    source = len(shapes) - 1 - draw(st.integers(0, min(3, len(shapes) - 1)))
    shape = shapes[source]
    offered = _offered(batch, shape, source, shapes)
    op = draw(st.sampled_from([name for name in offered if name not in wrong]))
    return _STEPS[op](draw, op, source, shapes, steps)


def _offered(batch: int, shape: Shape, source: int, shapes: list[Shape]) -> list[str]:
    """Returns the ops that take a value of this shape."""
    maps = len(shape) == 3
    found = ["conv", "conv", "conv"] if maps else ["linear", "linear"]
    found += [op for op in POINTWISE if op not in NEEDS_FULL_VECTORS or _size(batch, shape) % VECTOR == 0]
    found += ["add_scalar", "mul_scalar", "slice", "cat"]
    if _size(batch, shape) % VECTOR == 0:
        found += ["add", "mul"]
    if maps:
        found += ["flatten", "transpose"]
        # PyTorch pools and enlarges maps of one pixel as channels-last ones into planar memory, where codes end up in
        # other places, and refuses to average them.
        found += ["mean", "adaptive_avg_pool", "upsample"] if shape[1:] != (1, 1) else []
        found += ["max_pool", "avg_pool"] if min(shape[1:]) >= 3 else []
        found += ["shuffle"] if shape[0] % 2 == 0 else []
    return found


def _pointwise(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    return Step(op, (source,), {}), shapes[source]


def _scalar(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    value = draw(st.sampled_from((0.5, 2.0, 0.1, 1.7) if op == "mul_scalar" else (0.5, -1.0, 0.3)))
    return Step(op, (source,), {"value": value}), shapes[source]


def _conv(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    channels, height, width = shapes[source]
    twins = [i for i, step in enumerate(steps) if step.op == op and step.module_of is None]
    twins = [i for i in twins if shapes[steps[i].inputs[0]][0] == channels and _fits(steps[i].options, height, width)]
    if height == width == 1:  # a batch norm cannot be trained on one value
        twins = [i for i in twins if "bn" not in steps[i].options["after"]]
    if twins and draw(st.booleans()):
        twin = draw(st.sampled_from(twins))
        options = steps[twin].options
    else:
        twin = None
        depthwise = draw(st.booleans())
        options = {
            "channels": channels if depthwise else draw(st.sampled_from((8, 16, 4, 20, 3))),
            "kernel": draw(st.sampled_from((1, 3))),
            "stride": draw(st.sampled_from((1, 2))),
            "padding": draw(st.sampled_from((1, 0))),
            "groups": channels if depthwise else 1,
            "bias": draw(st.booleans()),
            "after": draw(st.sampled_from(("", "relu", "bn", "bn_relu"))),
        }
        if not _fits(options, height, width):
            options["kernel"] = 1
        if height == width == 1:
            options["after"] = ""
    made = tuple(
        (size + 2 * options["padding"] - options["kernel"]) // options["stride"] + 1 for size in (height, width)
    )
    return Step(op, (source,), dict(options), twin), (options["channels"], *made)


def _fits(options: dict[str, Any], height: int, width: int) -> bool:
    return min(height, width) + 2 * options["padding"] >= options["kernel"]


def _linear(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    twins = [i for i, step in enumerate(steps) if step.op == op and shapes[step.inputs[0]] == shapes[source]]
    twins = [i for i in twins if steps[i].module_of is None]
    if twins and draw(st.booleans()):
        twin = draw(st.sampled_from(twins))
        return Step(op, (source,), dict(steps[twin].options), twin), shapes[twin + 1]
    features = draw(st.sampled_from((32, 64, 10, 7)))
    options = {"features": features, "bias": draw(st.booleans()), "after": draw(st.sampled_from(("", "relu")))}
    return Step(op, (source,), options), (features,)


def _binary(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    same = [i for i, shape in enumerate(shapes) if shape == shapes[source]]
    other = draw(st.sampled_from(same[::-1]))
    return Step(op, (source, other), {"relu": op == "add" and draw(st.booleans())}), shapes[source]


def _cat(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    fitting = [i for i, shape in enumerate(shapes) if shape[1:] == shapes[source][1:]]
    others = draw(st.lists(st.sampled_from(fitting[::-1]), min_size=1, max_size=2))
    inputs = (source, *others)
    return Step(op, inputs, {}), (sum(shapes[i][0] for i in inputs), *shapes[source][1:])


def _slice(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    extent = shapes[source][0]
    start = draw(st.integers(0, extent // 2))
    step = draw(st.sampled_from((1, 2)))
    made = len(range(start, extent, step))
    return Step(op, (source,), {"start": start, "step": step}), (made, *shapes[source][1:])


def _pool(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    channels, height, width = shapes[source]
    kernel, stride = draw(st.sampled_from((2, 3))), draw(st.sampled_from((1, 2)))
    padding = draw(st.sampled_from((0, 1)))
    made = tuple((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
    return Step(op, (source,), {"kernel": kernel, "stride": stride, "padding": padding}), (channels, *made)


def _adaptive(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    size = (draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 3))))
    return Step(op, (source,), {"size": size}), (shapes[source][0], *size)


def _upsample(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    channels, height, width = shapes[source]
    return Step(op, (source,), {}), (channels, 2 * height, 2 * width)


def _transpose(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    channels, height, width = shapes[source]
    return Step(op, (source,), {"contiguous": draw(st.booleans())}), (channels, width, height)


def _to_features(draw: Draw, op: str, source: int, shapes: list[Shape], steps: list[Step]) -> tuple[Step, Shape]:
    channels, height, width = shapes[source]
    return Step(op, (source,), {}), (channels * height * width,) if op == "flatten" else (channels,)


_STEPS: dict[str, Callable[..., tuple[Step, Shape]]] = {
    **dict.fromkeys((*POINTWISE, "shuffle"), _pointwise),
    "add": _binary,
    "mul": _binary,
    "add_scalar": _scalar,
    "mul_scalar": _scalar,
    "cat": _cat,
    "conv": _conv,
    "linear": _linear,
    "slice": _slice,
    "max_pool": _pool,
    "avg_pool": _pool,
    "adaptive_avg_pool": _adaptive,
    "upsample": _upsample,
    "transpose": _transpose,
    "flatten": _to_features,
    "mean": _to_features,
}

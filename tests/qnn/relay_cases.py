"""Calls of Relay's ops as data, so that a Relay-era TVM and ours can make the same call by the same names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Config = tuple[str, str]
CONFIGS: tuple[Config, ...] = tuple(product(("UPWARD", "TONEAREST"), ("int64", "float32", "float64")))
ANY_CONFIG: tuple[Config, ...] = (("UPWARD", "int64"),)
RNG = np.random.default_rng(7)


@dataclass(frozen=True)
class RelayCase:
    """qnn.<op>(**tensors, **constants, **attributes), under each requantize_config in configs.

    tensors are the program's inputs; a list is a tuple of them. constants: scales (float32), zero points (int32).
    """

    op: str
    variant: str
    tensors: dict[str, Array | list[Array]]
    constants: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    configs: tuple[Config, ...] = ANY_CONFIG


def codes(dtype: str, *shape: int) -> Array:
    """Returns random codes with both ends of the range among them."""
    info = np.iinfo(dtype)
    values = RNG.integers(info.min, info.max + 1, shape, dtype=np.int64).astype(dtype)
    values.reshape(-1)[:2] = info.min, info.max
    return values


def ends(dtype: str) -> tuple[int, int, int]:
    """Returns zero points: both ends and one between."""
    info = np.iinfo(dtype)
    return int(info.min), 3, int(info.max)


def requantize() -> Iterator[RelayCase]:
    sums = RNG.integers(-(2**20), 2**20, (3, 5, 7)).astype(np.int32)
    # odd multiples of a half, quarter steps: ties of every ratio that is a power of two
    ties = np.arange(-200, 205, dtype=np.int32)[:405].reshape(3, 5, 27)
    for out_dtype, zero_point in (("uint8", 255), ("int8", -128), ("int16", 3), ("int32", -7), ("uint8", 0)):
        for name, data, source in (("sums", sums, 0.0217), ("ties", ties, 0.25)):
            parameters = {"input_scale": source, "input_zero_point": 0}
            yield _requantize(f"{name}-{out_dtype}-z{zero_point}", data, parameters, zero_point, out_dtype, 0.5)
    yield _requantize("past_one", sums, {"input_scale": 7.3, "input_zero_point": 0}, 1, "int16", 0.5)
    vector = {"input_scale": RNG.uniform(1e-4, 2e-2, 5), "input_zero_point": 0}
    for zero_point in (0, 77):
        yield _requantize(f"per_channel-z{zero_point}", sums, vector, zero_point, "int8", 3.1, axis=1)
    both = {"input_scale": [0.25, 0.5, 0.125, 1.0, 3.0], "input_zero_point": [1, -2, 0, 100, -100]}
    yield _requantize("per_channel_ties", ties, both, 7, "uint8", 0.5, axis=1)
    yield _requantize("per_channel_last", np.swapaxes(sums, 1, 2).copy(), vector, 7, "uint8", 3.1)
    for dtype in ("uint8", "int8", "int16"):
        for zero_point in ends(dtype)[:2]:
            parameters = {"input_scale": 0.0371, "input_zero_point": zero_point}
            yield _requantize(f"{dtype}-from{zero_point}", codes(dtype, 4, 33), parameters, 5, "uint8", 0.0113)
    same = {"input_scale": 0.0371, "input_zero_point": 12}
    yield _requantize("same_scale", codes("int8", 4, 33), same, 40, "int8", 0.0371)
    for scale in (1e-8, 1e-4, 1e4):
        parameters = {"input_scale": scale, "input_zero_point": 0}
        yield _requantize(f"scale_{scale:g}", sums % 4000, parameters, 0, "int8", 1e-2 if scale < 1 else 1e6)


def _requantize(
    variant: str, data: Array, parameters: dict[str, Any], zero_point: int, out_dtype: str, scale: float, axis: int = -1
) -> RelayCase:
    constants = {**parameters, "output_scale": scale, "output_zero_point": zero_point}
    return RelayCase("requantize", variant, {"data": data}, constants, {"axis": axis, "out_dtype": out_dtype}, CONFIGS)


def binary() -> Iterator[RelayCase]:
    for op in ("add", "subtract", "mul"):
        for dtype, zero_point in (("uint8", 0), ("uint8", 255), ("int8", -128)):
            pair = _pair(dtype)
            yield _binary(op, f"{dtype}-z{zero_point}", pair, 0.031, zero_point, 0.017, 3, 0.083, zero_point)
        yield _binary(op, "same", _pair("uint8"), 0.05, 7, 0.05, 7, 0.05, 7)
        yield _binary(op, "ties", _pair("int8"), 0.25, 7, 0.5, 2, 1.0, 5)
        yield _binary(op, "left_same", _pair("uint8"), 0.05, 7, 0.06, 7, 0.05, 7)
        narrow = {"lhs": codes("int8", 3, 6, 50), "rhs": codes("int8", 3, 6, 1)}
        yield _binary(op, "broadcast", narrow, 0.031, 5, 0.017, 3, 0.083, 9)
        scales, points = RNG.uniform(0.01, 0.1, 6), RNG.integers(0, 100, 6)
        vectors = (scales, points, scales[::-1], points, 0.083, 9)
        yield _binary(op, "per_channel", _pair("uint8"), *vectors, lhs_axis=1, rhs_axis=1)


def _pair(dtype: str) -> dict[str, Any]:
    return {"lhs": codes(dtype, 3, 6, 50), "rhs": codes(dtype, 3, 6, 50)}


def _binary(op: str, variant: str, tensors: dict[str, Any], *parameters: Any, **attributes: Any) -> RelayCase:
    names = ("lhs_scale", "lhs_zero_point", "rhs_scale", "rhs_zero_point", "output_scale", "output_zero_point")
    return RelayCase(op, variant, tensors, dict(zip(names, parameters, strict=True)), attributes, CONFIGS)


def concatenate() -> Iterator[RelayCase]:
    for dtype, axis in (("uint8", 1), ("int8", -1)):
        data = [codes(dtype, 2, 3, 40), codes(dtype, 2, 3, 40), codes(dtype, 2, 3, 40)]
        constants = {
            "input_scales": [0.05, 0.021, 0.3],
            "input_zero_points": [7, 7, 100],
            "output_scale": 0.05,
            "output_zero_point": 7,
        }
        yield RelayCase("concatenate", f"{dtype}-{axis}", {"data": data}, constants, {"axis": axis}, CONFIGS)


def quantize() -> Iterator[RelayCase]:
    reals = np.concatenate([RNG.normal(0, 30, 501), (np.arange(-299, 300) + 0.5) * 0.25, [1e9, -1e9, 1e-30, 0.0, -0.0]])
    data = reals.astype(np.float32).reshape(5, 221)
    for out_dtype in ("uint8", "int8", "uint16", "int16"):
        for zero_point, scales in zip(ends(out_dtype), ((0.25,), (0.0217, 1e4), (0.25, 1e-8)), strict=True):
            for scale in scales:
                constants = {"output_scale": scale, "output_zero_point": zero_point}
                name = f"{out_dtype}-z{zero_point}-s{scale:g}"
                yield RelayCase("quantize", name, {"data": data}, constants, {"out_dtype": out_dtype})
    small = np.clip(data, -1e5, 1e5)
    yield RelayCase(
        "quantize",
        "int32",
        {"data": small},
        {"output_scale": 0.01, "output_zero_point": 9},
        {"out_dtype": "int32"},
    )
    for axis, length in ((0, 5), (1, 221)):
        constants = {
            "output_scale": RNG.uniform(0.01, 0.5, length),
            "output_zero_point": RNG.integers(-128, 128, length),
        }
        yield RelayCase("quantize", f"axis{axis}", {"data": data}, constants, {"axis": axis})


def dequantize() -> Iterator[RelayCase]:
    for dtype in ("uint8", "int8", "uint16", "int16", "int32"):
        data = codes(dtype, 5, 60)
        for out_dtype, zero_point in zip(
            ("float32", "float16"), ends("int8" if dtype == "int32" else dtype), strict=False
        ):
            constants = {"input_scale": 0.0217, "input_zero_point": zero_point}
            name = f"{dtype}-{out_dtype}-z{zero_point}"
            yield RelayCase("dequantize", name, {"data": data}, constants, {"out_dtype": out_dtype})
    constants = {"input_scale": RNG.uniform(0.01, 0.5, 5), "input_zero_point": RNG.integers(-128, 128, 5)}
    yield RelayCase("dequantize", "axis0", {"data": codes("int8", 5, 60)}, constants, {"axis": 0})


def simulated() -> Iterator[RelayCase]:
    data = np.concatenate([RNG.normal(0, 30, 495), np.arange(-49, 56) / 2]).astype(np.float32).reshape(6, 100)
    for dtype, axis in (("int8", 0), ("uint8", 1), ("int32", 0), ("disable", 1)):
        length = data.shape[axis]
        scale, point = RNG.uniform(0.1, 0.5, length), RNG.integers(0, 100, length)
        for name, values in (("vector", (scale, point)), ("scalar", (0.25, 3))):
            yield RelayCase(
                "simulated_quantize",
                f"{dtype}-{axis}-{name}",
                {"data": data},
                {"output_scale": values[0], "output_zero_point": values[1]},
                {"axis": axis, "out_dtype": dtype},
            )
            yield RelayCase(
                "simulated_dequantize",
                f"{dtype}-{axis}-{name}",
                {"data": np.round(data)},
                {"input_scale": values[0], "input_zero_point": values[1]},
                {"axis": axis, "in_dtype": dtype},
            )


UNARY = ("tanh", "exp", "sqrt", "rsqrt", "erf", "abs", "sigmoid", "hardswish", "log")


def unary() -> Iterator[RelayCase]:
    every = {
        dtype: np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype) for dtype in ("uint8", "int8")
    }
    for op, dtype in product(UNARY, every):
        for scale, zero_point, output_scale in ((0.02, ends(dtype)[0], 1 / 128), (0.11, 3, 0.09)):
            constants = {
                "scale": scale,
                "zero_point": zero_point,
                "output_scale": output_scale,
                "output_zero_point": ends(dtype)[1],
            }
            yield RelayCase(op, f"{dtype}-{scale:g}-{zero_point}-{output_scale:g}", {"x": every[dtype]}, constants)


def activations() -> Iterator[RelayCase]:
    for dtype, alpha in (("uint8", 0.01), ("int8", 0.3)):
        for zero_point in ends(dtype):
            constants = {
                "input_scale": 0.031,
                "input_zero_point": zero_point,
                "output_scale": 0.027,
                "output_zero_point": 9,
            }
            name = f"{dtype}-{alpha}-z{zero_point}"
            attributes = {"alpha": alpha}
            yield RelayCase("leaky_relu", name, {"x": codes(dtype, 4, 80)}, constants, attributes, CONFIGS)
        same = {"input_scale": 0.03, "input_zero_point": 9, "output_scale": 0.03, "output_zero_point": 9}
        yield RelayCase(
            "leaky_relu", f"{dtype}-{alpha}-same", {"x": codes(dtype, 4, 80)}, same, {"alpha": alpha}, CONFIGS
        )
    for scale, axis in ((1.0, -1), (0.33, 0), (0.004, 1)):
        for zero_point in ends("int8")[:2]:
            constants = {"scale": scale, "zero_point": zero_point, "output_scale": 1 / 256, "output_zero_point": -128}
            name = f"{scale:g}-{axis}-z{zero_point}"
            yield RelayCase("softmax", name, {"x": codes("int8", 6, 5, 9)}, constants, {"axis": axis}, CONFIGS)


def pools() -> Iterator[RelayCase]:
    for dtype, layout in (("uint8", "NCHW"), ("int8", "NHWC")):
        shape = (2, 3, 9, 10) if layout == "NCHW" else (2, 9, 10, 3)
        for padding, ceil_mode, include in product(((0, 0), (1, 0, 0, 1)), (False, True), (False, True)):
            for name, output in (("same", (0.05, 7)), ("other", (0.031, 100))):
                yield RelayCase(
                    "avg_pool2d",
                    f"{dtype}-{layout}-{padding}-{ceil_mode}-{include}-{name}",
                    {"data": codes(dtype, *shape)},
                    {
                        "input_scale": 0.05,
                        "input_zero_point": 7,
                        "output_scale": output[0],
                        "output_zero_point": output[1],
                    },
                    {
                        "pool_size": (3, 2),
                        "strides": (2, 2),
                        "padding": padding,
                        "dilation": (1, 1),
                        "ceil_mode": ceil_mode,
                        "count_include_pad": include,
                        "layout": layout,
                    },
                    CONFIGS[:1],
                )


def products() -> Iterator[RelayCase]:
    types = (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8"))
    for (left, right), (zx, zy) in zip(types, ((3, 0), (0, 0), (0, 5), (127, 100)), strict=True):
        name = f"{left}-{right}-{zx}-{zy}"
        dense = {"input_zero_point": zx, "kernel_zero_point": zy, "input_scale": 0.5, "kernel_scale": 0.25}
        yield RelayCase("dense", name, {"data": codes(left, 4, 19), "weight": codes(right, 7, 19)}, dense, {"units": 7})
        batch = {"x_zero_point": zx, "y_zero_point": zy, "x_scale": 0.5, "y_scale": 0.25}
        for batches in (1, 3):
            tensors = {"x": codes(left, 3, 4, 19), "y": codes(right, batches, 7, 19)}
            yield RelayCase("batch_matmul", f"{name}-{batches}", tensors, batch)
        yield from _convolutions(name, left, right, dense)


def _convolutions(name: str, left: str, right: str, constants: dict[str, Any]) -> Iterator[RelayCase]:
    x = codes(left, 2, 4, 9, 8)
    common = {"kernel_size": (3, 3), "strides": (2, 1), "padding": (1, 1, 0, 2)}
    plain = {**common, "channels": 6}
    yield RelayCase("conv2d", name, {"data": x, "kernel": codes(right, 6, 4, 3, 3)}, constants, plain)
    grouped = {**plain, "groups": 2}
    yield RelayCase("conv2d", f"{name}-g2", {"data": x, "kernel": codes(right, 6, 2, 3, 3)}, constants, grouped)
    depthwise = {**common, "groups": 4, "channels": 4}
    yield RelayCase("conv2d", f"{name}-dw", {"data": x, "kernel": codes(right, 4, 1, 3, 3)}, constants, depthwise)
    dilated = {**plain, "dilation": (2, 1)}
    yield RelayCase("conv2d", f"{name}-d2", {"data": x, "kernel": codes(right, 6, 4, 3, 3)}, constants, dilated)
    nhwc = {**plain, "data_layout": "NHWC", "kernel_layout": "HWIO"}
    tensors = {"data": codes(left, 2, 9, 8, 4), "kernel": codes(right, 3, 3, 4, 6)}
    yield RelayCase("conv2d", f"{name}-nhwc", tensors, constants, nhwc)
    vector = {**constants, "kernel_scale": RNG.uniform(0.1, 1, 6)}
    yield RelayCase("conv2d", f"{name}-pc", {"data": x, "kernel": codes(right, 6, 4, 3, 3)}, vector, plain)
    transposed = {
        "kernel_size": (3, 3),
        "channels": 6,
        "strides": (2, 2),
        "padding": (1, 1),
        "output_padding": (1, 1),
        "kernel_layout": "IOHW",
    }
    tensors = {"data": x, "weight": codes(right, 4, 6, 3, 3)}
    yield RelayCase("conv2d_transpose", name, tensors, constants, transposed)


FAMILIES = {
    "requantize": requantize,
    "binary": binary,
    "concatenate": concatenate,
    "quantize": quantize,
    "dequantize": dequantize,
    "simulated": simulated,
    "unary": unary,
    "activations": activations,
    "pools": pools,
    "products": products,
}
CASES = {name: tuple(family()) for name, family in FAMILIES.items()}

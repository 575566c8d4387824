"""The frame of kernels that add up products with constant weights: their arguments, and what requantizes the sums."""

from __future__ import annotations

from collections.abc import Callable

from qtorch_relay._tvm import PrimFunc
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.requantize import Epilogue, requantize_arguments
from qtorch_relay.kernels.residual import ADD_ARGUMENTS, AddEpilogue
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec
from qtorch_relay.kernels.tir import Buffer, BufferDecl, prim_func


def product_func(
    name: str,
    isa: Isa,
    interface: Conv2dSpec | DenseSpec,
    lanes: int,
    weights_per_lane: int,
    emit: Callable[[Buffer, Buffer, Buffer, Epilogue, Buffer], None],
) -> PrimFunc:
    """Returns name(x, weight, init, requantize constants, out), whose body is emit(x, weight, init, epilogue, out).

    For a Conv2dAddSpec the residual comes after x, and what it is added with after the requantize constants.

    interface: has the shapes and dtypes of x and out. lanes: the channels of out, padded; each has so many bytes of
    weights, and in init what its sum starts with.
    """
    adds = isinstance(interface, Conv2dAddSpec)
    out_type = (interface.out_shape, interface.out_dtype)
    arguments: list[BufferDecl] = [
        ("x", interface.in_shape, interface.in_dtype),
        *([("residual", *out_type)] if adds else []),
        ("weight", (lanes * weights_per_lane,), "int8"),
        ("init", (lanes,), "int32"),
        *requantize_arguments(interface.requantize, lanes),
        *(ADD_ARGUMENTS if adds else ()),
        ("out", *out_type),
    ]

    def body(x: Buffer, *rest: Buffer) -> None:
        residual, rest = (rest[0], rest[1:]) if adds else (None, rest)
        weight, init, *constants, out = rest
        taken = isa, interface.requantize, interface.out_dtype, lanes, constants
        epilogue = Epilogue(*taken) if residual is None else AddEpilogue(*taken, residual)
        emit(x, weight, init, epilogue, out)

    return prim_func(name, arguments, body)

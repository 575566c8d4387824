"""The kernels: one row each, which drives selection, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc
from qtorch_relay.errors import QTorchRelayError
from qtorch_relay.kernels import cases, reference
from qtorch_relay.kernels.arguments import Arguments, matmul_arguments
from qtorch_relay.kernels.conv2d import build_conv2d, build_dense, why_not_conv2d
from qtorch_relay.kernels.conv2d_pack import pack_conv2d, pack_dense
from qtorch_relay.kernels.depthwise import build_depthwise, pack_depthwise, why_not_depthwise
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.x86 import avx512vnni


class NoKernelError(QTorchRelayError):
    """No kernel takes a spec on an ISA; the message has the reason of every row tried."""


@dataclass(frozen=True)
class Kernel:
    """A row of the table.

    why_not: returns why a spec is refused, or None if it is taken.
    build: returns the PrimFunc (inputs, constants, output last); a pure function of the spec.
    pack: returns the constants, in argument order, as numpy arrays.
    reference: returns the output as numpy, from the inputs and the same arguments as pack.
    arguments: returns random arguments (inputs, constants) from (spec, seed, extreme), for tests and benchmarks.
    cases: specs its tests run, tile boundaries and odd sizes among them.
    """

    name: str
    isa: str
    spec: type
    why_not: Callable[[Any], str | None]
    build: Callable[[Any], PrimFunc]
    pack: Callable[..., list[npt.NDArray[Any]]]
    reference: Callable[..., npt.NDArray[Any]]
    arguments: Callable[[Any, int, bool], Arguments]
    cases: tuple[Any, ...]


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        name="dense_u8s8s32_14x32__x86_avx512vnni",
        isa=avx512vnni.NAME,
        spec=DenseSpec,
        why_not=why_not_conv2d,
        build=partial(build_dense, avx512vnni),
        pack=partial(pack_dense, avx512vnni),
        reference=reference.dense,
        arguments=matmul_arguments,
        cases=cases.DENSE,
    ),
    Kernel(
        name="depthwise_u8s8s32_4x64__x86_avx512vnni",
        isa=avx512vnni.NAME,
        spec=Conv2dSpec,
        why_not=why_not_depthwise,
        build=partial(build_depthwise, avx512vnni),
        pack=partial(pack_depthwise, avx512vnni),
        reference=reference.conv2d,
        arguments=matmul_arguments,
        cases=cases.DEPTHWISE,
    ),
    Kernel(
        name="conv2d_u8s8s32_14x32__x86_avx512vnni",
        isa=avx512vnni.NAME,
        spec=Conv2dSpec,
        why_not=why_not_conv2d,
        build=partial(build_conv2d, avx512vnni),
        pack=partial(pack_conv2d, avx512vnni),
        reference=reference.conv2d,
        arguments=matmul_arguments,
        cases=cases.CONV2D,
    ),
)
"""In order of preference: the first row that takes a spec is selected."""

COMPATIBLE: dict[str, tuple[str, ...]] = {
    "x86-avx512vnni": ("x86-avx512vnni",),
    "x86-amx": ("x86-avx512vnni",),
}
"""The ISAs whose kernels a target runs, best first."""


def select(isa: str, spec: Hashable) -> Kernel:
    """Returns the preferred kernel for a spec on an ISA.

    Raises: NoKernelError with the reason of every row that was tried.
    """
    reasons = []
    for kernel_isa in COMPATIBLE.get(isa, ()):
        for kernel in KERNELS:
            if kernel.isa != kernel_isa or kernel.spec is not type(spec):
                continue
            reason = kernel.why_not(spec)
            if reason is None:
                return kernel
            reasons.append(f"{kernel.name}: {reason}")
    tried = "; ".join(reasons) if reasons else f"there is no kernel for {type(spec).__name__}"
    raise NoKernelError(f"no {isa} kernel takes {spec}: {tried}")

"""The kernels: one row each, which drives selection, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy.typing as npt

from qtorch_relay._tvm import PrimFunc
from qtorch_relay.errors import QTorchRelayError
from qtorch_relay.kernels import benchmarks, cases, reference
from qtorch_relay.kernels.arguments import (
    Arguments,
    binary_arguments,
    choose_qparams_arguments,
    concatenate_arguments,
    conv2d_add_arguments,
    dequantize_arguments,
    dynamic_dense_arguments,
    dynamic_quantize_arguments,
    lookup_arguments,
    matmul_arguments,
    pool_arguments,
    quantize_arguments,
)
from qtorch_relay.kernels.arm.isas import DOTPROD, DOTPROD_IN_ORDER, I8MM, NEON
from qtorch_relay.kernels.concatenate import build_concatenate, concatenate_reference, pack_concatenate
from qtorch_relay.kernels.conv2d import build_conv2d, build_dense, why_not_conv2d, why_not_conv2d_add
from qtorch_relay.kernels.conv2d_pack import pack_conv2d, pack_conv2d_add, pack_dense
from qtorch_relay.kernels.conv2d_plan import pairs_for
from qtorch_relay.kernels.dense_dynamic import build_dynamic_dense, pack_dynamic_dense, why_not_dynamic_dense
from qtorch_relay.kernels.depthwise import build_depthwise, depthwise_dots, pack_depthwise, why_not_depthwise
from qtorch_relay.kernels.depthwise_pairs import (
    build_depthwise_pairs,
    pack_depthwise_pairs,
    why_not_depthwise_pairs,
)
from qtorch_relay.kernels.dynamic_qparams import build_choose_qparams, build_dynamic_quantize, why_not_dynamic_quantize
from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.kernels.elementwise import (
    build_add,
    build_dequantize,
    build_fixed_add,
    build_mul,
    build_quantize,
    pack_add,
    pack_dequantize,
    pack_fixed_add,
    pack_mul,
    pack_quantize,
)
from qtorch_relay.kernels.isa import Isa
from qtorch_relay.kernels.lookup import build_lookup, lookup_reference, pack_lookup
from qtorch_relay.kernels.pair_sums import refine_conv2d, refine_dense, refine_dynamic_dense
from qtorch_relay.kernels.pointwise_spec import (
    AddSpec,
    ConcatenateSpec,
    DequantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MulSpec,
    QuantizeSpec,
)
from qtorch_relay.kernels.pool import (
    avg_pool2d_reference,
    build_avg_pool2d,
    build_max_pool2d,
    max_pool2d_reference,
    pack_avg_pool2d,
    pack_max_pool2d,
    why_not_avg_pool2d,
    why_not_max_pool2d,
)
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec, PairSaturatedDepthwiseSpec
from qtorch_relay.kernels.x86.isas import AMX, AVX2, AVX512, AVX512VNNI, AVXVNNI


class NoKernelError(QTorchRelayError):
    """No kernel takes a spec on an ISA; the message has the reason of every row tried."""


def _as_it_is(spec: Any, *_: Any) -> Any:
    """Returns a spec to which constants add nothing."""
    return spec


def _why_not_in_tiles(spec: Any) -> str | None:
    """Returns why tile registers do not compute a convolution, or None."""
    if why_not_depthwise(spec) is None:
        return "it is depthwise: tiles of many channels would hold mostly zeros"
    return why_not_conv2d(spec)


def _no_form(_spec: Any) -> str | None:
    """Returns None: there are no sums of products."""
    return None


def _form(isa: Isa, spec: Any) -> str | None:
    """Returns in words how the products of a convolution or dense layer are computed."""
    pairs = pairs_for(isa, spec if isinstance(spec, Conv2dSpec) else spec.as_conv2d())
    return (isa.dot_for(spec.pair_sums) if pairs is None else pairs).form


def _depthwise_form(isa: Isa, spec: Conv2dSpec) -> str | None:
    """Returns in words how the products of a depthwise convolution are computed."""
    return isa.dot_for(spec.pair_sums).form


@dataclass(frozen=True)
class Kernel:
    """A row of the table.

    name: op, types, codes of one dot product (outputs x lanes x products) or codes at once, ISA.
    why_not: returns why a spec is refused, or None if it is taken.
    build: returns the PrimFunc (inputs, constants, outputs last); a pure function of the spec.
    pack: returns the constants, in argument order, as numpy arrays.
    refine: returns the spec with what follows from (range of the first input's codes, *pack's other arguments).
    form: returns in words how the products of a spec are computed, or None if it has none.
    reference: returns the output, or a tuple of several, as numpy, from the inputs and the same arguments as pack.
    arguments: returns random arguments (inputs, constants) from (spec, seed, extreme), for tests and benchmarks.
    cases: specs its tests run, tile boundaries and odd sizes among them.
    benchmarks: specs whose speed is reported, layers of real models.
    """

    name: str
    isa: str
    spec: type
    why_not: Callable[[Any], str | None]
    build: Callable[[Any], PrimFunc]
    pack: Callable[..., list[npt.NDArray[Any]]]
    reference: Callable[..., npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]]
    arguments: Callable[[Any, int, bool], Arguments]
    cases: tuple[Any, ...]
    benchmarks: tuple[Any, ...]
    refine: Callable[..., Any] = _as_it_is
    form: Callable[[Any], str | None] = _no_form


def _takes_all(spec: Any) -> str | None:
    """Returns None: every spec is taken."""
    return None


def _no_constants(_spec: Any) -> list[npt.NDArray[Any]]:
    """Returns nothing: all arguments are inputs."""
    return []


# Which of the cases an instruction set runs, as (start, step): loops are the same on all, and each case is compiled.
_SHARES = {
    "x86-avx2": (0, 2),
    "x86-avx512": (1, 2),
    "x86-avxvnni": (1, 3),
    "arm-neon": (0, 5),
    "arm-dotprod": (1, 5),
    "arm-i8mm": (2, 5),
    "arm-dotprod-in-order": (2, 5),
}


def _rows(isa: Isa) -> tuple[Kernel, ...]:
    """Returns the kernels of an instruction set, in order of preference."""
    start, step = _SHARES.get(isa.NAME, (0, 1))

    def share(whole: tuple[Any, ...]) -> tuple[Any, ...]:
        return whole[start::step]

    def narrow(more: tuple[Any, ...]) -> tuple[Any, ...]:
        return {8: more, 4: share(more)}.get(isa.LANES, ())

    def in_order(more: tuple[Any, ...]) -> tuple[Any, ...]:
        return more if isa.places_loads else ()

    dot = f"1x{isa.LANES}x4" if isa.tiles is None else f"16x{isa.LANES}x64"
    codes, suffix = f"x{4 * isa.LANES}", isa.NAME.replace("-", "_")
    return (
        Kernel(
            name=f"dense_u8s8s32_{dot}__{suffix}",
            isa=isa.NAME,
            spec=DenseSpec,
            why_not=why_not_conv2d,
            build=partial(build_dense, isa),
            pack=partial(pack_dense, isa),
            reference=reference.dense,
            arguments=matmul_arguments,
            cases=share(cases.DENSE) + in_order(cases.LONG_DENSE),
            benchmarks=benchmarks.DENSE,
            refine=partial(refine_dense, isa),
            form=partial(_form, isa),
        ),
        Kernel(
            name=f"dense_dynamic_u8s8f32_{dot}__{suffix}",
            isa=isa.NAME,
            spec=DynamicDenseSpec,
            why_not=why_not_dynamic_dense,
            build=partial(build_dynamic_dense, isa),
            pack=partial(pack_dynamic_dense, isa),
            reference=reference.dynamic_dense,
            arguments=dynamic_dense_arguments,
            cases=share(cases.DYNAMIC_DENSE),
            benchmarks=benchmarks.DYNAMIC_DENSE,
            refine=partial(refine_dynamic_dense, isa),
            form=partial(_form, isa),
        ),
        Kernel(
            name=f"depthwise_u8s8s32_{dot}__{suffix}",
            isa=isa.NAME,
            spec=Conv2dSpec,
            why_not=why_not_depthwise,
            build=partial(build_depthwise, isa),
            pack=partial(pack_depthwise, isa),
            reference=reference.conv2d,
            arguments=matmul_arguments,
            cases=share(cases.DEPTHWISE) + narrow(cases.NARROW_DEPTHWISE),
            benchmarks=benchmarks.DEPTHWISE,
            refine=partial(refine_conv2d, isa, dots=depthwise_dots),
            form=partial(_depthwise_form, isa),
        ),
        Kernel(
            name=f"depthwise_pairs_u8s8s16s32_1{codes}__{suffix}",
            isa=isa.NAME,
            spec=PairSaturatedDepthwiseSpec,
            why_not=why_not_depthwise_pairs,
            build=partial(build_depthwise_pairs, isa),
            pack=partial(pack_depthwise_pairs, isa),
            reference=reference.depthwise_pairs,
            arguments=matmul_arguments,
            cases=share(cases.DEPTHWISE_PAIRS),
            benchmarks=benchmarks.DEPTHWISE_PAIRS,
        ),
        Kernel(
            name=f"conv2d_u8s8s32_{dot}__{suffix}",
            isa=isa.NAME,
            spec=Conv2dSpec,
            why_not=why_not_conv2d if isa.tiles is None else _why_not_in_tiles,
            build=partial(build_conv2d, isa),
            pack=partial(pack_conv2d, isa),
            reference=reference.conv2d,
            arguments=matmul_arguments,
            cases=share(cases.CONV2D) + narrow(cases.NARROW_CONV2D) + in_order(cases.LONG_CONV2D),
            benchmarks=benchmarks.CONV2D,
            refine=partial(refine_conv2d, isa),
            form=partial(_form, isa),
        ),
        Kernel(
            name=f"conv2d_add_u8s8s32_{dot}__{suffix}",
            isa=isa.NAME,
            spec=Conv2dAddSpec,
            why_not=why_not_conv2d_add,
            build=partial(build_conv2d, isa),
            pack=partial(pack_conv2d_add, isa),
            reference=reference.conv2d_add,
            arguments=conv2d_add_arguments,
            cases=share(cases.CONV2D_ADD),
            benchmarks=benchmarks.CONV2D_ADD,
            refine=partial(refine_conv2d, isa),
            form=partial(_form, isa),
        ),
        Kernel(
            name=f"quantize_f32_{codes}__{suffix}",
            isa=isa.NAME,
            spec=QuantizeSpec,
            why_not=_takes_all,
            build=partial(build_quantize, isa),
            pack=pack_quantize,
            reference=reference.quantize,
            arguments=quantize_arguments,
            cases=share(cases.QUANTIZE),
            benchmarks=benchmarks.QUANTIZE,
        ),
        Kernel(
            name=f"choose_qparams_f32_{codes}__{suffix}",
            isa=isa.NAME,
            spec=ChooseQparamsSpec,
            why_not=_takes_all,
            build=partial(build_choose_qparams, isa),
            pack=_no_constants,
            reference=reference.choose_qparams,
            arguments=choose_qparams_arguments,
            cases=share(cases.CHOOSE_QPARAMS),
            benchmarks=benchmarks.CHOOSE_QPARAMS,
        ),
        Kernel(
            name=f"quantize_dynamic_f32_{codes}__{suffix}",
            isa=isa.NAME,
            spec=DynamicQuantizeSpec,
            why_not=why_not_dynamic_quantize,
            build=partial(build_dynamic_quantize, isa),
            pack=_no_constants,
            reference=reference.dynamic_quantize,
            arguments=dynamic_quantize_arguments,
            cases=share(cases.DYNAMIC_QUANTIZE),
            benchmarks=benchmarks.DYNAMIC_QUANTIZE,
        ),
        Kernel(
            name=f"dequantize_f32_x{isa.LANES}__{suffix}",
            isa=isa.NAME,
            spec=DequantizeSpec,
            why_not=_takes_all,
            build=partial(build_dequantize, isa),
            pack=pack_dequantize,
            reference=reference.dequantize,
            arguments=dequantize_arguments,
            cases=share(cases.DEQUANTIZE),
            benchmarks=benchmarks.DEQUANTIZE,
        ),
        Kernel(
            name=f"add_f32_{codes}__{suffix}",
            isa=isa.NAME,
            spec=AddSpec,
            why_not=_takes_all,
            build=partial(build_add, isa),
            pack=pack_add,
            reference=reference.add,
            arguments=binary_arguments,
            cases=share(cases.ADD),
            benchmarks=benchmarks.ADD,
        ),
        Kernel(
            name=f"add_fixed_point_{codes}__{suffix}",
            isa=isa.NAME,
            spec=FixedAddSpec,
            why_not=_takes_all,
            build=partial(build_fixed_add, isa),
            pack=pack_fixed_add,
            reference=reference.fixed_add,
            arguments=binary_arguments,
            cases=share(cases.FIXED_ADD),
            benchmarks=benchmarks.FIXED_ADD,
        ),
        Kernel(
            name=f"mul_f32_{codes}__{suffix}",
            isa=isa.NAME,
            spec=MulSpec,
            why_not=_takes_all,
            build=partial(build_mul, isa),
            pack=pack_mul,
            reference=reference.mul,
            arguments=binary_arguments,
            cases=share(cases.MUL),
            benchmarks=benchmarks.MUL,
        ),
        Kernel(
            name=f"lookup_{codes}__{suffix}",
            isa=isa.NAME,
            spec=LookupSpec,
            why_not=_takes_all,
            build=partial(build_lookup, isa),
            pack=pack_lookup,
            reference=lookup_reference,
            arguments=lookup_arguments,
            cases=share(cases.LOOKUP),
            benchmarks=benchmarks.LOOKUP,
        ),
        Kernel(
            name=f"concatenate_{codes}__{suffix}",
            isa=isa.NAME,
            spec=ConcatenateSpec,
            why_not=_takes_all,
            build=partial(build_concatenate, isa),
            pack=pack_concatenate,
            reference=concatenate_reference,
            arguments=concatenate_arguments,
            cases=share(cases.CONCATENATE),
            benchmarks=benchmarks.CONCATENATE,
        ),
        Kernel(
            name=f"max_pool2d_{codes}__{suffix}",
            isa=isa.NAME,
            spec=MaxPool2dSpec,
            why_not=why_not_max_pool2d,
            build=partial(build_max_pool2d, isa),
            pack=pack_max_pool2d,
            reference=max_pool2d_reference,
            arguments=pool_arguments,
            cases=share(cases.MAX_POOL2D),
            benchmarks=benchmarks.MAX_POOL2D,
        ),
        Kernel(
            name=f"avg_pool2d_{codes}__{suffix}",
            isa=isa.NAME,
            spec=AvgPool2dSpec,
            why_not=why_not_avg_pool2d,
            build=partial(build_avg_pool2d, isa),
            pack=pack_avg_pool2d,
            reference=avg_pool2d_reference,
            arguments=pool_arguments,
            cases=share(cases.AVG_POOL2D),
            benchmarks=benchmarks.AVG_POOL2D,
        ),
    )


ISAS: tuple[Isa, ...] = (AVX2, AVXVNNI, AVX512, AVX512VNNI, AMX, NEON, DOTPROD, DOTPROD_IN_ORDER, I8MM)

# ISAs that differ from another one in some kernels alone: that one, and what the names of those kernels begin with.
_PARTIAL = {
    AMX.NAME: (AVX512VNNI.NAME, ("dense", "conv2d")),
    DOTPROD_IN_ORDER.NAME: (DOTPROD.NAME, ("dense", "conv2d", "depthwise_u8s8s32")),
}


def _is_for(isa: Isa, kernel: Kernel) -> bool:
    """Says whether an instruction set has a row: sums of codes gain only among the dots of the next tile."""
    if kernel.spec is Conv2dAddSpec:
        return isa.requantizes_among_dots and isa.tiles is None
    return isa.NAME not in _PARTIAL or kernel.name.startswith(_PARTIAL[isa.NAME][1])


KERNELS: tuple[Kernel, ...] = tuple(kernel for isa in ISAS for kernel in _rows(isa) if _is_for(isa, kernel))
"""In order of preference: the first row that takes a spec is selected."""

COMPATIBLE: dict[str, tuple[str, ...]] = {
    isa.NAME: (isa.NAME, _PARTIAL[isa.NAME][0]) if isa.NAME in _PARTIAL else (isa.NAME,) for isa in ISAS
}
"""The ISAs whose kernels a target runs, best first."""

# What a target leaves to several kernels: tile registers compute its convolutions.
_LEFT_OUT: dict[str, tuple[type, ...]] = {"x86-amx": (Conv2dAddSpec,)}


def select(isa: str, spec: Hashable) -> Kernel:
    """Returns the preferred kernel for a spec on an ISA.

    Raises: NoKernelError with the reason of every row that was tried.
    """
    reasons = []
    for kernel_isa in COMPATIBLE.get(isa, ()):
        for kernel in KERNELS:
            if kernel.isa != kernel_isa or kernel.spec is not type(spec) or kernel.spec in _LEFT_OUT.get(isa, ()):
                continue
            reason = kernel.why_not(spec)
            if reason is None:
                return kernel
            reasons.append(f"{kernel.name}: {reason}")
    tried = "; ".join(reasons) if reasons else f"there is no kernel for {type(spec).__name__}"
    raise NoKernelError(f"no {isa} kernel takes {spec}: {tried}")

"""Float arithmetic in TIR that rounds as told, and PyTorch's float functions on it, to the bit.

PyTorch computes exp inside sigmoid with SLEEF in vector code and with the C library in what remains of a run (fewer
than two registers of elements); tanh with Intel MKL. The first two are reproduced to the last bit. MKL's tanh is not
public: tanh here is the correctly rounded one, which MKL's equals in 99.94 % of all float32 values between 1e-4 and
10; the others differ by one unit in the last place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from qtorch_relay._tvm import T, tirx

Expr: TypeAlias = Any

# Elements PyTorch's vector code of float32 functions takes at a time: two AVX-512 registers (on AVX2 machines 16).
VECTOR_RUN = 32


def intrinsic(dtype: str, name: str, *arguments: Expr) -> Expr:
    """Returns a call of a side-effect-free LLVM intrinsic."""
    return T.call_llvm_pure_intrin(dtype, name, *arguments)


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """Returns a * b + c rounded once."""
    return intrinsic(str(c.ty.dtype), "llvm.fma", a, b, c)


def rounded_product(a: Expr, b: Expr) -> Expr:
    """Returns a * b rounded, whatever is done with it next.

    TVM compiles with LLVM's AllowFPOpFusion::Fast, which would make one fma of a * b + c; the fence is no instruction.
    """
    return rounded(a * b)


def rounded(value: Expr) -> Expr:
    """Returns a value that nothing sees through: TVM's simplifier takes (a + b) - a for b."""
    return intrinsic(str(value.ty.dtype), "llvm.arithmetic.fence", value)


def f32(value: float | np.floating[Any]) -> Expr:
    """Returns a float32 constant."""
    return T.float32(float(value))


def f64(value: float) -> Expr:
    """Returns a float64 constant."""
    return T.float64(value)


def let(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """Returns body(value) with the value computed once: an expression is a tree, and grows with every use of a part."""
    variable = tirx.Var("v", value.ty.dtype)
    return tirx.Let(variable, value, body(variable))


def exp_sleef(x: Expr) -> Expr:
    """Returns float32 exp(x) within 1 ulp as SLEEF's Sleef_expf16_u10 and Sleef_expf8_u10 compute it.

    x = q ln 2 + s; a polynomial of s by Horner's rule with fused multiply-adds, then two steps of scaling by 2. Nothing
    is added to a product but by the fused multiply-adds, and scaling by 2 is exact, so nothing needs the fence of
    rounded_product, behind which LLVM makes no vectors of a loop.
    Source: SLEEF src/libm/sleefsimdsp.c xexpf.
    """
    q = T.nearbyint(x * f32(1.442695040888963407359924681001892137))
    return let(x, lambda x: let(q, lambda q: _exp_sleef(x, q)))


def _exp_sleef(x: Expr, q: Expr) -> Expr:
    reduced = fma(q, f32(-1.428606765330187045e-06), fma(q, f32(-0.693145751953125), x))

    def polynomial(s: Expr) -> Expr:
        u = f32(0.000198527617612853646278381)
        for coefficient in (
            0.00139304355252534151077271,
            0.00833336077630519866943359,
            0.0416664853692054748535156,
            0.166666671633720397949219,
            0.5,
        ):
            u = fma(u, s, f32(coefficient))
        return f32(1) + fma(s * s, u, s)

    def scaled(exponent: Expr) -> Expr:
        half = T.shift_right(exponent, T.int32(1))
        return let(reduced, polynomial) * _power_of_two(half) * _power_of_two(exponent - half)

    # q outside of what two powers of two can hold is cut off by the bounds below
    value = let(T.Cast("int32", T.max(T.min(q, f32(200)), f32(-200))), scaled)
    return T.Select(x > f32(100), f32(np.inf), T.Select(x < f32(-104), f32(0), value))


def exp_fast(x: Expr) -> Expr:
    """Returns float32 exp(x) of x <= 0 within 20 ulp, as PyTorch computes it in attention; 0 below ln(2**-126).

    x = n ln 2 + r with n rounded down from x / ln 2 + 1/2, and a polynomial of r.
    Source: PyTorch aten/src/ATen/cpu/vec/vec512/vec512_float.h exp_u20.
    """
    least = f32(np.uint32(0xC2AEAC50).view(np.float32))
    log2_e, ln_2 = (f32(np.uint32(bits).view(np.float32)) for bits in (0x3FB8AA3B, 0x3F317218))
    bounded = T.max(x, least)

    def of(n: Expr) -> Expr:
        def polynomial(r: Expr) -> Expr:
            p = f32(0.00828929059)
            for coefficient in (0.0418978221, 0.166676521, 0.499991506, 0.999999701, 1.0):
                p = fma(r, p, f32(coefficient))
            return p

        half = _power_of_two(T.Cast("int32", n) - T.int32(1))
        return let(fma(-n, ln_2, bounded), polynomial) * half * f32(2)

    return T.Select(x < least, f32(0), let(T.floor(fma(bounded, log2_e, f32(0.5))), of))


def _power_of_two(exponent: Expr) -> Expr:
    return T.reinterpret("float32", T.shift_left(exponent + T.int32(127), T.int32(23)))


def emit_log_sleef(x: Expr) -> Expr:
    """Returns float32 log(x) of x >= 1 within 1 ulp as SLEEF's Sleef_logf16_u10 computes it on AVX-512.

    numerics.softmax.log_vector has the formula; pairs of numbers stand for their sum. Unlike the other functions this
    one emits statements, into the function that is being built.
    Source: SLEEF src/libm/sleefsimdsp.c xlogf_u1.
    """
    bits = T.reinterpret("int32", rounded_product(x, f32(1 / 0.75)))
    exponent = T.bind(T.shift_right(bits, T.int32(23)) - T.int32(127))
    m = T.bind(T.reinterpret("float32", T.reinterpret("int32", x) - T.shift_left(exponent, T.int32(23))))
    e = T.bind(T.Cast("float32", exponent))
    high = T.bind(rounded_product(f32(0.69314718246459960938), e))
    low = T.bind(fma(f32(-1.904654323148236017e-09), e, fma(f32(0.69314718246459960938), e, -high)))
    above, above_rest = _emit_two_sum(f32(-1), m)
    below, below_rest = _emit_two_sum(f32(1), m)
    inverse = T.bind(f32(1) / below)
    q = T.bind(rounded_product(above, inverse))
    rest = fma(-below_rest, inverse, fma(-below, inverse, f32(1)))
    q_rest = T.bind(fma(q, rest, fma(above_rest, inverse, fma(inverse, above, -q))))
    square = T.bind(rounded_product(q, q))
    polynomial = fma(fma(f32(0.3027294874), square, f32(0.3996108174)), square, f32(0.6666694880))
    small = T.bind(rounded_product(rounded_product(square, q), polynomial))
    # twice a number is exact
    total = T.bind(rounded(high + f32(2) * q))
    total_rest = (((high - total) + f32(2) * q) + low) + f32(2) * q_rest
    result = T.bind(rounded(total + small))
    return T.Select(T.isnan(x), x, result + (((total - result) + small) + total_rest))


def _emit_two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Returns a + b rounded, and what rounding lost, exactly."""
    total = T.bind(rounded(a + b))
    part = T.bind(rounded(total - a))
    return total, T.bind((a - rounded(total - part)) + (b - part))


# 2 ** (i / 32) rounded to float64, the table that exp_c looks up.
EXP_C_STEPS = 32
EXP_C_TABLE = np.exp2(np.arange(EXP_C_STEPS, dtype=np.longdouble) / EXP_C_STEPS).astype(np.float64)


def exp_c(x: Expr, table: Any) -> Expr:
    """Returns float32 exp(x) within 0.502 ulp as the C library of Linux computes expf.

    In float64: x = (k / 32) ln 2 + r with 2 ** (k / 32) from a table and a cubic polynomial of r.
    table: a buffer that holds EXP_C_TABLE.
    Source: glibc sysdeps/ieee754/flt-32/e_expf.c (Arm's optimized routines).
    """
    steps = float(EXP_C_STEPS)
    inverse = f64(float.fromhex("0x1.71547652b82fep+0") * steps)
    cubic = f64(float.fromhex("0x1.c6af84b912394p-5") / steps**3)
    square = f64(float.fromhex("0x1.ebfce50fac4f3p-3") / steps**2)
    linear = f64(float.fromhex("0x1.62e42ff0c52d6p-1") / steps)

    def polynomial(r: Expr) -> Expr:
        return fma(fma(cubic, r, square), r * r, fma(linear, r, f64(1)))

    def power(index: Expr) -> Expr:
        step = T.bitwise_and(index, T.int32(EXP_C_STEPS - 1))
        return table[step] * _power_of_two_f64(T.shift_right(index, T.int32(5)))

    def of(scaled: Expr) -> Expr:
        return let(
            T.nearbyint(scaled * inverse),
            lambda k: let(fma(inverse, scaled, -k), polynomial) * let(T.Cast("int32", k), power),
        )

    bounded = let(T.Cast("float64", T.max(T.min(x, f32(200)), f32(-200))), of)
    # the bounds lose a NaN
    return T.Select(T.isnan(x), x, T.Cast("float32", bounded))


def _power_of_two_f64(exponent: Expr) -> Expr:
    return T.reinterpret("float64", T.shift_left(T.Cast("int64", exponent) + T.int64(1023), T.int64(52)))


def sigmoid(x: Expr, exp_of: Any = exp_sleef) -> Expr:
    """Returns 1 / (1 + exp(-x)) in float32, every operation rounded.

    exp_of: exp_sleef for PyTorch's vector code, exp_c with its table for what remains of a run.
    Source: PyTorch aten/src/ATen/native/cpu/UnaryOpsKernel.cpp sigmoid_kernel.
    """
    return f32(1) / (f32(1) + exp_of(f32(0) - x))


def silu(x: Expr, exp_of: Any = exp_sleef) -> Expr:
    """Returns x / (1 + exp(-x)) in float32, every operation rounded; exp_of as in sigmoid.

    Source: PyTorch aten/src/ATen/native/cpu/Activation.cpp silu_kernel.
    """
    return x / (f32(1) + exp_of(f32(0) - x))


def tanh(x: Expr) -> Expr:
    """Returns float32 tanh(x), correctly rounded but for values within 1e-8 units in the last place of a tie.

    em1 / (em1 + 2) with em1 = exp(2 |x|) - 1 in float64: 2 |x| = k ln 2 + r and exp(r) - 1 = r p(r), so nothing cancels
    where x is small.
    """
    doubled = T.min(T.Cast("float64", T.abs(x)) * f64(2), f64(40))
    em1 = let(doubled, lambda y: let(T.nearbyint(y * f64(1.4426950408889634)), lambda k: _expm1(y, k)))
    magnitude = T.Cast("float32", let(em1, lambda value: value / (value + f64(2))))
    return let(magnitude, lambda t: T.Select(x > f32(0), t, T.Select(x < f32(0), -t, x)))


def _expm1(y: Expr, k: Expr) -> Expr:
    factorial, coefficients = 1.0, []
    for n in range(1, 15):
        factorial *= n
        coefficients.append(1.0 / factorial)

    def fraction(r: Expr) -> Expr:
        p = f64(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            p = fma(p, r, f64(coefficient))
        return r * p

    reduced = fma(k, f64(-1.9082149292705877e-10), fma(k, f64(-0.6931471803691238), y))
    power = _power_of_two_f64(T.Cast("int32", k))
    return let(power, lambda two: fma(two, let(reduced, fraction), two - f64(1)))

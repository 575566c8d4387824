"""SelectKernels: each op that a row of the kernel table takes becomes one call of that kernel, its constants packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from qtorch_relay._tvm import Call, is_constant, relax
from qtorch_relay.errors import UnsupportedQuantSchemeError
from qtorch_relay.kernels import Kernel, NoKernelError, select
from qtorch_relay.kernels.measure import describe
from qtorch_relay.kernels.samples import of_one_sample
from qtorch_relay.kernels.spec import outputs_of
from qtorch_relay.kernels.tir import for_each_sample
from qtorch_relay.lowering.code_range import range_of
from qtorch_relay.lowering.match import KernelCall, Program, match_conv2d, match_dense
from qtorch_relay.lowering.match_dynamic import match_choose_qparams, match_dynamic_dense, match_dynamic_quantize
from qtorch_relay.lowering.match_pointwise import (
    match_add,
    match_avg_pool2d,
    match_concat,
    match_concatenate,
    match_conv2d_add,
    match_dequantize,
    match_lookup,
    match_max_pool2d,
    match_mul,
    match_quantize,
)
from qtorch_relay.lowering.rebuild import bindings_of, constants_in, op_name, rebuild_main, users_of
from qtorch_relay.qnn.op_def import Operands, static_shape

OPAQUE = 8  # TVM's kOpaque operator pattern: no generic pass fuses into or rewrites a kernel


@dataclass
class SelectionReport:
    """What was selected: how many calls of each kernel, and for each op left to generic code the reason.

    products: how many calls compute sums of products in which way.
    specs: what was built for each call, by the number of the binding whose value it gives.
    functions: of each function that was built its kernel, its layer in words and its multiply-accumulates, by its name.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, str]] = field(default_factory=list)
    specs: dict[int, Any] = field(default_factory=dict)
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """Says that kernels are wanted for any number of samples; in this program there are `count`.

    generic: the numbers of bindings that are left to generic code, since they do not work sample by sample.
    """

    count: int
    generic: frozenset[int] = frozenset()


# (program, binding) -> the kernel call, a reason why not, or None if nothing is to be said
Matcher = Callable[[Program, Any], KernelCall | str | None]


def select_kernels(mod: Any, isa: str, samples: Samples | None = None) -> tuple[Any, SelectionReport]:
    """Returns mod with kernel calls for an ISA in place of the ops they do, and a report of what became what.

    samples: None takes kernels for the shapes in mod; else for any number of samples along the first dimension.

    Before: c = qnn.conv2d(x, w, ...); r = qnn.requantize(c, ..., bias); y = R.maximum(r, 3)
    After:  y = R.call_tir(conv2d_..., (x, packed w, init, scales, codes))
    """
    report = SelectionReport()
    selected = rebuild_main(mod, lambda builder, main: _Emitter(builder, isa, report, samples).emit(main))
    return selected, report


class _Emitter:
    def __init__(self, builder: Any, isa: str, report: SelectionReport, samples: Samples | None) -> None:
        self.samples = samples
        self.builder = builder
        self.isa = isa
        self.report = report
        self.functions: dict[Any, Any] = {}
        self.new: dict[Any, Any] = {}
        self.constants: dict[Any, list[Any]] = {}

    def emit(self, main: Any) -> Any:
        """Emits every binding of main, kernels in place of what they replace, and returns main's result."""
        program = Program(bindings_of(main), users_of(main))
        # What follows from constants is folded, by code that TVM compiles for no particular CPU: no place for a kernel.
        calls = self._plan(program, folded=constants_in(main))
        skipped = {binding.var for call in calls.values() for binding in call.inner}
        for binding in program.bindings:
            if binding.var in skipped:
                continue
            call = calls.get(binding.var)
            expr = self._renew(binding.value) if call is None else self._kernel_call(call)
            self.new[binding.var] = self.builder.emit(expr, binding.var.name)
        return self._renew(main.body.body)

    def _plan(self, program: Program, folded: set[Any]) -> dict[Any, KernelCall]:
        """Returns the kernel calls by the variable they define."""
        calls: dict[Any, KernelCall] = {}
        taken: set[Any] = set()
        for binding in program.bindings:
            matchers = MATCHERS.get(op_name(binding.value), ())
            if binding.var in taken or binding.var in folded:
                continue
            call: KernelCall | str | None = None
            for matcher in matchers:
                call = matcher(program, binding)
                if isinstance(call, KernelCall):
                    call = self._selectable(program, call)
                if isinstance(call, KernelCall):
                    break
            if isinstance(call, str):
                self.report.refused.append((str(binding.var.name), call))
            elif call is not None:
                calls[call.result.var] = call
                taken.update(done.var for done in (*call.inner, call.result))
        return calls

    def _selectable(self, program: Program, call: KernelCall) -> KernelCall | str:
        """Packs the call's constants, or returns why no kernel takes its spec or its numbers."""
        number = program.number[call.result.var]
        if self.samples is not None:
            one = None if number in self.samples.generic else of_one_sample(call.spec, self.samples.count)
            if one is None:
                return "it does not work sample by sample along its first dimension"
            call = replace(call, spec=one)
        try:
            kernel = select(self.isa, call.spec)
            call = replace(call, spec=self._refined(program, kernel, call))
            self.constants[call.result.var] = kernel.pack(call.spec, *call.pack_arguments)
        except (NoKernelError, UnsupportedQuantSchemeError) as error:
            return str(error)
        self.report.kernels[kernel.name] += 1
        form = kernel.form(call.spec)
        if form is not None:
            self.report.products[form] += 1
        self.report.specs[number] = call.spec
        return call

    def _refined(self, program: Program, kernel: Kernel, call: KernelCall) -> Any:
        """Returns the call's spec with what its constants and the range of its first input's codes tell."""
        data = call.inputs[0]
        if str(data.ty.dtype) not in ("uint8", "int8"):
            return call.spec
        return kernel.refine(call.spec, range_of(program, data), *call.pack_arguments)

    def _kernel_call(self, call: KernelCall) -> Any:
        kernel = select(self.isa, call.spec)
        if call.spec not in self.functions:
            function = self._build(kernel, call).without_attr("global_symbol").with_attr("op_pattern", OPAQUE)
            built = self.builder.add_func(function, kernel.name)
            self.functions[call.spec] = built
            told = {"kernel": kernel.name, "layer": describe(call.spec), "macs": getattr(call.spec, "macs", 0)}
            self.report.functions[built.name_hint] = told
        constants = [relax.const(array, str(array.dtype)) for array in self.constants[call.result.var]]
        inputs = [self._renew(value) for value in (*call.inputs, *call.shared)]
        outputs = outputs_of(call.spec)
        if len(outputs) > 1:
            out_types = [relax.TensorType(shape, dtype) for shape, dtype in outputs]
            return relax.call_tir(self.functions[call.spec], [*inputs, *constants], out_types)
        ((out_shape, out_dtype),) = outputs
        if self.samples is not None:
            out_shape = (out_shape[0] * self.samples.count, *out_shape[1:])
        out_type = relax.TensorType(out_shape, out_dtype)
        expr = relax.call_tir(self.functions[call.spec], [*inputs, *constants], out_type)
        declared = static_shape(call.result.var)
        return expr if declared == out_shape else relax.op.reshape(self.builder.emit(expr), declared)

    def _build(self, kernel: Any, call: KernelCall) -> Any:
        if self.samples is None:
            return kernel.build(call.spec)
        with for_each_sample(len(call.inputs)):
            return kernel.build(call.spec)

    def _renew(self, expr: Any) -> Any:
        """Returns an old expression with the new variables."""
        if isinstance(expr, relax.Var):
            return self.new.get(expr, expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._renew(item) for item in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self._renew(expr.tuple_value), expr.index)
        if isinstance(expr, Call):
            return Call(expr.op, [self._renew(argument) for argument in expr.args], expr.attrs, expr.ty_args)
        return expr


def _by_parameters(name: str, known: Matcher, run_time: Matcher) -> Matcher:
    """Returns the matcher for an op whose operand `name` is a constant or a run-time value."""
    return lambda program, binding: (known if is_constant(Operands(binding.value)[name]) else run_time)(
        program, binding
    )


MATCHERS: dict[str, tuple[Matcher, ...]] = {
    "qnn.choose_qparams": (match_choose_qparams,),
    "qnn.conv2d": (match_conv2d_add, match_conv2d),
    "qnn.dense": (_by_parameters("input_zero_point", match_dense, match_dynamic_dense),),
    "qnn.quantize": (_by_parameters("output_zero_point", match_quantize, match_dynamic_quantize),),
    "qnn.dequantize": (match_dequantize,),
    "qnn.add": (match_add,),
    "qnn.mul": (match_mul,),
    "qnn.lookup": (match_lookup,),
    "qnn.concatenate": (match_concatenate,),
    "relax.concat": (match_concat,),
    "qnn.avg_pool2d": (match_avg_pool2d,),
    "relax.nn.max_pool2d": (match_max_pool2d,),
}
"""What is tried for an op, in order: the first kernel call that a row of the table takes."""

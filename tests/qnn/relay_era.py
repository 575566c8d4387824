"""Runs calls of Relay's QNN with a Relay-era TVM; a script for that TVM's interpreter, which knows nothing of ours.

Usage: PYTHON relay_era.py CASES.json ARRAYS.npz RESULTS.npz

CASES.json: a list of programs {"rounding", "compute_dtype", "target", "calls": [{"op", "arguments", "result"}]}.
An argument is {"tensor": key} (an input of the program), {"constant": key}, {"value": v} or {"list": [argument, ...]}.
"""

import functools
import json
import os
import sys

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # no download of pre-tuned schedules

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor
from tvm.relay.backend import te_compiler

# Asked for every dimension of every op that is lowered, and made anew each time.
te_compiler.libinfo = functools.cache(tvm.support.libinfo)


def argument(description, arrays, inputs):
    """Returns an expression, a list or a plain value; tensors are noted in inputs."""
    ((kind, value),) = description.items()
    if kind == "list":
        return [argument(item, arrays, inputs) for item in value]
    if kind == "constant":
        return relay.const(arrays[value])
    if kind == "tensor":
        if value not in inputs:
            array = arrays[value]
            inputs[value] = relay.var(f"in_{len(inputs)}", shape=array.shape, dtype=str(array.dtype))
        return inputs[value]
    return value


def run(program, arrays):
    """Returns the program's results by name."""
    inputs, outputs = {}, []
    for call in program["calls"]:
        arguments = {name: argument(value, arrays, inputs) for name, value in call["arguments"].items()}
        outputs.append(getattr(relay.qnn.op, call["op"])(**arguments))
    function = relay.Function(list(inputs.values()), relay.Tuple(outputs))
    modes = {"rounding": program["rounding"], "compute_dtype": program["compute_dtype"]}
    with tvm.transform.PassContext(opt_level=1), relay.qnn.op.requantize_config(**modes):
        library = relay.build(tvm.IRModule.from_expr(function), target=program["target"])
    executor = graph_executor.GraphModule(library["default"](tvm.cpu()))
    for key, variable in inputs.items():
        executor.set_input(variable.name_hint, arrays[key])
    executor.run()
    return {call["result"]: executor.get_output(i).numpy() for i, call in enumerate(program["calls"])}


def main(cases_path, arrays_path, results_path):
    """Runs every program and writes the results, by the names that the calls give them."""
    with open(cases_path) as file:
        programs = json.load(file)
    arrays = dict(np.load(arrays_path))
    results = {}
    for program in programs:
        results.update(run(program, arrays))
    np.savez(results_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])

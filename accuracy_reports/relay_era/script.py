"""Runs one program with a Relay-era TVM; a script for that TVM's interpreter, which knows nothing of ours.

Usage: PYTHON script.py JOB.json RESULT.npz

JOB.json: {"inputs": INPUTS.npz, "opt_level": n, "target": t} and either {"text", "params"}, files of Relay text and its
parameters, or {"torchscript"}, a file for that TVM's own relay.frontend.from_pytorch.
RESULT.npz has out0, out1, ... Prints one line of JSON: seconds of import, build and run, and the names of the ops.
Or JOB.json: {"check": [TEXT, ...]}, files of Relay text to parse and type-check: prints what is wrong with each.
Or JOB.json: {"programs": [{... as above, "result"}, ...]}: runs each, and prints a list of what is wrong with each.
"""

import functools
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # no download of pre-tuned schedules

import numpy as np
import tvm
from tvm import relay
from tvm.contrib import graph_executor
from tvm.relay.backend import te_compiler

# Asked for every dimension of every op that is lowered, and made anew each time: half of a network's build time.
te_compiler.libinfo = functools.cache(tvm.support.libinfo)


def read(job: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """Returns the module and its parameters."""
    if "text" in job:
        with open(job["text"]) as text, open(job["params"], "rb") as params:
            return relay.parse(text.read()), relay.load_param_dict(params.read())
    import torch

    model = torch.jit.load(job["torchscript"]).eval()
    shapes = [(name, list(array.shape)) for name, array in inputs.items()]
    return relay.frontend.from_pytorch(model, shapes)


def ops_of(module: Any) -> list[str]:
    """Returns the names of the ops that a module calls, sorted."""
    found = set()
    relay.analysis.post_order_visit(
        module["main"], lambda node: found.add(node.name) if isinstance(node, tvm.ir.Op) else None
    )
    return sorted(found)


def check(path: str) -> str:
    """Returns what is wrong with a file of Relay text, "" if it is well typed."""
    with open(path) as file:
        text = file.read()
    try:
        relay.transform.InferType()(relay.parse(text))
    except (tvm.error.TVMError, AttributeError) as error:
        return str(error).strip().splitlines()[-1] or "refused"
    return ""


def main(job_path: str, result_path: str) -> None:
    """Does the job: checks texts, or runs programs."""
    with open(job_path) as file:
        job = json.load(file)
    if "check" in job:
        print(json.dumps([check(path) for path in job["check"]]))
    elif "programs" in job:
        print(json.dumps([error_of(program) for program in job["programs"]]))
    else:
        print(json.dumps(run(job, result_path)))


def error_of(job: dict[str, Any]) -> str:
    """Runs one of several programs and returns what kept it from running, "" for nothing."""
    try:
        run(job, job["result"])
    except Exception as error:  # whatever it is, it is this program's, and told
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1][:300]}"
    return ""


def run(job: dict[str, Any], result_path: str) -> dict[str, Any]:
    """Imports, type-checks, builds and runs one program; writes its outputs, returns seconds and ops."""
    inputs = dict(np.load(job["inputs"]))
    times = [time.perf_counter()]
    module, params = read(job, inputs)
    module = relay.transform.InferType()(module)
    times.append(time.perf_counter())
    with tvm.transform.PassContext(opt_level=job["opt_level"]):
        library = relay.build(module, target=job["target"], params=params)
    times.append(time.perf_counter())
    executor = graph_executor.GraphModule(library["default"](tvm.cpu()))
    for name, array in inputs.items():
        executor.set_input(name, array)
    executor.run()
    times.append(time.perf_counter())
    np.savez(result_path, **{f"out{i}": executor.get_output(i).numpy() for i in range(executor.get_num_outputs())})
    start, imported, built, ended = times
    seconds = {"import": imported - start, "build": built - imported, "run": ended - built}
    return {"seconds": seconds, "ops": ops_of(module)}


if __name__ == "__main__":
    main(*sys.argv[1:])

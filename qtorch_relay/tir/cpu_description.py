"""A function of the compiled library itself that tells what CPU it runs on.

A stock RPC server offers no way to ask: its file download takes a file's size from the file system, which is 0 for all
of /proc. So the library reads the file where it is loaded, before any other code of it runs. The function calls the C
library and nothing else: pointers and integers in general registers, which every CPU of the machine has.
"""

from __future__ import annotations

from qtorch_relay._tvm import IRBuilder, PrimFunc, T
from qtorch_relay.target import CPU_DESCRIPTION_BYTES, CPU_DESCRIPTION_FUNCTION, cpu_description_path


def cpu_description(machine: str | None) -> PrimFunc:
    """Returns a function that reads the beginning of what Linux tells of a CPU into uint8 [CPU_DESCRIPTION_BYTES].

    What is behind the file's end stays as it is; so does everything where there is no such file.
    """
    with IRBuilder() as builder, T.prim_func():
        T.func_name(CPU_DESCRIPTION_FUNCTION)
        T.func_attr({"global_symbol": CPU_DESCRIPTION_FUNCTION, "tirx.noalias": True})
        out = T.match_buffer(T.arg("out", T.handle()), [CPU_DESCRIPTION_BYTES], "uint8")
        file = T.bind(T.call_extern("handle", "fopen", cpu_description_path(machine), "rb"))
        with T.If(T.Not(T.isnullptr(file))), T.Then():
            T.evaluate(T.call_extern("int64", "fread", out.data, T.int64(1), T.int64(CPU_DESCRIPTION_BYTES), file))
            T.evaluate(T.call_extern("int32", "fclose", file))
    return builder.get()

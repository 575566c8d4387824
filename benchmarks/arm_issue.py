"""How well the inner loops of the ARM kernels use the processor, by llvm-mca's models: emulation says nothing of time.

python -m benchmarks.arm_issue [--mca PROGRAM] [--output FOLDER]

For each instruction set, CPU and kernel: the loop with the most products of the machine code for the CPU, its
multiply-accumulates (MACs) in a cycle, and what share that is of the same dot products alone, between registers. Where
something else limits the loop, what that is, and how much of it is reached. Writes arm_issue.json and arm_issue.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.llvm_mca import IN_ORDER, Simulation, newest_mca, simulate, version_of
from qtorch_relay import target
from qtorch_relay._tvm import tvm
from qtorch_relay.errors import told_and_exited
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.table import COMPATIBLE, select

RESULTS = Path(__file__).with_name("results")

MACS = {"usmmla": 32, "sdot": 16, "usdot": 16, "sudot": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8}
"""Products of an instruction."""

ISSUED = (*MACS, "sadalp")
"""The instructions of a dot product, which the peak has too."""

CPUS = {
    "arm-neon": ("cortex-a53", "cortex-a55", "cortex-a72"),
    "arm-dotprod": ("cortex-a55", "cortex-a76", "neoverse-n1", "neoverse-v1"),
    "arm-i8mm": ("cortex-a510", "neoverse-v1", "neoverse-n2"),
}
MODELLED_AS = {"cortex-a57", "cortex-a72", "cortex-a76"}
"""CPUs for which LLVM has the model of cortex-a57."""

BAR = 0.9
PRODUCTS, ONE_BY_ONE = "dot products", "instructions one by one"

FEATURES = {"arm-neon": "+neon", "arm-dotprod": "+dotprod", "arm-i8mm": "+dotprod,+i8mm"}

KERNELS: dict[str, Any] = {
    "conv 3x3": Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1)),
    "conv 3x3, first layer": Conv2dSpec(1, 224, 224, 3, 32, 3, 3, (2, 2), (1, 1, 1, 1)),
    "conv 1x1": Conv2dSpec(1, 14, 14, 256, 256, 1, 1),
    "dense, 64 rows": DenseSpec(64, 256, 512),
    "dense, 1 row": DenseSpec(1, 2048, 1000),
    "depthwise 3x3": Conv2dSpec(1, 28, 28, 192, 192, 3, 3, padding=(1, 1, 1, 1), groups=192),
}


@dataclass(frozen=True)
class Row:
    """A loop on a CPU.

    macs, instructions: of one iteration. macs_per_cycle, peak: of the loop, and of its dot products alone.
    limit, reached: what bounds the loop, and the share of it that is reached. stack: instructions that use the stack.
    by_guide: MACs per cycle by what Arm's guide says of the CPU, where the model says other things of loads; or None.
    """

    isa: str
    cpu: str
    kernel: str
    form: str
    macs: int
    instructions: int
    cycles: float
    macs_per_cycle: float
    peak: float
    limit: str
    reached: float
    stack: int
    by_guide: float | None = None

    @property
    def share(self) -> float:
        """Share of the peak."""
        return self.macs_per_cycle / self.peak


def kernels_of(isa: str, cpu: str) -> str:
    """Returns the kernels of a CPU's target if they are of an ISA or stand for its own, else those of the ISA."""
    own = target.resolve(cpu).kernels
    return own if own is not None and isa in COMPATIBLE[own] else isa


def assembly(isa: str, cpu: str, spec: Any) -> str:
    """Returns the machine code of a kernel for the target of a CPU, with the instructions of an ISA, as text."""
    kernel = select(kernels_of(isa, cpu), spec)
    module = tvm.IRModule({"kernel": kernel.build(spec).with_attr("global_symbol", "kernel")})
    tuned = replace(target.resolve(isa), mcpu=cpu, mattr=target.resolve(cpu).mattr)
    return str(tvm.compile(module, target=tuned.to_tvm()).mod.inspect_source("asm"))


def inner_loops(text: str) -> list[list[str]]:
    """Returns the instructions of every loop of one basic block that has products, without the jump back."""
    found = []
    for block in re.split(r"^(?=\.LBB\d+_\d+:)", text, flags=re.M)[1:]:
        label = block[: block.index(":")]
        code = [line.strip() for line in block.splitlines()[1:] if re.match(r"\t[a-z]", line)]
        ends = [index for index, line in enumerate(code) if re.match(rf"(b\.\w+|cbn?z|tbn?z|b)\s.*{label}$", line)]
        if ends and macs_of(code[: ends[0]]):
            found.append(code[: ends[0]])
    return found


def macs_of(code: Sequence[str]) -> int:
    """Returns the multiply-accumulates of some instructions."""
    return sum(MACS.get(line.split()[0], 0) for line in code)


def on_stack(code: Sequence[str]) -> int:
    """Returns how many instructions read or write the stack."""
    return sum("[sp" in line for line in code)


def _peak_code(code: Sequence[str]) -> list[str]:
    """Returns the dot products of a loop between registers, as far from each other as they depend on each other."""
    kinds = {line.split()[0] for line in code} & set(ISSUED)
    products = {"smull": "v30.8b, v31.8b", "smull2": "v30.16b, v31.16b", "smlal2": "v30.16b, v31.16b"}
    if "sadalp" in kinds:
        orders = (("smull", "smlal2", "sadalp"),) if "smlal2" in kinds else (("smull", "sadalp"), ("smull2", "sadalp"))
        return [
            f"sadalp v{16 + index}.4s, v{index}.8h" if name == "sadalp" else f"{name} v{index}.8h, {products[name]}"
            for order in orders
            for name in order
            for index in range(12)
        ]
    # usdot by element is sudot
    name = min(kinds & {"sdot", "sudot", "usdot", "usmmla"})
    second = "v31.16b" if name in ("usdot", "usmmla") else "v31.4b[0]"
    return [f"{name} v{index}.4s, v30.16b, {second}" for index in range(24)]


def measure(mca: str, isa: str, cpu: str, name: str, spec: Any) -> Row:
    """Returns the row of a kernel: of its loops, the one with the most products."""
    loop = max(inner_loops(assembly(isa, cpu, spec)), key=macs_of)
    ran = simulate(mca, cpu, FEATURES[isa], loop)
    peak_code = _peak_code(loop)
    alone = simulate(mca, cpu, FEATURES[isa], peak_code)
    form = select(kernels_of(isa, cpu), spec).form(spec) or ""
    rates = macs_of(loop) / ran.cycles, macs_of(peak_code) / alone.cycles
    limit = _limit(cpu, ran, rates[0] / rates[1])
    by_guide = macs_of(loop) / cycles_by_guide(loop) if cpu == "cortex-a55" else None
    return Row(isa, cpu, name, form, macs_of(loop), len(loop), ran.cycles, *rates, *limit, on_stack(loop), by_guide)


def cycles_by_guide(code: Sequence[str]) -> float:
    """Returns the cycles of a loop by what the Cortex-A55's guide says of the width of instructions, without waits.

    Two instructions are issued in a cycle, of which one at most works on 128 bits; to load or store 128 bits takes two
    cycles alone.
    Source: Arm's Cortex-A55 Software Optimization Guide as the SLOTHY optimizer's model has it, and the kernels that
    ONNX Runtime has for this CPU (microsoft/onnxruntime, pull request 10754).
    """
    moved = sum(2 * len(re.findall(r"\bq\d+", line)) for line in code if re.match(r"(ld|st)[a-z0-9]*\s+q", line))
    moves = sum(bool(re.match(r"(ld|st)[a-z0-9]*\s+q", line)) for line in code)
    wide = sum(bool(re.match(r"(?!ld|st)\S+\s+v\d+\.(16b|8h|4s|2d)", line)) for line in code)
    return moved + max(wide, (len(code) - moves) / 2)


def _limit(cpu: str, ran: Simulation, share: float) -> tuple[str, float]:
    """Returns what bounds a loop that has this share of its products' peak, and how much of that it reaches."""
    if share >= BAR:
        return PRODUCTS, min(share, 1.0)
    if cpu in IN_ORDER:
        return ONE_BY_ONE, min(ran.one_by_one / ran.cycles, 1.0)
    return ran.busiest_unit, min(ran.busiest_cycles / ran.cycles, 1.0)


def specs_of(isa: str) -> dict[str, Any]:
    """Returns the kernels as an instruction set computes them, with both forms where there are two."""
    if isa != "arm-neon":
        return KERNELS
    return {
        name if form == "s16" else f"{name}, unproven": replace(spec, pair_sums=form)
        for name, spec in KERNELS.items()
        for form in ("s16", "s32")
        if form == "s16" or name in ("conv 3x3", "conv 1x1")
    }


def to_markdown(rows: Sequence[Row], model: str) -> str:
    """Returns a table."""
    columns = ("ISA", "CPU model", "kernel", "dot products", "limit", "reached", "MACs / cycle", "peak")
    columns += ("share of peak", "instructions", "MACs / instruction", "on the stack")
    lines = [
        f"Made by `python -m benchmarks.arm_issue` with {model}. One iteration of the loop with the most products.",
        "MACs are multiply-accumulates. Peak is that of the loop's dot products alone, between registers;",
        "requantization counts in the loop, not in the peak. Limit is what bounds the loop, and reached the share of",
        f"it: the products where they have {BAR:.0%} of their peak; else on processors that run instructions in any",
        "order the unit that works most of the cycles, and on those that run them in order all instructions one by",
        "one, each at the rate of many like it (there the models let few loads go beside a product).",
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|---|---|---" + "|---:" * (len(columns) - 5) + "|",
    ]
    for row in rows:
        cpu = f"{row.cpu} (as cortex-a57)" if row.cpu in MODELLED_AS else row.cpu
        figures = (f"{row.reached:.0%}", f"{row.macs_per_cycle:.1f}", f"{row.peak:.1f}", f"{row.share:.0%}")
        counts = (str(row.instructions), f"{row.macs / row.instructions:.1f}", str(row.stack))
        lines.append(f"| {' | '.join((row.isa, cpu, row.kernel, row.form, row.limit, *figures, *counts))} |")
    return "\n".join([*lines, *_guide_notes(rows)]) + "\n"


def _guide_notes(rows: Sequence[Row]) -> list[str]:
    """Returns what a guide says of rows, if it says other things than the model."""
    told = [f"{row.isa} {row.kernel} {row.by_guide / row.peak:.0%}" for row in rows if row.by_guide is not None]
    if not told:
        return []
    return [
        "",
        "Where guide and model of the Cortex-A55 differ: for the model a load at a constant offset or an addition",
        "costs a cycle, while a load at an offset in a register goes beside a product, however wide. By Arm's guide",
        "(sources: `cycles_by_guide`) additions and loads of 64 bits go beside a product, and 128 bits take two cycles",
        "alone. So kernels for it load activations 64 bits at a time, and all from offsets in registers. By the guide",
        "their shares of the peak are at most:",
        "",
        *(f"- {line}" for line in told),
        "",
        "A single row uses each weight once, and 16 products take 128 bits: a third of the peak there.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mca", help="LLVM's machine code analyzer, 17 or newer; default: the newest found")
    parser.add_argument("--isa", default="", help="only this one")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    mca = options.mca or newest_mca()
    model = "llvm-mca of LLVM {}.{}".format(*version_of(mca))
    rows = []
    for isa, cpus in CPUS.items():
        if options.isa not in ("", isa):
            continue
        for cpu in cpus:
            for name, spec in specs_of(isa).items():
                rows.append(measure(mca, isa, cpu, name, spec))
                print(to_markdown(rows[-1:], model).splitlines()[-1], flush=True)
    data = {"model": model, "rows": [{**asdict(row), "share": row.share} for row in rows]}
    (options.output / "arm_issue.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.output / "arm_issue.md").write_text(to_markdown(rows, model))


if __name__ == "__main__":
    with told_and_exited():
        main()

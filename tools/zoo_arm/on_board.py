"""Run on the board: `python -m tools.zoo_arm.on_board BUNDLE INPUTS.npz OUTPUTS.npz` runs a bundle as a user's program
would, and prints as JSON which of its programs that was and how much memory it took.

The emulator's own memory, with the code that it translates, is not counted: it gives the program /proc/self/maps with
the program's own ranges alone, but passes /proc/self/smaps through.
"""

import json
import re
import sys

_RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")


def resident_bytes() -> int:
    """Returns the resident memory in this program's ranges."""
    with open("/proc/self/maps") as file:
        ranges = [_limits(line) for line in file]
    total, counts = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if _RANGE.match(line):
                start, end = _limits(line)
                counts = any(low <= start and end <= high for low, high in ranges)
            elif counts and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
    return total


def _limits(line: str) -> tuple[int, int]:
    found = _RANGE.match(line)
    assert found is not None, line
    return int(found[1], 16), int(found[2], 16)


def main() -> None:
    """Runs a bundle; memory_bytes is what it takes then, with numpy and TVM's runtime, beyond the interpreter alone."""
    interpreter_bytes = resident_bytes()
    from pathlib import Path

    from qtorch_relay.runtime import load
    from qtorch_relay.runtime.arrays import read_arrays, write_arrays

    bundle, inputs, outputs = map(Path, sys.argv[1:])
    model = load(bundle)
    found = model.run_flat(list(read_arrays(inputs).values()))
    memory_bytes = resident_bytes() - interpreter_bytes
    write_arrays(outputs, [(spec.name, array) for spec, array in zip(model.outputs, found, strict=True)])
    names = [spec.name for spec in model.outputs]
    print(json.dumps({"target": model.target.name, "outputs": names, "memory_bytes": memory_bytes}))


if __name__ == "__main__":
    main()

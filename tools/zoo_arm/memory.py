"""Run on the board: `python -m tools.zoo_arm.memory BUNDLE` prints how much memory the interpreter, the imports, the
loaded bundle and a run take, as JSON.

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
    """Measures after each step of running a bundle."""
    found = {"interpreter": resident_bytes()}
    from qtorch_relay.runtime import load
    from qtorch_relay.runtime.ffi import tvm_ffi

    tvm_ffi()
    found["imports"] = resident_bytes()
    model = load(sys.argv[1])
    found["loaded"] = resident_bytes()
    model.self_test()
    found["run"] = resident_bytes()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Which of several programs for different targets a CPU is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtorch_relay.errors import TargetError
from qtorch_relay.target import Target, check_runnable, host_cpu, why_not_runnable


def most_able(targets: Sequence[Target], lacks: Callable[[Target], str | None] = why_not_runnable) -> int | None:
    """Returns the place of the target that asks most of a CPU among those it runs; None if it runs none.

    lacks: says what a CPU lacks to run a target, or None; by default this host's.

    A target with int8 kernels is preferred to one without. Of two with kernels the one that needs more CPU flags has
    the better instructions: each ISA's flags include those of the ISAs before it.
    """
    runnable = [place for place, target in enumerate(targets) if lacks(target) is None]
    return max(runnable, key=lambda i: (targets[i].has_kernels, len(targets[i].cpu_flags), i), default=None)


def named(targets: Sequence[Target], name: str) -> int:
    """Returns the place of the target with a name.

    Raises:
        TargetError: there is no such.
    """
    names = [target.name for target in targets]
    if name not in names:
        raise TargetError(f"it has no program for {name}, only for {', '.join(names)}")
    return names.index(name)


def choose(targets: Sequence[Target], wanted: str | None = None) -> int:
    """Returns the place of the most able target this CPU runs, or of the wanted one.

    Raises:
        TargetError: this CPU runs none of them, or not the wanted one, or there is no such.
    """
    if wanted is not None:
        place = named(targets, wanted)
        check_runnable(targets[place])
        return place
    found = most_able(targets)
    if found is not None:
        return found
    if len(targets) == 1:
        check_runnable(targets[0])
    needs = "; ".join(f"{target.name} ({target.isa}) needs {why_not_runnable(target)}" for target in targets)
    raise TargetError(f"this host ({host_cpu().model}) runs none of its {len(targets)} programs: {needs}")

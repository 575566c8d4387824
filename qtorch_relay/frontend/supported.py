"""The table of ops that can be imported, made from the registry."""

from __future__ import annotations

from qtorch_relay.frontend import ops as _ops  # noqa: F401  (fills the registry)
from qtorch_relay.frontend.importer import STRUCTURAL
from qtorch_relay.frontend.registry import CONVERTERS


def supported_ops() -> list[dict[str, str]]:
    """Returns one row per op that can be imported: its torch name ("op"), what it becomes ("lowering"), its schema.

    A name without an overload stands for all overloads of that op.
    """
    rows = [
        {"op": op, "lowering": found.lowering, "schema": _schema(found.convert)} for op, found in CONVERTERS.items()
    ]
    rows += [{"op": op, "lowering": "followed at import", "schema": ""} for op in STRUCTURAL]
    return sorted(rows, key=lambda row: row["op"])


def _schema(convert: object) -> str:
    """Returns the first line of a converter's docstring, which is the schema it converts."""
    return (convert.__doc__ or "").strip().split("\n")[0]

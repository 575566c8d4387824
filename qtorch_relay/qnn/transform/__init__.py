"""Passes on modules of the dialect: qnn.* in, qnn.* or plain Relax out."""

from qtorch_relay.qnn.transform.canonicalize import CanonicalizeOps

__all__ = ["CanonicalizeOps"]

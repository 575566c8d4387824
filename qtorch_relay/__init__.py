"""PyTorch int8 models to exact, fast programs: Relay's QNN dialect on Relax, int8 kernels, one-file bundles.

    import qtorch_relay as qr
    compiled = qr.compile("model.pt", [("x", (1, 3, 224, 224))], target="host")
    compiled(x); compiled.save("model.qtr"); qr.load("model.qtr")

Names are resolved on first use, so that a board that only runs bundles needs neither torch nor TVM's compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qtorch_relay._version import __version__

if TYPE_CHECKING:
    from qtorch_relay import qnn, relay
    from qtorch_relay.errors import QTorchRelayError
    from qtorch_relay.frontend.supported import supported_ops
    from qtorch_relay.pipeline import compile, from_pytorch
    from qtorch_relay.runtime import CompiledModel, load, set_num_threads
    from qtorch_relay.target import targets

_HOMES = {
    "QTorchRelayError": "qtorch_relay.errors",
    "CompiledModel": "qtorch_relay.runtime",
    "compile": "qtorch_relay.pipeline",
    "from_pytorch": "qtorch_relay.pipeline",
    "load": "qtorch_relay.runtime",
    "set_num_threads": "qtorch_relay.runtime",
    "supported_ops": "qtorch_relay.frontend.supported",
    "targets": "qtorch_relay.target",
}

__all__ = [
    "CompiledModel",
    "QTorchRelayError",
    "__version__",
    "compile",
    "from_pytorch",
    "load",
    "qnn",
    "relay",
    "set_num_threads",
    "supported_ops",
    "targets",
]


def __getattr__(name: str) -> Any:
    if name in ("qnn", "relay"):
        return importlib.import_module(f"qtorch_relay.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'qtorch_relay' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

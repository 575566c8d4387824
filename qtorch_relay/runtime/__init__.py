"""Runs compiled programs and keeps them in one-file bundles; building one (`runtime.build`) is imported on its own.

Importing this package imports neither torch nor TVM; running a bundle loads TVM's runtime library alone.
"""

from qtorch_relay.runtime.bundle import load
from qtorch_relay.runtime.compiled_model import CompiledModel
from qtorch_relay.runtime.specs import TensorSpec
from qtorch_relay.runtime.structure import Structure
from qtorch_relay.runtime.threads import get_num_threads, set_num_threads

__all__ = ["CompiledModel", "Structure", "TensorSpec", "get_num_threads", "load", "set_num_threads"]

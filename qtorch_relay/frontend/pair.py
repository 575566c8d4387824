"""A module and its weights as a caller hands them over: what from_pytorch returned, or a change of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qtorch_relay._tvm import TensorType, relax, tvm
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.frontend.importer import ImportedModule

_ACCEPTED = "accepted is (mod, params) as from_pytorch returns it"


def import_pair(pair: tuple[Any, ...]) -> ImportedModule:
    """Returns the imported module of a pair (mod, params); params are tvm tensors, numpy arrays or torch tensors.

    Raises: InvalidInputError if it is no such pair, or the weights are not the parameters of main after its inputs.
    """
    if len(pair) != 2 or not isinstance(pair[0], tvm.IRModule) or not isinstance(pair[1], Mapping):
        raise InvalidInputError(f"the model is a tuple of {[type(item).__name__ for item in pair]}; {_ACCEPTED}")
    mod, params = pair
    if "main" not in [variable.name_hint for variable in mod.get_global_vars()]:
        raise InvalidInputError(f"the module has no function main; {_ACCEPTED}")
    main = mod["main"]
    arrays = {name: _array(name, value) for name, value in params.items()}
    types = {parameter.name: parameter.ty for parameter in main.params}
    foreign = [name for name in arrays if name not in types]
    if foreign:
        raise InvalidInputError(f"main has no parameter for the weights {', '.join(map(str, foreign))}; {_ACCEPTED}")
    if "num_input" in main.attrs:
        missing = [name for name in list(types)[int(main.attrs["num_input"]) :] if name not in arrays]
        if missing:
            raise InvalidInputError(f"the weights {', '.join(missing)} of main are missing; {_ACCEPTED}")
    for name, array in arrays.items():
        _check_type(name, array, types[name])
    return ImportedModule(mod, arrays, ())


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "numpy"):
        raise InvalidInputError(f"weight {name} is a {type(value).__name__}; accepted are tvm tensors and numpy arrays")
    array: np.ndarray[Any, Any] = value.numpy()
    return array


def _check_type(name: str, array: np.ndarray[Any, Any], found: Any) -> None:
    if not isinstance(found, TensorType) or not isinstance(found.shape, relax.ShapeExpr):
        return
    shape = tuple(int(n) for n in found.shape.values)
    if array.shape != shape or str(array.dtype) != str(found.dtype):
        raise InvalidInputError(
            f"weight {name} is {array.dtype} {list(array.shape)}; main takes {found.dtype} {list(shape)}"
        )

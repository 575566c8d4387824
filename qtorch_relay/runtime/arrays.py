"""Arrays in .npy and .npz files, as inputs and outputs of a model."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay.errors import InvalidInputError, OutputPathError
from qtorch_relay.output_files import atomic_write, check_output_path

Arrays = dict[str, npt.NDArray[Any]]
_UNNAMED = "arr_"


def read_arrays(path: Path) -> Arrays:
    """Returns the arrays of a .npz file by name, or the one of a .npy file as "arr_0". Nothing is unpickled.

    Raises:
        InvalidInputError: the file is missing, damaged, or holds Python objects.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {f"{_UNNAMED}0": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise InvalidInputError(f"{path}: there is no such file") from None
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path} is not a .npy or .npz file of plain arrays: {error}") from error
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]  # numpy gives their bytes
    if foreign or not arrays:
        raise InvalidInputError(
            f"{path} is not a .npy or .npz file of plain arrays: "
            + (f"its member {foreign[0]} is no array" if foreign else "it holds nothing")
        )
    return arrays


def check_array_path(path: Path, count: int | None = None) -> None:
    """Raises OutputPathError if so many arrays cannot be written at path; None = how many is not known yet."""
    check_output_path(path)
    if path.suffix not in (".npy", ".npz"):
        raise OutputPathError(f"cannot write {path}: give a name that ends in .npy or .npz")
    if path.suffix == ".npy" and count is not None and count != 1:
        raise OutputPathError(f"cannot write {path}: the model has {count} outputs; give a name that ends in .npz")


def write_arrays(path: Path, arrays: Sequence[tuple[str, npt.NDArray[Any]]]) -> None:
    """Writes named arrays as .npz, or a single one as .npy; whole or not at all."""
    check_array_path(path, len(arrays))
    with atomic_write(path) as file:
        if path.suffix == ".npy":
            np.save(file, arrays[0][1], allow_pickle=False)
        else:
            np.savez(file, **dict(arrays), allow_pickle=False)


def are_unnamed(arrays: Mapping[str, Any]) -> bool:
    """Says whether the arrays have only the names numpy gives: then their order counts."""
    return all(name.startswith(_UNNAMED) for name in arrays)


def input_infos_of(arrays: Arrays) -> list[tuple[str, tuple[tuple[int, ...], str]]]:
    """Returns input_infos that describe arrays; unnamed ones become x0, x1, ..."""
    names = [f"x{i}" for i in range(len(arrays))] if are_unnamed(arrays) else list(arrays)
    return [(name, (array.shape, str(array.dtype))) for name, array in zip(names, arrays.values(), strict=True)]

"""Reads TorchScript files and exported programs; every way a file can be wrong is one sentence."""

from __future__ import annotations

import importlib
import os
import zipfile
import zlib
from pathlib import Path

import torch

from qtorch_relay.errors import ModelFileError

_HOW_TO_SAVE = "save the model with torch.jit.save(torch.jit.trace(model, example), path)"


def load_model(path: str | os.PathLike[str]) -> torch.jit.ScriptModule | torch.export.ExportedProgram:
    """Returns the TorchScript model of a file, on the CPU, packed for the engine that is set now; of a .pt2 file the
    exported program.

    Raises: ModelFileError if the file is missing, truncated, or neither.
    """
    if not os.fspath(path):
        raise ModelFileError("the path of the model is empty; give the path of a TorchScript file")
    file = Path(path)
    if not file.exists():
        raise ModelFileError(f"{file}: no such file")
    if file.is_dir():
        raise ModelFileError(f"{file} is a directory; give the path of a TorchScript file")
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.split("/", 1)[-1] for name in archive.namelist()}
            # torch.jit.load ignores the checksums: altered weights would be imported, altered code may crash it.
            altered = archive.testzip()
    except zipfile.BadZipFile:
        head = file.read_bytes()[:2] if file.is_file() else b""
        problem = "is truncated or damaged; save it again" if head == b"PK" else f"is not TorchScript; {_HOW_TO_SAVE}"
        raise ModelFileError(f"{file} {problem}") from None
    except OSError as error:
        raise ModelFileError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        # a directory of members that no zip file has: names that are no text, unknown or encrypted contents
        raise ModelFileError(f"{file} is damaged ({error}); save it again") from error
    if altered is not None:
        raise ModelFileError(f"{file} is damaged: the checksum of its member {altered} differs; save it again")
    if "manifest.json" in names and any(name.endswith(".so") for name in names):
        raise ModelFileError(
            f"{file} is a bundle, compiled already: qtorch_relay.load reads it, "
            "`qtorch-relay run` too if it is named .qtr"
        )
    if file.suffix == ".pt2":
        return _load_program(file)
    if "constants.pkl" not in names:
        what = "holds pickled Python objects (torch.save)" if "data.pkl" in names else "is a zip file"
        raise ModelFileError(f"{file} {what}, not TorchScript; {_HOW_TO_SAVE}")
    return _load(file)


def _load_program(file: Path) -> torch.export.ExportedProgram:
    # Registers the ops quantized_decomposed::*, without which torch.export.load does not know them.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    try:
        return torch.export.load(str(file))
    except Exception as error:  # torch.export.load has no list of what it raises: KeyError, AssertionError, JSON errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{file} cannot be loaded; torch.export.load says: {reason}") from error


def _load(file: Path) -> torch.jit.ScriptModule:
    try:
        model: torch.jit.ScriptModule = torch.jit.load(str(file), map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelFileError(f"{file} cannot be loaded; torch.jit.load says: {reason}") from error
    return model

"""The float model to quantize: a function of the user's, or a file, of which nothing is run."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.fusion import first_line
from qtorch_relay.errors import CalibrationError, ModelFileError, QTorchRelayError

ACCEPTED = (
    "accepted are package.module:function, a function without arguments that returns the float nn.Module (with "
    "--weights FILE for its state dict), and a file of torch.save that holds a module of torch.nn's own layers"
)
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def open_float_model(source: str, weights: Path | None = None) -> nn.Module:
    """Returns a float model in eval mode.

    Args:
        source: package.module:function, looked for in the current folder too; or the path of a file.
        weights: a state dict of torch.save for the model, as a checkpoint holds it.

    Raises:
        ModelFileError: a file is missing or cannot be read.
        CalibrationError: it is something else than a float module; the message says what is accepted.
    """
    model = _call(source) if _FUNCTION.fullmatch(source) and not Path(source).exists() else _load(Path(source))
    if isinstance(model, torch.jit.ScriptModule):
        raise CalibrationError(
            f"{source} returns TorchScript, which torch.fx and eager mode cannot quantize; {ACCEPTED}"
        )
    if not isinstance(model, nn.Module):
        raise CalibrationError(f"{source} gives a {type(model).__name__}, not an nn.Module; {ACCEPTED}")
    if any(
        type(module).__module__.startswith("torch.ao.nn.quantized") for module in model.modules() if _is_int8(module)
    ):
        raise CalibrationError(f"{source} is quantized already; save it with torch.jit.save and compile it")
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _is_int8(module: nn.Module) -> bool:
    return not isinstance(module, torch.ao.nn.quantized.FloatFunctional)


def _call(source: str) -> Any:
    module_name, name = source.split(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise CalibrationError(
            f"{source}: there is no module {error.name}; run this where it can be imported (PYTHONPATH)"
        ) from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise CalibrationError(f"{source}: importing {module_name} raises {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise CalibrationError(f"{source}: {module_name} has no function {name}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise CalibrationError(f"{source}: {name} is called without arguments, but: {error}") from None
    try:
        return function()
    except QTorchRelayError:
        raise
    except Exception as error:  # it is the user's, and may raise anything
        raise CalibrationError(f"{source} raises {_told(error)}") from error


def _told(error: Exception) -> str:
    """Returns an error's type, what it says and the line that raised it."""
    *_, frame = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {first_line(error)} ({frame.filename}:{frame.lineno})"


def _load(path: Path) -> Any:
    if not path.exists():
        raise ModelFileError(f"{path}: no such file, and not package.module:function either; {ACCEPTED}")
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; {ACCEPTED}")
    members = _members(path)
    if path.suffix == ".pt2" or "serialized_exported_program.json" in members or "models/model.json" in members:
        raise CalibrationError(
            f"{path} is an exported program: its layers are ops already, which torch.fx's quantization does not know; "
            f"{ACCEPTED}"
        )
    if "constants.pkl" in members:
        raise CalibrationError(
            f"{path} is TorchScript, which torch.fx and eager mode cannot quantize: quantize the Python module it was "
            f"made from; {ACCEPTED}"
        )
    loaded = load_data(path)
    if isinstance(loaded, dict):
        raise CalibrationError(
            f"{path} holds weights without the module they belong to; give package.module:function as the model, and "
            f"this file with --weights"
        )
    return loaded


def _members(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.split("/", 1)[-1] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return set()


def load_data(path: Path) -> Any:
    """Returns what a file of torch.save holds: tensors and modules of torch.nn's own classes, nothing else.

    Raises: ModelFileError if it is damaged, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(_torch_layers()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no list of what it raises
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is not None:
            raise ModelFileError(
                f"{path} holds a pickled {found[1]}, which could run anything, so it is not unpickled; {ACCEPTED}"
            ) from None
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ModelFileError(f"{path} is no file of torch.save, or damaged ({reason}); {ACCEPTED}") from None


def _torch_layers() -> list[Any]:
    layers = [value for value in vars(nn).values() if isinstance(value, type) and issubclass(value, nn.Module)]
    stubs = [torch.ao.quantization.QuantStub, torch.ao.quantization.DeQuantStub]
    return [*layers, *stubs, torch.ao.nn.quantized.FloatFunctional, set]


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    weights = load_data(path)
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelFileError(f"{path} holds no state dict: names with tensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CalibrationError(f"{path} does not fit the model: {' '.join(lines[1:3] or lines)}") from None

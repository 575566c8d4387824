"""A PyTorch model as ONNX with QuantizeLinear and DequantizeLinear, in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from qtorch_relay.peers.onnx_symbolics import DYNAMIC_OP, OPSET, symbolics_for
from qtorch_relay.peers.timing import PeerUnavailableError

Arrays = list[npt.NDArray[Any]]
ONNX_RUNTIME, OPENVINO = "ONNX Runtime", "OpenVINO"
MAX_REASON = 200
_GRAPH_NODE = re.compile(r"`%[^`]*? = (\w+::\w+)[^`]*`")
INSTALL = "pip install 'qtorch-relay[peers]'"


def export_for_peers(model: torch.nn.Module, examples: Sequence[torch.Tensor]) -> dict[str, bytes]:
    """Returns a model as ONNX for each of the peers, in the form that it runs fastest.

    It is the same for all but for dynamically quantized layers: ONNX Runtime has kernels for dynamic quantization and
    integer products as ONNX writes them; OpenVINO is twice as fast from int8 weights and float activations.

    Raises: PeerUnavailableError as export_onnx does.
    """
    exported = export_onnx(model, examples)
    if DYNAMIC_OP not in exported:
        return dict.fromkeys(STARTS, exported)
    return {ONNX_RUNTIME: exported, OPENVINO: export_onnx(model, examples, dynamic_activations=False)}


def export_onnx(model: torch.nn.Module, examples: Sequence[torch.Tensor], *, dynamic_activations: bool = True) -> bytes:
    """Returns a model as ONNX, its inputs named x0, x1, ...; quantized ops become Q/DQ pairs around float ops.

    dynamic_activations: False leaves the activations of dynamically quantized layers in float, the weights in int8.

    Raises: PeerUnavailableError if onnx is missing or PyTorch's exporter does not take the model.
    """
    try:
        import onnx  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise PeerUnavailableError(f"onnx is not installed; {INSTALL}") from error
    file = io.BytesIO()
    names = [f"x{i}" for i in range(len(examples))]
    try:
        with warnings.catch_warnings(), symbolics_for(model, dynamic_activations), _without_graphs():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, tuple(examples), file, dynamo=False, input_names=names, opset_version=OPSET)
    except (RuntimeError, TypeError, torch.onnx.errors.OnnxExporterError) as error:  # the exporter's own failures
        raise PeerUnavailableError(f"the export to ONNX fails: {_in_one_line(error)}") from error
    return file.getvalue()


def _without_graphs() -> AbstractContextManager[Any]:
    """Keeps the exporter from printing pages of graph when it fails.

    It logs them whatever it is told: it asks whether the function that says so exists, not what it says.
    """
    return patch.object(torch._C, "_jit_onnx_log", lambda *_: None)


def _in_one_line(error: Exception) -> str:
    """Returns the first sentence of an error, of a node in the graph only its op."""
    return _GRAPH_NODE.sub(r"\1", str(error)).strip().splitlines()[0].split(". ")[0][:MAX_REASON]


def onnxruntime_session(model: bytes, num_threads: int) -> Callable[[Sequence[npt.NDArray[Any]]], Arrays]:
    """Returns a function that runs an ONNX model in ONNX Runtime on the CPU.

    Raises: PeerUnavailableError if onnxruntime is missing or refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PeerUnavailableError(f"onnxruntime is not installed; {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        raise PeerUnavailableError(f"ONNX Runtime refuses the model: {str(error).splitlines()[0]}") from error
    names = [given.name for given in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def openvino_request(model: bytes, num_threads: int) -> Callable[[Sequence[npt.NDArray[Any]]], Arrays]:
    """Returns a function that runs an ONNX model in OpenVINO on the CPU, set for latency.

    Raises: PeerUnavailableError if openvino is missing or refuses the model.
    """
    try:
        import openvino
    except ImportError as error:
        raise PeerUnavailableError(f"openvino is not installed; {INSTALL}") from error
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    try:
        request = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise PeerUnavailableError(f"OpenVINO refuses the model: {str(error).splitlines()[0]}") from error
    # Inputs are copied into the request and outputs out of it, as a caller with arrays of their own needs it.
    return lambda arrays: [np.array(value) for value in request.infer(list(arrays)).values()]


STARTS = {ONNX_RUNTIME: onnxruntime_session, OPENVINO: openvino_request}


def onnx_programs(
    models: Mapping[str, bytes], arrays: Sequence[npt.NDArray[Any]], num_threads: int
) -> tuple[dict[str, Callable[[], Arrays]], dict[str, str]]:
    """Returns what runs ONNX models on these inputs, by peer, and for each that does not take its own the reason."""
    calls: dict[str, Callable[[], Arrays]] = {}
    missing: dict[str, str] = {}
    for name, model in models.items():
        try:
            calls[name] = partial(STARTS[name](model, num_threads), arrays)
        except PeerUnavailableError as error:
            missing[name] = str(error)
    return calls, missing

"""The programs a user would run instead: PyTorch, and ONNX Runtime and OpenVINO on the same model; and fair timing."""

from qtorch_relay.peers.onnx import export_onnx, onnxruntime_session, openvino_request
from qtorch_relay.peers.timing import PeerUnavailableError, interleave
from qtorch_relay.peers.torch_program import torch_program

__all__ = [
    "PeerUnavailableError",
    "export_onnx",
    "interleave",
    "onnxruntime_session",
    "openvino_request",
    "torch_program",
]

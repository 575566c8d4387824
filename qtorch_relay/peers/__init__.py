"""The programs a user would run instead: PyTorch, and ONNX Runtime and OpenVINO on the same model; and fair timing."""

from qtorch_relay.peers.onnx import STARTS, export_for_peers, export_onnx, onnx_programs, onnxruntime_session
from qtorch_relay.peers.timing import PeerUnavailableError, interleave
from qtorch_relay.peers.torch_program import torch_program

__all__ = [
    "STARTS",
    "PeerUnavailableError",
    "export_for_peers",
    "export_onnx",
    "interleave",
    "onnx_programs",
    "onnxruntime_session",
    "torch_program",
]

"""The programs a user would run instead: PyTorch, and ONNX Runtime and OpenVINO on the same model; and fair timing."""

from qtorch_relay.peers.onnx import STARTS, export_for_peers, export_onnx, onnx_programs, onnxruntime_session
from qtorch_relay.peers.program import Logits, Program
from qtorch_relay.peers.timing import PeerUnavailableError, interleave
from qtorch_relay.peers.torch_program import frozen_runner, torch_program

__all__ = [
    "STARTS",
    "Logits",
    "PeerUnavailableError",
    "Program",
    "export_for_peers",
    "export_onnx",
    "frozen_runner",
    "interleave",
    "onnx_programs",
    "onnxruntime_session",
    "torch_program",
]

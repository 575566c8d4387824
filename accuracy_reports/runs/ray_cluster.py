"""Accuracy runs on the machines of a Ray cluster.

The model files are sent to the workers; the images must lie at the same path on every machine.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accuracy_reports.runs.chunks import ChunkResult, Evaluator
from accuracy_reports.runs.coordinator import Schedule
from accuracy_reports.runs.ending import Ending, WorkerLostError
from accuracy_reports.runs.setup import Setup
from accuracy_reports.runs.sharing import share_chunks
from qtorch_relay.errors import QTorchRelayError, RemoteError
from qtorch_relay.runtime.remote_address import parse_address

AUTO = "auto"
_CLIENT = "ray://"
_CONNECT_TIMEOUT_S = 10.0
_FILES = ("bundle", "int8_model", "float_model", "onnx_model")
# A worker imports PyTorch and opens the programs; a cluster that lacks the CPUs for it never starts it.
_START_TIMEOUT_S = 300.0
# What workers answer is small, and Ray takes a third of the memory if it is not told.
_OBJECT_STORE_BYTES = 256 << 20


class ClusterError(QTorchRelayError):
    """Ray is not installed, or there is no cluster where it was looked for."""


class _Evaluation:
    """What runs in a process of the cluster."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="qtorch_relay_")
        self._evaluator: Evaluator | None = None

    def open(self, setup: Setup, files: dict[str, bytes]) -> str:
        """Opens the programs and the images; returns where this is."""
        paths: dict[str, Any] = {
            name: Path(self._folder.name) / f"{name}{getattr(setup, name).suffix}" for name in files
        }
        for name, path in paths.items():
            path.write_bytes(files[name])
        self._evaluator = Evaluator(replace(setup, **paths))
        return f"process {os.getpid()} of {os.uname().nodename}"

    def evaluate(self, chunk: int) -> ChunkResult:
        """Returns a chunk's result."""
        assert self._evaluator is not None
        return self._evaluator.evaluate(chunk)


class RayWorker:
    """A process of the cluster that evaluates chunks."""

    def __init__(self, ray: Any, setup: Setup, files: Any, ending: Ending) -> None:
        """Starts it, when the cluster has CPUs for it.

        Raises:
            WorkerLostError: it died meanwhile, or did not start in time.
            QTorchRelayError: it cannot open the programs or the images.
        """
        self._ray, self._ending = ray, ending
        self.name = "a Ray worker"
        self._actor = ray.remote(num_cpus=setup.threads, max_restarts=0)(_Evaluation).remote()
        try:
            self.name = self._get(self._actor.open.remote(setup, files), _START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def evaluate(self, chunk: int) -> ChunkResult:
        """Returns a chunk's result. Raises: WorkerLostError if the process or its machine died."""
        result: ChunkResult = self._get(self._actor.evaluate.remote(chunk), None)
        return result

    def close(self) -> None:
        """Ends the process."""
        self._ray.kill(self._actor)

    def _get(self, reference: Any, timeout_s: float | None) -> Any:
        errors = self._ray.exceptions
        try:
            with self._ending.interrupted_by(self.close):
                return self._ray.get(reference, timeout=timeout_s)
        except errors.GetTimeoutError as error:
            raise WorkerLostError(
                f"{self.name} did not start within {timeout_s:g} s: are there enough CPUs?"
            ) from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, QTorchRelayError):
                raise error.cause from error
            raise
        except errors.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise WorkerLostError(f"{self.name} was lost: {first}") from error


def on_ray(address: str, say: Callable[[str], None]) -> Schedule:
    """Returns a schedule that gives chunks to as many workers as the cluster's CPUs allow; say: told who is lost.

    address: HOST:PORT of a cluster, or AUTO: the one this machine is part of, else its own CPUs.

    Raises:
        ClusterError: nobody listens there; when it starts: Ray is not installed, or there is no cluster.
    """
    if address != AUTO:
        _check_listens(address)

    def schedule(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        with _connected(address) as ray:
            found = {name: getattr(setup, name) for name in _FILES}
            files = ray.put({name: path.read_bytes() for name, path in found.items() if path is not None})
            cpus = int(ray.cluster_resources().get("CPU", 0))
            count = min(max(cpus // setup.threads, 1), len(chunks))
            hires = [partial(RayWorker, ray, setup, files) for _ in range(count)]
            yield from share_chunks(chunks, hires, say)

    return schedule


def _check_listens(address: str) -> None:
    """Raises ClusterError if nobody listens at an address: Ray itself takes minutes to say so."""
    try:
        host = parse_address(address.removeprefix(_CLIENT), "--ray")
        with socket.create_connection((host.host, host.port), _CONNECT_TIMEOUT_S):
            return
    except RemoteError as error:
        raise ClusterError(f"{error}, or {AUTO}") from error
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error.strerror or error}; start one there with: ray start --head"
        ) from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Yields the module ray, connected; a connection that was there before stays."""
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "--ray needs Ray, which is not installed: pip install 'qtorch-relay[distributed]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address != AUTO:
            raise ClusterError(f"there is no Ray cluster at {address}: {error}") from error
        ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()

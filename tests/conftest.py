"""Options shared by all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.requirements import refuse
from tests.rpc_servers import Server, rpc_server
from tools.emulated_board import Board, why_unavailable

# Tests have small tensors and several processes: further threads of PyTorch would spin, waiting, on the cores of the
# other processes. And where PyTorch's vector code ends in a tensor depends on their number.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden texts anew, to be read in review")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Lets a process that is done take tests from another: they take from milliseconds to half a minute."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def board() -> Callable[..., Board]:
    """Returns Board, which makes an emulated arm64 board of a CPU's name; it is set up if it is not there yet."""
    reason = why_unavailable()
    if reason is None:
        return Board
    refuse("BOARD", reason)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Returns a stock RPC server of TVM on this machine; it serves one session at a time."""
    with rpc_server(tmp_path_factory.mktemp("server")) as running:
        yield running

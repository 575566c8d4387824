"""An arm64 board without the board: Debian's Python and the aarch64 wheels, run by qemu on any Linux machine.

    from tools.emulated_board import Board
    board = Board("cortex-a53")  # NEON alone; cortex-a76 has dotprod, max has i8mm
    board.run(["-m", "qtorch_relay.runtime", "model.qtr"])
    with board.rpc_server() as server: ...  # a stock tvm.exec.rpc_server at 127.0.0.1:server.port

`python -m tools.emulated_board --help` does the same from a shell. It proves results, not speed.
"""

from tools.emulated_board.board import Board, RpcServer
from tools.emulated_board.install import BoardError, install, why_unavailable

__all__ = ["Board", "BoardError", "RpcServer", "install", "why_unavailable"]

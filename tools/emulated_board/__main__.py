"""`python -m tools.emulated_board`: sets the board up, runs Python on it, starts its RPC server."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from qtorch_relay.errors import told_and_exited
from tools.emulated_board.board import Board
from tools.emulated_board.install import extras, install

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Cpu = Annotated[
    str, typer.Option(metavar="NAME", help="qemu's CPU: cortex-a53 (NEON), cortex-a76 (dotprod), max (i8mm), ...")
]
With = Annotated[
    list[str] | None, typer.Option("--with", metavar="NAME", help=f"Also install {' or '.join(extras())}, to compare.")
]


@app.callback()
def _main() -> None:
    """An arm64 board run by qemu, for results, not for speed.

    It lives in $QTORCH_RELAY_BOARD, by default ~/.cache/qtorch_relay/board, and takes 0.5 GB there.
    """


@app.command()
def setup(with_: With = None) -> None:
    """Download the board: Debian's arm64 Python and the aarch64 wheels. Needs a network and no root rights."""
    print(install(with_ or (), say=lambda text: print(f"{text} ...", flush=True)))


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def python(
    arguments: Annotated[list[str] | None, typer.Argument()] = None, cpu: Cpu = "max", with_: With = None
) -> None:
    """Run the board's Python with these arguments.

    Example: python -m tools.emulated_board python --cpu cortex-a53 -m qtorch_relay.runtime model.qtr
    """
    Board(cpu, tuple(with_ or ())).execute(arguments or [])


@app.command()
def rpc_server(
    cpu: Cpu = "max",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a free port.")] = 0,
    tracker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A tracker to register with.")] = None,
    key: Annotated[str | None, typer.Option(help="The kind of board, for the tracker; by default the CPU.")] = None,
) -> None:
    """Run a stock TVM RPC server on the board until it is interrupted."""
    # its processes are a session of their own, which would stay when this one is ended
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Board(cpu).rpc_server(port, host=host, tracker=tracker, key=key) as server:
        try:
            print(f"an emulated {cpu} listens at {server.address}; Ctrl-C stops it", flush=True)
            server.process.wait()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    with told_and_exited():
        app()

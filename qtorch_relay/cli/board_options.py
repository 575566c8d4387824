"""The options that say where else a command works: on a board over the network, on a cluster."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

_PANEL = "On a board, over the network"

Rpc: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Work on the board that runs `python -m tvm.exec.rpc_server` there. It needs apache-tvm 0.27, psutil and "
        "cloudpickle. Its server lets anybody run code: trusted networks only.",
        rich_help_panel=_PANEL,
    ),
]
Tracker: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Take a free board of the farm whose `python -m tvm.exec.rpc_tracker` runs there. Needs --key.",
        rich_help_panel=_PANEL,
    ),
]
Key: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help="The kind of board: what its server was started with (--key).", rich_help_panel=_PANEL
    ),
]
Timeout: TypeAlias = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0.1,
        help="How long a board may take for one answer, and to become free.",
        rich_help_panel=_PANEL,
    ),
]
Ray: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="auto|ADDRESS",
        help="Share the images among the workers of a Ray cluster: that at ADDRESS, or auto: the one this machine is "
        "part of, else its own CPUs. The images must lie at the same path on every machine.",
    ),
]

"""The command line `qtorch-relay`. What a command needs is imported when it runs, so that --help answers at once."""

from __future__ import annotations

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from qtorch_relay._version import __version__
from qtorch_relay.cli import accuracy, bench, calibrate, demo, export_relay, info, merge, model, report, run
from qtorch_relay.errors import PortablePathWarning, told_and_exited

app = typer.Typer(
    name="qtorch-relay",
    help="Compile int8 PyTorch models with TVM to programs that give exactly PyTorch's codes, without PyTorch.",
    epilog="Start with: [bold]qtorch-relay demo[/bold]. For your own model: save it with torch.jit.save, then "
    "[bold]qtorch-relay compare model.pt --input x:1,3,224,224[/bold] and "
    "[bold]qtorch-relay compile model.pt --input x:1,3,224,224 -o model.qtr[/bold].",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "First": {"demo": demo.demo},
    "From a float model": {"calibrate": calibrate.calibrate},
    "From an int8 model": {
        "import": model.import_model,
        "compile": model.compile_model,
        "run": run.run,
        "bench": bench.bench,
        "export-relay": export_relay.export_relay,
    },
    "Proof": {
        "compare": model.compare,
        "accuracy": accuracy.accuracy,
        "merge": merge.merge,
        "report": report.report,
    },
    "What there is": {"ops": info.ops, "targets": info.targets},
}


def _help_of(command: Callable[..., None]) -> str:
    """Returns a command's docstring, each paragraph and each example on one line: the terminal wraps them."""
    return re.sub(r"(?<!\n)\n(?!\n|Example: )", " ", inspect.getdoc(command) or "")


for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name=name, help=_help_of(command), rich_help_panel=panel)(command)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"qtorch-relay {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Takes what is said before a command."""


def main() -> None:
    """Runs the command line; an error the user can cause is one message and exit status 2."""
    # PyTorch's C++ tells developers on standard error that its quantized tensors are deprecated
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", module=r"(torch|torchvision|tvm|onnxruntime)(\.|$)")
    # `compile` says it in its report
    warnings.filterwarnings("ignore", category=PortablePathWarning)
    warnings.showwarning = _show_warning
    with told_and_exited():
        app()


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)

"""What `qtorch-relay export-relay` writes: a folder that a TVM with Relay builds from, by itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from qtorch_relay.errors import OutputPathError
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.output_files import atomic_write
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text

TEXT, PARAMS, SCRIPT = "model.relay", "model.params", "build_with_relay.py"

_SCRIPT = '''"""Builds model.so with a TVM that has Relay: python build_with_relay.py [TARGET, default llvm]."""
import pathlib, sys, tvm
from tvm import relay

folder = pathlib.Path(__file__).resolve().parent
module = relay.transform.InferType()(relay.parse((folder / "{text}").read_text()))
weights = relay.load_param_dict((folder / "{params}").read_bytes())
# how ops round that do not say it themselves
modes = relay.qnn.op.requantize_config(rounding="{rounding}", compute_dtype="{compute_dtype}")
with modes, tvm.transform.PassContext(opt_level=3):
    library = relay.build(module, target=sys.argv[1] if len(sys.argv) > 1 else "llvm", params=weights)
library.export_library(str(folder / "model.so"))
'''


def export_folder(imported: ImportedModule, folder: Path, options: Options) -> dict[str, int]:
    """Writes the text, the parameters and a script that builds them; returns the size of each file in bytes.

    Nothing is written before all of it is made, and nothing is left half written.

    Raises: UnsupportedOpError if an op has no Relay form; OutputPathError if the folder cannot be written.
    """
    text, params = imported_text(imported, options)
    modes = {"rounding": options.relay_rounding, "compute_dtype": options.relay_compute_dtype}
    script = _SCRIPT.format(text=TEXT, params=PARAMS, **modes)
    files = {TEXT: text.encode(), PARAMS: params, SCRIPT: script.encode()}
    _write_files(folder, files)
    return {name: len(data) for name, data in files.items()}


def check_folder(folder: Path) -> None:
    """Raises OutputPathError if no folder can be made at a path or none is there: said before the work."""
    if folder.exists() and not folder.is_dir():
        raise OutputPathError(f"cannot write {folder}: it is no folder; give the name of a folder, new or there")
    if not folder.exists() and not folder.parent.is_dir():
        raise OutputPathError(f"cannot write {folder}: the folder {folder.parent} does not exist; make it first")


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, made if it is not there: all of them beside their goals first, then in place."""
    check_folder(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputPathError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        with ExitStack() as stack:
            opened = {name: stack.enter_context(atomic_write(folder / name)) for name in files}
            for name, data in files.items():
                opened[name].write(data)
    except BaseException:
        if is_new:
            folder.rmdir()
        raise

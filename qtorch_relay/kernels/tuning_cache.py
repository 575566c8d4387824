"""The file in which tuning keeps what it found, by CPU model, instruction set, kernel and shape."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qtorch_relay.errors import OutputPathError, TuningCacheWarning
from qtorch_relay.kernels.conv2d_plan import Tiles
from qtorch_relay.kernels.conv2d_tiling import Tiling
from qtorch_relay.output_files import atomic_write
from qtorch_relay.target import host_cpu

FOLDER_VARIABLE = "QTORCH_RELAY_CACHE_DIR"
FILE_NAME = "tuning.json"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """The fastest tiles of a layer, and how many of the planner's choices were tried."""

    tiles: Tiles
    tried: int


def cache_folder() -> Path:
    """Returns the folder for files that can be made anew: QTORCH_RELAY_CACHE_DIR, or the platform's."""
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "qtorch_relay"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "qtorch_relay"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "qtorch_relay"


class TuningCache:
    """What was found on this CPU model, read from a file and written to it.

    A file that cannot be read as one is ignored with a warning, and written anew by the next tuning.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = cache_folder() / FILE_NAME if path is None else path
        self._cpu = host_cpu().model
        self._entries, wrong = _read(self.path)
        if wrong is not None:
            warnings.warn(TuningCacheWarning(f"{self.path} is ignored, it is no tuning cache: {wrong}"), stacklevel=2)
        self._new: dict[str, Entry] = {}

    def get(self, isa: str, kernel: str, conv: Any) -> Entry | None:
        """Returns what is known of a layer, or None."""
        return self._entries.get(self._key(isa, kernel, conv))

    def put(self, isa: str, kernel: str, conv: Any, entry: Entry) -> None:
        """Adds what was found of a layer; `write` keeps it."""
        key = self._key(isa, kernel, conv)
        self._entries[key] = self._new[key] = entry

    def write(self) -> None:
        """Writes the file, whole or not at all, with what others have written there meanwhile."""
        entries = {**_read(self.path)[0], **self._new}
        data = {"version": VERSION, "entries": {key: _to_json(entry) for key, entry in sorted(entries.items())}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as file:
                file.write(json.dumps(data, indent=1).encode() + b"\n")
        except (OSError, OutputPathError) as error:
            reason = f"the tuning cache cannot be written, so the next tuning starts anew: {error}"
            warnings.warn(TuningCacheWarning(reason), stacklevel=2)

    def _key(self, isa: str, kernel: str, conv: Any) -> str:
        return " | ".join((self._cpu, isa, kernel, repr(conv)))


def _read(path: Path) -> tuple[dict[str, Entry], str | None]:
    """Returns the entries of a file, and what is wrong with it if it is not a cache of this version."""
    try:
        data = json.loads(path.read_bytes())
        if data["version"] != VERSION:
            return {}, f"it has version {data['version']!r}, this program reads {VERSION}"
        return {str(key): _from_json(entry) for key, entry in data["entries"].items()}, None
    except FileNotFoundError:
        return {}, None
    except KeyError as error:
        return {}, f"it has no {error}"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return {}, str(error)


def _to_json(entry: Entry) -> dict[str, Any]:
    batch, vectors, tiling = entry.tiles
    return {"batch": batch, "vectors": vectors, "tiling": asdict(tiling), "tried": entry.tried}


def _from_json(data: Any) -> Entry:
    given = dict(data["tiling"])
    given["last"] = None if given["last"] is None else tuple(given["last"])
    tiling = Tiling(**{field.name: given[field.name] for field in fields(Tiling)})
    return Entry((int(data["batch"]), int(data["vectors"]), tiling), int(data["tried"]))

"""`qtorch-relay merge`: the shards of an accuracy run become one."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from qtorch_relay.cli.accuracy_results import check_extra, finish, new_folder
from qtorch_relay.cli.options import Json


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="The folders of all shards of a run.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where record.json is written.")],
    as_json: Json = False,
) -> None:
    """Join the shards of an accuracy run, each exactly once.

    Example: qtorch-relay merge part1 part2 -o whole
    """
    check_extra()
    from accuracy_reports.runs.merge import merge as merge_shards

    record = merge_shards(folders, shlex.join(["qtorch-relay", *sys.argv[1:]]))
    with new_folder(output):
        finish(record, output, as_json=as_json)

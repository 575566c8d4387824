from __future__ import annotations

from pathlib import Path

import pytest

from tests.accuracy_reports.runs.small_runs import CLASSES, write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small int8 network and the float one it was made of; nothing may be written beside them."""
    return write_models(tmp_path_factory.mktemp("models"), CLASSES)

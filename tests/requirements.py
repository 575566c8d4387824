"""What tests need that may not be on a machine: they are skipped without it, but not in .ci/run, which installs it."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def refuse(what: str, reason: str) -> NoReturn:
    """Ends a test for want of BOARD or CHROMIUM: a skip, or a failure where QTORCH_RELAY_REQUIRE_<what> is set."""
    if os.environ.get(f"QTORCH_RELAY_REQUIRE_{what}"):
        pytest.fail(reason)
    pytest.skip(reason)

"""Parameters in Relay's binary format: its layout byte by byte, and read back by Relay itself."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from accuracy_reports.relay_era.job import interpreter
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.relay import save_params

ARRAYS = {
    "weight": np.arange(-6, 6, dtype=np.int8).reshape(2, 3, 2),
    "scale": np.array([0.5, 1.25], np.float32),
    "single": np.array(7, np.int64),
    "flags": np.array([True, False, True]),
    "codes": np.array([0, 255], np.uint8),
    "wide": np.array([[1e300]], np.float64),
    "none": np.zeros((0, 3), np.int32),
}
READ = """
import sys, numpy as np
from tvm import relay
data = open(sys.argv[1], "rb").read()
params = relay.load_param_dict(data)
np.savez(sys.argv[2], **{name: array.numpy() for name, array in params.items()})
open(sys.argv[3], "wb").write(relay.save_param_dict({"scale": params["scale"]}))
"""


def test_one_array_is_written_as_the_format_says() -> None:
    expected = struct.pack("<QQQ", 0xF7E58D4F05049CB7, 0, 1) + struct.pack("<Q", 5) + b"scale" + struct.pack("<Q", 1)
    expected += struct.pack("<QQiiiBBHqq", 0xDD5E40F096B4A13F, 0, 1, 0, 1, 2, 32, 1, 2, 8)
    expected += struct.pack("<ff", 0.5, 1.25)
    assert save_params({"scale": ARRAYS["scale"]}) == expected


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"parameter names is .*integers, floats and bools"):
        save_params({"names": np.array(["a"])})


@pytest.mark.skipif(not interpreter(), reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay")
def test_relay_reads_what_we_write_and_writes_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("params", "read.npz", "again")]
    paths[0].write_bytes(save_params(ARRAYS))
    subprocess.run([interpreter(), "-c", READ, *map(str, paths)], check=True, timeout=300)
    with np.load(paths[1]) as read:
        assert sorted(read.files) == sorted(ARRAYS)
        for name, array in ARRAYS.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)
    assert paths[2].read_bytes() == save_params({"scale": ARRAYS["scale"]})

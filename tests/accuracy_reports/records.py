"""Records that tests draw, compare and damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from accuracy_reports.record import (
    FLOAT,
    INT8,
    ONNX_RUNTIME,
    OURS,
    BrokenImage,
    ChangedClass,
    CodeCounts,
    Dataset,
    Environment,
    Gap,
    Layer,
    Layers,
    Model,
    Program,
    Record,
    Share,
)

IMAGES = 360


def program(name: str, right: int, same: int = IMAGES, codes: int | None = 0, **changes: Any) -> Program:
    values = {
        "top1": Share.of_count(right, IMAGES),
        "top5": Share.of_count(min(IMAGES, right + 5), IMAGES),
        "agreement": Share.of_count(same, IMAGES),
        "differing_codes": None if codes is None else Share.of_count(codes, IMAGES * 10),
        "differing_images": None if codes is None else Share.of_count(min(codes, IMAGES), IMAGES),
        "latency_ms": 0.25,
        "images_per_s": 3900.5,
    }
    return Program(name, IMAGES, **(values | changes))


def layer(number: int, sqnr_db: float = 30.0, differing: int = 0, **changes: Any) -> Layer:
    counts = [0] * 256
    counts[100:110] = [number + 1] * 10
    gap = Gap(sqnr_db, 0.999, 3.0, 0.25, 40, 100)
    values = {
        "name": f"v{number}",
        "op": "quantized::conv2d_relu",
        "scope": f"layer{number}.conv",
        "source": f"net.py:{number}",
        "dtype": "uint8",
        "shape": (1, 4, 5, 5),
        "scale": 0.05,
        "zero_point": 3,
        "counterpart": f"layer{number}.relu",
        "missing": None,
        "total": gap,
        "quantization": gap,
        "own_quantization": replace(gap, sqnr_db=sqnr_db + 3),
        "compiler": Gap(None if differing == 0 else 50.0, 1.0, float(differing > 0), 0.0, differing, 100),
        "own_compiler": differing,
        "theirs": CodeCounts(tuple(counts), 2),
        "ours": None,
    }
    return Layer(**(values | changes))


def record(**changes: Any) -> Record:
    values = {
        "environment": Environment(
            "2026-11-22T12:00:00Z", "x86_64, A CPU", 2, "Linux 6.1", "3.11.7", {"torch": "2.13.0"}, "make", "abc", 1
        ),
        "model": Model("digits <b>CNN</b>", "fbgemm", "x86-avx2", "kernels", ("x: float32 [1, 1, 8, 8]",), ("a note",)),
        "dataset": Dataset("digits", IMAGES + 1, tuple("0123456789"), "divided by 16", "0" * 64),
        "programs": (
            program(FLOAT, 356, 358, None),
            program(INT8, 355),
            program(OURS, 355, latency_ms=0.1),
            Program(ONNX_RUNTIME, 0, problem="onnxruntime is not installed"),
        ),
        "broken": (BrokenImage("images/7.png", "truncated"),),
        "changed": (ChangedClass(FLOAT, 3, 8, 3, 2),),
        "layers": Layers(4, "digits_float.pt", tuple(layer(i, 40.0 - i) for i in range(5))),
    }
    return Record(**(values | changes))

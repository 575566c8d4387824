"""Each observer against a reference written in plain numpy, over all values at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calibration.observers.entropy import EntropyObserver, best_bin
from calibration.observers.histogram import BINS, HistogramRangeObserver
from calibration.observers.mse import COARSE, WEIGHT_SHARES, MSEObserver, MSEWeightObserver
from calibration.observers.percentile import PercentileObserver
from qtorch_relay.errors import CalibrationError

SYMMETRIC = {"dtype": torch.qint8, "qscheme": torch.per_tensor_symmetric}
RANGES = {"quint8": {}, "reduced": {"quant_min": 0, "quant_max": 127}, "symmetric": SYMMETRIC}
OURS = (PercentileObserver, EntropyObserver, MSEObserver)


def sample(kind: str, count: int = 20_000) -> np.ndarray:
    random = np.random.default_rng(5)
    made = {
        "normal": lambda: random.normal(0.3, 1.0, count),
        "relu": lambda: np.maximum(random.normal(0, 2.0, count), 0),
        "heavy": lambda: random.standard_t(2, count),
        "negative": lambda: -random.exponential(1.0, count),
        "tiny": lambda: random.normal(0, 1e-20, count),
    }
    return made[kind]().astype(np.float32)


KINDS = ("normal", "relu", "heavy", "negative", "tiny")


def watch(observer: HistogramRangeObserver, values: np.ndarray, batches: int = 1) -> HistogramRangeObserver:
    for part in np.array_split(values, batches):
        observer(torch.from_numpy(part))
    return observer


def reference_histogram(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Counts by np.histogram over -2**e to 2**e, and the width of a bin."""
    bound = 2.0 ** math.frexp(float(np.abs(values).max()))[1]
    counts, _ = np.histogram(values.astype(np.float64), bins=2 * BINS, range=(-bound, bound))
    return counts, bound / BINS


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_equals_numpys_whatever_the_batches(kind: str) -> None:
    values = sample(kind)
    ascending = np.sort(np.abs(values)) * np.sign(values)  # the range grows with every batch
    expected, width = reference_histogram(values)
    for order, batches in ((values, 1), (values, 7), (ascending[::-1], 3)):
        found = watch(PercentileObserver(), np.ascontiguousarray(order), batches).histogram()
        counts = expected if order is values or batches == 1 else reference_histogram(order)[0]
        np.testing.assert_array_equal(found.counts, counts)
        assert found.width == width
        assert (found.least, found.greatest) == (order.min(), order.max())


def test_a_range_that_grows_merges_bins_exactly() -> None:
    values = np.concatenate([np.zeros(5), sample("tiny"), sample("normal"), [1e30]]).astype(np.float32)
    found = watch(PercentileObserver(), values, 40).histogram()
    np.testing.assert_array_equal(found.counts, reference_histogram(values)[0])


def test_memory_stays_flat() -> None:
    observer = PercentileObserver()
    sizes = {
        sum(buffer.nbytes for buffer in watch(observer, sample("heavy", size)).buffers())
        for size in (10, 1000, 100_000)
    }
    assert len(sizes) == 1
    assert sizes.pop() < 1 << 20


@pytest.mark.parametrize("percentile", [99.0, 99.9, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_the_quantile_rounded_to_a_bin(kind: str, percentile: float) -> None:
    values = sample(kind)
    observer = watch(PercentileObserver(percentile), values, 3)
    least, greatest = observer.choose_range(observer.histogram())
    ordered, width = np.sort(values.astype(np.float64)), reference_histogram(values)[1]
    rank = math.ceil(percentile / 100 * len(values))
    assert greatest == min((np.floor(ordered[rank - 1] / width) + 1) * width, ordered[-1])
    assert least == max(np.floor(ordered[-rank] / width) * width, ordered[0])
    symmetric = watch(PercentileObserver(percentile, **SYMMETRIC), values)
    bound = np.quantile(np.abs(ordered), percentile / 100, method="inverted_cdf")
    assert 0 <= symmetric.choose_range(symmetric.histogram())[1] - bound <= width


def reference_best_bin(bins: list[float], levels: int) -> int:
    """TensorRT's pseudocode, literally: one bin at a time."""
    bins = [bins[1], *bins[1:]]
    best, where = math.inf, -1
    for i in range(levels, len(bins) + 1):
        reference = bins[:i]
        reference[-1] += sum(bins[i:])
        candidate = [0.0] * i
        for level in range(levels):
            first, last = level * i // levels, (level + 1) * i // levels
            filled = [k for k in range(first, last) if bins[k] > 0]
            for k in filled:
                candidate[k] = sum(bins[first:last]) / len(filled)
        divergence = 0.0
        for p, q in zip(reference, candidate, strict=True):
            if p > 0:
                p, q = p / sum(reference), q / sum(candidate)
                divergence += math.inf if q == 0 else p * math.log(p / q)
        if divergence < best - 1e-12:
            best, where = divergence, i
    return where


@pytest.mark.parametrize("levels", [4, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_entropy_finds_tensorrts_bin(kind: str, levels: int) -> None:
    # 300 values in 100 bins: there are empty ones
    counts, _ = np.histogram(np.abs(sample(kind, 300)), bins=100)
    expected = reference_best_bin(counts.astype(float).tolist(), levels)
    assert best_bin(counts, levels) == expected
    assert expected > 0


@pytest.mark.parametrize(("kind", "levels"), [("relu", 2000), ("heavy", 1900), ("normal", 2048)])
def test_entropy_finds_tensorrts_threshold(kind: str, levels: int) -> None:
    values = sample(kind, 3000)
    observer = watch(EntropyObserver(levels), values, 3)
    counts, width = reference_histogram(values)
    magnitudes = counts[BINS:] + counts[BINS - 1 :: -1]
    used = int(np.flatnonzero(magnitudes).max()) + 1
    factor = math.ceil(used / 2048)
    bins = [float(magnitudes[i : i + factor].sum()) for i in range(0, used, factor)]
    best = reference_best_bin(bins, levels) if len(bins) > levels else len(bins)
    threshold = (best + 0.5) * width * factor
    least, greatest = observer.choose_range(observer.histogram())
    assert greatest == min(values.max(), threshold)
    assert least == max(values.min(), -threshold)


def squared_error(values: np.ndarray, scale: float, zero_point: int, observer: HistogramRangeObserver) -> float:
    codes = np.clip(np.rint(values / scale) + zero_point, observer.quant_min, observer.quant_max)
    return float(np.sum((values - (codes - zero_point) * scale) ** 2))


@pytest.mark.parametrize("options", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "negative"])
def test_mse_is_no_worse_than_any_range_of_the_grid(kind: str, options: dict) -> None:
    values = sample(kind)
    observer = watch(MSEObserver(**options), values, 3)
    # what the histogram keeps of the values: the middles of their bins
    width = reference_histogram(values)[1]
    middles = (np.floor(values.astype(np.float64) / width) + 0.5) * width
    scale, zero_point = observer.calculate_qparams()
    found = squared_error(middles, float(scale), int(zero_point), observer)
    errors = []
    for a in COARSE[::2]:
        for b in COARSE[::2]:
            least, greatest = a * min(values.min(), 0.0), b * max(values.max(), 0.0)
            if options is SYMMETRIC:
                least, greatest = -b * np.abs(values).max(), b * np.abs(values).max()
            s, z = observer._calculate_qparams(torch.tensor(least), torch.tensor(greatest))
            errors.append(squared_error(middles, float(s), int(z), observer))
    assert found <= min(errors) * (1 + 1e-9)
    # and against the values themselves it is close to that of the middles
    assert squared_error(values, float(scale), int(zero_point), observer) == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "values"), [(PercentileObserver, "heavy"), (EntropyObserver, "heavy"), (MSEObserver, "normal")]
)
def test_rare_extremes_are_clipped(kind: type[HistogramRangeObserver], values: str) -> None:
    # squared error clips where codes are few: a single far value costs it more than many coarse ones
    observer = watch(kind(quant_min=0, quant_max=15), sample(values))
    least, greatest = observer.choose_range(observer.histogram())
    assert max(-least, greatest) < 0.8 * np.abs(sample(values)).max()


@pytest.mark.parametrize("scheme", [torch.per_channel_symmetric, torch.per_tensor_symmetric])
def test_mse_of_weights_is_the_best_share_of_each_channel(scheme: torch.qscheme) -> None:
    weight = torch.from_numpy(sample("heavy", 6 * 4 * 9).reshape(6, 4, 3, 3))
    observer = MSEWeightObserver(dtype=torch.qint8, qscheme=scheme)
    observer(weight)
    scales, zero_points = observer.calculate_qparams()
    rows = weight.numpy().reshape(6, -1) if observer.is_per_channel else weight.numpy().reshape(1, -1)
    assert scales.shape == zero_points.shape == (len(rows),)
    assert not zero_points.any()
    for row, scale in zip(rows, scales.tolist(), strict=True):
        tried = [np.float32(np.abs(row).max() * np.float32(share)) / np.float32(127.5) for share in WEIGHT_SHARES]
        errors = [np.sum((row - np.clip(np.rint(row / s), -128, 127) * s) ** 2) for s in tried]
        assert scale == pytest.approx(tried[int(np.argmin(errors))], rel=1e-6)


@pytest.mark.parametrize("kind", OURS)
def test_extremes(kind: type[HistogramRangeObserver]) -> None:
    nothing = kind()
    nothing(torch.empty(0))
    assert [float(value) for value in nothing.calculate_qparams()] == [1.0, 0.0]
    zeros = watch(kind(), np.zeros(10, np.float32))
    assert float(zeros.calculate_qparams()[0]) > 0
    one = watch(kind(), np.array([3.0], np.float32))
    scale, zero_point = one.calculate_qparams()
    assert 255 * float(scale) == pytest.approx(3.0, rel=0.1)
    assert int(zero_point) == 0
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        one(torch.tensor([1.0, float("nan")]))
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        one(torch.tensor([-float("inf")]))


def test_what_an_observer_does_not_take_is_said() -> None:
    with pytest.raises(CalibrationError, match="the percentile is 40; accepted is above 50, up to 100"):
        PercentileObserver(40)
    with pytest.raises(CalibrationError, match="per-tensor schemes only"):
        MSEObserver(qscheme=torch.per_channel_affine)

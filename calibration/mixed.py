"""Mixed precision: the fewest layers left in float, so that accuracy drops by no more than is allowed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from torch import nn

from calibration.batches import Batches, Track, untracked
from calibration.evaluate import Answers, evaluate, expected_outputs
from calibration.fusion import trace
from calibration.observed import TensorRange
from calibration.quantize import Fused, Observation, Options, Quantized, fuse, observe
from calibration.recipes import Scheme
from calibration.sensitivity import LayerCost, sensitivities
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class KeptLayer:
    """A layer that stays in float.

    cost: what quantizing it alone costs. drop_without: the accuracy drop, in points of a hundred, if of those kept it
    were quantized too: more than is allowed.
    """

    cost: LayerCost
    drop_without: float


@dataclass(frozen=True, eq=False)
class Mixed:
    """An int8 model with some layers in float, and how it was found.

    float_accuracy, accuracy: shares of right answers. all_int8_accuracy: with nothing in float.
    tried: how many int8 models were evaluated.
    """

    quantized: Quantized
    kept: tuple[KeptLayer, ...]
    costs: tuple[LayerCost, ...]
    float_accuracy: float
    accuracy: float
    all_int8_accuracy: float
    tried: int

    @property
    def drop(self) -> float:
        """The accuracy drop, in points of a hundred."""
        return 100 * (self.float_accuracy - self.accuracy)


def quantize_within(
    model: nn.Module,
    scheme: Scheme,
    batches: Batches,
    labelled: Batches,
    max_drop: float,
    options: Options | None = None,
    track: Track = untracked,
) -> Mixed:
    """Returns a model quantized with as few layers in float as keep its accuracy within max_drop of the float model's.

    Layers are ranked by what quantizing each alone costs. The k most expensive are kept in float, k by doubling and
    bisection; then each of them, cheapest first, is quantized again where that is allowed. Every step is measured on
    the int8 model itself. So none of the layers that stay could be quantized alone; that no other, smaller set would
    do is not shown: there are 2**layers of them.

    Args:
        batches: calibration data. labelled: data with labels, to measure accuracy on.
        max_drop: in points of a hundred: 1.0 is from 76 % to 75 %.

    Raises:
        CalibrationError: labels are missing, or not even all layers in float meet the drop.
        EngineError: this build of PyTorch lacks the engine.
    """
    if max_drop < 0:
        raise CalibrationError(f"the accuracy may drop by {max_drop:g} points; accepted is 0 or more")
    options = options or Options()
    if options.in_float:
        raise CalibrationError("which layers stay in float is what --max-drop finds; leave --float-layer out")
    with quantized_engine(scheme.engine):
        options = replace(options, mode=_mode(model, options.mode))
        fused = fuse(model, scheme, batches, options, track)
        found = observe(fused, batches, (), track)
        return _Search(model, fused, found, labelled, max_drop, track).run()


def _mode(model: nn.Module, mode: str) -> str:
    """Returns "fx" for "auto" where FX can trace the model: there, layers in float hand floats on to one another."""
    if mode != "auto":
        return mode
    try:
        trace(copy.deepcopy(model))
    except CalibrationError:
        return mode
    return "fx"


class _Search:
    """The search of quantize_within. Sets of kept layers are told by their number where they are the most expensive."""

    def __init__(
        self, model: nn.Module, fused: Fused, found: Observation, labelled: Batches, max_drop: float, track: Track
    ) -> None:
        self.fused, self.found, self.labelled, self.max_drop, self.track = fused, found, labelled, max_drop, track
        self.expected = expected_outputs(model, labelled, track)
        accuracy = self.expected.answers().accuracy
        if accuracy is None:
            raise CalibrationError("--max-drop needs labels: give data that has them")
        self.float_accuracy = accuracy
        self.known: dict[frozenset[str], float] = {}

    def run(self) -> Mixed:
        """Returns what is found."""
        all_int8 = self.accuracy(())
        costs = sensitivities(self.fused, self.found.ranges, self.labelled, self.track)
        ranked = [cost.layer for cost in costs if cost.can_stay]
        kept = [] if self.is_allowed(()) else self._prune(ranked[: self._fewest(ranked)])
        by_name = {cost.layer: cost for cost in costs}
        return Mixed(
            Quantized(
                self.fused.convert(self.ranges, kept),
                self.fused.table(self.ranges, self.found.samples, kept),
                self.found.messages,
            ),
            tuple(KeptLayer(by_name[name], self.drop([other for other in kept if other != name])) for name in kept),
            costs,
            self.float_accuracy,
            self.accuracy(kept),
            all_int8,
            len(self.known),
        )

    @property
    def ranges(self) -> dict[str, TensorRange]:
        """The ranges of all tensors, whichever are needed."""
        return self.found.ranges

    def accuracy(self, kept: list[str] | tuple[str, ...]) -> float:
        """Returns the accuracy of the int8 model with these layers in float, measured once."""
        key = frozenset(kept)
        if key not in self.known:
            description = f"{len(key)} layers in float"
            answers: Answers = evaluate(
                self.fused.convert(self.ranges, kept), self.labelled, self.expected, description, self.track
            )
            self.known[key] = answers.accuracy or 0.0
        return self.known[key]

    def drop(self, kept: list[str] | tuple[str, ...]) -> float:
        """Returns the accuracy drop with these layers in float, in points of a hundred."""
        return 100 * (self.float_accuracy - self.accuracy(kept))

    def is_allowed(self, kept: list[str] | tuple[str, ...]) -> bool:
        """Whether the drop is within what is allowed; shares of samples are not exact in float64."""
        return self.drop(kept) <= self.max_drop + 1e-9

    def _fewest(self, ranked: list[str]) -> int:
        """Returns how many of the most expensive layers have to stay, if accuracy rises with their number."""
        low, high = 0, 1
        while not self.is_allowed(ranked[:high]):
            if high >= len(ranked):
                drop = self.drop(ranked)
                raise CalibrationError(
                    f"even with all {len(ranked)} layers in float accuracy drops by {drop:.2f} points, more than "
                    f"{self.max_drop:g}; allow more, or calibrate with other data or another observer{self._hint()}"
                )
            low, high = high, min(2 * high, len(ranked))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.is_allowed(ranked[:middle]) else (middle, high)
        return high

    def _hint(self) -> str:
        """Returns what makes eager mode worse."""
        hint = "; in eager mode what a layer in float returns is quantized again, --mode fx hands floats on"
        return hint if self.fused.flow.name == "eager" else ""

    def _prune(self, kept: list[str]) -> list[str]:
        """Returns the layers that have to stay: cheapest first, each is left out if that is allowed.

        Repeated until nothing can be left out, since which layers are needed depends on the others.
        """
        for name in reversed(kept):
            rest = [other for other in kept if other != name]
            if self.is_allowed(rest):
                return self._prune(rest)
        return kept

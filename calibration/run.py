"""A whole calibration as a user asks for it: recipe, options, data or a table, and what came out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from calibration.batches import Track, first_batch, untracked
from calibration.evaluate import Answers, evaluate, expected_outputs
from calibration.flows import Example, run_example
from calibration.mixed import Mixed, quantize_within
from calibration.open_data import Data
from calibration.qat import Training, train_quantized
from calibration.quantize import (
    Options,
    Quantized,
    fuse,
    quantize,
    quantize_dynamic,
    quantize_with_table,
)
from calibration.recipes import DynamicRecipe, QatRecipe, Scheme, StaticRecipe
from calibration.sensitivity import LayerCost, sensitivities
from calibration.table import CalibrationTable
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class Request:
    """What is asked for, but the model and the data. max_drop: in points of a hundred, None = nothing stays in float.

    Raises: CalibrationError if options are given that the recipe has no use for.
    """

    scheme: Scheme
    mode: str = "auto"
    equalize: bool = False
    correct_bias: bool = False
    in_float: tuple[str, ...] = ()
    max_drop: float | None = None
    sensitivity: bool = False
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if self.asked and not isinstance(self.scheme.recipe, StaticRecipe):
            raise CalibrationError(
                f"recipe {self.scheme.recipe.name} takes no {', '.join(self.asked)}; use a static recipe"
            )

    @property
    def asked(self) -> tuple[str, ...]:
        """The options of static recipes that are asked for."""
        given = {
            "--equalize": self.equalize,
            "--correct-bias": self.correct_bias,
            "--float-layer": self.in_float,
            "--max-drop": self.max_drop is not None,
            "--sensitivity": self.sensitivity,
        }
        return tuple(name for name, value in given.items() if value)

    @property
    def trains(self) -> bool:
        """Whether the recipe trains."""
        return isinstance(self.scheme.recipe, QatRecipe)

    @property
    def options(self) -> Options:
        """The options of a static recipe."""
        return Options(self.mode, self.equalize, self.correct_bias, self.in_float)


@dataclass(frozen=True, eq=False)
class Result:
    """An int8 model and what is known of it. data: in words. Answers are None where there was no data to answer."""

    quantized: Quantized
    example: Example
    data: str
    float_answers: Answers | None
    int8_answers: Answers | None
    costs: tuple[LayerCost, ...]
    mixed: Mixed | None

    def sentences(self) -> list[str]:
        """Returns what the search for layers to keep in float found, in words."""
        if self.mixed is None:
            return []
        m = self.mixed
        lines = [
            f"{len(m.kept)} of {sum(cost.can_stay for cost in m.costs)} layers stay in float: accuracy "
            f"{m.float_accuracy:.2%} in float, {m.all_int8_accuracy:.2%} all in int8, {m.accuracy:.2%} so "
            f"({m.tried} int8 models measured)"
        ]
        return lines + [
            f"  {kept.cost.layer}: quantized too, accuracy would drop by {kept.drop_without:.2f} points "
            f"(alone it costs {kept.cost.sqnr_db:.1f} dB)"
            for kept in m.kept
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON data."""
        table = self.quantized.table
        return {
            "recipe": table.recipe,
            "engine": table.engine,
            "observer": table.observer,
            "mode": table.mode,
            "data": self.data,
            "samples": table.samples,
            "float": _answers_json(self.float_answers),
            "int8": _answers_json(self.int8_answers),
            "in_float": list(table.in_float),
            "sensitivity": [asdict(cost) | {"sqnr_db": _finite(cost.sqnr_db)} for cost in self.costs],
            "messages": list(self.quantized.messages),
        }


def run(
    model: nn.Module,
    request: Request,
    data: Data | None,
    labelled: Data | None,
    table: CalibrationTable | None = None,
    example: Example | None = None,
    track: Track = untracked,
) -> Result:
    """Returns a float model quantized as asked.

    Args:
        data: to calibrate or train with.
        labelled: to measure with; the same, or other data; None = nothing is measured.
        table: ranges to take instead of calibrating.
        example: inputs for one sample, where there is no data.

    Raises: CalibrationError, EngineError: what is asked for and what is given do not fit.
    """
    model = model.eval()
    mixed: Mixed | None = None
    costs: tuple[LayerCost, ...] = ()
    if table is not None:
        quantized = quantize_with_table(model, _checked(table, request))
        example = table.example()
    elif isinstance(request.scheme.recipe, DynamicRecipe):
        example = _example_for(data, example)
        run_example(model, example)
        quantized = quantize_dynamic(model, request.scheme, example)
    elif data is None:
        raise CalibrationError(
            f"recipe {request.scheme.recipe.name} needs data; give it with --data, or a table made before with --table"
        )
    else:
        example = first_batch(data.batches).inputs
        quantized, mixed, costs = _from_data(model, request, data, labelled or data, track)
    plain, int8 = (None, None) if labelled is None else _compare(model, quantized, labelled, track)
    what = "ranges from a table" if table is not None else "no data" if data is None else data.name
    return Result(quantized, example, what, plain, int8, costs, mixed)


def set_torch_threads(threads: int | None) -> None:
    """Sets the number of PyTorch's threads if one is given."""
    if threads is not None:
        torch.set_num_threads(threads)


def _from_data(
    model: nn.Module, request: Request, data: Data, labelled: Data, track: Track
) -> tuple[Quantized, Mixed | None, tuple[LayerCost, ...]]:
    if request.trains:
        return train_quantized(model, request.scheme, data.batches, request.training, request.mode, track), None, ()
    if request.max_drop is not None:
        mixed = quantize_within(
            model, request.scheme, data.batches, labelled.batches, request.max_drop, request.options, track
        )
        return mixed.quantized, mixed, mixed.costs
    quantized = quantize(model, request.scheme, data.batches, request.options, track)
    return quantized, None, _costs(model, request, quantized, data, labelled, track) if request.sensitivity else ()


def _costs(
    model: nn.Module, request: Request, quantized: Quantized, data: Data, labelled: Data, track: Track
) -> tuple[LayerCost, ...]:
    fused = fuse(model, request.scheme, data.batches, Options(request.mode, request.equalize))
    return sensitivities(fused, quantized.table.ranges(), labelled.batches, track)


def _checked(table: CalibrationTable, request: Request) -> CalibrationTable:
    """Returns the table. Raises: CalibrationError if other options ask for something else than it has."""
    if table.scheme() != request.scheme:
        raise CalibrationError(
            f"the table is for recipe {table.recipe}, engine {table.engine} and observers {table.observer} and "
            f"{table.weight_observer}; leave those options out, or calibrate with data"
        )
    if request.asked:
        raise CalibrationError(f"the table says what is done to the model; leave out {', '.join(request.asked)}")
    return table


def _example_for(data: Data | None, example: Example | None) -> Example:
    if data is not None:
        return first_batch(data.batches).inputs
    if not example:
        raise CalibrationError(
            "the recipe needs no data, but the int8 model is traced: say what it takes, as --input x:1,3,224,224"
        )
    return example


def _compare(model: nn.Module, quantized: Quantized, labelled: Data, track: Track) -> tuple[Answers, Answers]:
    expected = expected_outputs(model, labelled.batches, track)
    with quantized_engine(quantized.table.engine):
        return expected.answers(), evaluate(quantized.model, labelled.batches, expected, "int8 model", track)


def _answers_json(answers: Answers | None) -> dict[str, Any] | None:
    if answers is None:
        return None
    return asdict(answers) | {"accuracy": answers.accuracy, "sqnr_db": _finite(answers.sqnr_db)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Quantization-aware training: some epochs with quantization simulated, then an int8 model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.ao import quantization as q
from torch.ao.nn.intrinsic import qat as intrinsic_qat

from calibration.batches import Batch, Batches, Track, first_batch, first_output, untracked
from calibration.flows import choose_flow, run_example
from calibration.fusion import first_line
from calibration.observed import observed_tensors, read_range
from calibration.quantize import Quantized, without_torchs_warnings
from calibration.recipes import QatRecipe, Scheme
from calibration.table import fingerprint, make_table
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import CalibrationError


@dataclass(frozen=True)
class Training:
    """How to train. The last epoch of several runs with ranges and batch statistics frozen.

    learning_rate: of Adam at its highest; it falls to 0 by a cosine.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.learning_rate > 0:
            raise CalibrationError(
                f"{self.epochs} epochs at a learning rate of {self.learning_rate:g}; accepted are 1 epoch or more, "
                "and a rate above 0"
            )


def train_quantized(
    model: nn.Module,
    scheme: Scheme,
    batches: Batches,
    training: Training | None = None,
    mode: str = "auto",
    track: Track = untracked,
) -> Quantized:
    """Returns a float model fine-tuned with simulated quantization and quantized.

    The loss is the cross entropy with the labels; without labels, the squared distance to the float model's outputs.
    Batches come in their own order; the same seed, data and number of threads give the same model.

    Raises:
        CalibrationError: the recipe is not for training, the model does not fit, or the loss is no longer finite.
        EngineError: this build of PyTorch lacks the engine.
    """
    if not isinstance(scheme.recipe, QatRecipe):
        raise CalibrationError(f"recipe {scheme.recipe.name} trains nothing; use a recipe that begins with qat")
    training = training or Training()
    example = first_batch(batches).inputs
    run_example(model.eval(), example)
    with quantized_engine(scheme.engine), without_torchs_warnings(), torch.random.fork_rng():
        torch.manual_seed(training.seed)
        flow = choose_flow(model, mode)
        prepared = flow.prepare_qat(model, scheme, example)
        samples = _train(prepared, model, batches, training, track)
        ranges = {name: read_range(tensor) for name, tensor in observed_tensors(prepared.eval()).items()}
        quantized = flow.convert(prepared)
    table = make_table(
        scheme,
        flow.name,
        fingerprint(model),
        example,
        samples,
        tensors=tuple(ranges.values()),
        weights=(),
        trained=True,
    )
    return Quantized(quantized, table)


def _train(prepared: nn.Module, model: nn.Module, batches: Batches, training: Training, track: Track) -> int:
    """Trains in place; returns how many samples an epoch has."""
    optimizer = torch.optim.Adam(prepared.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs * len(batches))
    samples = 0
    for epoch in range(training.epochs):
        if epoch and epoch == training.epochs - 1:
            prepared.apply(q.disable_observer)
            prepared.apply(intrinsic_qat.freeze_bn_stats)
        samples = 0
        for batch in track(batches, f"training, epoch {epoch + 1} of {training.epochs}", len(batches)):
            try:
                loss = _loss(prepared, model, batch)
            except RuntimeError as error:  # what fake quantization makes of weights that overflow
                raise _diverged(epoch, training, first_line(error)) from error
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not all(bool(torch.isfinite(value).all()) for value in (loss, *prepared.parameters())):
                raise _diverged(epoch, training, f"loss {loss.item():g}")
            schedule.step()
            samples += batch.size
    return samples


def _diverged(epoch: int, training: Training, why: str) -> CalibrationError:
    return CalibrationError(
        f"training diverged in epoch {epoch + 1} ({why}); choose a lower learning rate than "
        f"{training.learning_rate:g}, and check the data"
    )


def _loss(prepared: nn.Module, model: nn.Module, batch: Batch) -> Tensor:
    found = first_output(prepared(*batch.inputs))
    if batch.labels is not None:
        return nn.functional.cross_entropy(found, batch.labels)
    with torch.no_grad():
        expected = first_output(model(*batch.inputs))
    return nn.functional.mse_loss(found, expected)

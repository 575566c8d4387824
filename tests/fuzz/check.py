"""A drawn network through PyTorch and through ours."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from hypothesis import reject

from accuracy_reports.layers.compare import compare_layers
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import FloatModelWarning
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.pipeline import compile_imported
from tests.fuzz.build import quantized
from tests.fuzz.graph import Network


def check(network: Network, target: Any) -> None:
    """Raises AssertionError, with the first differing layer, if an output differs from PyTorch's: codes not at all,
    floats by more than rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch.ao.quantization
        warnings.simplefilter("ignore", FloatModelWarning)
        with quantized_engine(network.engine), torch.no_grad():
            module, image = quantized(network)
            try:
                expected = module(image)
            except NotImplementedError:
                reject()  # FX left out a quantize: PyTorch cannot run its own model
        captured = capture_model(module, [image], network.engine)
        compiled = compile_imported(import_graph(captured.graph), target)
        for ours, theirs in zip(compiled.run_flat([image.numpy()]), expected, strict=True):
            if not np.array_equal(ours, theirs.numpy(), equal_nan=True):
                arrays = [image.numpy()]
                layers = compare_layers(captured, run_reference(captured, arrays), arrays, target)
                # A float that FX left between the codes may differ by its rounding, and what follows from it with it.
                suspects = [layer for layer in layers if not layer.agrees]
                if suspects or not any(layer.differing for layer in layers):
                    first = suspects[0] if suspects else "none when all layers are kept"
                    raise AssertionError(f"outputs differ; first differing layer: {first}")

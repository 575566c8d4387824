"""Weights of transposed convolutions that FBGEMM packs for its direct kernel: PyTorch cannot unpack them.

There conv_transpose2d_unpack (and with it copying and saving a model) returns whatever the memory held before. Running
the packed object still reads the weights: an image of one pixel with a single 1 gives the weight of its channel.
Source: FBGEMM src/PackWeightsForConv.cc unpack. engine_constants.takes_direct_kernel says when.
"""

from __future__ import annotations

import torch

from qtorch_relay.errors import UnsupportedQuantSchemeError

# So large an input scale makes the bias less than half a step of the sums.
_INPUT_SCALE = 2.0**80
_MIDDLE = 128


def read_weight(packed: torch.ScriptObject, unpacked: torch.Tensor) -> torch.Tensor:
    """Returns the weight of a packed object of this geometry that PyTorch unpacks to unpacked, whose parameters are
    right in any case.

    What runs is believed of FBGEMM's; the other engines keep the weight that they were given and unpack that.

    Raises: UnsupportedQuantSchemeError for a zero point other than 0 in that form.
    """
    if not _is_of_fbgemm(packed, unpacked.shape[0]):
        return unpacked
    if unpacked.q_zero_point() != 0:
        raise UnsupportedQuantSchemeError(
            f"zero point {unpacked.q_zero_point()} and a form for FBGEMM's direct kernel, with which PyTorch's results "
            "are undefined; quantize it symmetrically, or convert the model for another engine"
        )
    codes = _run_for_codes(packed, unpacked)
    return torch._make_per_tensor_quantized_tensor(codes, unpacked.q_scale(), 0)


def _is_of_fbgemm(packed: torch.ScriptObject, channels: int) -> bool:
    """Returns whether FBGEMM packed it: only the refusal of a signed input tells, which names the engine.

    What is unpacked cannot tell: memory may have held the same codes in another order, or twice the same.
    """
    pixel = torch._make_per_tensor_quantized_tensor(torch.zeros(1, channels, 1, 1, dtype=torch.int8), 1.0, 0)
    try:
        torch.ops.quantized.conv_transpose2d(pixel, packed, 1.0, 0)
    except RuntimeError as refusal:
        return "(FBGEMM)" in str(refusal)
    return False


def _run_for_codes(packed: torch.ScriptObject, unpacked: torch.Tensor) -> torch.Tensor:
    """Returns int8 codes [C, O, KH, KW].

    An image of one pixel has no second row, of which the direct kernel would make something else, and products by 1
    do not saturate its int16. The sum is the code; the output's zero point adds 128 to it.
    """
    scale = unpacked.q_scale()
    channels, _, rows, columns = unpacked.shape
    found = []
    for channel in range(channels):
        pixel = torch.zeros(1, channels, 1, 1, dtype=torch.uint8)
        pixel[0, channel] = 1
        x = torch._make_per_tensor_quantized_tensor(pixel, _INPUT_SCALE, 0)
        y = torch.ops.quantized.conv_transpose2d(x, packed, _INPUT_SCALE * scale, _MIDDLE)
        # output padding adds rows and columns behind
        found.append((y.int_repr()[0, :, :rows, :columns].to(torch.int16) - _MIDDLE).to(torch.int8))
    return torch.stack(found)

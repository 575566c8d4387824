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
# More than the allocator keeps at hand of one size.
_FREED = 16


def read_weight(packed: torch.ScriptObject, unpacked: torch.Tensor) -> torch.Tensor:
    """Returns the weight of a packed object of this geometry that PyTorch unpacks to unpacked, whose parameters are
    right in any case.

    What runs is believed, but for two cases: qnnpack and onednn unpack what they were given. qnnpack may refuse to run
    with these parameters. onednn can take a weight in a wrong order, which leaves the codes the same as a whole. So may
    memory that held them before in another order, but not twice.

    Raises: UnsupportedQuantSchemeError for a zero point other than 0 in that form.
    """
    try:
        codes = _run_for_codes(packed, unpacked)
    except RuntimeError:
        return unpacked
    if torch.equal(_counts(codes), _counts(unpacked.int_repr())) and torch.equal(
        _unpack_again(packed, unpacked), unpacked
    ):
        return unpacked
    if unpacked.q_zero_point() != 0:
        raise UnsupportedQuantSchemeError(
            f"zero point {unpacked.q_zero_point()} and a form for FBGEMM's direct kernel, with which PyTorch's results "
            "are undefined; quantize it symmetrically, or convert the model for another engine"
        )
    return torch._make_per_tensor_quantized_tensor(codes, unpacked.q_scale(), 0)


def _counts(codes: torch.Tensor) -> torch.Tensor:
    """Returns how often there is each code; sorting would leave all of them in memory, in an order of their own."""
    return torch.bincount(codes.flatten().to(torch.int16) + _MIDDLE, minlength=2 * _MIDDLE)


def _unpack_again(packed: torch.ScriptObject, unpacked: torch.Tensor) -> torch.Tensor:
    """Returns what PyTorch unpacks while the memory of the first time is taken and free memory holds something else."""
    elsewhere = [torch.zeros(unpacked.shape, dtype=torch.int8) for _ in range(_FREED)]
    del elsewhere
    weight: torch.Tensor = torch.ops.quantized.conv_transpose2d_unpack(packed)[0]
    return weight


def _run_for_codes(packed: torch.ScriptObject, unpacked: torch.Tensor) -> torch.Tensor:
    """Returns int8 codes [C, O, KH, KW].

    An image of one pixel has no second row, of which the direct kernel would make something else, and products by 1
    do not saturate its int16. The sum is the code less its zero point z; the output's zero point adds 128 + z to it.
    """
    scale, zero_point = unpacked.q_scale(), unpacked.q_zero_point()
    channels, _, rows, columns = unpacked.shape
    found = []
    for channel in range(channels):
        pixel = torch.zeros(1, channels, 1, 1, dtype=torch.uint8)
        pixel[0, channel] = 1
        x = torch._make_per_tensor_quantized_tensor(pixel, _INPUT_SCALE, 0)
        y = torch.ops.quantized.conv_transpose2d(x, packed, _INPUT_SCALE * scale, _MIDDLE + zero_point)
        # output padding adds rows and columns behind
        found.append((y.int_repr()[0, :, :rows, :columns].to(torch.int16) - _MIDDLE).to(torch.int8))
    return torch.stack(found)

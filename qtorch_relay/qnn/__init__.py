"""The QNN dialect on Relax: Relay's quantized ops, with Relay's names, argument order and meaning.

Scales (float32) and zero points (int32) are constant operands. Every op has a type rule and a check (verify), and a
canonicalization into plain Relax ops (transform.CanonicalizeOps). Where PyTorch's arithmetic has no Relay form, an op
takes
one more attribute or a last, optional operand; each docstring says what that becomes in stock Relay.

  op               | operands                                                                       | ours
  qnn.quantize     | data, output_scale, output_zero_point                                          | rounding half to
  even
  qnn.dequantize   | data, input_scale, input_zero_point                                            |
  qnn.requantize   | data, input_scale, input_zero_point, output_scale, output_zero_point           | bias, scaling,
  TONEAREST_EVEN
  qnn.conv2d       | data, kernel, input_zero_point, kernel_zero_point, input_scale, kernel_scale   |
  qnn.conv2d_transpose | data, weight, input_zero_point, kernel_zero_point, input_scale, kernel_scale |
  qnn.requantize_add | data, residual, input_scale, residual_*, output_*, five factors                 | the op itself
  qnn.dense        | data, weight, input_zero_point, kernel_zero_point, input_scale, kernel_scale   | leading dimensions
  qnn.add          | lhs, rhs, lhs_scale, lhs_zero_point, rhs_scale, rhs_zero_point, output_*       | arithmetic,
  rounding
  qnn.mul          | as qnn.add                                                                     | rounding
  qnn.concatenate  | data (tuple), input_scales, input_zero_points, output_scale, output_zero_point | arithmetic
  qnn.avg_pool2d   | data, input_scale, input_zero_point, output_scale, output_zero_point           | arithmetic
  qnn.lookup       | data, table, input_scale, input_zero_point, output_scale, output_zero_point    | the op itself
"""

from qtorch_relay.qnn import transform
from qtorch_relay.qnn.binary import add, mul
from qtorch_relay.qnn.choose_qparams import choose_qparams
from qtorch_relay.qnn.concatenate import concatenate
from qtorch_relay.qnn.conv import conv2d
from qtorch_relay.qnn.conv_transpose import conv2d_transpose
from qtorch_relay.qnn.dense import dense
from qtorch_relay.qnn.pooling import avg_pool2d
from qtorch_relay.qnn.quantize import dequantize, lookup, quantize, requantize
from qtorch_relay.qnn.requantize_add import requantize_add

__all__ = [
    "add",
    "avg_pool2d",
    "choose_qparams",
    "concatenate",
    "conv2d",
    "conv2d_transpose",
    "dense",
    "dequantize",
    "lookup",
    "mul",
    "quantize",
    "requantize",
    "requantize_add",
    "transform",
]

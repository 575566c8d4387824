"""The QNN dialect on Relax: Relay's quantized ops, with Relay's names, argument order, defaults and meaning.

Scales (float32) and zero points (int32) are operands, constants but where an op says otherwise. Every op has a type
rule and a check (verify), and a canonicalization into plain Relax ops (transform.CanonicalizeOps). Default attributes
compute what Relay computes. Where PyTorch's arithmetic has no Relay form, an op takes one more attribute (arithmetic)
or last, optional operands; each docstring says what that becomes in stock Relay. Three ops are ours alone.

  op                           | operands                                                                | ours
  simulated_quantize           | data, out_dtype, output_scale, output_zero_point                        |
  simulated_dequantize         | data, in_dtype, input_scale, input_zero_point                           |
  quantize                     | data, output_scale, output_zero_point                                   | arithmetic
  dequantize                   | data, input_scale, input_zero_point                                     | arithmetic
  requantize                   | data, input_scale, input_zero_point, output_scale, output_zero_point    | arithmetic,
                               |                                                                         | rounding
  conv2d                       | data, kernel, input_zero_point, kernel_zero_point, input_scale,         | accumulation
                               | kernel_scale                                                            |
  conv2d_transpose             | data, weight, and as conv2d                                             |
  dense                        | data, weight, and as conv2d                                             | leading axes
  contrib_dense_pack           | as dense                                                                | canonical
  batch_matmul                 | x, y, x_zero_point, y_zero_point, x_scale, y_scale                      |
  add, subtract, mul           | lhs, rhs, lhs_scale, lhs_zero_point, rhs_scale, rhs_zero_point,         | arithmetic,
                               | output_scale, output_zero_point                                         | rounding
  concatenate                  | data, input_scales, input_zero_points, output_scale, output_zero_point  | arithmetic
  tanh, exp, sqrt, rsqrt, erf, | x, scale, zero_point, output_scale, output_zero_point                   |
  abs, sigmoid, hardswish, log |                                                                         |
  leaky_relu                   | x, input_scale, input_zero_point, output_scale, output_zero_point       |
  softmax                      | as tanh                                                                 |
  avg_pool2d                   | data, input_scale, input_zero_point, output_scale, output_zero_point    | arithmetic
  choose_qparams               | see its docstring                                                       | the op itself
  requantize_add               | data, residual, input_scale, residual_*, output_*, five factors         | the op itself
  lookup                       | data, table, input_scale, input_zero_point, output_scale,               | the op itself
                               | output_zero_point                                                       |

requantize_config sets how Relay's arithmetic rounds where a call leaves it open. save_module and load_module keep a
module in a file.
"""

from qtorch_relay.qnn import transform
from qtorch_relay.qnn.activation import leaky_relu, softmax
from qtorch_relay.qnn.batch_matmul import batch_matmul
from qtorch_relay.qnn.binary import add, mul, subtract
from qtorch_relay.qnn.choose_qparams import choose_qparams
from qtorch_relay.qnn.concatenate import concatenate
from qtorch_relay.qnn.conv import conv2d
from qtorch_relay.qnn.conv_transpose import conv2d_transpose
from qtorch_relay.qnn.dense import dense
from qtorch_relay.qnn.dense_pack import contrib_dense_pack
from qtorch_relay.qnn.load import load_module
from qtorch_relay.qnn.pooling import avg_pool2d
from qtorch_relay.qnn.quantize import dequantize, lookup, quantize, requantize
from qtorch_relay.qnn.requantize_add import requantize_add
from qtorch_relay.qnn.requantize_config import current_requantize_config, requantize_config
from qtorch_relay.qnn.save import save_module
from qtorch_relay.qnn.simulated import simulated_dequantize, simulated_quantize
from qtorch_relay.qnn.unary import abs, erf, exp, hardswish, log, rsqrt, sigmoid, sqrt, tanh

__all__ = [
    "abs",
    "add",
    "avg_pool2d",
    "batch_matmul",
    "choose_qparams",
    "concatenate",
    "contrib_dense_pack",
    "conv2d",
    "conv2d_transpose",
    "current_requantize_config",
    "dense",
    "dequantize",
    "erf",
    "exp",
    "hardswish",
    "leaky_relu",
    "load_module",
    "log",
    "lookup",
    "mul",
    "quantize",
    "requantize",
    "requantize_add",
    "requantize_config",
    "rsqrt",
    "save_module",
    "sigmoid",
    "simulated_dequantize",
    "simulated_quantize",
    "softmax",
    "sqrt",
    "subtract",
    "tanh",
    "transform",
]

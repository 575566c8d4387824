"""What PyTorch's kernels compute, to the bit, in numpy: the truth that tests hold PyTorch and the compiled programs to.

core.py has the formulas of each engine for quantizing, requantizing, adding and multiplying, and their conventions; the
other files a family of ops each.
"""

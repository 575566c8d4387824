"""The demo: a small CNN on real images of digits, trained, quantized, compiled, and measured beside its peers."""

# What the demo leaves in a folder, where it is given one.
INT8_FILE, FLOAT_FILE, BUNDLE_FILE, IMAGE_FILE = KEPT = ("digits.pt", "digits_float.pt", "digits.qtr", "digit.npy")

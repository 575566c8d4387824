"""QNN modules for the int8 kernels: channels-last layout, fused kernel calls, lifted constants."""

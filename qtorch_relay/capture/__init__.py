"""Torch in, a neutral Graph out; with calibration and accuracy_reports the only place that imports torch."""

"""The version of qtorch_relay, read by the package, by bundles and by pyproject.toml."""

__version__ = "0.1.0"

"""A module of the dialect as Relay text, for compilers that still live on a TVM with Relay; needs no Relay itself."""

from qtorch_relay.relay.params import save_params
from qtorch_relay.relay.text import to_text

__all__ = ["save_params", "to_text"]

"""The Relay forms of all ops, one file per family; importing them fills the registry."""

from qtorch_relay.relay.forms import codes, dynamic, elementwise, floating, gathering, layers, shapes

__all__ = ["codes", "dynamic", "elementwise", "floating", "gathering", "layers", "shapes"]

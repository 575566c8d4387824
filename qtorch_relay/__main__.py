"""`python -m qtorch_relay` is `qtorch-relay`."""

from qtorch_relay.cli import main

main()

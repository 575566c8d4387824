"""`python -m qtorch_relay.runtime`: tests, runs and times a bundle on a board, with numpy and TVM's runtime alone."""

import sys

from qtorch_relay.runtime.command_line import main

sys.exit(main(sys.argv[1:]))

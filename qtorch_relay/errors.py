"""Every error a user can cause: one readable sentence that says what, where, what is accepted and what to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERROR_STATUS = 2


class QTorchRelayError(Exception):
    """Base of all errors raised on purpose; the CLI prints its message alone and exits with status 2."""


@contextmanager
def told_and_exited() -> Iterator[None]:
    """Lets a command end with the message of an error alone, and USER_ERROR_STATUS."""
    try:
        yield
    except QTorchRelayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)


class ModelFileError(QTorchRelayError):
    """A model file cannot be read: missing, truncated, or not TorchScript."""


class UnsupportedOpError(QTorchRelayError):
    """The model has ops without a converter; the message lists all of them with their source lines."""


class UnsupportedQuantSchemeError(QTorchRelayError):
    """An op is known, but not with this quantization scheme, dtype or argument."""


class InvalidInputError(QTorchRelayError):
    """Inputs at import or at run time have the wrong count, name, shape or dtype."""


class VerifyError(QTorchRelayError):
    """A module breaks a rule of the QNN dialect (scale > 0, zero point in range, axis length, dtypes)."""


class TargetError(QTorchRelayError):
    """A target is unknown, or the host cannot run it."""


class EngineError(QTorchRelayError):
    """A quantized engine is unknown, or this build of PyTorch lacks it."""


class BundleError(QTorchRelayError):
    """A bundle is truncated, altered, or made for another ISA or version."""


class RemoteError(QTorchRelayError):
    """A board over the network cannot be reached, is busy, or refuses what it is asked."""


class BoardLostError(RemoteError):
    """A board dropped away in the middle: nothing more can be asked of it over this connection."""


class OutputPathError(QTorchRelayError):
    """An output file cannot be written."""


class CalibrationError(QTorchRelayError):
    """A model cannot be quantized as asked: its form, the data, the recipe, the observer or the table does not fit."""


class FloatModelWarning(UserWarning):
    """Nothing in a model is int8."""

    def __init__(self) -> None:
        super().__init__(
            "nothing in this model is int8: it runs in float, slowly, as generic code; quantize it with PyTorch first"
        )


class PortablePathWarning(UserWarning):
    """A target has no int8 kernels: the program gives the same codes by generic code, slower."""

    def __init__(self, target: str) -> None:
        super().__init__(target)

    def __str__(self) -> str:
        return f"there are no int8 kernels for {self.args[0]} yet: the portable path gives the same codes, slower"


class PyTorchDiffersWarning(UserWarning):
    """PyTorch computes an op wrongly; ours is what the op means, so the two differ."""

    def __init__(self, op: str, reason: str) -> None:
        super().__init__(op, reason)

    def __str__(self) -> str:
        return f"{self.args[0]}: PyTorch's {self.args[1]}. The import computes what the op means, so codes differ"


class TuningCacheWarning(UserWarning):
    """The file with what tuning found cannot be read or written; only time is lost."""


# The name under which code that checks indices at run time finds raise_index_error.
INDEX_ERROR_FUNCTION = "qtorch_relay.raise_index_error"


def raise_index_error(op: str, index: int, first: int, last: int) -> None:
    """Raises IndexError for an index outside of first to last."""
    accepted = f"accepted are {first} to {last}" if first <= last else "there are no elements"
    raise IndexError(f"{op}: index {index} is out of range; {accepted}")

"""Accuracy runs whose compiled program runs on boards; PyTorch answers the same images on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from accuracy_reports.runs.chunks import ChunkResult, Evaluator
from accuracy_reports.runs.coordinator import Schedule
from accuracy_reports.runs.ending import Ending, WorkerLostError
from accuracy_reports.runs.programs import open_programs
from accuracy_reports.runs.setup import Setup
from accuracy_reports.runs.sharing import share_chunks
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import RemoteError
from qtorch_relay.runtime.bundle import Variant, read_variants
from qtorch_relay.runtime.remote import Boards
from qtorch_relay.runtime.remote_model import place

# TVM's runtime holds so many sessions in one process.
_MAX_SESSIONS = 32


class BoardWorker:
    """A board that evaluates chunks."""

    def __init__(self, setup: Setup, variants: Sequence[Variant], boards: Boards, ending: Ending) -> None:
        """Takes a board, and the program to it.

        Raises:
            WorkerLostError: there is no board now.
            TargetError: the board cannot run the program.
        """
        with _losing_the_board():
            session = boards.connect(ending.is_over)
            self.name = session.name
            self._session, self._ending = session, ending
            try:
                with ending.interrupted_by(session.abort):
                    model = place(session, variants, setup.bundle.name)
                    session.set_num_threads(setup.threads)
                    self._evaluator = Evaluator(setup, partial(open_programs, open_ours=lambda _: model))
            except BaseException:
                self.close()
                raise

    def evaluate(self, chunk: int) -> ChunkResult:
        """Returns a chunk's result. Raises: WorkerLostError if the board dropped away."""
        with _losing_the_board(), self._ending.interrupted_by(self._session.abort):
            return self._evaluator.evaluate(chunk)

    def close(self) -> None:
        """Frees the board for others."""
        self._session.close()


def on_boards(boards: Boards, say: Callable[[str], None]) -> Schedule:
    """Returns a schedule that gives chunks to every board there is; say: told of boards that drop away.

    What boards are there is asked when it starts; one that restarts meanwhile is taken again.
    """

    def schedule(setup: Setup, chunks: Sequence[int]) -> Iterator[ChunkResult]:
        variants = read_variants(setup.bundle)
        count = min(boards.count(), _MAX_SESSIONS, len(chunks))
        hires = [partial(BoardWorker, setup, variants, boards) for _ in range(count)]
        # PyTorch's engine is one for the process: the workers' threads set and restore the one that is set already.
        with quantized_engine(setup.engine):
            yield from share_chunks(chunks, hires, say)

    return schedule


@contextmanager
def _losing_the_board() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise WorkerLostError(str(error)) from error

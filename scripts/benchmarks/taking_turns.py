"""Ways of training in a process of each, which are measured in turns.

What one way asks of its process, as memory that the C library shall keep, must not help another; and measurements
that follow each other closely see the same machine, so that their ratio is worth more than either.
"""

import functools
import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import torch
from measuring import Case
from two_ways import OurWay, PublishedWay, Way

_GO_ON = "go on"


class _Failed:
    """A way's exception, as text."""

    def __init__(self, text: str):
        self.text = text


class WayProcess:
    """A way in a process of its own, which sleeps until it is asked for something.

    Args:
        name: of the way, for messages.
        make: makes the way there.
        threads: of PyTorch on the CPU.
    """

    def __init__(self, name: str, make: Callable[[], Way], threads: int):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        # The way's own workers start as in any command; and not a daemon, as those may have none.
        arguments = (there, make, threads, multiprocessing.get_start_method())
        self._process = context.Process(target=_serve, args=arguments, daemon=False)
        self._process.start()
        there.close()

    def ask(self, method: str, *arguments: object):
        """Return the result of the way's method of that name."""
        self._send((method, arguments))
        return self._answer()

    def epochs(self, case: Case, count: int) -> Iterator[float]:
        """Yield the figures of `Way.epochs`, one after another; between two of them the process sleeps."""
        self._send(("epochs", (case, count)))
        for _ in range(1 + count):
            yield self._answer()
            self._send(_GO_ON)
        self._answer()

    def _send(self, request: object) -> None:
        try:
            self._connection.send(request)
        except BrokenPipeError:
            raise RuntimeError(f"the process of '{self.name}' has ended") from None

    def _answer(self):
        try:
            answer = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"the process of '{self.name}' has ended") from None
        if isinstance(answer, _Failed):
            raise RuntimeError(f"'{self.name}' failed:\n{answer.text}")
        return answer

    def end(self) -> None:
        """Let the process end, by force where it does not."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(connection: Connection, make: Callable[[], Way], threads: int, start_method: str) -> None:
    """Answer until the other end closes the connection."""
    multiprocessing.set_start_method(start_method, force=True)
    torch.set_num_threads(threads)

    def turn(value: float) -> None:
        connection.send(value)
        connection.recv()

    try:
        way = make()
        while True:
            method, arguments = connection.recv()
            arguments = (*arguments, turn) if method == "epochs" else arguments
            connection.send(getattr(way, method)(*arguments))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # the benchmark has ended, well or not
    except Exception:
        connection.send(_Failed(traceback.format_exc()))


PUBLISHED, OURS = "published", "ours"

VARIANTS: dict[str, dict[str, bool]] = {
    "graphs": {"cuda_graphs": True},
    "compiled": {"compile": True},
    "compiled_graphs": {"compile": True, "cuda_graphs": True},
}
"""Settings of our step that are measured beside the plain one; by default on a GPU, and there all."""


def ways(device: torch.device, workers: int, variants: Sequence[str] | None = None) -> dict[str, Callable[[], Way]]:
    """Return by name what makes each way."""
    made = {PUBLISHED: functools.partial(PublishedWay, device, workers), OURS: functools.partial(OurWay, device)}
    if variants is None:
        variants = list(VARIANTS) if device.type == "cuda" else []
    return made | {f"{OURS}, {name}": functools.partial(OurWay, device, **VARIANTS[name]) for name in variants}


@contextmanager
def processes(makers: Mapping[str, Callable[[], Way]]) -> Iterator[dict[str, WayProcess]]:
    """A process for each way, all ended on leaving."""
    started: dict[str, WayProcess] = {}
    try:
        for name, make in makers.items():
            started[name] = WayProcess(name, make, torch.get_num_threads())
        yield started
    finally:
        for process in started.values():
            process.end()


def operation_in_turns(
    running: Sequence[WayProcess], operation: str, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of one call of an operation of the prepared case, one figure a round, by the name of the way.

    Args:
        running: the ways, all prepared for the case.
        operation: one of `two_ways.OPERATIONS`.
        rounds: how often each is measured.
        seconds: how long each measurement shall take; at least one call.
    """
    repetitions = [process.ask("repetitions", operation, seconds) for process in running]
    found: dict[str, list[float]] = {process.name: [] for process in running}
    for _ in range(rounds):
        for process, times in zip(running, repetitions, strict=True):
            found[process.name].append(process.ask("seconds", operation, times))
    return found


def epochs_in_turns(
    running: Sequence[WayProcess], case: Case, rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds that each way's training takes once, and those of its epochs, one a round; a first one does not count."""
    streams = [process.epochs(case, 1 + rounds) for process in running]
    once = {process.name: next(stream) for process, stream in zip(running, streams, strict=True)}
    turns = [[next(stream) for stream in streams] for _ in range(1 + rounds)]
    for stream in streams:
        next(stream, None)  # lets the way know that no other epoch is wanted
    return once, {process.name: [turn[place] for turn in turns[1:]] for place, process in enumerate(running)}

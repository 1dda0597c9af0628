"""Ahead: the next batches are made by other threads while this one computes.

What a batch holds depends on its number alone, so who makes it and when changes nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], workers: int, end: int) -> Iterator[Callable[[int], T]]:
    """`make` as a function that is asked for n, n + 1, ... below `end`: `workers` threads are that many calls ahead."""
    if not workers:
        yield make
        return
    made: dict[int, Future[T]] = {}

    def ask(n: int) -> T:
        wanted = range(n, min(n + workers + 1, end))
        for stale in made.keys() - set(wanted):
            made.pop(stale).cancel()
        for number in wanted:
            if number not in made:
                made[number] = pool.submit(make, number)
        return made.pop(n).result()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="pellucid-ahead")
    try:
        yield ask
    finally:
        pool.shutdown(cancel_futures=True)

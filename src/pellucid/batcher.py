"""The batcher: strangers share the calls of a network.

A request is any function of a model: a walk of any sampler with any guidance around it, an inversion, a likelihood. It
runs in a thread of its own, and the model that it is given waits, when asked, for a tick:

    tick: the rows of all who wait -> the network, once -> to each its own rows

What a network says of a row depends on that row alone, and noise on (seed, sample, step); so a request gets what it
would get alone, whoever comes, goes, fails or is cancelled meanwhile: up to the rounding of kernels at another number
of rows, and to the last bit with batch = 1, where each row is asked by itself. What is shared is the model: samplers
know nothing of it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .conditioning import spread
from .errors import PellucidError
from .types import Batch, Cond, Denoised, Model, Times, Wrapper

T = TypeVar("T")


class Question(NamedTuple):
    """What a request asks of the network, and where it waits for the answer."""

    x: Batch
    t: Times
    cond: Cond
    answer: "Future[Denoised]"

    @property
    def kind(self) -> str:
        """Questions of one kind have the same conditions, so that one batch may hold them; "" has none at all."""
        return " ".join(sorted(f"{n} {v.dtype} {v.shape[1:]}" for n, v in self.cond.items() if n != "drop"))

    def told(self, name: str, like: Tensor) -> Tensor:
        """The condition of that name; where the question has none, zeros, and the mask that withholds them."""
        if name in self.cond:
            return self.cond[name]
        return like.new_full((len(self.x), *like.shape[1:]), name == "drop" and not self.kind)


def alike(questions: list[Question]) -> list[list[Question]]:
    """Those that make a batch together: of one kind, or without conditions among the first who have some."""
    first = next((q.kind for q in questions if q.kind), "")
    groups = dict[str, list[Question]]()
    for question in questions:
        groups.setdefault(question.kind or first, []).append(question)
    return list(groups.values())


def join(questions: list[Question]) -> tuple[Batch, Times, Cond | None]:
    """Questions that are alike as one batch."""
    names = {name: value for q in questions for name, value in q.cond.items()}
    if len({q.kind for q in questions}) > 1:
        names.setdefault("drop", torch.empty(0, dtype=torch.bool, device=questions[0].x.device))
    cond = {name: torch.cat([q.told(name, like) for q in questions]) for name, like in names.items()}
    return torch.cat([q.x for q in questions]), torch.cat([q.t for q in questions]), cond or None


class Request(Generic[T]):
    """Work under way. `calls` is how often it has asked the network."""

    def __init__(self) -> None:
        self.calls = 0
        self.outcome: Future[T]
        self._answer: Future[Denoised] | None = None
        self._cancelled = False

    def result(self, timeout: float | None = None) -> T:
        """What the work returned or raised: CancelledError if it was cancelled, TimeoutError after `timeout`, s."""
        return self.outcome.result(timeout)

    def done(self) -> bool:
        """Whether it has ended, in any way."""
        return self.outcome.done()

    def cancel(self) -> None:
        """Let it ask no more: queued or waiting for the network it ends at once, else when it asks the next time."""
        self._cancelled = True
        self.outcome.cancel()
        if self._answer:
            self._answer.cancel()

    def asks(self) -> "Future[Denoised]":
        """Where its next answer will be."""
        self._answer = Future()
        if self._cancelled:
            raise CancelledError
        self.calls += 1
        return self._answer


class Shared(Wrapper):
    """A model that answers a request at the next tick."""

    def __init__(self, batcher: "Batcher", request: Request[Any]) -> None:
        super().__init__(batcher.model)
        self.batcher, self.request = batcher, request

    def __call__(self, x: Batch, t: Times, cond: Cond | None = None) -> Denoised:
        return self.batcher.ask(self.request, x, t, cond)


class Batcher:
    """Requests of one model, in calls of at most `batch` rows; `calls` is how many of these there were.

    At most `requests` run at a time; others wait in a queue. A tick comes when all that run are waiting for it, when
    `batch` rows are, or after `patience` seconds of waiting for those that are busy with work of their own.
    """

    def __init__(self, model: Model, batch: int = 64, requests: int = 64, patience: float = 0.1) -> None:
        if batch < 1 or requests < 1 or not patience >= 0:
            raise PellucidError(
                f"batch is {batch}, requests {requests}, patience {patience}; expected 1, 1 and 0, or more of each."
            )
        self.model, self.batch, self.patience = model, batch, min(patience, threading.TIMEOUT_MAX)
        self.calls = 0
        self._running, self._waiting, self._closed, self._over = set[Request[Any]](), list[Question](), False, False
        self._changed, self._network = threading.Condition(), threading.Lock()
        self._threads = ThreadPoolExecutor(requests, "request")
        self._ticker = threading.Thread(target=self._tick, name="ticker", daemon=True)
        self._ticker.start()

    def submit(self, work: Callable[[Model], T]) -> Request[T]:
        """Begin `work`, such as `lambda model: sample(model, 4, sampler="heun", guidance=2.0)`, beside the others."""
        request = Request[T]()
        with self._changed:
            if self._closed:
                raise PellucidError("the batcher is closed; submit requests before that.")
            request.outcome = self._threads.submit(self._serve, request, work)
        return request

    def close(self, cancel: bool = False) -> None:
        """Take no more requests, and wait for the others to end, or cancel them."""
        with self._changed:
            self._closed = True
            running = list(self._running)
        for request in running if cancel else ():
            request.cancel()
        self._threads.shutdown(cancel_futures=cancel)
        with self._changed:
            self._over = True
            self._changed.notify()
        self._ticker.join()

    def __enter__(self) -> "Batcher":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(cancel=kind is not None)

    def _serve(self, request: Request[T], work: Callable[[Model], T]) -> T:
        with self._changed:
            self._running.add(request)
        try:
            return work(Shared(self, request))
        finally:
            with self._changed:
                self._running.remove(request)
                self._changed.notify()

    def ask(self, request: Request[Any], x: Batch, t: Times, cond: Cond | None) -> Denoised:
        """The model's answer to a request, at the next tick. A question that wants gradients is asked by itself."""
        shape, dtype = tuple(self.model.shape), self.model.dtype
        if tuple(x.shape[1:]) != shape or x.dtype != dtype:
            raise PellucidError(f"x is of shape {tuple(x.shape[1:])} and {x.dtype}; expected {shape} and {dtype}.")
        if not isinstance(t, Tensor) or t.shape != x.shape[:1]:
            got = f"of shape {tuple(t.shape)}" if isinstance(t, Tensor) else repr(t)
            raise PellucidError(f"t is {got}; expected a time for each of the {len(x)} samples.")
        cond = {name: value.to(x.device) for name, value in spread(cond, len(x)).items()}
        answer = request.asks()
        if x.requires_grad and torch.is_grad_enabled():
            return self._call(x, t, cond or None)
        with self._changed:
            self._waiting.append(Question(x, t, cond, answer))
            self._changed.notify()
        return answer.result()

    @torch.no_grad()
    def _tick(self) -> None:
        while not self._over:
            taken = self._gather()
            try:
                for questions in alike(taken):
                    self._answer(questions)
            except Exception as error:  # a model that answers nonsense
                for question in taken:
                    if not question.answer.done():
                        question.answer.set_exception(error)

    def _gather(self) -> list[Question]:
        """The questions of the next tick; none when all is over, or when all were cancelled."""
        taken, rows = list[Question](), 0
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            self._changed.wait_for(self._full, self.patience)
            while self._waiting and (not taken or rows + len(self._waiting[0].x) <= self.batch):
                question = self._waiting.pop(0)
                if question.answer.set_running_or_notify_cancel():
                    taken.append(question)
                    rows += len(question.x)
        return taken

    def _full(self) -> bool:
        """Whether there is nothing to wait for."""
        wanted = [q for q in self._waiting if not q.answer.cancelled()]
        return len(wanted) == len(self._running) or sum(len(q.x) for q in wanted) >= self.batch

    def _answer(self, questions: list[Question]) -> None:
        """Ask them in one call; if that fails each by itself, so that a fault is heard by its owner alone."""
        try:
            d = self._call(*join(questions))
        except Exception as error:
            for question in questions:
                question.answer.set_exception(error) if len(questions) == 1 else self._answer([question])
            return
        sizes = [len(q.x) for q in questions]
        spreads = d.spread.split(sizes) if d.spread is not None else [None] * len(questions)
        for question, *parts in zip(questions, d.x0.split(sizes), d.eps.split(sizes), spreads, strict=True):
            question.answer.set_result(Denoised(*parts))

    def _call(self, x: Batch, t: Times, cond: Cond | None) -> Denoised:
        """The network on all rows, at most `batch` at a time."""
        parts = list[Denoised]()
        with self._network:
            for low in range(0, len(x), self.batch):
                rows = slice(low, low + self.batch)
                self.calls += 1
                parts.append(self.model(x[rows], t[rows], cond and {name: v[rows] for name, v in cond.items()}))
        spread = torch.cat([d.spread for d in parts]) if parts[0].spread is not None else None  # type: ignore[misc]
        return Denoised(torch.cat([d.x0 for d in parts]), torch.cat([d.eps for d in parts]), spread)

"""Work that is done ahead by threads, while the model is busy with what was made before."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def prefetch(jobs: Iterable[J], prepare: Callable[[J], R], workers: int) -> Generator[tuple[J, R]]:
    """Yields each job and what `prepare` makes of it, in the order of the jobs.

    Reading files and decoding pictures leave Python's lock, so threads are enough. Twice as many jobs as workers are
    ready or under way at once, and no more: memory is bounded.

    Args:
        jobs: Taken one by one, as they are needed.
        prepare: Called in a worker thread; its error is raised where its result would be yielded.
        workers: Threads; 0 prepares each job when it is asked for.

    Example:
        >>> list(prefetch([3, 1, 2], lambda job: job * job, workers=2))
        [(3, 9), (1, 1), (2, 4)]
    """
    if not workers:
        yield from ((job, prepare(job)) for job in jobs)
        return
    waiting: deque[tuple[J, Future[R]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        try:
            for job in jobs:
                waiting.append((job, pool.submit(prepare, job)))
                if len(waiting) > 2 * workers:
                    yield _done(waiting)
            while waiting:
                yield _done(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _done(waiting: deque[tuple[J, Future[R]]]) -> tuple[J, R]:
    job, future = waiting.popleft()
    return job, future.result()

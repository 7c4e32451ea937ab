"""Prefetching: threads prepare the next inputs while the model works on the previous inputs."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def prefetch(jobs: Iterable[J], prepare: Callable[[J], R], workers: int) -> Generator[tuple[J, R]]:
    """Yields each job with the result of `prepare`, in the order of the jobs.

    Reading files and decoding images release Python's lock, so threads are enough. The number of jobs that are ready or
    in progress is at most twice the number of workers, so memory is bounded.

    Args:
        jobs: The jobs, taken one by one when needed.
        prepare: A function that a worker thread calls. An error of a job is raised when its result would be yielded.
        workers: The number of threads. 0: each job is prepared when its result is requested.

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

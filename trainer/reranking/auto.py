"""`rerank = "auto"`: whether a subset is reranked, decided on held-out queries. Pure arithmetic on counts."""

import hashlib
import math

from pydantic import BaseModel


class Decision(BaseModel):
    """What became of one subset, and the held-out numbers that decided it."""

    reranked: bool
    queries: int
    """Held-out ones."""
    gained: int
    """Of these, how many have a right first item by reranking alone."""
    lost: int
    """Of these, how many have one without reranking alone."""
    difference: float
    """Of precision@1, reranked minus not, in [−1, 1]."""
    standard_error: float
    """Of the difference, if reranking had no effect."""

    def __str__(self) -> str:
        return (
            f"{'reranked' if self.reranked else 'left alone'}: {self.difference:+.3f} ± {self.standard_error:.3f} on "
            f"{self.queries} held-out queries, {self.gained} gained, {self.lost} lost"
        )


def decide(queries: int, gained: int, lost: int, *, min_queries: int) -> Decision:
    """Whether to rerank a subset: where held-out queries gain more than they lose.

        difference = (gained − lost) / queries,   standard error = √(gained + lost) / queries

    The error is McNemar's, of paired right and wrong answers under no effect: queries that stay as they are say
    nothing. With fewer than `min_queries` the difference must exceed it, so a lucky query switches nothing on; without
    any held-out query nothing is reranked.

    Args:
        queries: Held-out queries of the subset.
        gained: Those whose first item is right by reranking alone.
        lost: Those whose first item is right without it alone.
        min_queries: From how many on any gain is enough.

    Returns:
        The decision, with the numbers.

    Example:
        >>> decide(100, 5, 3, min_queries=50).reranked, decide(40, 5, 3, min_queries=50).reranked
        (True, False)

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12(2), 1947.
    """
    noise = math.sqrt(gained + lost) if queries < min_queries else 0.0
    return Decision(
        reranked=gained - lost > noise,
        queries=queries,
        gained=gained,
        lost=lost,
        difference=(gained - lost) / queries if queries else 0.0,
        standard_error=math.sqrt(gained + lost) / queries if queries else 0.0,
    )


def is_held_out(query_id: str) -> bool:
    """Whether a query is in the half that decides: by the hash of its id, so every run holds out the same ones.

    Example:
        >>> sum(is_held_out(f"query {number}") for number in range(1000))
        513
    """
    return hashlib.sha256(query_id.encode()).digest()[0] % 2 == 0

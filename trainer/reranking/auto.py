"""The decision of `rerank = "auto"` whether to rerank a subset, from held-out queries. Pure arithmetic on counts."""

import hashlib
import math

from pydantic import BaseModel


class Decision(BaseModel):
    """The decision about one subset, with the numbers of the held-out queries."""

    reranked: bool
    queries: int
    """The number of held-out queries."""
    gained: int
    """The number of held-out queries whose first item is right only with reranking."""
    lost: int
    """The number of held-out queries whose first item is right only without reranking."""
    difference: float
    """The precision@1 with reranking minus the precision@1 without reranking, in [−1, 1]."""
    standard_error: float
    """The standard error of the difference if reranking had no effect."""

    def __str__(self) -> str:
        return (
            f"{'reranked' if self.reranked else 'not reranked'}: {self.difference:+.3f} ± {self.standard_error:.3f} on "
            f"{self.queries} held-out queries, {self.gained} gained, {self.lost} lost"
        )


def decide(queries: int, gained: int, lost: int, *, min_queries: int) -> Decision:
    """Decides whether to rerank a subset. A subset is reranked if more held-out queries gain than lose.

        difference = (gained − lost) / queries,   standard error = √(gained + lost) / queries

    The standard error is McNemar's for paired right and wrong answers without an effect. Queries with the same result
    in both cases do not count. With fewer than `min_queries` held-out queries, the difference must exceed the standard
    error, so that a single lucky query does not decide. Without held-out queries, the subset is not reranked.

    Args:
        queries: The number of held-out queries of the subset.
        gained: The number of queries whose first item is right only with reranking.
        lost: The number of queries whose first item is right only without reranking.
        min_queries: The number of queries from which any gain is enough.

    Returns:
        The decision with its numbers.

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
    """Returns whether a query is held out. The hash of the id decides, so every run holds out the same queries.

    Example:
        >>> sum(is_held_out(f"query {number}") for number in range(1000))
        513
    """
    return hashlib.sha256(query_id.encode()).digest()[0] % 2 == 0

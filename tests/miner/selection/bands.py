"""The second step of a cascade."""

from dataclasses import replace


def band(small, large, every):
    """Rows of the second judge, by default for every second query. They hold the candidates with an even rank."""
    for row, (first, second) in enumerate(zip(small, large, strict=True)):
        some = [one for one in second.candidates if one.rank % 2 == 0] if row % every == 0 else []
        yield replace(first, positives=second.positives if some else [], candidates=some)

"""The counts of a scoring job, and the cost of its answers, as rows of a printed table."""

from unijudge.formats.scores import ScoreTotals
from unijudge.judging.verdicts import Cost


def totals_rows(totals: ScoreTotals) -> list[tuple[str, str]]:
    """Returns the counts of all runs of a job."""
    counts = totals.counts
    rows = [("all runs", f"asked {counts.asked:,} pairs, reused {counts.reused:,}")]
    if totals.shards_counted < totals.shards:
        rows.append(
            ("counted", f"{totals.shards_counted:,} of {totals.shards:,} shards have counts")
        )
    return rows if counts.cost is None else rows + cost_rows(counts.cost, counts.asked)


def cost_rows(cost: Cost, pairs: int) -> list[tuple[str, str]]:
    """Returns a row for each field of the cost of some pairs. A field without a count has no row.

    Example:
        >>> cost_rows(Cost(prompt_tokens=1200, computed_tokens=600, images=9), 6)[:2]
        [('prompt tokens', '1,200 (200 a pair)'), ('computed tokens', '600 (100 a pair)')]
    """
    return [
        (name.replace("_", " "), f"{value:,} ({value / max(1, pairs):.3g} a pair)")
        for name, value in cost
        if value is not None
    ]

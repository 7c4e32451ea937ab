"""Streams of many lengths → groups of like length, so that little of a forward pass is padding."""

from collections.abc import Sequence

MOST_PADDING = 128
"""Of a group, in tokens: about what one more forward pass costs."""


def buckets(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Cuts a batch, ordered by length, into groups that are padded to their longest.

    A group of n streams, the longest of length l, takes n · l tokens; what its streams do not fill is padding. The next
    longest stream joins while n · l stays within `most_tokens` and the padding within `MOST_PADDING`.

    Args:
        lengths: Of the streams, in tokens.
        most_tokens: Largest n · l. A longer stream is a group of its own.

    Returns:
        Groups of places in `lengths`, each place once, the longest stream first.

    Example:
        >>> buckets([10, 300, 12, 290], most_tokens=1000)
        [[1, 3], [2, 0]]
        >>> buckets([10, 300, 12, 290], most_tokens=500)
        [[1], [3], [2, 0]]
    """
    groups: list[list[int]] = []
    longest = filled = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        padded = longest * (len(groups[-1]) + 1) if groups else 0
        filled += lengths[place]
        if not groups or padded > most_tokens or padded - filled > MOST_PADDING:
            groups.append([])
            longest = filled = lengths[place]
        groups[-1].append(place)
    return groups

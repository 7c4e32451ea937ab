"""Groups streams of similar length, so that a forward pass contains little padding."""

from collections.abc import Sequence

MOST_PADDING = 128
"""The largest padding of a group, in tokens. This padding costs about as much as one more forward pass."""


def buckets(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Sorts a batch by length and splits it into groups, each padded to its longest stream.

    A group of n streams whose longest stream has length l takes n · l tokens. The tokens that the streams do not fill
    are padding. The next longest stream joins the group if n · l stays within `most_tokens` and the padding stays
    within `MOST_PADDING`.

    Args:
        lengths: The lengths of the streams, in tokens.
        most_tokens: The largest n · l. A longer stream forms a group alone.

    Returns:
        Groups of indices into `lengths`, each index once, the longest stream first.

    Example:
        >>> buckets([10, 300, 12, 290], most_tokens=1000)
        [[1, 3], [2, 0]]
        >>> buckets([10, 300, 12, 290], most_tokens=500)
        [[1], [3], [2, 0]]
    """
    groups: list[list[int]] = []
    longest = filled = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        padded = longest * (len(groups[-1]) + 1) if groups else 0
        filled += lengths[index]
        if not groups or padded > most_tokens or padded - filled > MOST_PADDING:
            groups.append([])
            longest = filled = lengths[index]
        groups[-1].append(index)
    return groups

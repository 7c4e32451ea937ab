"""Predicts the tokens of a job from the counted and the scored pairs of its sample.

Letters: N counted pairs.
"""

from collections.abc import Sequence

import numpy as np

from miner.estimate.pair_counts import PairCounts
from unijudge.judging.flops import TokenCount
from unijudge.judging.verdicts import Cost

FITTED_PAIRS = 30
"""The least number of counted pairs from which the tokens of a character and of an image are fitted."""


def mean_tokens(
    counts: Sequence[Sequence[TokenCount]], sizes_N2: Sequence[tuple[int, int]], tally: PairCounts
) -> float:
    """Returns the mean tokens of a pair of the job.

    The tokens of a pair are about a constant, plus a number for each character and for each image. A fit to the counted
    pairs gives the three numbers. The characters and images of the job are known exactly. So the estimate does not
    depend on the lengths of the texts that were drawn.

    Args:
        counts: The token counts of each query's pairs.
        sizes_N2: The characters and the images of each counted pair.
        tally: The counts of the job's pairs.
    """
    tokens_N = np.array([count.tokens for found in counts for count in found], np.float64)
    ask = tally.to_ask(tally.k)
    if len(tokens_N) < FITTED_PAIRS or not ask:
        return float(tokens_N.mean())
    sizes_N3 = np.column_stack([np.ones(len(tokens_N)), np.array(sizes_N2, np.float64)])
    weights_3 = np.linalg.lstsq(sizes_N3, tokens_N, rcond=None)[0]
    means_3 = np.array([1, tally.new_characters / ask, tally.images(tally.k) / ask])
    return max(1.0, float(means_3 @ weights_3))


def computed_share(counts: Sequence[Sequence[TokenCount]], measured: Cost | None) -> float:
    """Returns the share of the tokens that the judge computes, in (0, 1].

    Args:
        counts: The token counts of each query's pairs.
        measured: The cost of scored queries. The share of their tokens that was computed includes all caching of the
            judge's engine: whole blocks, and the beginning that all prompts have in common.
    """
    if measured is not None:
        return measured.computed_tokens / measured.prompt_tokens

    # Without measurement, the prefix of a query is computed once.
    computed = sum(count.tokens - count.shared_tokens for found in counts for count in found)
    computed += sum(found[0].shared_tokens for found in counts)
    return computed / sum(count.tokens for found in counts for count in found)

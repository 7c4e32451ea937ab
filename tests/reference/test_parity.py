"""A content that the miner excludes is also excluded from a batch's negatives, and from an evaluation's open pool."""

import tempfile
from pathlib import Path

from hypothesis import given, settings

from miner.retrieval.pools import Pools
from tests.reference import training as reference
from tests.reference.trainings import evaluation, examples_of, known, measured, training
from trainer.data.collate import collate
from unijudge.formats.corpus import Corpus


@settings(max_examples=40, deadline=None)
@given(drawn=training())
def test_a_batch_masks_what_the_miner_excludes(drawn):
    """Additional positives are an exception, because only a selection knows them."""
    items, rows = drawn
    for row in rows:
        row.further = []
    with tempfile.TemporaryDirectory() as folder:
        examples = examples_of(Path(folder), items, rows)
        pools = Pools(Corpus(Path(folder)), "global")
        excluded = [set(pools.excluded(row).tolist()) for row in range(len(rows))]
        batch = collate([examples[row] for row in range(len(rows))])
    places = {reference.exact(item): place for place, item in enumerate(items)}
    held = batch.says_BU | batch.shows_BU
    for row, barred in enumerate(excluded):
        for column, one in enumerate(batch.candidates):
            assert bool(held[row, column]) == (places[reference.exact(known(one))] in barred)


@settings(max_examples=40, deadline=None)
@given(drawn=evaluation())
def test_an_open_pool_lacks_excluded_items_that_are_not_right(drawn):
    items, queries = drawn
    with tempfile.TemporaryDirectory() as folder:
        _, rankings = measured(Path(folder) / "c", items, queries, keep=len(items))
        corpus = Corpus(Path(folder) / "c")
        pools = Pools(corpus, "global")
        for row, ranking in enumerate(rankings):
            if queries[row]["closed"] is None:
                excluded = {corpus.items[int(place)].item_id for place in pools.excluded(row)}
                everything = set(corpus.item_ids.to_pylist())
                assert set(ranking.item_ids) == everything - (excluded - set(ranking.positive_ids))

"""The candidates of a batch that are not negatives of a row, by the rule of the miner. Computed by hand."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch

from tests.pictures import png
from trainer.data.collate import collate
from trainer.data.dataset import Examples
from trainer.losses.contrastive import in_batch_contrast
from unijudge.formats.corpus import Corpus, Item, Query, write_corpus
from unijudge.formats.scores import Judged
from unijudge.formats.triples import (
    Extra,
    Negative,
    Triple,
    TripleManifest,
    finish_triples,
    write_triples,
)


def examples_of(folder, items, queries, chosen, extras=None, *, fold_case=True):
    """`chosen` has the negatives of each query."""
    folder.mkdir(exist_ok=True)
    write_corpus(folder, items, queries, images=folder, rejects=0, source="t")
    corpus = Corpus(folder)

    def judged(item_id):
        item = corpus.items[corpus.row_of[item_id]]
        return {"item_id": item_id, "item_key": item.key, "rank": 0, "similarity": 0.5}

    rows = [
        Triple(
            query.query_id,
            "x",
            Judged(**judged(query.positive_ids[0])),
            [Negative(**judged(name)) for name in chosen[query.query_id]],
            [Extra(**judged(name)) for name in (extras or {}).get(query.query_id, ())],
        )
        for query in queries
    ]
    write_triples(folder / "triples", rows)
    width = len(next(iter(chosen.values())))
    manifest = TripleManifest(
        corpus=corpus.fingerprint,
        scores="s",
        selection={},
        rows=len(rows),
        negatives_in_row=width,
        statistics={},
        fold_case=fold_case,
    )
    finish_triples(folder / "triples", manifest)
    return Examples(corpus, folder / "triples", width)


def masked(examples, *, in_batch=True):
    """Returns for each row the texts that are not its negatives."""
    batch = collate([examples[row] for row in range(len(examples))])
    rows = batch.masked_BU(in_batch=in_batch)
    return [{batch.candidates[int(place)].text for place in row.nonzero()} for row in rows]


def texts(*names):
    return [Item(name, ("x",), text=text) for name, text in names]


def test_duplicates_of_a_positive_and_further_positives_are_not_negatives(tmp_path):
    items = texts(
        ("p", "a red fox"), ("P", "A Red  Fox"), ("e", "a fox"), ("n", "a cow"), ("m", "a hen")
    )
    queries = [Query("q0", "x", ("p",), text="red?"), Query("q1", "x", ("P",), text="which?"),
               Query("q2", "x", ("e",), text="fox?")]  # fmt: skip
    examples = examples_of(
        tmp_path, items, queries, {"q0": ["n"], "q1": ["m"], "q2": ["n"]}, {"q0": ["e"]}
    )
    assert masked(examples) == [{"A Red  Fox", "a fox"}, {"a red fox"}, set()]


@pytest.mark.parametrize(
    ("fold", "expected"), [(True, [{"a red fox"}, set()]), (False, [set(), set()])]
)
def test_duplicates_are_the_same_as_in_the_selection(tmp_path, fold, expected):
    """A selection that distinguishes letter case chose another spelling of the query as a negative.

    It stays a negative.
    """
    items = texts(("p", "fox"), ("P", "a red fox"), ("r", "cow"), ("n", "hen"))
    queries = [Query("q0", "x", ("p",), text="A red fox"), Query("q1", "x", ("r",), text="moo?")]
    chosen = {"q0": ["P"], "q1": ["n"]}
    assert masked(examples_of(tmp_path, items, queries, chosen, fold_case=fold)) == expected


def test_further_positives_hold_for_every_row_that_asks_the_same(tmp_path):
    items = texts(("p", "one"), ("r", "two"), ("e", "three"), ("n", "four"), ("m", "five"))
    queries = [Query("q0", "x", ("p",), text="?"), Query("q1", "x", ("r",), text=" ? "),
               Query("q2", "x", ("e",), text="other")]  # fmt: skip
    examples = examples_of(
        tmp_path, items, queries, {"q0": ["n"], "q1": ["m"], "q2": ["n"]}, {"q0": ["e"]}
    )
    assert masked(examples) == [{"two", "three"}, {"one", "three"}, set()]


def test_a_query_is_not_its_own_negative(tmp_path):
    """The rows are A→B and B→A. With a cosine of 1 to itself, a query would be its own hardest negative."""
    items = texts(("A", "night"), ("B", "Nacht"), ("n", "day"), ("m", "Tag"))
    queries = [Query("q0", "x", ("B",), text="Night "), Query("q1", "x", ("A",), text="Nacht")]
    examples = examples_of(tmp_path, items, queries, {"q0": ["m"], "q1": ["n"]})
    assert masked(examples) == [{"night"}, {"Nacht"}]
    batch = collate([examples[0], examples[1]])
    cosines = torch.tensor([[1.0 if one.text == asked else 0.0 for one in batch.candidates]
                            for asked in ("night", "Nacht")])  # fmt: skip
    own, every = (~batch.masked_BU(in_batch=wide) for wide in (False, True))
    loss = in_batch_contrast(cosines, own, every, temperature=0.2).item()
    assert loss == pytest.approx(math.log(3 / 2)), (
        "three candidates that say nothing, two of them its own"
    )


def test_the_querys_picture_is_a_negative_only_if_the_selection_chose_it(tmp_path):
    digests = {}
    for color in ("red", "blue"):
        (tmp_path / f"{color}.png").write_bytes(png(color))
        digests[color] = hashlib.sha256(png(color)).hexdigest()

    def picture(color):
        return {"image": f"{color}.png", "image_sha256": digests[color]}

    items = [Item("t", ("x",), text="a text"), Item("u", ("x",), text="another"),
             Item("red", ("x",), text="shown", **picture("red")), Item("blue", ("x",), **picture("blue"))]  # fmt: skip
    queries = [Query("q0", "x", ("t",), text="what?", **picture("red")),
               Query("q1", "x", ("u",), text="how?", **picture("red"))]  # fmt: skip
    examples = examples_of(tmp_path, items, queries, {"q0": ["red"], "q1": ["blue"]})
    assert masked(examples) == [set(), {"shown"}]


def test_a_batch_has_scores_if_all_rows_have_them_and_moves_whole(tmp_path):
    items = texts(("p", "one"), ("n", "two"))
    (example,) = examples_of(tmp_path, items, [Query("q0", "x", ("p",), text="?")], {"q0": ["n"]})
    assert collate([example]).teacher_BK is None
    judged = replace(example, teacher=[0.9, 0.1])
    assert (
        collate([judged, judged]).teacher_BK.tolist()
        == [[pytest.approx(0.9), pytest.approx(0.1)]] * 2
    )
    assert collate([judged, example]).teacher_BK is None, "one row without a judge's scores"
    moved = vars(collate([example]).to(torch.device("meta")))
    tensors = {
        name: value.device.type for name, value in moved.items() if isinstance(value, torch.Tensor)
    }
    assert tensors == dict.fromkeys(("columns_BK", "says_BU", "shows_BU", "weights_B"), "meta")
    assert moved["candidates"] == example.candidates

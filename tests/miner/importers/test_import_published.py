"""Released scores, and rows with a teacher's scores, become a corpus and a score folder for `mine select`."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from judge_service.backends.scripted import ScriptedJudge
from miner.cli import app
from miner.exporters.sentence_transformers import export_sentence_transformers
from miner.importers.building.published_scores import PublishedScores
from miner.importers.sentence_transformers import read_tuples
from miner.importers.unime import read_unime
from miner.publishing.publish import publish
from miner.scoring.job import score
from miner.selection.negatives import score_of
from miner.selection.select import select
from miner.selection.settings import SelectSettings
from miner.settings import CascadeSettings, ScoreSettings
from tests.miner.conftest import embed, serving
from tests.miner.layouts import images_under, take
from tests.miner.selections import opened
from tests.pictures import png
from unijudge.errors import DataError
from unijudge.formats.inventory import check
from unijudge.formats.scores import ScoreManifest, read_scores
from unijudge.formats.triples import read_triples
from unijudge.judging.prompt import Prompt
from unijudge.storage.files import read_json


@pytest.fixture
def images(tmp_path):
    return images_under(tmp_path)


def unime_row(**changes):
    return {
        "query_text": "<|image_1|>\nWhich?\n", "query_image": "images/CIRR/a.png", "pos_text": "parking",
        "pos_image": "", "query_pos_scores": 0.9,
        "hard_negatives": [["too good", ""], ["sitting", ""], ["sitting", ""], ["<|image_1|>\nshown", "b.png"]],
        "hard_negatives_scores": [0.85, 0.5, 0.5, 0.125],
    } | changes  # fmt: skip


def unime(tmp_path, rows):
    path = tmp_path / "train_data_Judge_scores.json"
    path.write_text(json.dumps(rows))
    return path, PublishedScores(tmp_path / "scores", path)


def test_released_scores_are_selected_at_once(tmp_path, images):
    """All numbers were computed by hand: with σ⁺ = 0.9 and β = 0.1, 0.85 is dropped, and 0.5 and 0.125 survive."""
    fallback = unime_row(pos_text="nobody knows", hard_negatives_scores=[1.0, 1.0, 1.0, 1.0])
    path, published = unime(
        tmp_path, [unime_row(), unime_row(hard_negatives_scores=[0.5]), fallback]
    )
    corpus, rejects = take(read_unime(path), tmp_path, images, 0.4, published)
    assert rejects == [(f"{path.name}:2", "has 2 scores, but a positive and 4 negatives need 5")]
    assert [(item.text, item.pools) for item in corpus.items] == [
        ("parking", ("CIRR",)), ("too good", ()), ("sitting", ()), ("shown", ()), ("nobody knows", ("CIRR",)),
    ]  # fmt: skip
    manifest = read_json(tmp_path / "scores" / "manifest.json", ScoreManifest)
    assert (manifest.judge.model, manifest.judge.backend) == ("released", "released")
    assert (manifest.vectors, manifest.queries, manifest.k) == (None, 2, 3)
    assert "2 rows read" in check(tmp_path / "scores")
    row, drawn = read_scores(tmp_path / "scores")
    assert row.query_key == corpus.queries[0].key
    (positive,) = row.positives
    assert corpus.items[corpus.row_of[positive.item_id]].text == "parking"
    assert positive.yes_logprob == pytest.approx(math.log(0.9))
    assert positive.no_logprob == pytest.approx(math.log(0.1))
    assert [score_of(judged) for judged in row.candidates] == pytest.approx([0.85, 0.5, 0.125])
    for judged in [positive, *row.candidates]:
        assert (judged.rank, judged.similarity, judged.argmax_is_label, judged.error) == (
            None,
            None,
            None,
            None,
        )
        assert judged.item_key == corpus.items[corpus.row_of[judged.item_id]].key
    assert {(judged.log_odds, judged.error) for judged in drawn.candidates} == {
        (None, "saturated: published as exactly 1, which has no log-odds")
    }
    embed(corpus, tmp_path / "vectors")
    settings = SelectSettings(
        scores=tmp_path / "scores", corpus=corpus.folder, vectors=tmp_path / "vectors", out=tmp_path / "triples",
        num_negatives=2, stride=1,
    )  # fmt: skip
    assert select(settings)["left out, no candidate"] == 1
    (triple,) = read_triples(tmp_path / "triples", corpus.fingerprint)
    assert [corpus.items[corpus.row_of[n.item_id]].text for n in triple.negatives] == [
        "sitting",
        "shown",
    ]
    assert [negative.similarity for negative in triple.negatives] == [None, None]


def test_a_second_judge_is_asked_about_released_scores_near_the_cut(tmp_path, images):
    """σ⁺ = 0.9 and the cut is at 0.8.

    The scores 0.85 and 0.5 are within 0.35 of the cut. They stay candidates, although their rank was not published.
    """
    path, published = unime(tmp_path, [unime_row()])
    corpus, _ = take(read_unime(path), tmp_path, images, published=published)
    with serving(ScriptedJudge(Prompt())) as url:
        band = CascadeSettings(scores=tmp_path / "scores", width=0.35)
        score(
            ScoreSettings(corpus=corpus.folder, out=tmp_path / "second", service=url, cascade=band),
            print,
        )
    (row,) = read_scores(tmp_path / "second")
    texts = [
        [corpus.items[corpus.row_of[one.item_id]].text for one in part]
        for part in (row.positives, row.candidates)
    ]
    assert texts == [["parking"], ["too good", "sitting"]]
    assert [one.rank for one in row.candidates] == [0, 1]


def test_a_score_folder_is_not_overwritten(tmp_path, images):
    path, published = unime(tmp_path, [unime_row()])
    take(read_unime(path), tmp_path, images, published=published)
    with pytest.raises(DataError, match="scores: exists already"):
        take(read_unime(path), tmp_path, images, published=published)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pos_text": ""}, "positive: has neither a text nor an image"),
        ({"pos_text": 5.5}, "5.5 is not a text"),
        (
            {"query_image": "images/CIRR/gone.png"},
            "query: image images/CIRR/gone.png: no such file",
        ),
        (
            {"hard_negatives": [["x", ""], ["", ""], ["y", ""], ["z", ""]]},
            "negative 2: has neither a text nor an image",
        ),
        ({"hard_negatives": [["x"]]}, "hard_negatives is not a list of [text, image path]"),
        ({"query_pos_scores": 1.5}, "score 1.5 is not a probability, 0 … 1"),
        ({"query_pos_scores": math.nan}, "score nan is not a finite number"),
        (
            {"query_pos_scores": None},
            "scores [None, 0.85, 0.5, 0.5, 0.125] are not a list of numbers",
        ),
        ({"query_pos_scores": 10**400}, "has a score that is too large for a float"),
        (
            {"query_pos_scores": True},
            "scores [True, 0.85, 0.5, 0.5, 0.125] are not a list of numbers",
        ),
        ({"hard_negatives_scores": 0.5}, "scores 0.5 are not a list of numbers"),
    ],
)
def test_bad_released_rows_are_rejected(tmp_path, images, changes, reason):
    path, published = unime(tmp_path, [unime_row(), unime_row(**changes)])
    corpus, rejects = take(read_unime(path), tmp_path, images, 0.5, published)
    assert rejects == [(f"{path.name}:2", reason)]
    assert len(corpus.queries) == 1
    assert len(corpus.items) == 4  # a rejected row adds no item


def test_an_export_of_unijudge_can_be_imported(tmp_path):
    """The rows have pictures, texts and both.

    Their paths become relative to the root again, so that the corpus can be published.
    """
    rows = opened(tmp_path)
    export_sentence_transformers(rows, tmp_path / "st.parquet")
    (tmp_path / "again").mkdir()
    published = PublishedScores(tmp_path / "scores", tmp_path / "st.parquet")
    corpus, rejects = take(
        read_tuples(tmp_path / "st.parquet"),
        tmp_path / "again",
        tmp_path / "images",
        published=published,
    )
    assert not rejects
    (query,) = corpus.queries
    assert (query.text, query.image) == ("what is it?\n", "a.png")
    assert [(item.text, item.image) for item in corpus.items] == [
        ("a cat", None), ("a dog", None), ("the cat of the picture", "sub/b.png"), (None, "a.png"),
    ]  # fmt: skip
    assert corpus.content(corpus.items[2]).image == png("blue")
    (judged,) = read_scores(tmp_path / "scores")
    assert [score_of(one) for one in judged.positives + judged.candidates] == pytest.approx(
        [0.5, 0.25, 0.5, 0.25]
    )
    made = publish(tmp_path / "dataset", corpus.folder, tmp_path / "scores")
    assert {"images/a.png", "images/sub/b.png"} <= set(made.files)


def test_a_cell_of_several_texts_is_rejected(tmp_path, images):
    path = tmp_path / "tuples.jsonl"
    rows = [{"query": "q", "positive": "p"}, {"query": {"text": ["a", "b"]}, "positive": "p"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, rejects = take(read_tuples(path), tmp_path, images, 0.5)
    assert rejects == [
        (
            "tuples.jsonl:2",
            "has 2 texts or images in one cell, but a cell may hold only one of each",
        )
    ]


TUPLES = [
    {
        "anchor": "q1",
        "positive": "p1",
        "negative_1": "n1",
        "negative_2": "n2",
        "scores": [0.9, 0.5, 0.25],
    },
    {
        "anchor": "q2",
        "positive": "p2",
        "negative_1": "n2",
        "negative_2": None,
        "scores": [0.8, 0.4, None],
    },
]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_n_tuples_and_their_scores(tmp_path, images, ending):
    path = tmp_path / f"tuples.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(TUPLES), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TUPLES))
    else:
        lines = [
            ",".join(
                f'"{json.dumps(cell)}"' if isinstance(cell, list) else cell or ""
                for cell in row.values()
            )
            for row in TUPLES
        ]
        path.write_text("\n".join([",".join(TUPLES[0]), *lines]))
    corpus, _ = take(
        read_tuples(path), tmp_path, images, published=PublishedScores(tmp_path / "scores", path)
    )
    assert [item.text for item in corpus.items] == ["p1", "n1", "n2", "p2"]
    assert {item.pools for item in corpus.items} == {("tuples",)}
    first, second = read_scores(tmp_path / "scores")
    assert [score_of(one) for one in first.positives + first.candidates] == pytest.approx(
        [0.9, 0.5, 0.25]
    )
    assert [score_of(one) for one in second.positives + second.candidates] == pytest.approx(
        [0.8, 0.4]
    )


def test_cells_of_triplets_are_texts_images_or_both(tmp_path, images):
    path = tmp_path / "triplets.parquet"
    both = {"text": "left", "image": {"bytes": None, "path": "a.png"}}
    rows = [
        {"query": both, "positive": {"bytes": png(), "path": None}, "negative": "no"},
        {"query": both, "positive": None, "negative": "no"},
        {"query": None, "positive": {"bytes": png(), "path": None}, "negative": "no"},
        {
            "query": {"text": None, "image": None},
            "positive": {"bytes": png(), "path": None},
            "negative": "no",
        },
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    corpus, rejects = take(read_tuples(path, "pictures"), tmp_path, images, max_rejects=0.8)
    (query,) = corpus.queries
    assert (query.text, query.subset) == ("left", "pictures")
    assert corpus.content(query).image == png("red")
    assert [(item.text, corpus.content(item).image) for item in corpus.items] == [
        (None, png()),
        ("no", None),
    ]
    known = "The expected columns are anchor or query, positive, negative or negative_1 …, scores or label"
    assert rejects == [
        ("triplets.parquet:2", f"has no positive. {known}"),
        ("triplets.parquet:3", f"has no anchor or query. {known}"),
        ("triplets.parquet:4", "query: has neither a text nor an image"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"label": 0.5},
            "score 0.5 does not decide whether the pair matches. Expected 0, 1 or a list",
        ),
        ({"scores": 0}, "label 0: a labelled mismatch is not a pair"),
        ({"label": 0}, "label 0: a labelled mismatch is not a pair"),
        ({"label": 0.0}, "label 0.0: a labelled mismatch is not a pair"),
        ({"label": False}, "label False: a labelled mismatch is not a pair"),
        ({"label": "0"}, "label 0: a labelled mismatch is not a pair"),
        ({"label": [0.5]}, "has 1 scores, but a positive and 1 columns of negatives"),
        ({"label": [0.5, None]}, "scores [0.5, None] are not a list of numbers"),
        ({"label": [7.25, math.nan]}, "score nan is not a finite number"),
        ({"label": "0.5, 0.5"}, "scores '0.5, 0.5' are not a JSON list"),
        ({"positive": 5.5}, "5.5 is not an image. Expected a path, or a struct of bytes and path"),
        (
            {"positive": {"words": "x"}},
            "{'words': 'x'} is not an image. Expected a path, or a struct of bytes and path",
        ),
        ({"positive": {"image": "gone.png"}}, "positive: image gone.png: no such file"),
    ],
)
def test_bad_tuples_are_rejected(tmp_path, images, row, reason):
    path = tmp_path / "t.jsonl"
    good = {"anchor": "q", "positive": "p", "negative": "n"}
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | row) + "\n")
    _, rejects = take(read_tuples(path), tmp_path, images, max_rejects=0.5)
    assert rejects == [("t.jsonl:2", reason)]


@pytest.mark.parametrize("label", [1, 1.0, True, "1", None, "", []])
def test_a_labelled_match_is_a_pair(tmp_path, images, label):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"anchor": "q", "positive": "p", "label": label}) + "\n")
    corpus, rejects = take(read_tuples(path), tmp_path, images)
    assert not rejects
    assert [item.text for item in corpus.items] == ["p"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"prompt": "q", "text": "p"},
            "none of its columns is known: prompt, text. Known columns: anchor or query",
        ),
        ({"anchor": "q", "query": "q", "positive": "p"}, "has both columns 'anchor' and 'query'"),
        (
            {"anchor": "q", "positive": "p", "scores": [1], "label": [1]},
            "has both columns 'scores' and 'label'",
        ),
    ],
)
def test_columns_without_tuples_are_refused(tmp_path, images, row, reason):
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"t\.jsonl(:1)?: {reason}"):
        take(read_tuples(tmp_path / "t.jsonl"), tmp_path, images)


def test_scores_outside_of_0_to_1_are_kept_as_similarities(tmp_path, images, caplog):
    path = tmp_path / "t.jsonl"
    rows = [
        {"query": "q", "answer": "p", "negative_1": "n", "scores": [0.5, -0.25]},
        {"query": "r", "answer": "p"},
    ]
    path.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1]) + "\n")
    loose = PublishedScores(tmp_path / "loose", path, only_probabilities=False)
    take(read_tuples(path), tmp_path / "a", images, max_rejects=0.5, published=loose)
    (judged,) = read_scores(tmp_path / "loose")
    pairs = [*judged.positives, *judged.candidates]
    assert [(one.similarity, one.log_odds) for one in pairs] == [(0.5, None), (-0.25, None)]
    assert all(one.error.startswith("unjudged") for one in pairs)
    assert "the scores are not probabilities (one score is -0.25)" in caplog.text
    assert "whole" in check(tmp_path / "loose")
    strict = PublishedScores(tmp_path / "strict", path)
    with pytest.raises(DataError, match=r"2 of 2 rows rejected.*score -0\.25 is not a probability"):
        take(read_tuples(path), tmp_path / "b", images, max_rejects=0.5, published=strict)


def test_a_labelled_list_of_documents_is_matches_and_negatives(tmp_path, images):
    path = tmp_path / "t.jsonl"
    rows = [
        {"query": "q", "documents": ["a", "b", "c"], "labels": [0, 1, 0]},
        {"query": "r", "documents": ["a", "b"], "labels": [0, 0]},
        {"query": "s", "documents": ["a", "b"], "labels": [0.5, 0.25]},
        {"query": "t", "documents": ["a", "b"]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, rejects = take(read_tuples(path), tmp_path, images, max_rejects=0.8)
    assert [item.text for item in corpus.items] == ["b", "a", "c"]
    assert corpus.positives(0).tolist() == [0]
    assert [reason for _, reason in rejects] == [
        "no document is labelled as a match",
        "labels [0.5, 0.25] of a list of documents are not all 1 (a match) or 0 (a negative)",
        "has 2 documents in one cell, but no list of labels, 1 or 0, for them",
    ]


def test_labelled_mismatches_are_counted_apart_from_rejects(tmp_path, images, caplog):
    """Labelled mismatches are half of the file, and are not rejects. A row that cannot be read is a reject."""
    caplog.set_level("INFO")
    path = tmp_path / "t.jsonl"
    rows = [
        {"sentence1": f"q{number}", "sentence2": f"p{number}", "label": number % 2}
        for number in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, rejects = take(read_tuples(path), tmp_path / "a", images, max_rejects=0.01)
    assert (len(corpus.queries), corpus.manifest.rejects, len(rejects)) == (100, 0, 100)
    assert "100 of 200 rows are labelled mismatches, which are not pairs" in caplog.text
    path.write_text(path.read_text() + '{"sentence1": "q"}\n' * 3)
    with pytest.raises(
        DataError,
        match=r"3 of 203 rows rejected and 100 labelled mismatches left out, more than --max-rejects 0\.01",
    ):
        take(read_tuples(path), tmp_path / "b", images, max_rejects=0.01)


def test_requested_scores_must_exist(tmp_path, images):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"anchor": "q", "positive": "p"}) + "\n")
    with pytest.raises(DataError, match=r"1 of 1 rows rejected.*no scores"):
        take(
            read_tuples(path),
            tmp_path,
            images,
            published=PublishedScores(tmp_path / "scores", path),
        )
    assert not (tmp_path / "scores").exists()


def test_the_commands_import_published_rows(tmp_path, images):
    path, _ = unime(tmp_path, [unime_row()])
    (tmp_path / "t.jsonl").write_text(json.dumps(TUPLES[0]) + "\n")
    (tmp_path / "data").mkdir()
    captions = {"filename": "a.png", "caption": "red", "negative_caption": "blue"}
    (tmp_path / "data" / "swap_att.json").write_text(json.dumps({"0": captions}))
    image = {"filename": "a.png", "split": "test", "sentences": [{"raw": "red"}]}
    (tmp_path / "dataset_tiny.json").write_text(json.dumps({"images": [image]}))
    (images / "VisDial").mkdir()
    row = {"qry_text": "x", "qry_img_path": "", "tgt_text": ["y"], "tgt_img_path": [""]}
    pq.write_table(pa.Table.from_pylist([row]), images / "VisDial" / "test-0.parquet")
    at, root = str(tmp_path), ["--images", str(images)]
    commands = {
        "unime": [str(path), f"{at}/unime", f"{at}/unime-scores", *root],
        "sentence-transformers": [f"{at}/t.jsonl", f"{at}/st", "--scores", f"{at}/st-scores"],
        "sugarcrepe": [f"{at}/data", f"{at}/sugarcrepe", *root],
        "karpathy": [f"{at}/dataset_tiny.json", f"{at}/karpathy", *root],
        "mmeb-eval": [str(images), f"{at}/eval"],
    }
    for name, arguments in commands.items():
        result = CliRunner().invoke(app, ["import", name, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert "0 rows rejected" in result.output
        assert "whole" in check(tmp_path / arguments[1])
    assert "whole" in check(tmp_path / "unime-scores")
    assert "whole" in check(tmp_path / "st-scores")

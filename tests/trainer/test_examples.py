"""Training rows as they are read: what is said of labels that cannot be compared."""

from dataclasses import replace

import pytest

from trainer.examples import Examples
from unijudge.errors import TrainingError
from unijudge.files import read_json
from unijudge.triples import Scale, TripleManifest, finish_triples, read_triples, write_triples


def test_labels_of_two_judges_that_are_not_calibrated_are_named(corpus, triples, tmp_path, caplog):
    """In the first row the negative that counts is the second judge's, in the second row only one beyond."""
    rows = list(read_triples(triples, corpus.fingerprint))
    for number in (0, 1):
        rows[number].negatives[number] = replace(rows[number].negatives[number], judge=1)
    write_triples(tmp_path, rows)
    shape = read_json(triples / "triples.json", TripleManifest).model_copy(update={"scales": (Scale(), Scale())})
    for calibrated, told in [(False, 1), (True, 0)]:
        finish_triples(tmp_path, shape.model_copy(update={"calibrated": calibrated}))
        caplog.clear()
        Examples(corpus, tmp_path, negatives=1)
        assert len(caplog.messages) == told
        assert all(f"1 of {len(rows)} rows have soft labels of two judges" in message for message in caplog.messages)


def test_more_negatives_than_are_stored_are_refused_with_both_cures(corpus, triples):
    with pytest.raises(TrainingError, match="stores 7; select with a larger `stored`, or lower `negatives`"):
        Examples(corpus, triples, negatives=50)

"""Changed bytes, foreign columns, and a disk that fails late are detected, named, and distinguished."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.folders import make_corpus, make_scores, make_triples, make_vectors
from unijudge.errors import DataError
from unijudge.formats.candidates import CandidateManifest, NearestItems, start_candidates
from unijudge.formats.candidates import write_candidates_part as write_candidates
from unijudge.formats.corpus import CorpusManifest
from unijudge.formats.inventory import check
from unijudge.formats.vectors import VectorFolder, VectorManifest, check_part
from unijudge.storage import files
from unijudge.storage.files import read_json


@pytest.mark.parametrize("name", ["vectors", "scores", "triples", "candidates"])
def test_a_flipped_byte_of_any_column_or_mark_is_found_by_a_check(tmp_path, identity, name):
    """The last byte of each column is in a page.

    Then a byte of each mark of the file is flipped, so that the mark is no valid text.
    """
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    make_vectors(tmp_path / "vectors", corpus)
    make_triples(tmp_path / "triples", corpus, make_scores(tmp_path / "scores", corpus, identity))
    retrieval = CandidateManifest(
        corpus="c", vectors="v", queries=3, k=2, pool="global", retrieval={}
    )
    start_candidates(tmp_path / "candidates", retrieval)
    write_candidates(
        tmp_path / "candidates", retrieval, 0, iter([NearestItems([1, 2], [0.5, 0.25], [0.75])] * 3)
    )
    path = min((tmp_path / name).glob("*.parquet"))
    data = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    for start, column in zip(starts, columns, strict=True):
        place = start + column.total_compressed_size - 1
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DataError, match=rf"{path.name}: .*damaged"):
            check(tmp_path / name)
    path.write_bytes(data)
    table = pq.read_table(path)
    for key, mark in table.schema.metadata.items():
        pq.write_table(
            table.replace_schema_metadata(table.schema.metadata | {key: b"\xff" + mark[1:]}), path
        )
        with pytest.raises(DataError, match=path.name):
            check(tmp_path / name)


def test_a_renamed_column_of_vectors_is_named(tmp_path):
    folder = make_vectors(tmp_path / "v", make_corpus(tmp_path / "c", tmp_path))
    made, path = read_json(folder / "vectors.json", VectorManifest), folder / "items-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns(["it", "vector"]).replace_schema_metadata(table.schema.metadata), path
    )
    with pytest.raises(
        DataError, match=r"items-00000\.parquet: its columns are not those of vectors"
    ):
        check_part(path, made)
    pq.write_table(pa.table({"id": ["a"]}, metadata=table.schema.metadata), path)
    with pytest.raises(
        DataError, match=r"items-00000\.parquet: its columns are not those of vectors"
    ):
        check_part(path, made)


def test_vectors_that_contradict_the_manifest_are_detected(tmp_path):
    """The file has the right marks, but another program wrote it."""
    corpus = make_corpus(tmp_path / "c", tmp_path)
    folder = make_vectors(tmp_path / "v", corpus)
    path = folder / "items-00000.parquet"
    marks = pq.read_schema(path).metadata

    def put(matrix):
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(matrix.ravel(), pa.float32()), matrix.shape[1]
        )
        pq.write_table(pa.table({"id": corpus.item_ids, "vector": vectors}, metadata=marks), path)

    put(np.eye(8)[: len(corpus.items)])
    with pytest.raises(
        DataError,
        match=r"items-00000\.parquet: vectors of .*\[8\], but vectors\.json says width 4. Delete",
    ):
        VectorFolder(folder, corpus).whole("items")
    for value, length in [(np.nan, "nan"), (2.0, "2")]:
        unit = np.eye(4)[: len(corpus.items)]
        unit[1, 1] = value
        put(unit)
        why = rf"items-00000\.parquet: 1 vectors are not of unit length .row 1: {length}."
        for read in (lambda: VectorFolder(folder, corpus).whole("items"), lambda: check(folder)):
            with pytest.raises(DataError, match=why):
                read()
    table = pq.read_table(path)
    missing = pa.array([None, *table["vector"].to_pylist()[1:]], table.schema.field("vector").type)
    pq.write_table(pa.table({"id": corpus.item_ids, "vector": missing}, metadata=marks), path)
    with pytest.raises(DataError, match=r"items-00000\.parquet: 1 vectors are null. Delete it"):
        VectorFolder(folder, corpus).take("items", np.array([0]))


def test_a_folder_that_cannot_be_synced_loses_no_file(tmp_path, monkeypatch):
    """The file is complete, and the message must not claim otherwise."""
    sync, path = files._sync, tmp_path / "a.txt"

    def refuse(place):
        if place == tmp_path:
            raise OSError(5, "Input/output error")
        sync(place)

    monkeypatch.setattr("unijudge.storage.files._sync", refuse)
    with pytest.raises(
        DataError, match=r"a\.txt: cannot be written .Input/output error.. No partial file"
    ):
        files.publish_text(path, "whole")
    assert {place.name: place.read_text() for place in tmp_path.iterdir()} == {"a.txt": "whole"}


def with_changed_cell(table, name, row, value):
    """The same table with another value in one cell. A text may be any bytes."""
    place, column = table.schema.get_field_index(name), table[name].to_pylist()
    column[row] = value
    if pa.types.is_string(table.schema.field(name).type):
        cells = pa.array(
            [cell.encode() if isinstance(cell, str) else cell for cell in column], pa.binary()
        )
        return table.set_column(place, table.schema.field(name), cells.view(pa.string()))
    return table.set_column(
        place, table.schema.field(name), pa.array(column, table.schema.field(name).type)
    )


TEXTS = {
    "corpus": ("items", "text"),
    "scores": ("part-00001", "query_id"),
    "triples": ("part-00000", "subset"),
}
LISTS = {
    "corpus": ("queries", "positive_ids"),
    "scores": ("part-00000", "candidates"),
    "vectors": ("items-00000", "id"),
}


def rewritten(tmp_path, identity, name, part, column, row, value):
    """A folder of the product, after another program read and wrote one of its files, with all marks."""
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    make_vectors(tmp_path / "vectors", corpus)
    make_triples(tmp_path / "triples", corpus, make_scores(tmp_path / "scores", corpus, identity))
    path = tmp_path / name / f"{part}.parquet"
    table = pq.read_table(path)
    pq.write_table(with_changed_cell(table, column, row, value), path)
    if name == "corpus":
        known = read_json(tmp_path / "corpus" / "corpus.json", CorpusManifest)
        digest = {f"{part}_sha256": files.file_sha256(path)}
        files.publish_json(tmp_path / "corpus" / "corpus.json", known.model_copy(update=digest))
    return tmp_path / name, path


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_not_utf8_in_a_table_of_the_product_is_named_with_its_place(
    tmp_path, identity, name
):
    part, column = TEXTS[name]
    row = (
        pq.read_metadata(rewritten(tmp_path, identity, name, part, column, 0, b"x")[1]).num_rows - 1
    )
    folder, path = rewritten(tmp_path / "again", identity, name, part, column, row, b"caf\xe9")
    expected = rf"{path.name}: row {row + 1}, column '{column}': not UTF-8. Another program wrote it. Delete the file"
    with pytest.raises(DataError, match=expected) as refusal:
        check(folder)
    assert len(str(refusal.value)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize("name", LISTS)
def test_a_null_in_a_table_of_the_product_is_named_with_its_place(tmp_path, identity, name):
    part, column = LISTS[name]
    folder, path = rewritten(tmp_path, identity, name, part, column, 1, None)
    with pytest.raises(DataError, match=path.name) as refusal:
        check(folder)
    assert f"row 2, column '{column}': null where a value belongs" in str(refusal.value)


def test_a_null_inside_of_a_list_is_found(tmp_path, identity):
    pairs = pq.read_table(make_scores_at(tmp_path, identity))["candidates"].to_pylist()
    pairs[0][1]["item_id"] = None
    folder, _ = rewritten(
        tmp_path / "again", identity, "scores", "part-00000", "candidates", 0, pairs[0]
    )
    with pytest.raises(DataError, match="row 1, column 'candidates': null where a value belongs"):
        check(folder)


def make_scores_at(tmp_path, identity):
    corpus = make_corpus(tmp_path / "corpus", tmp_path / "images")
    return make_scores(tmp_path / "scores", corpus, identity) / "part-00000.parquet"


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_a_column_of_times_in_a_table_of_the_product_is_not_read(tmp_path, identity, unit):
    """The times are out of Python's range, or have nanoseconds. No cell of the column is read."""
    path = make_scores_at(tmp_path, identity)
    table = pq.read_table(path)
    times = pa.array([2**62] * len(table)).cast(pa.timestamp(unit))
    place = table.schema.get_field_index("subset")
    marked = table.set_column(place, "subset", times).replace_schema_metadata(table.schema.metadata)
    pq.write_table(marked, path)
    with pytest.raises(
        DataError,
        match=r"part-00000\.parquet: its columns are not those of table 'scores' version 3",
    ):
        check(path.parent)

"""Ways to damage rows in Parquet or Arrow."""

import io
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tests.nasty.made import ROWS, Made, new_folder, query_column


def as_table(made: Made, pictures: Sequence[object] | pa.Array) -> None:
    """The source as a Parquet file with the given cells for its pictures."""
    layout = made.layout
    captions = [caption for _, caption in ROWS]
    table = pa.table({layout.picture: pictures, layout.positive: captions})
    made.source = layout.table(made.source.parent / "table", table)


def bad_utf8(made: Made) -> None:
    """The second caption of a Parquet file is not UTF-8."""
    if made.source.is_file():
        as_table(made, [{"bytes": None, "path": name} for name, _ in ROWS])
    for path in made.source.rglob("*.parquet") if made.source.is_dir() else [made.source]:
        table = pq.read_table(path)
        place = table.schema.get_field_index(made.layout.positive)
        cells = pa.array([b"one street", b"two \xff streets"]).view(pa.string())
        pq.write_table(table.set_column(place, made.layout.positive, cells), path)


def times(kind: pa.DataType) -> Callable[[Made], None]:
    """A column beside the rows, and the second row's caption, hold a time that Python cannot represent."""

    def spoil(made: Made) -> None:
        cells = [{"bytes": None, "path": name} for name, _ in ROWS]
        captions = [caption for _, caption in ROWS]
        table = pa.table({made.layout.picture: cells, made.layout.positive: captions})
        table = table.append_column("taken", pa.array([2**61, 2**61]).cast(kind))
        made.source = made.layout.table(made.source.parent / "table", table)

    return spoil


def time_for_text(made: Made) -> None:
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    times = pa.array([2**61, 2**61]).cast(pa.timestamp("us"))
    table = pa.table({made.layout.picture: cells, made.layout.positive: times})
    made.source = made.layout.table(made.source.parent / "table", table)


def inner_pictures(kind: pa.DataType) -> Callable[[Made], None]:
    """The pictures are inside the table."""

    def spoil(made: Made) -> None:
        data = [(made.images / name).read_bytes() for name, _ in ROWS]
        cells = (
            [{"bytes": one, "path": "c.jpg"} for one in data] if pa.types.is_struct(kind) else data
        )
        as_table(made, pa.array(cells, kind))

    return spoil


def named_pictures(made: Made) -> None:
    as_table(made, [{"bytes": None, "path": name} for name, _ in ROWS])
    made.source = made.source.rename(made.source.with_name("rows.PARQUET"))


def struct_for_text(made: Made) -> None:
    """A column with pictures of full size is in the place of a column of texts."""
    table = pa.table(
        {
            query_column(made): [{"bytes": bytes(90_000), "path": "c"}] * 2,
            made.layout.positive: ["a", "b"],
        }
    )
    made.source = made.layout.table(made.source.parent / "table", table)


def extra(made: Made) -> None:
    """The table has an index of pandas, and a column with lists of structs."""
    table = pq.read_table(io.BytesIO(parquet(made)))
    table = table.append_column("__index_level_0__", pa.array([0, 1]))
    table = table.append_column("boxes", pa.array([[{"x": 1}], []]))
    made.source = made.layout.table(made.source.parent / "table", table)


def parquet(made: Made) -> bytes:
    out = io.BytesIO()
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    table = pa.table(
        {made.layout.picture: cells, made.layout.positive: [caption for _, caption in ROWS]}
    )
    pq.write_table(table, out)
    return out.getvalue()


def arrow(write: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> Callable[[Made], None]:
    """The rows as `save_to_disk` of `datasets` or `to_feather` of pandas writes them."""

    def spoil(made: Made) -> None:
        table = pq.read_table(io.BytesIO(parquet(made)))
        made.source = new_folder(made)
        with write(str(made.source / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=1)

    return spoil


def other_ids(cells: pa.Array) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        table = pq.read_table(io.BytesIO(parquet(made))).append_column("query_id", cells)
        made.source = made.layout.table(made.source.parent / "table", table)

    return spoil


def duplicate_column(made: Made) -> None:
    arrays = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array(["e", "f"])]
    names = [query_column(made), made.layout.positive, made.layout.positive]
    made.source = made.layout.table(
        made.source.parent / "table", pa.Table.from_arrays(arrays, names)
    )


def whole_ids(made: Made) -> None:
    cells = [{"bytes": None, "path": name} for name, _ in ROWS]
    captions = [caption for _, caption in ROWS]
    columns = {
        "query_image": cells,
        "positive_text": captions,
        "query_id": pa.array([7, 8]),
        "subset": [1, 1],
    }
    made.source = made.layout.table(made.source.parent / "table", pa.table(columns))

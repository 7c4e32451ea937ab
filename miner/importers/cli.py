"""`unijudge mine import`: a command for each foreign layout."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unijudge.errors import DataError
from unijudge.storage.locations import is_local, locate

if TYPE_CHECKING:
    from miner.importers.building.pair import Row
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.doctor import Outlook

imports = typer.Typer(help="Foreign layouts into a corpus folder.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="The corpus folder to write.", parser=locate)]
Images = Annotated[
    Path, typer.Option(help="The root of the image paths: a folder, which may hold zips, or a zip.", parser=locate)
]
MaxRejects = Annotated[
    float, typer.Option(min=0, max=1, help="Share of rejected rows above which nothing is imported.")
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Pictures with more pixels (width × height) are rejected, undecoded.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be read, rejected and ignored, and write nothing.")
]
MOST_PIXELS = 200_000_000
"""As of `unijudge.images.decoding.MAX_PIXELS`, which needs Pillow to be read."""
Files = Annotated[
    list[Path],
    typer.Argument(
        help="Files, folders of files, or patterns: .parquet, .jsonl, .json, .csv, .tsv, .arrow, also .gz.",
        parser=locate,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse columns that are not known, rather than ignore them.")]
Items = Annotated[
    list[Path] | None,
    typer.Option(
        "--items",
        help="Files of items that belong to no query, and make the pool larger: text, image; optional: subset.",
        parser=locate,
    ),
]
Instruction = Annotated[str | None, typer.Option(help="A text beside each image; captions stand alone.")]


@imports.command("pairs")
def import_pairs(
    files: Files,
    out: Out,
    images: Images = Path(),
    subset: Annotated[
        str | None, typer.Option(help="Name of rows without one; default: the name of the file, or of the folder.")
    ] = None,
    items: Items = None,
    strict: Strict = False,
    max_rejects: MaxRejects = 0.01,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """Columns: query_text, query_image, positive_text, positive_image; optional: subset, query_id."""
    from miner.importers.pairs import read_pairs

    rows = read_pairs(files, subset, strict=strict)
    _import(
        _with_items(rows, items),
        images=images,
        out=out,
        source=_sources(files),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("mmeb")
def import_mmeb(
    root: Annotated[
        Path, typer.Argument(help="A folder with a folder of Parquet files for each subset.", parser=locate)
    ],
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="The root of the image paths; default: ROOT.", parser=locate)
    ] = None,
    split: Annotated[str, typer.Option(help="Files named SPLIT-*.parquet are read.")] = "original",
    cap_per_subset: Annotated[
        int | None, typer.Option(min=1, help="First rows of each subset; 50000 in UniME-V2.")
    ] = None,
    subset: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    items: Items = None,
    max_rejects: MaxRejects = 0.01,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """The published MMEB-train layout: qry, qry_image_path, pos_text, pos_image_path."""
    from miner.importers.mmeb import read_mmeb

    rows = read_mmeb(root, split=split, cap_per_subset=cap_per_subset, subsets=subset or ())
    _import(
        _with_items(rows, items),
        images=images or root,
        out=out,
        source=_source(root, split),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("mmeb-eval")
def import_mmeb_eval(
    root: Annotated[
        Path, typer.Argument(help="A folder with a folder of Parquet files for each subset.", parser=locate)
    ],
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="The root of the image paths; default: ROOT.", parser=locate)
    ] = None,
    split: Annotated[str, typer.Option(help="Files named SPLIT-*.parquet are read.")] = "test",
    subset: Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")] = None,
    max_rejects: MaxRejects = 0.0,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """The published MMEB-eval layout: each query with its closed list of candidates."""
    from miner.importers.mmeb import read_mmeb_eval

    rows = read_mmeb_eval(root, split=split, subsets=subset or ())
    _import(
        rows,
        images=images or root,
        out=out,
        source=_source(root, split),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("unime")
def import_unime(
    file: Annotated[Path, typer.Argument(help="A released train_data_…_scores.json.", parser=locate)],
    out: Out,
    scores: Annotated[Path, typer.Argument(help="The score folder to write: what `mine select` reads.", parser=locate)],
    images: Images,
    max_rejects: MaxRejects = 0.01,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """The training data that UniME-V2 released, with the scores of its judge."""
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.unime import read_unime

    published, rows = PublishedScores(scores, source=file), read_unime(file)
    _import(
        rows,
        images=images,
        out=out,
        source=_source(file),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        published=published,
        dry_run=dry_run,
    )


@imports.command("sentence-transformers")
def import_sentence_transformers(
    files: Files,
    out: Out,
    images: Images = Path(),
    subset: Annotated[
        str | None, typer.Option(help="What the rows are called; default: the name of the file, or of the folder.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="A score folder to write from `scores` or `label`.", parser=locate)
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Reject rows with a score outside of 0 … 1, rather than keep all as similarities."
        ),
    ] = False,
    strict: Strict = False,
    max_rejects: MaxRejects = 0.01,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """Columns: anchor or query, positive, negative or negative_1 …; optional: scores or label (lists)."""
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.sentence_transformers import read_tuples
    from unijudge.foreign.tables import files_of

    first, *more = files_of(files)
    published = (
        None if scores is None else PublishedScores(scores, first, tuple(more), only_probabilities=probabilities)
    )
    rows = read_tuples(files, subset, strict=strict)
    _import(
        rows,
        images=images,
        out=out,
        source=_sources(files),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        published=published,
        dry_run=dry_run,
    )


@imports.command("karpathy")
def import_karpathy(
    file: Annotated[Path, typer.Argument(help="dataset_flickr30k.json, dataset_coco.json or alike.", parser=locate)],
    out: Out,
    images: Images,
    split: Annotated[str, typer.Option(help="Images of this split.")] = "test",
    captions: Annotated[int, typer.Option(min=1, help="The first so many of each image.")] = 5,
    subset: Annotated[str | None, typer.Option(help="Name before _i2t and _t2i; default: from the file's.")] = None,
    instruction: Instruction = None,
    max_rejects: MaxRejects = 0.0,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """Captioned images, both ways: each image finds its captions, each caption its image."""
    from miner.importers.karpathy import read_karpathy

    rows = read_karpathy(file, split=split, captions=captions, subset=subset, instruction=instruction)
    _import(
        rows,
        images=images,
        out=out,
        source=_source(file, split),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("sharegpt4v")
def import_sharegpt4v(
    file: Annotated[Path, typer.Argument(help="share-captioner_coco_lcs_sam_1246k_1107.json.", parser=locate)],
    out: Out,
    images: Images,
    first: Annotated[int, typer.Option(min=1, help="So many images, in the file's order.")] = 1000,
    subset: Annotated[str, typer.Option(help="Name before _i2t and _t2i.")] = "sharegpt4v",
    instruction: Instruction = None,
    max_rejects: MaxRejects = 0.0,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """ShareGPT4V's first images with their long captions, both ways."""
    from miner.importers.sharegpt4v import read_sharegpt4v

    rows = read_sharegpt4v(file, first=first, subset=subset, instruction=instruction)
    _import(
        rows,
        images=images,
        out=out,
        source=_source(file, f"first {first}"),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("urban1k")
def import_urban1k(
    folder: Annotated[Path, typer.Argument(help="The folder that holds image/ and caption/.", parser=locate)],
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Where its images are; default: FOLDER/image.", parser=locate)
    ] = None,
    subset: Annotated[str, typer.Option(help="Name before _i2t and _t2i.")] = "urban1k",
    instruction: Instruction = None,
    max_rejects: MaxRejects = 0.0,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """Urban1K's images with their long captions, both ways."""
    from miner.importers.urban1k import read_urban1k

    rows = read_urban1k(folder, subset=subset, instruction=instruction)
    _import(
        rows,
        images=images or folder / "image",
        out=out,
        source=_source(folder),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("sugarcrepe")
def import_sugarcrepe(
    folder: Annotated[Path, typer.Argument(help="The folder with the seven JSON files.", parser=locate)],
    out: Out,
    images: Annotated[Path, typer.Option(help="COCO's val2017: the folder, or its zip.", parser=locate)],
    instruction: Instruction = None,
    max_rejects: MaxRejects = 0.0,
    max_pixels: MaxPixels = MOST_PIXELS,
    dry_run: DryRun = False,
) -> None:
    """Each image with the caption that fits it, and one that nearly does."""
    from miner.importers.sugarcrepe import read_sugarcrepe

    rows = read_sugarcrepe(folder, instruction=instruction)
    _import(
        rows,
        images=images,
        out=out,
        source=_source(folder),
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        dry_run=dry_run,
    )


@imports.command("look")
def look(
    files: Files,
    images: Annotated[
        Path | None, typer.Option(help="The root of the image paths; default: beside the files.", parser=locate)
    ] = None,
    max_pixels: MaxPixels = MOST_PIXELS,
) -> None:
    """Guesses the layout of files, and says what an import would read, reject and ignore; `unijudge check` asks it."""
    from miner.importers import doctor

    name = doctor.guess(files)
    layout = doctor.LAYOUTS[name]
    root = images or layout.images(files[0])
    source = _sources(files)
    typer.echo(f"{source}: the layout of `unijudge mine import {name}`; its images are sought in {root} (--images)")
    found = doctor.dry_run(
        layout.read(files), images=root, out=None, source=source, max_rejects=layout.max_rejects, max_pixels=max_pixels
    )
    _tell(source, found)


def _source(place: Path, part: str | None = None) -> str:
    """What rows came from, named so that no other source is called the same."""
    name = str(place.resolve() if is_local(place) else place)
    return name if part is None else f"{name} ({part})"


def _sources(places: Sequence[Path]) -> str:
    """What rows came from: one place, or the first of several with a digest of all."""
    names = [_source(place) for place in places]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more ({digest})"


def _with_items(rows: "Iterator[Row]", items: Sequence[Path] | None) -> "Iterator[Row]":
    """The rows, and then the items that belong to no query."""
    if not items:
        return rows
    from miner.importers.pairs import read_items

    return chain(rows, read_items(items))


def _import(
    rows: "Iterator[Row]",
    *,
    images: Path,
    out: Path,
    source: str,
    max_rejects: float,
    max_pixels: int,
    dry_run: bool,
    published: "PublishedScores | None" = None,
) -> None:
    """Imports rows, or says what an import would make of them."""
    if dry_run:
        from miner.importers import doctor

        found = doctor.dry_run(
            rows,
            images=images,
            out=out,
            source=source,
            max_rejects=max_rejects,
            max_pixels=max_pixels,
            published=published,
        )
        _tell(source, found)
        return
    from miner.importers.building.build import build

    made = build(
        rows,
        images=images,
        out=out,
        source=source,
        max_rejects=max_rejects,
        max_pixels=max_pixels,
        published=published,
    )
    typer.echo(f"{out}: {made.queries} queries, {made.items} items, {made.rejects} rows rejected (rejects.jsonl)")


def _tell(source: str, found: "Outlook") -> None:
    """Prints what an import would make of rows.

    Raises:
        DataError: It would be refused.
    """
    typer.echo("\n".join([f"{source}: a dry run, which writes nothing", *found.lines()]))
    if found.refusal is not None:
        raise DataError(f"{found.refusal}; nothing would be imported")

"""`unijudge mine import`: a command for each layout of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from miner.importers.command import (
    MOST_PIXELS,
    CorpusOut,
    FilesArgument,
    ImagesOfRoot,
    ImagesOption,
    Import,
    Instruction,
    Items,
    MaxPixels,
    OnlySubsets,
    SplitFiles,
    Strict,
    SubsetFolders,
    SubsetPrefix,
    importer,
    source_of,
    source_of_files,
    tell,
    with_items,
)
from unijudge.storage.locations import locate

imports = typer.Typer(help="Foreign layouts into a corpus folder.", no_args_is_help=True)


@importer(imports, "pairs", max_rejects=0.01)
def import_pairs(
    files: FilesArgument,
    out: CorpusOut,
    images: ImagesOption = Path(),
    subset: Annotated[
        str | None,
        typer.Option(
            help="Subset of rows that have no subset. Default: the name of the file, or of the folder."
        ),
    ] = None,
    items: Items = None,
    strict: Strict = False,
) -> Import:
    """Import pairs. Columns: query_text, query_image, positive_text, positive_image; optional: subset, query_id."""
    from miner.importers.pairs import read_pairs

    rows = read_pairs(files, subset, strict=strict)
    return Import(with_items(rows, items), images, out, source_of_files(files))


@importer(imports, "mmeb", max_rejects=0.01)
def import_mmeb(
    root: SubsetFolders,
    out: CorpusOut,
    images: ImagesOfRoot = None,
    split: SplitFiles = "original",
    cap_per_subset: Annotated[
        int | None, typer.Option(min=1, help="First rows of each subset; 50000 in UniME-V2.")
    ] = None,
    subset: OnlySubsets = None,
    items: Items = None,
) -> Import:
    """Import the published MMEB-train layout: qry, qry_image_path, pos_text, pos_image_path."""
    from miner.importers.mmeb import read_mmeb

    rows = read_mmeb(root, split=split, cap_per_subset=cap_per_subset, subsets=subset or ())
    return Import(with_items(rows, items), images or root, out, source_of(root, split))


@importer(imports, "mmeb-eval")
def import_mmeb_eval(
    root: SubsetFolders,
    out: CorpusOut,
    images: ImagesOfRoot = None,
    split: SplitFiles = "test",
    subset: OnlySubsets = None,
) -> Import:
    """Import the published MMEB-eval layout: each query with its closed list of candidates."""
    from miner.importers.mmeb import read_mmeb_eval

    rows = read_mmeb_eval(root, split=split, subsets=subset or ())
    return Import(rows, images or root, out, source_of(root, split))


@importer(imports, "unime", max_rejects=0.01)
def import_unime(
    file: Annotated[
        Path, typer.Argument(help="A released train_data_…_scores.json.", parser=locate)
    ],
    out: CorpusOut,
    scores: Annotated[
        Path,
        typer.Argument(help="The score folder to write: what `mine select` reads.", parser=locate),
    ],
    images: ImagesOption,
) -> Import:
    """Import the training data that UniME-V2 released, with the scores of its judge."""
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.unime import read_unime

    return Import(
        read_unime(file), images, out, source_of(file), PublishedScores(scores, source=file)
    )


@importer(imports, "sentence-transformers", max_rejects=0.01)
def import_sentence_transformers(
    files: FilesArgument,
    out: CorpusOut,
    images: ImagesOption = Path(),
    subset: Annotated[
        str | None,
        typer.Option(
            help="Name of the rows' subset. Default: the name of the file, or of the folder."
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="A score folder to write from `scores` or `label`.", parser=locate),
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Reject rows with a score outside of 0 … 1. Otherwise all scores are kept as similarities.",
        ),
    ] = False,
    strict: Strict = False,
) -> Import:
    """Import tuples. Columns: anchor or query, positive, negative or negative_1 …; optional: scores or label."""
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.sentence_transformers import read_tuples
    from unijudge.foreign.tables import files_of

    first, *more = files_of(files)
    published = None
    if scores is not None:
        published = PublishedScores(scores, first, tuple(more), only_probabilities=probabilities)
    return Import(
        read_tuples(files, subset, strict=strict), images, out, source_of_files(files), published
    )


@importer(imports, "karpathy")
def import_karpathy(
    file: Annotated[
        Path,
        typer.Argument(
            help="dataset_flickr30k.json, dataset_coco.json or a similar file.", parser=locate
        ),
    ],
    out: CorpusOut,
    images: ImagesOption,
    split: Annotated[str, typer.Option(help="Images of this split.")] = "test",
    captions: Annotated[
        int, typer.Option(min=1, help="The number of captions of each image that are read.")
    ] = 5,
    subset: Annotated[
        str | None,
        typer.Option(help="Name before _i2t and _t2i. Default: from the name of the file."),
    ] = None,
    instruction: Instruction = None,
) -> Import:
    """Import images with captions, as queries in both directions: image → captions and caption → image."""
    from miner.importers.karpathy import read_karpathy

    rows = read_karpathy(
        file, split=split, captions=captions, subset=subset, instruction=instruction
    )
    return Import(rows, images, out, source_of(file, split))


@importer(imports, "sharegpt4v")
def import_sharegpt4v(
    file: Annotated[
        Path, typer.Argument(help="share-captioner_coco_lcs_sam_1246k_1107.json.", parser=locate)
    ],
    out: CorpusOut,
    images: ImagesOption,
    first: Annotated[
        int, typer.Option(min=1, help="Number of images to read, from the start of the file.")
    ] = 1000,
    subset: SubsetPrefix = "sharegpt4v",
    instruction: Instruction = None,
) -> Import:
    """Import ShareGPT4V's first images with their long captions, in both directions."""
    from miner.importers.sharegpt4v import read_sharegpt4v

    rows = read_sharegpt4v(file, first=first, subset=subset, instruction=instruction)
    return Import(rows, images, out, source_of(file, f"first {first}"))


@importer(imports, "urban1k")
def import_urban1k(
    folder: Annotated[
        Path, typer.Argument(help="The folder that holds image/ and caption/.", parser=locate)
    ],
    out: CorpusOut,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder of the images. Default: FOLDER/image.", parser=locate),
    ] = None,
    subset: SubsetPrefix = "urban1k",
    instruction: Instruction = None,
) -> Import:
    """Import Urban1K's images with their long captions, in both directions."""
    from miner.importers.urban1k import read_urban1k

    rows = read_urban1k(folder, subset=subset, instruction=instruction)
    return Import(rows, images or folder / "image", out, source_of(folder))


@importer(imports, "sugarcrepe")
def import_sugarcrepe(
    folder: Annotated[
        Path, typer.Argument(help="The folder with the seven JSON files.", parser=locate)
    ],
    out: CorpusOut,
    images: Annotated[
        Path, typer.Option(help="COCO's val2017: the folder, or its zip.", parser=locate)
    ],
    instruction: Instruction = None,
) -> Import:
    """Import each image with its true caption, and with a caption that is almost true."""
    from miner.importers.sugarcrepe import read_sugarcrepe

    return Import(read_sugarcrepe(folder, instruction=instruction), images, out, source_of(folder))


@imports.command("look")
def look(
    files: FilesArgument,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The root of the image paths. Default: the folder of the files.", parser=locate
        ),
    ] = None,
    max_pixels: MaxPixels = MOST_PIXELS,
) -> None:
    """Guess the layout of files, and print what an import would read, reject and ignore."""
    from miner.importers import doctor

    name = doctor.guess(files)
    layout = doctor.LAYOUTS[name]
    root = images or layout.images(files[0])
    source = source_of_files(files)
    typer.echo(
        f"{source}: the layout of `unijudge mine import {name}`; its images are sought in {root} (--images)"
    )
    found = doctor.dry_run(
        layout.read(files),
        images=root,
        out=None,
        source=source,
        max_rejects=layout.max_rejects,
        max_pixels=max_pixels,
    )
    tell(source, found)

"""The shared part of all `unijudge mine import` commands: their options, and the import of the rows."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unijudge.errors import DataError
from unijudge.storage.locations import is_local, locate

if TYPE_CHECKING:
    from miner.importers.building.pair import Row
    from miner.importers.building.published_scores import PublishedScores
    from miner.importers.doctor import Outlook

MOST_PIXELS = 200_000_000
"""The value of `unijudge.images.decoding.MAX_PIXELS`. Importing that module would load Pillow for every `--help`."""

CorpusOut = Annotated[Path, typer.Argument(help="The corpus folder to write.", parser=locate)]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Files, folders of files, or patterns: .parquet, .jsonl, .json, .csv, .tsv, .arrow, also .gz.",
        parser=locate,
    ),
]
SubsetFolders = Annotated[
    Path,
    typer.Argument(help="A folder with a folder of Parquet files for each subset.", parser=locate),
]
ImagesOption = Annotated[
    Path,
    typer.Option(
        help="The root of the image paths: a folder, which may hold zips, or a zip.", parser=locate
    ),
]
ImagesOfRoot = Annotated[
    Path | None, typer.Option(help="The root of the image paths. Default: ROOT.", parser=locate)
]
SplitFiles = Annotated[str, typer.Option(help="Files named SPLIT-*.parquet are read.")]
OnlySubsets = Annotated[
    list[str] | None, typer.Option(help="Import only this subset. The option may be repeated.")
]
SubsetPrefix = Annotated[str, typer.Option(help="Name before _i2t and _t2i.")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse columns that are not known, rather than ignore them."),
]
Items = Annotated[
    list[Path] | None,
    typer.Option(
        "--items",
        help="Files of items without a query, which make the pool larger. Columns: text, image; optional: subset.",
        parser=locate,
    ),
]
Instruction = Annotated[
    str | None, typer.Option(help="A text beside each image. Captions get no such text.")
]
MaxRejects = Annotated[
    float,
    typer.Option(min=0, max=1, help="The share of rejected rows above which nothing is imported."),
]
MaxPixels = Annotated[
    int,
    typer.Option(min=1, help="Pictures with more pixels (width × height) are rejected, undecoded."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what would be read, rejected and ignored, and write nothing."
    ),
]


@dataclass(frozen=True)
class Import:
    """The input and the output of one import."""

    rows: "Iterator[Row]"
    images: Path
    """The root of the image paths."""
    out: Path
    """The corpus folder."""
    source: str
    """The name of the rows' source, as `source_of` returns it."""
    published: "PublishedScores | None" = None

    def run(
        self,
        max_rejects: MaxRejects = 0.0,
        max_pixels: MaxPixels = MOST_PIXELS,
        dry_run: DryRun = False,
    ) -> None:
        """Imports the rows, or prints what an import would do. Each parameter is an option of every command."""
        if dry_run:
            from miner.importers import doctor

            tell(
                self.source,
                doctor.dry_run(**vars(self), max_rejects=max_rejects, max_pixels=max_pixels),
            )
            return
        from miner.importers.building.build import build

        made = build(**vars(self), max_rejects=max_rejects, max_pixels=max_pixels)
        typer.echo(
            f"{self.out}: {made.queries} queries, {made.items} items, {made.rejects} rows rejected (rejects.jsonl)"
        )


def importer(
    app: typer.Typer, name: str, *, max_rejects: float = 0.0
) -> Callable[[Callable[..., Import]], Callable[..., None]]:
    """Turns a function that returns its import into a command. The options of `Import.run` follow its own options.

    Args:
        app: The group of the command.
        name: The name of the command.
        max_rejects: The default of `--max-rejects`.
    """
    shared = list(inspect.signature(Import.run).parameters.values())[1:]
    shared[0] = shared[0].replace(default=max_rejects)

    def register(read: Callable[..., Import]) -> Callable[..., None]:
        @functools.wraps(read)
        def command(**options: Any) -> None:
            given = {option.name: options.pop(option.name) for option in shared}
            read(**options).run(**given)

        own = inspect.signature(read).parameters.values()
        # Typer reads the options of a command from its signature.
        vars(command)["__signature__"] = inspect.Signature([*own, *shared])
        return app.command(name)(command)

    return register


def source_of(place: Path, part: str | None = None) -> str:
    """Returns a name of the rows' source that no other source has."""
    name = str(place.resolve() if is_local(place) else place)
    return name if part is None else f"{name} ({part})"


def source_of_files(places: Sequence[Path]) -> str:
    """Returns the name of a source: the name of one place, or the first name of several with a digest of all names."""
    names = [source_of(place) for place in places]
    if len(names) == 1:
        return names[0]
    all_names = "\n".join(names)
    digest = hashlib.sha256(all_names.encode()).hexdigest()
    return f"{names[0]} and {len(names) - 1:,} more ({digest[:8]})"


def with_items(rows: "Iterator[Row]", items: Sequence[Path] | None) -> "Iterator[Row]":
    """Yields the rows, and then the items that belong to no query."""
    if not items:
        return rows
    from miner.importers.pairs import read_items

    return chain(rows, read_items(items))


def tell(source: str, found: "Outlook") -> None:
    """Prints what an import would do.

    Raises:
        DataError: The import would be refused.
    """
    typer.echo("\n".join([f"{source}: a dry run, which writes nothing", *found.lines()]))
    if found.refusal is not None:
        raise DataError(f"{found.refusal}. Nothing would be imported")

"""The settings of a scoring job. They come from one TOML file, and `--example` prints one."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location, is_local


def as_tuple(value: Any) -> Any:
    """Turns a single path into a tuple of one path. Returns any other value unchanged."""
    return (value,) if isinstance(value, str | Path) else value


def check_one_scale(log_odds_divisor: float, *, calibrated: bool) -> None:
    """Checks that no divisor is given together with a calibration.

    Raises:
        ValueError: A divisor and a calibration are both given.
    """
    if calibrated and log_odds_divisor != 1:
        raise ValueError(
            f"log_odds_divisor = {log_odds_divisor:g} cannot be combined with a calibration: the calibration was "
            "fitted to undivided log-odds. Leave out one of the two"
        )


class RetrievalSettings(Settings):
    """The settings that decide which items may be candidates of a query."""

    corpus: Location
    """The corpus folder, written by `mine import`."""
    vectors: Location | None = None
    """The corpus' embeddings, written by `train embed`. A cascade does not need embeddings."""
    k: int = Field(50, gt=0)
    """Number of candidates for each query: the items most similar to the query, but less similar than its positive."""
    pool: Literal["global", "subset", "modality"] = "global"
    """The items among which candidates are searched. `global`: the whole corpus. `subset`: the query's subset.
    `modality`: items of the same modality as the query's positive (text, image, or both)."""
    margin: float = Field(0.0, ge=-2, le=2)
    """Minimum difference between the positive's similarity and a candidate's. A negative margin admits candidates more
    similar than the positive; -2 admits all items."""
    relative_margin: float = Field(0.0, ge=0, le=1)
    """A margin given as a share of the positive's similarity. The stricter of the two margins applies."""
    range_min: int = Field(0, ge=0)
    """Number of nearest items to skip, whatever their similarity."""
    range_max: int | None = Field(None, gt=0)
    """Rank from which on items are not candidates. By default the whole pool is searched."""
    fold_case: bool = True
    """Ignore case and whitespace when deduplicating candidates against each other and against positives."""
    allow_query_image: bool = False
    """Whether items that show the query's own image may be candidates."""
    index: Literal["flat", "ivf", "hnsw", "exact"] = "flat"
    """Kind of search. `flat`: exact search with FAISS, block by block. `ivf` and `hnsw`: faster for millions of items,
    but all items must fit in memory and some nearest items are missed (the job logs the recall). With `ivf` and `hnsw`,
    pools of at most 8,192 items are searched exactly. `exact`: exact search with numpy, the specification."""
    ivf_nlist: int = Field(0, ge=0)
    """Number of cells of an `ivf` index. 0 means four times the square root of the number of items."""
    ivf_nprobe: int = Field(32, gt=0)
    """Number of cells that a search in an `ivf` index visits."""
    hnsw_m: int = Field(32, gt=1)
    """Number of neighbours of each item in an `hnsw` index."""
    hnsw_ef_search: int = Field(256, gt=0)
    """Number of items that a search in an `hnsw` index keeps in its queue."""

    @model_validator(mode="after")
    def _a_window(self) -> Self:
        if self.range_max is not None and self.range_min >= self.range_max:
            raise ValueError(
                f"range_min = {self.range_min} leaves no item below range_max = {self.range_max}. Give a larger "
                "range_max"
            )
        return self

    def ceiling(self, similarity: float) -> float:
        """Returns the similarity below which candidates lie, given the similarity of the best positive."""
        relative = self.relative_margin * abs(similarity)
        margin = max(self.margin, relative) if relative else self.margin
        return similarity - margin

    @property
    def retrieval(self) -> dict[str, Any]:
        """The settings on which a folder of candidates depends, besides corpus, vectors, k and pool."""
        return self.model_dump(
            include={
                "margin", "relative_margin", "range_min", "range_max", "fold_case", "allow_query_image", "index",
                "ivf_nlist", "ivf_nprobe", "hnsw_m", "hnsw_ef_search",
            }
        )  # fmt: skip


class CascadeSettings(Settings):
    """The second step of a cascade, which scores again only the candidates near the first judge's cut."""

    scores: Location | None = None
    """The complete folder of the first judge's scores. Without it there is no cascade and all candidates are scored."""
    beta: float = Field(0.1, ge=0, le=1)
    """The margin β that the selection will use: the distance of the cut below the positive's score."""
    width: float = Field(0.2, gt=0)
    """Largest distance between the cut and the first score of a candidate that is scored again."""
    calibration: Location | None = None
    """The first judge's file from `mine calibrate`, if the selection will use that file. The cut then applies to
    calibrated scores."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """The divisor of log-odds that the selection will use. Not allowed with a calibration."""

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        check_one_scale(self.log_odds_divisor, calibrated=self.calibration is not None)
        return self


class ScoreSettings(RetrievalSettings):
    """The settings of one scoring job."""

    out: Location
    """The folder of score shards. Its plan never changes: a different k or pool needs a different folder."""
    reuse: Annotated[tuple[Location, ...], BeforeValidator(as_tuple)] = ()
    """Folders of scores by the same judge. Their verdicts are reused instead of asking the judge again."""
    cascade: CascadeSettings = CascadeSettings()
    """The second step of a cascade, which scores again only the candidates near the first judge's cut."""
    service: str = "http://127.0.0.1:8000"
    """URL of the judge service."""
    key_file: LocalPath | None = None
    """A file that holds the bearer key of the service, if the service requires a key."""
    shard_size: int = Field(256, gt=0)
    """Queries in one shard file. After a crash at most this many queries, plus those in flight, are scored again."""
    shards_together: int = Field(1, gt=0)
    """Number of shards whose queries are sent in one common order, in which neighbours share candidates, so that the
    service finds more images in its stores. A crash or a stop concerns this many shards instead of one. Ignored with
    `engine = "ray"`, where each shard is a task."""
    max_in_flight: int = Field(16, gt=0)
    """Maximum number of queries that wait for the service at once; with `engine = "ray"`, in each task. While the
    service is overloaded, fewer queries are sent."""
    engine: Literal["local", "ray"] = "local"
    """Where shards are scored. `local`: in one process. `ray`: in one Ray task for each shard; every machine of the
    cluster must have access to the folders."""
    ray_address: str = "auto"
    """The address of the Ray cluster for `engine = "ray"`. `local` starts a new cluster on this machine."""
    ray_concurrency: int = Field(4, gt=0)
    """Number of shards that Ray scores at once."""
    request_timeout_s: float = Field(300, gt=0)
    """Timeout of one attempt of a request, until the last byte of its answer, in seconds."""
    retry_for_s: float = Field(600, gt=0)
    """How long to retry while the service is overloaded or cannot be reached, in seconds."""
    max_error_share: float = Field(0.05, ge=0, le=1)
    """Largest share of pairs without a verdict in a shard. A shard above it is not written and stops the job."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """Smallest mean probability of Yes and No together in a shard. A shard below it is not written and stops the
    job."""

    @property
    def total_in_flight(self) -> int:
        """The largest number of queries in flight, over all tasks of the job."""
        tasks = self.ray_concurrency if self.engine == "ray" else 1
        return self.max_in_flight * tasks

    @property
    def shards_apart(self) -> bool:
        """Whether each shard is scored by a separate task, which does not know the questions of the other tasks."""
        return self.engine == "ray"

    def absolute(self) -> Self:
        """Returns these settings with absolute paths, for processes that run in other folders."""

        def absolute_path(path: Path | None) -> Path | None:
            if path is None or not is_local(path):
                return path
            return path.absolute()

        paths = {
            name: absolute_path(getattr(self, name))
            for name in ("corpus", "vectors", "out", "key_file")
        }
        reuse = tuple(absolute_path(path) for path in self.reuse)
        cascade_paths = {
            "scores": absolute_path(self.cascade.scores),
            "calibration": absolute_path(self.cascade.calibration),
        }
        cascade = self.cascade.model_copy(update=cascade_paths)
        return self.model_copy(update=paths | {"reuse": reuse, "cascade": cascade})

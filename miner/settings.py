"""The settings of a scoring job: one TOML file, `--example` prints it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location, is_local


def as_tuple(value: Any) -> Any:
    """One path alone is a list of one."""
    return (value,) if isinstance(value, str | Path) else value


def check_one_scale(log_odds_divisor: float, *, calibrated: bool) -> None:
    """Refuses a divisor beside a calibration.

    Raises:
        ValueError: Both are given.
    """
    if calibrated and log_odds_divisor != 1:
        raise ValueError(
            f"log_odds_divisor = {log_odds_divisor:g} and a calibration: a calibration was fitted to log-odds that "
            "nothing divided. Leave out one of the two"
        )


class RetrievalSettings(Settings):
    """Which items may be candidates of a query."""

    corpus: Location
    """The corpus folder (`mine import`)."""
    vectors: Location | None = None
    """Its embeddings (`train embed`); a cascade needs none."""
    k: int = Field(50, gt=0)
    """Candidates for each query: the most similar ones below the positive's own similarity."""
    pool: Literal["global", "subset", "modality"] = "global"
    """Where candidates come from. `global`: the whole corpus. `subset`: the query's own. `modality`: the items of its
    positive's kind (text, image, both)."""
    margin: float = Field(0.0, ge=-2, le=2)
    """Candidates are less similar than the positive by more than this; negative lets more similar ones in, -2 all."""
    relative_margin: float = Field(0.0, ge=0, le=1)
    """The same as a share of the positive's similarity; the stricter of the two holds."""
    range_min: int = Field(0, ge=0)
    """Nearest items that are passed over, whatever their similarity."""
    range_max: int | None = Field(None, gt=0)
    """Rank beyond which no candidate is taken; default: the whole pool."""
    fold_case: bool = True
    """Texts that differ in letter case or blanks alone are one candidate, and none of a positive."""
    allow_query_image: bool = False
    """Whether items that show the query's own picture may be candidates."""
    index: Literal["flat", "ivf", "hnsw", "exact"] = "flat"
    """`flat`: FAISS, exact, block by block. `ivf` and `hnsw`: faster for millions, all items in memory, some missed
    (the job says how many); pools of at most 8,192 items are searched exactly. `exact`: numpy, the specification."""
    ivf_nlist: int = Field(0, ge=0)
    """Cells of `ivf`; 0: four times the root of the number of items."""
    ivf_nprobe: int = Field(32, gt=0)
    """Cells that a search in `ivf` looks into."""
    hnsw_m: int = Field(32, gt=1)
    """Neighbours of an item in `hnsw`."""
    hnsw_ef_search: int = Field(256, gt=0)
    """Items that a search in `hnsw` keeps in sight."""

    @model_validator(mode="after")
    def _a_window(self) -> Self:
        if self.range_max is not None and self.range_min >= self.range_max:
            raise ValueError(
                f"range_min = {self.range_min} leaves nothing before range_max = {self.range_max}; give a larger "
                "range_max"
            )
        return self

    def ceiling(self, similarity: float) -> float:
        """Below which similarity candidates lie, when the best positive has this one."""
        relative = self.relative_margin * abs(similarity)
        return similarity - (max(self.margin, relative) if relative else self.margin)

    @property
    def retrieval(self) -> dict[str, Any]:
        """What a folder of candidates depends on, beside corpus, vectors, k and pool."""
        return self.model_dump(
            include={
                "margin", "relative_margin", "range_min", "range_max", "fold_case", "allow_query_image", "index",
                "ivf_nlist", "ivf_nprobe", "hnsw_m", "hnsw_ef_search",
            }
        )  # fmt: skip


class CascadeSettings(Settings):
    """The second step of a cascade: only what the first judge was unsure of."""

    scores: Location | None = None
    """The first judge's folder of scores, whole; none: no cascade, everything is asked."""
    beta: float = Field(0.1, ge=0, le=1)
    """The margin under the positive's score at which the selection will cut."""
    width: float = Field(0.2, gt=0)
    """Candidates whose first score lies within this of the cut are asked again."""
    calibration: Location | None = None
    """The first judge's file of `mine calibrate`, where the selection will use it: the cut is in calibrated scores."""
    log_odds_divisor: float = Field(1.0, gt=0)
    """As the selection will have it; not with a calibration."""

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        check_one_scale(self.log_odds_divisor, calibrated=self.calibration is not None)
        return self


class ScoreSettings(RetrievalSettings):
    """One scoring job."""

    out: Location
    """The folder of score shards. Its plan never changes: another k or pool needs another folder."""
    reuse: Annotated[tuple[Location, ...], BeforeValidator(as_tuple)] = ()
    """Folders of scores by the same judge: what they hold is not asked again."""
    cascade: CascadeSettings = CascadeSettings()
    """The second step of a cascade: only what the first judge was unsure of."""
    service: str = "http://127.0.0.1:8000"
    """Where the judge service listens."""
    key_file: LocalPath | None = None
    """A file that holds the service's bearer key, where it wants one."""
    shard_size: int = Field(256, gt=0)
    """Queries in one file. After a kill at most so many are scored again, and those that were in flight."""
    max_in_flight: int = Field(16, gt=0)
    """At most so many queries wait for the service at once, with `engine = "ray"` of each task; fewer while it has too
    much to do."""
    engine: Literal["local", "ray"] = "local"
    """One process, or a Ray task for each shard: every machine must see the folders."""
    ray_address: str = "auto"
    """The cluster of `engine = "ray"`, as Ray names it; `local` starts one."""
    ray_concurrency: int = Field(4, gt=0)
    """Shards in work at once on Ray."""
    request_timeout_s: float = Field(300, gt=0)
    """How long one try of a request may take, to the last byte of its answer, in seconds."""
    retry_for_s: float = Field(600, gt=0)
    """How long to go on trying while the service answers nothing, be it busy or away, in seconds."""
    max_error_share: float = Field(0.05, ge=0, le=1)
    """Stop, before writing, at a shard with more pairs without a verdict than this share."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """Stop, before writing, at a shard in which Yes and No together have a smaller mean probability than this."""

    @property
    def total_in_flight(self) -> int:
        """At most so many queries of all tasks together wait for the service at once."""
        tasks = self.ray_concurrency if self.engine == "ray" else 1
        return self.max_in_flight * tasks

    @property
    def shards_apart(self) -> bool:
        """Whether each shard is scored by a task of its own, which does not know what the others ask."""
        return self.engine == "ray"

    def absolute(self) -> Self:
        """The same with whole paths, for processes that work in other folders."""

        def whole(path: Path | None) -> Path | None:
            return path.absolute() if path is not None and is_local(path) else path

        paths = {name: whole(getattr(self, name)) for name in ("corpus", "vectors", "out", "key_file")}
        given = {"scores": whole(self.cascade.scores), "calibration": whole(self.cascade.calibration)}
        cascade = self.cascade.model_copy(update=given)
        return self.model_copy(update=paths | {"reuse": tuple(map(whole, self.reuse)), "cascade": cascade})

"""The settings of evaluation and of reranking. Each command reads one TOML file, and `--example` prints that file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unijudge.judging.prompt import LONGEST_LIST
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location


class EvaluateSettings(Settings):
    """The settings of one evaluation of a corpus and its vectors."""

    corpus: Location
    """The folder of the corpus, with queries, positives and candidates."""
    vectors: Location
    """The folder of the corpus's vectors, written by `train embed`."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    pool: Literal["subset", "global"] = "subset"
    """The candidates of queries without a closed list. `subset`: the items of the query's subset. `global`: all items
    of the corpus."""
    to_the_letter: bool = False
    """Whether the data is taken literally in open pools, as in published benchmarks. False: the positives of all rows
    with the same question are right. Items that cannot be a wrong answer are left out: duplicates of a positive or of
    the query (ignoring case and whitespace), and items with the query's image. True: only a row's own positives are
    right, and no item is left out. Closed lists are always taken literally."""
    cutoffs: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (5, 10)
    """The values k of recall@k. nDCG uses the last value."""
    keep: int = Field(10, gt=0)
    """Number of items to store for each ranking. Only stored items can be reranked."""
    detect: float | None = Field(None, gt=0, le=1)
    """The difference of precision@1 between two systems that the evaluation should detect, such as 0.02. If the corpus
    has too few queries to detect the difference, a warning gives the required number."""


class RerankSettings(Settings):
    """The settings of one reranking of an evaluation's best items."""

    corpus: Location
    """The folder of the evaluated corpus."""
    evaluation: Location
    """The folder written by `train evaluate`."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    service: str = "http://127.0.0.1:8000"
    """The URL of the judge service. The service may serve an unmodified judge, or a trained reranker (the folder
    merged/ of a run)."""
    key_file: LocalPath | None = None
    """A file with the bearer key, if the service requires a key."""
    method: Literal["pointwise", "listwise", "fused"] = "pointwise"
    """How the judge reranks. `pointwise`: the judge scores each pair, and items are sorted by their log-odds of Yes.
    `listwise`: the judge chooses the best item of a list, and this item moves to the front, as in UniME-V2. `fused`:
    items are sorted by ln P(number) + ln P(Yes), or by ln P(Yes) alone if the judge chooses no item of the list."""
    top: int = Field(10, gt=1)
    """Number of judged items of each ranking, for `pointwise`. The other items keep their order after the judged
    items."""
    list_size: int = Field(5, ge=2, le=LONGEST_LIST)
    """Number of judged items of each ranking, for `listwise` and `fused`. The paper of UniME-V2 says 5, its code uses
    10."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """Smallest total probability of all numbers of a list. With a smaller probability, or if the most probable answer
    is not a number, the judge has made no choice. The embedder's order is then kept (with `fused`: the order by
    pairs)."""
    rerank: Literal["always", "auto"] = "always"
    """Which subsets are reranked. `always`: all subsets. `auto`: only subsets in which reranking helped on held-out
    queries. The held-out queries are a half chosen by the hash of their ids, or the queries of `held_out`. Only the
    other queries are reported."""
    held_out: Location | None = None
    """The folder of an earlier reranking of other queries by the same judge and method, for `auto`."""
    min_held_out: int = Field(50, gt=0)
    """Number of held-out queries, for `auto`. With fewer held-out queries, the gain of a subset must exceed its
    standard error."""
    max_in_flight: int = Field(16, gt=0)
    """Largest number of queries that wait for the service at the same time. The number is lower while the service is
    overloaded."""

    @property
    def judged(self) -> int:
        """The number of judged items of each ranking."""
        return self.top if self.method == "pointwise" else self.list_size

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.held_out is not None and self.rerank != "auto":
            raise ValueError(
                "held_out needs rerank = 'auto'. Set rerank = 'auto', or leave held_out out"
            )
        return self

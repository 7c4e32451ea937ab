"""The settings of evaluating and of reranking: one TOML file each, `--example` prints it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unijudge.judging.prompt import LONGEST_LIST
from unijudge.settings import Settings
from unijudge.storage.locations import LocalPath, Location


class EvaluateSettings(Settings):
    """One evaluation of a corpus' vectors."""

    corpus: Location
    """The corpus: queries, their positives, and candidates."""
    vectors: Location
    """Its vectors (`train embed`)."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    pool: Literal["subset", "global"] = "subset"
    """Queries without a closed list are ranked against their subset's items, or against all."""
    to_the_letter: bool = False
    """Closed lists are ranked as they are. In an open pool the positives of all rows that ask the same are right, and
    what can be no wrong answer is left out: what says the same as a positive or as the query (letter case and blanks
    aside), or shows the query's picture. True: only a row's own positives are right, and nothing is left out, as in
    published benchmarks."""
    cutoffs: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (5, 10)
    """The k of recall@k; nDCG is taken at the last."""
    keep: int = Field(10, gt=0)
    """Items of each ranking to write; no more can be reranked."""
    detect: float | None = Field(None, gt=0, le=1)
    """A difference of precision@1 between two systems that is looked for, such as 0.02. A warning says how many queries
    it needs, where the corpus has fewer."""


class RerankSettings(Settings):
    """One reranking of an evaluation's best items."""

    corpus: Location
    """The corpus that was evaluated."""
    evaluation: Location
    """The folder of `train evaluate`."""
    out: Location
    """The folder for metrics.json and rankings.parquet."""
    service: str = "http://127.0.0.1:8000"
    """Where the judge service listens; it may serve a judge as it comes, or a trained reranker (its folder merged/)."""
    key_file: LocalPath | None = None
    """A file that holds the service's bearer key, where it wants one."""
    method: Literal["pointwise", "listwise", "fused"] = "pointwise"
    """`pointwise`: in the order of Yes against No, pair by pair; `listwise`: one list, its best item goes first, as in
    UniME-V2; `fused`: by both, ln P(number) + ln P(Yes), and where a list has no choice by ln P(Yes) alone."""
    top: int = Field(10, gt=1)
    """`pointwise`: items of each ranking that are judged; the others keep their places after them."""
    list_size: int = Field(5, ge=2, le=LONGEST_LIST)
    """`listwise` and `fused`: how many instead. The authors say 5; their code has 10."""
    min_label_mass: float = Field(0.5, ge=0, le=1)
    """Least probability of all numbers of a list together. Below it, and where the likeliest answer is no number, the
    list has no choice: the embedder's order stands (`fused`: the pairs' own)."""
    rerank: Literal["always", "auto"] = "always"
    """`auto`: leaves alone the subsets in which reranking did not help on held-out queries: a half that the hash of
    their ids decides, or those of `held_out`. Only the others are reported."""
    held_out: Location | None = None
    """`auto`: the folder of an earlier reranking by the same judge and method, of other queries."""
    min_held_out: int = Field(50, gt=0)
    """`auto`: with fewer held-out queries, a subset's gain must exceed its standard error."""
    max_in_flight: int = Field(16, gt=0)
    """At most so many queries wait for the service at once; fewer while it has too much to do."""

    @property
    def judged(self) -> int:
        """How many items of each ranking are judged."""
        return self.top if self.method == "pointwise" else self.list_size

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.held_out is not None and self.rerank != "auto":
            raise ValueError("held_out is given, but nothing is decided by it; set rerank = 'auto'")
        return self

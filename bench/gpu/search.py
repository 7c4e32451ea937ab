"""Step 6: whether FAISS finds the same neighbours on the GPU as on the CPU, and how much faster."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.gpu.options import Options
from bench.gpu.step import Case, Figures, Outcome, Skipped, Step, Table, number

NEIGHBOURS = 100
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
"""Similarities and item numbers, both of shape (queries, neighbours)."""


def search_both(options: Options) -> Figures:
    """Searches the nearest of generated unit vectors, with FAISS on the CPU and on the GPU."""
    import faiss

    if not hasattr(faiss, "knn_gpu") or not hasattr(faiss, "StandardGpuResources"):
        raise Skipped("the installed faiss has no GPU support. Install the extra mine-gpu")
    if options.dry_run:
        raise Skipped("a dry run uses no GPU")
    if not faiss.get_num_gpus():
        raise Skipped("faiss-gpu sees no GPU")
    queries, items = unit_vectors(options)
    resources = faiss.StandardGpuResources()
    metric = faiss.METRIC_INNER_PRODUCT

    def on_the_gpu() -> Found:
        return faiss.knn_gpu(resources, queries, items, NEIGHBOURS, metric=metric)

    on_the_gpu()  # warm-up: the first search allocates memory for its results
    return compared(on_the_gpu, lambda: faiss.knn(queries, items, NEIGHBOURS, metric=metric))


def unit_vectors(options: Options) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns generated queries and items as unit vectors."""
    scale = options.scale
    dice = np.random.default_rng(0)
    queries, items = (
        dice.normal(size=(count, scale.search_width)).astype(np.float32)
        for count in (scale.search_queries, scale.search_items)
    )
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return queries, items


def compared(first: Callable[[], Any], second: Callable[[], Any]) -> Figures:
    """Compares two searches: seconds, share of equal neighbours, and largest difference of similarities."""
    begun = time.perf_counter()
    similarities, places = first()
    middle = time.perf_counter()
    others, other_places = second()
    end = time.perf_counter()
    return {
        "queries": len(places),
        "gpu_s": middle - begun,
        "cpu_s": end - middle,
        "equal_places": float((places == other_places).mean()),
        "largest_difference": float(np.abs(similarities - others).max()),
    }


def tables(outcomes: Mapping[str, Outcome]) -> list[Table]:
    """Returns a table with one row."""
    figures = outcomes["knn"].figures
    ratio = figures["cpu_s"] / figures["gpu_s"] if figures else None
    row = [
        number(figures.get("gpu_s"), ".3f"),
        number(figures.get("cpu_s"), ".3f"),
        number(ratio, ".1f"),
        number(figures.get("equal_places"), ".4%"),
        number(figures.get("largest_difference"), ".1e"),
    ]
    header = ["GPU, s", "CPU, s", "ratio", "equal neighbours", "largest difference of a similarity"]
    note = "The time of the GPU includes copying all vectors. Neighbours with nearly equal similarities may be swapped."
    return [Table(header, [row], note)]


STEP = Step(
    name="faiss",
    title="FAISS",
    about=f"The {NEIGHBOURS} nearest items by inner product, with `knn_gpu` and `knn`, as the miner calls them.",
    cases={"knn": Case("knn_gpu and knn", search_both, ["faiss"])},
    tables=tables,
)

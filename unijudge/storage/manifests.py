"""The manifest of each kind of folder, so that an error can name the kind of folder that was given instead."""

from collections.abc import Collection

CONTENTS = {
    "dataset.json": "a scored dataset",
    "corpus.json": "a corpus",
    "vectors.json": "vectors",
    "manifest.json": "scores",
    "candidates": "the candidates of scores that are not written yet",
    "candidates.json": "candidates",
    "triples.json": "training rows",
    "settings.json": "a training run",
    "metrics.json": "an evaluation",
    "adapter_config.json": "an adapter",
    "config.json": "a model",
}
"""Manifest → the content of its folder, in words. A folder with several of these names has the first kind."""


def mistaken(wanted: str, names: Collection[str]) -> str | None:
    """Returns in words what a folder holds instead of the wanted content. None if the folder has no known content.

    Args:
        wanted: The name of the manifest that is missing.
        names: The names in the folder.

    Example:
        >>> mistaken("vectors.json", {"manifest.json", "part-00000.parquet"})
        'holds scores (manifest.json), not vectors (vectors.json)'
        >>> mistaken("vectors.json", {"notes.txt"}), mistaken("answers.json", {"corpus.json"})
        (None, None)
    """
    if wanted not in CONTENTS:
        return None
    for name, content in CONTENTS.items():
        if name in names:
            return f"holds {content} ({name}), not {CONTENTS[wanted]} ({wanted})"
    return None

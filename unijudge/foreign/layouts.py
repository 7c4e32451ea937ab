"""The columns and markers of published layouts that several programs read."""

from typing import Any

from unijudge.foreign.cells import Rejected

MMEB_TRAIN = [
    ["qry"],
    ["qry_image_path", "qry_image"],
    ["pos_text"],
    ["pos_image_path", "pos_image"],
]
"""Columns of MMEB-train, each with its other name in copies of the dataset that embed the pictures."""
MARKER = "<|image_1|>"
"""The mark of a picture in a text of MMEB."""
SUGARCREPE = ["filename", "caption", "negative_caption"]
"""Keys of a row of SugarCrepe."""


def without_marker(text: str | None) -> str:
    r"""Returns a text without image markers.

    Example:
        >>> without_marker("<|image_1|>\nRepresent the given image.\n")
        'Represent the given image.\n'
    """
    return (text or "").replace(MARKER + "\n", "").replace(MARKER, "")


def sugarcrepe_row(row: Any) -> tuple[str, str, str]:
    """Returns the picture's name, the caption and the wrong caption of a row of SugarCrepe.

    Raises:
        Rejected: The row is not a row of SugarCrepe.
    """
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) and row[key] for key in SUGARCREPE
    ):
        raise Rejected(
            f"not a row of SugarCrepe. Expected an object with {SUGARCREPE}, all of them texts"
        )
    name, caption, negative = (row[key] for key in SUGARCREPE)
    return name, caption, negative

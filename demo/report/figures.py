"""Draws two PNG images for the README, with Pillow."""

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.report.rows import Card, Strip
from demo.teaching.lessons import FIND_IMAGE
from unijudge.content import Content
from unijudge.storage.files import publishing

INK, FAINT, PAPER, RULE = "#1c2128", "#59636e", "#ffffff", "#d5dae0"
VERDICTS = {
    "positive": "#1f6feb",
    "chosen": "#1a7f37",
    "dropped": "#b42318",
    "passed over": "#d5dae0",
}
SIDE, GAP, COLUMNS = 92, 14, 9
BARS = ("#57606a", "#9aa6b2", "#9aa6b2", "#1f6feb", "#0f766e", "#0f766e")


def draw_mined(path: Path, strips: list[Strip]) -> None:
    """Draws rows with a query, its positive, and its best candidates with their verdicts."""
    height = SIDE + 96
    image = Image.new("RGB", (GAP + (COLUMNS + 1) * (SIDE + GAP), 34 + len(strips) * height), PAPER)
    draw = ImageDraw.Draw(image)
    _write(
        draw,
        (GAP, 10),
        "blue: labelled positive    green: chosen    red: dropped as a false negative    grey: passed over",
        FAINT,
    )
    for number, strip in enumerate(strips):
        top = 40 + number * height
        _content(image, draw, (GAP, top), strip.query)
        _write(draw, (GAP, top + SIDE + 8), "query", INK)
        for place, card in enumerate(strip.cards[:COLUMNS], start=1):
            _card(image, draw, (GAP + place * (SIDE + GAP), top), card)
    _save(image, path)


def draw_students(path: Path, students: dict[str, Any], rerank: dict[str, Any]) -> None:
    """Draws the mean precision@1 of every student, and of the base's list in the order of two rerankers."""
    values = {
        name.replace("_", " "): tasks["mean"]["precision_at_1"] for name, tasks in students.items()
    }
    values |= {
        f"base, reranked by the {name}": {"mean": rerank["mean"][name], "std": None}
        for name in ("judge", "reranker")
    }
    step, left, width = 30, 220, 560
    image = Image.new("RGB", (left + width + 70, 46 + step * len(values)), PAPER)
    draw = ImageDraw.Draw(image)
    _write(draw, (GAP, 10), "mean precision@1 over four tasks, held-out queries", FAINT)
    top = max(value["mean"] + (value["std"] or 0) for value in values.values())
    for number, (name, value) in enumerate(values.items()):
        y, x = 38 + number * step, left + value["mean"] / top * width
        _write(draw, (GAP, y + 3), name, INK)
        color = BARS[number] if number < len(BARS) else "#c2410c"
        draw.rectangle((left, y, x, y + step - 10), fill=color)
        reach = (value["std"] or 0.0) / top * width
        if reach:
            draw.line((x - reach, y + step / 2 - 5, x + reach, y + step / 2 - 5), fill=INK, width=2)
        _write(draw, (x + reach + 8, y + 3), f"{value['mean']:.3f}", INK)
    _save(image, path)


def _card(
    image: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], card: Card
) -> None:
    x, y = place
    draw.rectangle((x, y - 6, x + SIDE, y - 3), fill=VERDICTS[card.verdict])
    _content(image, draw, place, card.content)
    rank = "labelled" if card.rank is None else f"rank {card.rank + 1}"
    similarity = "no similarity" if card.similarity is None else f"similarity {card.similarity:.2f}"
    lines = [rank, similarity, f"judge {card.score:.3f}", card.verdict]
    for number, line in enumerate(lines):
        _write(draw, (x, y + SIDE + 6 + 15 * number), line, INK if number == 3 else FAINT)
    truth, color = ("in fact right", "#1a7f37") if card.right else ("in fact wrong", FAINT)
    _write(draw, (x, y + SIDE + 66), truth, color)


def _content(
    image: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], content: Content
) -> None:
    if content.image is not None:
        image.paste(Image.open(io.BytesIO(content.image)).resize((SIDE, SIDE)), place)
        return
    draw.rectangle((*place, place[0] + SIDE - 1, place[1] + SIDE - 1), outline=RULE)
    lines: list[str] = [""]
    for word in (content.text or "").removeprefix(FIND_IMAGE).split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = (
            [longer] if draw.textlength(longer, font=_font()) < SIDE - 10 else [lines[-1], word]
        )
    for number, line in enumerate(lines[:6]):
        _write(draw, (place[0] + 5, place[1] + 4 + 14 * number), line, INK)


def _write(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: str) -> None:
    draw.text(place, text, fill=color, font=_font())


def _font() -> Any:
    return ImageFont.load_default(size=12)


def _save(image: Image.Image, path: Path) -> None:
    with publishing(path) as draft:
        image.save(draft, "PNG")

"""Captions of a scene, and whether a caption is true of a scene. See `demo.world`."""

from dataclasses import dataclass

RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene, in one cell."""

    shape: str
    color: str
    size: str
    row: int
    column: int


Scene = tuple[Thing, ...]


@dataclass(frozen=True)
class Phrase:
    """The part of a caption that describes one thing. An attribute that is None is not mentioned."""

    shape: str
    color: str | None = None
    size: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Returns whether the phrase describes a thing correctly."""
        return (
            self.shape == thing.shape
            and self.color in (None, thing.color)
            and self.size in (None, thing.size)
        )

    @property
    def text(self) -> str:
        """The words of the phrase, with its article."""
        return " ".join(word for word in ("a", self.size, self.color, self.shape) if word)


@dataclass(frozen=True)
class Short:
    """A caption of one thing, or of two things and their relation, possibly with a third thing."""

    first: Phrase
    relation: str | None = None
    second: Phrase | None = None
    also: Phrase | None = None

    @property
    def text(self) -> str:
        """The words of the caption, such as `a red circle left of a square`."""
        text = self.first.text
        if self.relation and self.second:
            text += f" {self.relation} {self.second.text}"
        return f"{text} and {self.also.text}" if self.also else text

    def holds(self, scene: Scene) -> bool:
        """Returns whether the caption describes a scene correctly: each phrase needs a different thing that fits."""
        for first in scene:
            for second in scene if self.second else (None,):
                for also in scene if self.also else (None,):
                    things = [thing for thing in (first, second, also) if thing]
                    if len(set(things)) == len(things) and self._holds(first, second, also):
                        return True
        return False

    def _holds(self, first: Thing, second: Thing | None, also: Thing | None) -> bool:
        if not self.first.fits(first) or (self.also and also and not self.also.fits(also)):
            return False
        if not self.second or not second:
            return True
        return self.second.fits(second) and relation_of(first, second) == self.relation


@dataclass(frozen=True)
class Long:
    """A caption of all things of a scene, with the position of each thing."""

    places: tuple[tuple[Phrase, int, int], ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words of the caption, with one sentence for each thing."""
        number = f"The picture shows {NUMBERS[len(self.places) - 1]} objects."
        return " ".join(
            [
                number,
                *(
                    f"There is {p.text} at the {self.rows[r]} {self.columns[c]}."
                    for p, r, c in self.places
                ),
            ]
        )

    def holds(self, scene: Scene) -> bool:
        """Returns whether the scene has exactly these things at these positions."""
        at = {(thing.row, thing.column): thing for thing in scene}
        return len(at) == len(self.places) and all(
            (row, column) in at and phrase.fits(at[row, column])
            for phrase, row, column in self.places
        )


Caption = Short | Long


def relation_of(first: Thing, second: Thing) -> str | None:
    """Returns the relation of the first thing to the second; None if the things share neither row nor column."""
    if first.row == second.row and first.column != second.column:
        return "left of" if first.column < second.column else "right of"
    if first.column == second.column and first.row != second.row:
        return "above" if first.row < second.row else "below"
    return None

"""Known pairs (canaries): texts and pictures of which every judge must tell the match from the mismatch. Pure."""

import io
from dataclasses import dataclass

from PIL import Image

from unijudge.content import Content
from unijudge.judging.verdicts import Verdict

KNOWN_QUERY = Content(text="Find the sentence that says: seven apples lie on the table.")
KNOWN_YES = Content(text="Seven apples lie on the table.")
KNOWN_NO = Content(text="The train to the airport leaves at noon.")


def _picture(color: tuple[int, int, int]) -> bytes:
    """Returns a PNG of one colour that is not square."""
    out = io.BytesIO()
    Image.new("RGB", (110, 100), color).save(out, "PNG")
    return out.getvalue()


DO_NOT_FIT = "Check that chat template, label words, image processor and model belong together"
NOT_SEEN = (
    "The judge understands texts but not pictures. Check the weights of the vision tower, the image processor and the "
    "image token of the chat template"
)
OF_ITS_OWN = (
    "If the judge was not trained on plain English and colours, set health.canary_every_s = 0"
)
KNOWN_RED, KNOWN_BLUE = (Content(image=_picture(color)) for color in ((220, 20, 20), (20, 20, 220)))
ASKED_RED, ASKED_BLUE = (
    Content(text=f"Find a picture that is {color} all over.") for color in ("red", "blue")
)


@dataclass(frozen=True)
class KnownPair:
    """The verdicts of a judge on the known pairs of texts and of pictures."""

    texts: tuple[Verdict, Verdict]
    """The verdicts on the matching text and on the other text."""
    pictures: tuple[tuple[Verdict, Verdict], ...]
    """The verdicts on the matching picture and on the other picture, for two queries.

    The match of the first query is the mismatch of the second, so a judge with a constant answer fails.
    """

    @property
    def mass(self) -> float:
        """The mean of P(Yes) + P(No) on texts."""
        return sum(verdict.mass for verdict in self.texts) / 2

    def __str__(self) -> str:
        texts = _in_words(*self.texts)
        pictures = "; ".join(_in_words(*pair) for pair in self.pictures)
        return f"{texts}; P(Yes) + P(No) = {self.mass:.3g}; with pictures {pictures}"

    def fault(self, min_mass: float) -> str | None:
        """Returns the failed checks with their figures. None if all checks passed."""
        texts_pass = _leads(*self.texts) > 0
        pictures_pass = all(_leads(*pair) > 0 for pair in self.pictures)

        faults = []
        if not texts_pass:
            faults.append(
                f"a known match scores {self.texts[0].score:.3f}, a known mismatch {self.texts[1].score:.3f} "
                f"({_behind(*self.texts)}): this judge cannot tell a match from a mismatch"
            )
        if self.mass < min_mass:
            faults.append(
                f"Yes and No together have a mean probability of {self.mass:.3g} on known pairs, less than "
                f"health.min_label_mass = {min_mass:g}: the model is not answering the question"
            )
        if not pictures_pass:
            failed = next(pair for pair in self.pictures if _leads(*pair) <= 0)
            faults.append(
                f"a picture of the requested colour scores {failed[0].score:.3f}, a picture of another colour "
                f"{failed[1].score:.3f} ({_behind(*failed)}): this judge cannot tell pictures apart"
            )
        if not faults:
            return None

        # The check that passed narrows the search for the cause.
        passed = [
            name for name, passes in (("texts", texts_pass), ("pictures", pictures_pass)) if passes
        ]
        if len(passed) == 1:
            faults.append(f"the check with {passed[0]} passes")
        cure = NOT_SEEN if texts_pass and self.mass >= min_mass else DO_NOT_FIT
        return f"{'; '.join(faults)}. {cure}. {OF_ITS_OWN}"


def _leads(match: Verdict, other: Verdict) -> float:
    return match.log_odds - other.log_odds


def _behind(match: Verdict, other: Verdict) -> str:
    return (
        f"{-_leads(match, other):.2f} log-odds behind" if _leads(match, other) else "equal scores"
    )


def _in_words(match: Verdict, other: Verdict) -> str:
    return f"a match scores {match.score:.3f}, a mismatch {other.score:.3f}"

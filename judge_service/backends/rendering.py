"""A query and its candidates → token streams that end where the answer begins, and the token ids of the answers.

This module promises:

- Yes and No, and the numbers of a list, are each one token at the position of the answer.
- Text of a user never becomes a special token.
- No text is truncated.
- Every backend gets the same tokens and pixels.

The module does not run a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from judge_service.backends.model_sizes import quantisation_of
from judge_service.settings import LimitSettings, ModelSettings
from unijudge.content import Content
from unijudge.errors import BadImage, JudgeRefused, ModelError, OutOfMemory
from unijudge.images.decoding import pixels_in
from unijudge.judging.prompt import Prompt, content_parts
from unijudge.judging.verdicts import (
    EMPTY,
    Cost,
    JudgeIdentity,
    ListVerdict,
    PairError,
    Verdict,
)
from unijudge.memory import one_memory_error
from unijudge.modeling.chat_encoder import ChatEncoder, Stream, shared_prefix
from unijudge.modeling.inputs import ModelInputs
from unijudge.modeling.listwise import ListQuestion

CHARACTERS_IN_TOKEN = 16
"""The largest number of characters of a text for each token of `model.max_tokens`. English has about four a token.

Longer texts are rejected before tokenisation.
"""


class Renderer:
    """Writes the judge prompt for one tokenizer."""

    def __init__(self, encoder: ChatEncoder, prompt: Prompt):
        """Checks the labels, and whether the chat template accepts pictures in the query and in the candidate.

        Raises:
            ModelError: A label is not one token at the position of the answer, the labels are equal, or the template
                has no position for a picture.
        """
        self._prompt = prompt
        self._encoder = encoder
        self.yes_id = encoder.label_id(prompt.yes)
        self.no_id = encoder.label_id(prompt.no)
        if self.yes_id == self.no_id:
            raise ModelError(
                f"labels {prompt.yes!r} and {prompt.no!r} are the same token. Set other words for prompt.yes or "
                "prompt.no"
            )
        # The bytes need not be an image: prompts do not open pictures.
        sample = Content("a", b"a picture")
        self.streams(sample, [sample])

    def streams(self, query: Content, candidates: Sequence[Content]) -> list[Stream]:
        """Returns one prompt for each candidate."""
        return [
            self._encoder.stream(self._prompt.parts(query, candidate), self._prompt.system)
            for candidate in candidates
        ]


@dataclass(frozen=True)
class Inputs:
    """A judge without its weights: the converter from pairs to model inputs, and the identity."""

    model: ModelInputs
    renderer: Renderer
    settings: ModelSettings
    prompt: Prompt
    limits: LimitSettings

    def prepare(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[list[Verdict | PairError | None], dict[int, Stream]]:
        """Converts candidates to prompts.

        Returns:
            For each candidate its error, or None; and the prompts of the candidates without an error, by index.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
        """
        self._check_pixels([query, *candidates])
        self._check_query(query)
        answers: list[Verdict | PairError | None] = [
            self._fault_of(candidate) for candidate in candidates
        ]
        valid = [index for index, fault in enumerate(answers) if fault is None]
        streams: dict[int, Stream] = {}

        # A query that is too long by itself is tokenised only once, not once for each candidate.
        if len(valid) > 1 and len(query.text or "") > self.settings.max_tokens:
            _, too_long = self._stream(query, Content(text="a"))
            if too_long is not None:
                return [fault or too_long for fault in answers], streams

        for index in valid:
            stream, too_long = self._stream(query, candidates[index])
            if too_long:
                answers[index] = too_long
            else:
                streams[index] = stream
        return answers, streams

    def _stream(self, query: Content, candidate: Content) -> tuple[Stream, PairError | None]:
        """Returns the prompt of a pair, and an error if the prompt is too long."""
        (stream,) = self.renderer.streams(query, [candidate])
        length = self.model.length(stream)
        if length <= self.settings.max_tokens:
            return stream, None
        return stream, self._too_long(length, "Shorten the text or the image")

    @cached_property
    def lists(self) -> ListQuestion:
        """The writer of this model's listwise questions.

        Raises:
            JudgeRefused: The numbers of a list are not one token each in this model's tokenizer.
        """
        try:
            return ListQuestion(self.model.encoder)
        except ModelError as error:
            raise JudgeRefused(
                f"{self.model.name}: {error}. Use this judge pair by pair"
            ) from error

    def prepare_list(self, query: Content, candidates: Sequence[Content]) -> Stream | PairError:
        """Returns the prompt of a list, or the error of the list.

        Raises:
            JudgeRefused: The query is empty, its image cannot be decoded, or this model cannot answer listwise.
        """
        self._check_pixels([query, *candidates])
        self._check_query(query)
        for number, candidate in enumerate(candidates, start=1):
            if fault := self._fault_of(candidate):
                return fault.model_copy(update={"message": f"candidate {number}: {fault.message}"})
        stream = self.lists.stream(query, candidates)
        length = self.model.length(stream)
        if length > self.settings.max_tokens:
            return self._too_long(length, "List fewer candidates")
        return stream

    def _check_pixels(self, contents: Sequence[Content]) -> None:
        """Rejects a request whose images would take too long to decode. Nothing is decoded before this check.

        Raises:
            JudgeRefused: The images together have too many pixels.
        """
        images = {content.image for content in contents if content.image is not None}
        sizes = map(pixels_in, images)

        # Images above `max_pixels` are not decoded: their candidates get an error.
        pixels = sum(size for size in sizes if size <= self.limits.max_pixels)
        if pixels > self.limits.max_request_pixels:
            raise JudgeRefused(
                f"the images of this request have {pixels} pixels in total: a request may have "
                f"{self.limits.max_request_pixels}. Send fewer candidates, or scale the images down"
            )

    def _check_query(self, query: Content) -> None:
        if fault := self._fault_of(query):
            raise JudgeRefused(f"query: {fault.message}")

    def _fault_of(self, content: Content) -> PairError | None:
        """Returns the error of a query or candidate. None if the content can be judged."""
        if not content_parts(content):
            return EMPTY

        # The limit on tokens allows at most this many characters.
        characters = len(content.text or "")
        limit = CHARACTERS_IN_TOKEN * self.settings.max_tokens
        if characters > limit:
            message = f"a text has {characters} characters: the limit is {limit}. Shorten the text"
            return PairError(code="too_long", message=message)

        # Decoded pictures stay in a cache for the prompt.
        try:
            with one_memory_error():
                if content.image is not None:
                    self.model.pictures(content.image)
        except BadImage as error:
            return PairError(code="bad_image", message=str(error))
        except OutOfMemory as error:
            cure = "Scale the image down, or lower limits.max_pixels"
            message = f"out of memory while the image was decoded ({error}). {cure}"
            return PairError(code="out_of_memory", message=message)
        return None

    def _too_long(self, length: int, cure: str) -> PairError:
        message = (
            f"the prompt has {length} tokens: this judge accepts {self.settings.max_tokens}. {cure}"
        )
        return PairError(code="too_long", message=message)

    def shared(self, streams: Sequence[Stream]) -> int:
        """Returns the number of leading entries that all prompts of a query share. 0 for a single prompt."""
        return shared_prefix(streams) if len(streams) > 1 else 0

    def identity(self, backend: str, version: str) -> JudgeIdentity:
        """Returns the identity of this judge on a backend."""
        head_dtype: str = self.settings.head_dtype
        if head_dtype == "model":
            head_dtype = self.settings.dtype
        return JudgeIdentity(
            model=self.model.name,
            weights=self.model.weights,
            prompt_fingerprint=self.prompt.fingerprint,
            yes=self.prompt.yes,
            no=self.prompt.no,
            yes_id=self.renderer.yes_id,
            no_id=self.renderer.no_id,
            order=self.prompt.order,
            min_pixels=self.settings.min_pixels,
            max_pixels=self.settings.max_pixels,
            dtype=self.settings.dtype,
            head_dtype=head_dtype,
            quantisation=quantisation_of(self.model.config),
            backend=backend,
            backend_version=version,
            inputs_version=self.model.version,
        )


def open_inputs(settings: ModelSettings, prompt: Prompt, limits: LimitSettings) -> Inputs:
    """Loads a model's configuration, tokenizer and image processor. The settings of the result pin their commit.

    Raises:
        ModelError: A file cannot be loaded, the family of the model is unknown, or a label is not one token.
    """
    try:
        model = ModelInputs(
            settings.name,
            settings.revision,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            max_source_pixels=limits.max_pixels,
        )
        # The last position is for the answer.
        longest = model.config.get_text_config().max_position_embeddings - 1
        if settings.max_tokens > longest:
            raise ModelError(
                f"model.max_tokens is {settings.max_tokens}, but the model accepts at most {longest}. Lower "
                "model.max_tokens"
            )
    except ModelError as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a judge ({error})") from error

    # A new commit on the hub could otherwise give weights that do not belong to these files.
    pinned = settings.model_copy(update={"revision": model.revision})
    return Inputs(
        model=model,
        renderer=Renderer(model.encoder, prompt),
        settings=pinned,
        prompt=prompt,
        limits=limits,
    )


def answer(
    yes_logprob: float, no_logprob: float, *, argmax_is_label: bool, cost: Cost
) -> Verdict | PairError:
    """Returns a verdict, or an error if a log-probability is not finite: half precision can overflow."""
    if abs(yes_logprob) < float("inf") and abs(no_logprob) < float("inf"):
        return Verdict(
            yes_logprob=yes_logprob,
            no_logprob=no_logprob,
            argmax_is_label=argmax_is_label,
            cost=cost,
        )
    message = (
        f"ln P(Yes) = {yes_logprob}, ln P(No) = {no_logprob}: not finite. Use a wider model.dtype"
    )
    return PairError(code="not_finite", message=message)


def choice(
    logprobs: Sequence[float], *, argmax_is_number: bool, cost: Cost
) -> ListVerdict | PairError:
    """Returns the choice from a list, or an error if a log-probability is not finite: half precision can overflow."""
    if all(abs(logprob) < float("inf") for logprob in logprobs):
        return ListVerdict.of(logprobs, argmax_is_number=argmax_is_number, cost=cost)
    message = f"ln P of the numbers = {list(logprobs)}: not finite. Use a wider model.dtype"
    return PairError(code="not_finite", message=message)

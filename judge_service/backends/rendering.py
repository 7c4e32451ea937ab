"""One query and its candidates → token streams that end where the answer begins, and the ids of the answers.

It promises that Yes and No, and the numbers of a list, are each one token *in that place*, that the words of a user
stay words, that nothing is cut, and that every backend is given the same tokens and pixels. It does not run a model.
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
from unijudge.judging.verdicts import EMPTY, JudgeIdentity, ListVerdict, PairError, Verdict
from unijudge.memory import one_memory_error
from unijudge.modeling.chat_encoder import ChatEncoder, Stream, shared_prefix
from unijudge.modeling.inputs import ModelInputs
from unijudge.modeling.listwise import ListQuestion

CHARACTERS_IN_TOKEN = 16
"""A longer text than so many times the longest prompt is refused before it is tokenised. English has about four."""


class Renderer:
    """The judge prompt for one tokenizer."""

    def __init__(self, encoder: ChatEncoder, prompt: Prompt):
        """Proves the labels, and that the chat template takes pictures on both sides.

        Raises:
            ModelError: A label is not one token where the answer stands, both are the same, or a picture has no place.
        """
        self._prompt = prompt
        self._encoder = encoder
        self.yes_id = encoder.label_id(prompt.yes)
        self.no_id = encoder.label_id(prompt.no)
        if self.yes_id == self.no_id:
            raise ModelError(
                f"labels {prompt.yes!r} and {prompt.no!r} are the same token; set prompt.yes and prompt.no"
            )
        shown = Content("a", b"a picture")  # no picture is opened for its place in a prompt
        self.streams(shown, [shown])

    def streams(self, query: Content, candidates: Sequence[Content]) -> list[Stream]:
        """One prompt for each candidate."""
        return [self._encoder.stream(self._prompt.parts(query, candidate)) for candidate in candidates]


@dataclass(frozen=True)
class Inputs:
    """Everything of a judge but its weights: what turns pairs into its inputs, and its name."""

    model: ModelInputs
    renderer: Renderer
    settings: ModelSettings
    prompt: Prompt
    limits: LimitSettings

    def prepare(
        self, query: Content, candidates: Sequence[Content]
    ) -> tuple[list[Verdict | PairError | None], dict[int, Stream]]:
        """The prompts of the candidates that can be judged, by place; an error in the place of each other one.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded.
        """
        self._check_pixels([query, *candidates])
        self._check_query(query)
        answers: list[Verdict | PairError | None] = [self._fault_of(candidate) for candidate in candidates]
        sound = [place for place, fault in enumerate(answers) if fault is None]
        streams: dict[int, Stream] = {}
        # A long query is tokenised once to be refused, not once for each candidate.
        if len(sound) > 1 and len(query.text or "") > self.settings.max_tokens:
            _, too_long = self._stream(query, Content(text="a"))
            if too_long is not None:
                return [fault or too_long for fault in answers], streams
        for place in sound:
            stream, too_long = self._stream(query, candidates[place])
            if too_long:
                answers[place] = too_long
            else:
                streams[place] = stream
        return answers, streams

    def _stream(self, query: Content, candidate: Content) -> tuple[Stream, PairError | None]:
        """The prompt of one pair, and why it cannot be asked."""
        (stream,) = self.renderer.streams(query, [candidate])
        length = self.model.length(stream)
        fits = length <= self.settings.max_tokens
        return stream, None if fits else self._too_long(length, "shorten the text or the image")

    @cached_property
    def lists(self) -> ListQuestion:
        """What writes this model's listwise questions.

        Raises:
            JudgeRefused: The numbers of a list are not one token each in this model's tokenizer.
        """
        try:
            return ListQuestion(self.model.encoder)
        except ModelError as error:
            raise JudgeRefused(f"{self.model.name}: {error}: ask it pair by pair") from error

    def prepare_list(self, query: Content, candidates: Sequence[Content]) -> Stream | PairError:
        """The prompt of one list, or why it cannot be asked.

        Raises:
            JudgeRefused: The query is empty, or its image cannot be decoded, or this model cannot answer listwise.
        """
        self._check_pixels([query, *candidates])
        self._check_query(query)
        for number, candidate in enumerate(candidates, start=1):
            if fault := self._fault_of(candidate):
                return fault.model_copy(update={"message": f"candidate {number}: {fault.message}"})
        stream = self.lists.stream(query, candidates)
        length = self.model.length(stream)
        return self._too_long(length, "list fewer candidates") if length > self.settings.max_tokens else stream

    def _check_pixels(self, contents: Sequence[Content]) -> None:
        """Refuses what would take too long to decode, before anything is decoded.

        Raises:
            JudgeRefused: The images have too many pixels together.
        """
        images = {content.image for content in contents if content.image is not None}
        sizes = map(pixels_in, images)
        # A larger image is not decoded: it gets an error in its place.
        pixels = sum(size for size in sizes if size <= self.limits.max_pixels)
        if pixels > self.limits.max_request_pixels:
            raise JudgeRefused(
                f"the images of this request have {pixels} pixels together; one request takes "
                f"{self.limits.max_request_pixels}: send fewer candidates, or scale the images down"
            )

    def _check_query(self, query: Content) -> None:
        if fault := self._fault_of(query):
            raise JudgeRefused(f"query: {fault.message}")

    def _fault_of(self, content: Content) -> PairError | None:
        """Why a content cannot be judged, whatever stands beside it."""
        if not content_parts(content):
            return EMPTY
        longest = CHARACTERS_IN_TOKEN * self.settings.max_tokens
        if len(content.text or "") > longest:
            message = f"a text of {len(content.text or '')} characters: more than {longest} are not read; shorten it"
            return PairError(code="too_long", message=message)
        try:
            with one_memory_error():
                if content.image is not None:
                    self.model.pictures(content.image)
        except BadImage as error:
            return PairError(code="bad_image", message=str(error))
        except OutOfMemory as error:
            message = f"out of memory while its image was decoded ({error}). Scale it down, or lower limits.max_pixels"
            return PairError(code="out_of_memory", message=message)
        return None

    def _too_long(self, length: int, cure: str) -> PairError:
        message = f"{length} tokens; this judge takes {self.settings.max_tokens}: {cure}"
        return PairError(code="too_long", message=message)

    def shared(self, streams: Sequence[Stream]) -> int:
        """How many leading entries a query's prompts share, and are computed once for; none where one stands alone."""
        return shared_prefix(streams) if len(streams) > 1 else 0

    def identity(self, backend: str, version: str) -> JudgeIdentity:
        """Who judges, when `backend` runs the model."""
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
            head_dtype=self.settings.dtype if self.settings.head_dtype == "model" else self.settings.head_dtype,
            quantisation=quantisation_of(self.model.config),
            backend=backend,
            backend_version=version,
            inputs_version=self.model.version,
        )


def open_inputs(settings: ModelSettings, prompt: Prompt, limits: LimitSettings) -> Inputs:
    """Loads a model's configuration, tokenizer and image processor; its settings then name the commit that they are of.

    Raises:
        ModelError: They cannot be loaded, are of another family, or the labels do not fit.
    """
    try:
        model = ModelInputs(
            settings.name,
            settings.revision,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            max_source_pixels=limits.max_pixels,
        )
        longest = model.config.get_text_config().max_position_embeddings - 1  # one is for the answer
        if settings.max_tokens > longest:
            raise ModelError(f"model.max_tokens: {settings.max_tokens}, but it takes {longest}: set that, or less")
    except ModelError as error:
        raise ModelError(f"{settings.name}: cannot be loaded as a judge ({error})") from error
    # An upload in between would give the weights of another commit.
    pinned = settings.model_copy(update={"revision": model.revision})
    return Inputs(
        model=model,
        renderer=Renderer(model.encoder, prompt),
        settings=pinned,
        prompt=prompt,
        limits=limits,
    )


def answer(yes_logprob: float, no_logprob: float, *, argmax_is_label: bool) -> Verdict | PairError:
    """A verdict, or an error where a number is not finite, as half precision can overflow."""
    if abs(yes_logprob) < float("inf") and abs(no_logprob) < float("inf"):
        return Verdict(yes_logprob=yes_logprob, no_logprob=no_logprob, argmax_is_label=argmax_is_label)
    message = f"ln P(Yes) = {yes_logprob}, ln P(No) = {no_logprob}; take a wider model.dtype"
    return PairError(code="not_finite", message=message)


def choice(logprobs: Sequence[float], *, argmax_is_number: bool) -> ListVerdict | PairError:
    """The choice from a list, or an error where a number is not finite, as half precision can overflow."""
    if all(abs(logprob) < float("inf") for logprob in logprobs):
        return ListVerdict.of(logprobs, argmax_is_number=argmax_is_number)
    message = f"ln P of the numbers = {list(logprobs)}; take a wider model.dtype"
    return PairError(code="not_finite", message=message)

"""How an embedder reads a content, and the file beside an adapter that says so: embedding.json."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.settings import BackboneSettings, Encoding
from unijudge.corpus import Content
from unijudge.encoding import Stream
from unijudge.errors import ModelError, SettingsError
from unijudge.files import read_json
from unijudge.inputs import ModelInputs
from unijudge.judging import FILE as JUDGING
from unijudge.judging import JudgingManifest
from unijudge.pictures import Resize
from unijudge.prompt import Part, content_parts
from unijudge.provenance import differences

logger = logging.getLogger(__name__)

Reader = Callable[[Content], Stream]
FILE = "embedding.json"


class EmbeddingManifest(BaseModel):
    """embedding.json: how an adapter's inputs were made in training, and where its vectors are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: Encoding
    resize: Resize
    min_pixels: int
    max_pixels: int
    pooling: Literal["last"] = "last"
    """Of the last token's hidden state."""
    normalize: Literal[True] = True
    base: str | None = None
    """The weights that the adapter was trained on: a hub revision, or a digest; None where its own lie beside it."""

    @classmethod
    def of(cls, model: BackboneSettings, base: str | None = None) -> "EmbeddingManifest":
        """What a model's settings say."""
        return cls(
            encoding=model.encoding,
            resize=model.resize,
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            base=base,
        )


def check_reads_alike(model: BackboneSettings) -> None:
    """Compares the settings with how the adapter, or a merged model, was trained, if its folder tells.

    Warns of other pictures.

    Raises:
        SettingsError: It was trained with another encoding.
        DataError: Its embedding.json cannot be read.
    """
    folder = model.adapter or Path(model.name)
    if not (folder / FILE).is_file():
        return
    trained = read_json(folder / FILE, EmbeddingManifest)
    wanted = EmbeddingManifest.of(model, trained.base)
    if trained.encoding != wanted.encoding:
        raise SettingsError(
            f"model.encoding: {wanted.encoding!r}, but {folder} was trained with {trained.encoding!r}: its "
            f"vectors would mean nothing; set model.encoding = {trained.encoding!r}"
        )
    for name in differences(trained, wanted):
        logger.warning(
            "model.%s is %s, but %s was trained with %s; set it so, unless you mean to compare",
            name, getattr(wanted, name), folder, getattr(trained, name),
        )  # fmt: skip


def check_base(adapter: Path, weights: str) -> None:
    """Compares the weights under an adapter with those that it was trained on, if its folder tells.

    Raises:
        ModelError: They are others: its shapes may fit, but what it makes means nothing.
        DataError: What the folder tells cannot be read.
    """
    kinds: dict[str, type[EmbeddingManifest | JudgingManifest]] = {FILE: EmbeddingManifest, JUDGING: JudgingManifest}
    found = [read_json(adapter / name, kind).base for name, kind in kinds.items() if (adapter / name).is_file()]
    trained = found[0] if found else None
    if trained in (None, weights):
        return
    if len(trained) != len(weights):  # a hub revision and a folder's digest say nothing together
        logger.warning("%s: was trained on %s; whether %s is the same cannot be seen", adapter, trained, weights)
        return
    raise ModelError(
        f"{adapter}: was trained on other weights ({trained}) than these ({weights}), so what it makes would mean "
        "nothing; give the base model that it was trained on"
    )


def reader_of(encoding: Encoding, inputs: ModelInputs) -> Reader:
    """What turns contents into token streams.

    Raises:
        SettingsError: `vlm2vec`, for a model of a kind of which there is no such checkpoint.
        ModelError: `chat`, for a model whose chat template takes no picture.
    """
    if encoding == "chat":
        inputs.encoder.stream([b"a picture", "a"])  # no picture is opened for its place in a prompt
        return partial(_chat, inputs)
    kind = inputs.config.model_type
    if kind not in RELEASED:
        raise SettingsError(
            f"model.encoding: 'vlm2vec' is how {', '.join(RELEASED)} were trained, but {inputs.name} is of the kind "
            f"{kind!r}; set model.encoding = 'chat'"
        )
    return partial(RELEASED[kind], inputs)


def _chat(inputs: ModelInputs, content: Content) -> Stream:
    """One user's turn in the model's own template: image, then text; up to where its answer begins."""
    return inputs.encoder.stream(content_parts(content))


def _bare(inputs: ModelInputs, content: Content) -> Stream:
    r"""A row's own string, with the picture's tokens in the place of its marker; no template, no end-of-sequence token.

    An import strips the marker `<|image_1|>` and the line break after it: it is put back. A text that begins with a
    blank had that in its place (`<|image_1|> Find an image caption …`, of the retrieval benchmarks), and gets none. The
    line break at the end of MMEB's queries was never stripped; its hidden state is their embedding. What cannot come
    back is the marker of a row without an image (WebQA's queries), where the reference has one token of no picture.

    Source:
        VLM2Vec (arXiv 2410.05160), UniME-V2 (arXiv 2510.13515) and their code, `Qwen2_VL_process_fn`.
    """
    text = content.text or ""
    parts: list[Part] = [text]
    if content.image is not None:
        parts = [content.image, text if text.startswith(" ") else "\n" + text]
    return inputs.encoder.bare_stream(parts)


def _stripped_chat(inputs: ModelInputs, content: Content) -> Stream:
    """As UniME-V2 feeds LLaVA-OneVision: the chat turn, with the text's outer blanks gone."""
    return _chat(inputs, replace(content, text=(content.text or "").strip()))


RELEASED: dict[str, Callable[[ModelInputs, Content], Stream]] = {
    "qwen2_vl": _bare,
    "qwen2_5_vl": _bare,
    "qwen3_vl": _bare,
    "llava_onevision": _stripped_chat,
}
"""By the `model_type` of a configuration: what `vlm2vec` is."""

"""The token streams that an embedder reads, and the file embedding.json, which records their format with an adapter."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trainer.models.settings import BackboneSettings, Encoding
from unijudge.content import Content
from unijudge.errors import ModelError, SettingsError
from unijudge.images.image_processing import Resize
from unijudge.judging.prompt import PromptPart, content_parts
from unijudge.judging.reranker_file import JUDGING_FILE, JudgingManifest
from unijudge.modeling.chat_encoder import Stream
from unijudge.modeling.inputs import ModelInputs
from unijudge.provenance import differences
from unijudge.shown import shown
from unijudge.storage.files import read_json

logger = logging.getLogger(__name__)

Reader = Callable[[Content], Stream]
EMBEDDING_FILE = "embedding.json"


class EmbeddingManifest(BaseModel):
    """The content of embedding.json: how a training made the inputs of an adapter, and how vectors are computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: Encoding
    resize: Resize
    min_pixels: int
    max_pixels: int
    pooling: Literal["last"] = "last"
    """The pooling: `last` takes the hidden state of the last token."""
    normalize: Literal[True] = True
    base: str | None = None
    """The weights on which the adapter was trained, as a hub revision or a digest. None for a merged model."""

    @classmethod
    def of(cls, model: BackboneSettings, base: str | None = None) -> "EmbeddingManifest":
        """Returns the manifest that describes a model's settings."""
        return cls(
            encoding=model.encoding,
            resize=model.resize,
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            base=base,
        )


def check_reads_alike(model: BackboneSettings) -> None:
    """Compares the settings with the embedding.json of the adapter or the merged model, if the file exists.

    Warns if the settings of images differ.

    Raises:
        SettingsError: The adapter or model was trained with another encoding.
        DataError: The embedding.json cannot be read.
    """
    folder = model.adapter or Path(model.name)
    if not (folder / EMBEDDING_FILE).is_file():
        return
    trained = read_json(folder / EMBEDDING_FILE, EmbeddingManifest)
    wanted = EmbeddingManifest.of(model, trained.base)
    if trained.encoding != wanted.encoding:
        raise SettingsError(
            f"model.encoding: {wanted.encoding!r}, but {folder} was trained with {trained.encoding!r}, so its vectors "
            f"would be meaningless. Set model.encoding = {trained.encoding!r}"
        )
    for name in differences(trained, wanted):
        logger.warning(
            "model.%s is %s, but %s was trained with %s. Use the value of the training, unless you compare both values",
            name, getattr(wanted, name), folder, getattr(trained, name),
        )  # fmt: skip


def check_base(adapter: Path, weights: str) -> None:
    """Compares the weights under an adapter with the weights of its training, if the adapter's folder records them.

    Raises:
        ModelError: The weights differ. The shapes may match, but the results would be meaningless.
        DataError: A manifest of the adapter cannot be read.
    """
    kinds: dict[str, type[EmbeddingManifest | JudgingManifest]] = {
        EMBEDDING_FILE: EmbeddingManifest,
        JUDGING_FILE: JudgingManifest,
    }
    recorded = [
        read_json(adapter / name, kind).base
        for name, kind in kinds.items()
        if (adapter / name).is_file()
    ]
    trained = recorded[0] if recorded else None
    if trained in (None, weights):
        return
    if len(trained) != len(weights):  # a hub revision and the digest of a folder cannot be compared
        logger.warning(
            "%s: was trained on %s. It is unknown whether the weights %s are the same",
            adapter,
            trained,
            weights,
        )
        return
    raise ModelError(
        f"{adapter}: was trained on other weights ({trained}) than the weights of this model ({weights}), so its "
        "results would be meaningless. Give the base model of the training"
    )


def reader_of(encoding: Encoding, inputs: ModelInputs) -> Reader:
    """Returns the function that turns contents into token streams.

    Raises:
        SettingsError: The encoding belongs to released checkpoints, but no released checkpoint has this type of model.
        ModelError: The encoding is `chat`, but the model's chat template accepts no image.
    """
    if encoding == "chat":
        # Checks the template, which does not open the image.
        inputs.encoder.stream([b"an image", "a"])
        return partial(_chat, inputs)
    kind, readers = inputs.config.model_type, RELEASED[encoding]
    if kind not in readers:
        raise SettingsError(
            f"model.encoding: {encoding!r} is the encoding of {', '.join(readers)} models, but {inputs.name} has the "
            f"type {kind!r}. Set model.encoding = 'chat'"
        )
    inputs.in_line = (encoding, kind) in IN_LINE
    return partial(readers[kind], inputs)


def _chat(inputs: ModelInputs, content: Content) -> Stream:
    """Returns a user's turn in the model's own template, image before text, up to the start of the answer."""
    return inputs.encoder.stream(content_parts(content))


def _bare(inputs: ModelInputs, content: Content) -> Stream:
    r"""Returns the string of a row with image tokens instead of the image marker.

    The stream has no template and no end-of-sequence token.

    An import strips the marker `<|image_1|>` and the line break after the marker. This function restores the line
    break, except before a text that begins with a space: there the space followed the marker
    (`<|image_1|> Find an image caption …` in the retrieval benchmarks). An import keeps the line break at the end of
    MMEB's queries; the hidden state of this line break is the embedding of the query. One marker cannot be restored:
    the marker of a row without an image (WebQA's queries), for which the reference has one image token without an
    image.

    Source:
        VLM2Vec (arXiv 2410.05160), UniME-V2 (arXiv 2510.13515) and their code, `Qwen2_VL_process_fn`. For LLaVA-NeXT:
        github.com/TIGER-AI-Lab/VLM2Vec, branch v1, commit 28fdbdd, src/model_utils.py, `Llava_NEXT_process_fn`. UniME
        (v1) is measured on MMEB with that code (github.com/deepglint/UniME, README.md).
    """
    text = content.text or ""
    parts: list[PromptPart] = [text]
    if content.image is not None:
        parts = [content.image, text if text.startswith(" ") else "\n" + text]
    return inputs.encoder.bare_stream(parts)


def _stripped_chat(inputs: ModelInputs, content: Content) -> Stream:
    """Returns UniME-V2's input for LLaVA-OneVision: the chat turn, without whitespace around the text."""
    return _chat(inputs, replace(content, text=(content.text or "").strip()))


def _lamra(inputs: ModelInputs, content: Content) -> Stream:
    """Returns LamRA-Ret's input for Qwen models: the chat turn, image before text, with a request for a summary.

    LamRA's prompt continues with an answer of the assistant, `<emb>.`, and the embedding is the normalised hidden state
    of the token before `<emb>`. This token is the line break after `assistant`, where the stream of this function ends.
    Later tokens do not change its hidden state. In M-BEIR a query is an instruction, a space and a text. An import
    stores both in the text.

    Source:
        LamRA (arXiv 2412.01720), github.com/Code-kunkun/LamRA: dataset/datasets_mbeir.py, `construct_messages`, commit
        7286399 (Qwen2-VL), the same in commit a9d89ed (Qwen2.5-VL); models/qwen2_vl.py, `inference`;
        collators/qwen2_vision_process.py, lines 15 and 16, for the pixels.
    """
    text = content.text or ""
    if content.image is None:
        return inputs.encoder.stream([f"{text}\nSummarize above sentence in one word: "])
    what = "image and sentence" if text else "image"
    return inputs.encoder.stream([content.image, f"{text}\nSummarize above {what} in one word: "])


def _unime_next(inputs: ModelInputs, content: Content) -> Stream:
    """Returns UniME (v1)'s retrieval input for LLaVA-1.6: a string with the markers of Mistral as plain text.

    The embedding is the normalised hidden state of the last token.

    Source:
        UniME (arXiv 2504.17432), github.com/deepglint/UniME, commit d565584: self_evaluate/retrieval_self.py, lines
        93 and 94, and self_evaluate/utils/utils.py, lines 104 and 105; the same in README.md.
    """
    _check_alone(inputs, content)
    if content.image is None:
        return inputs.encoder.bare_stream(
            [f"[INST] {content.text}\nSummary above sentence in one word: [/INST]"]
        )
    return inputs.encoder.bare_stream(
        ["[INST] ", content.image, "\nSummary above image in one word: [/INST]"]
    )


def _unime_onevision(inputs: ModelInputs, content: Content) -> Stream:
    """Returns UniME (v1)'s retrieval input for LLaVA-OneVision: the chat turn, up to the start of the answer.

    The embedding is the normalised hidden state of the last token.

    Source:
        github.com/deepglint/UniME, issue 4, where an author names the prompt for images. The prompt for texts comes
        from the sample on the checkpoint's page (DeepGlint-AI/UniME-LLaVA-OneVision-7B), of which only a copy was read:
        github.com/joohyung00/lilac, commit 51054ef, src/models/embedder/unime.py, at the end of the file. The MMEB
        prompts of this checkpoint are not published.
    """
    _check_alone(inputs, content)
    if content.image is None:
        return inputs.encoder.stream([f"{content.text}\nSummary above sentence in one word:\n"])
    return inputs.encoder.stream([content.image, "Summary above image in one word:\n"])


def _check_alone(inputs: ModelInputs, content: Content) -> None:
    """Raises an error for an image with a text. UniME's code reads such pairs of MMEB as VLM2Vec does.

    Raises:
        SettingsError: The content has an image and a text.
    """
    if content.image is not None and content.text:
        raise SettingsError(
            f"model.encoding: 'unime' reads an image alone or a text alone, but an input of {inputs.name} has both: "
            f"{shown(content.text)}. Set model.encoding = 'vlm2vec', as for MMEB, or leave out the text of images "
            "(`train benchmark`: instruction = '')"
        )


RELEASED: dict[Encoding, dict[str, Callable[[ModelInputs, Content], Stream]]] = {
    "vlm2vec": {
        "qwen2_vl": _bare,
        "qwen2_5_vl": _bare,
        "qwen3_vl": _bare,
        "llava_next": _bare,
        "llava_onevision": _stripped_chat,
    },
    "lamra": {"qwen2_vl": _lamra, "qwen2_5_vl": _lamra},
    "unime": {"llava_next": _unime_next, "llava_onevision": _unime_onevision},
}
"""The readers of released checkpoints, by encoding and by the `model_type` of the configuration.

UniME (v1) on Phi-3.5-V is not supported: that model needs code from the hub, which this program never runs."""
IN_LINE: frozenset[tuple[Encoding, str]] = frozenset({("lamra", "qwen2_vl")})
"""The combinations in which image tokens have consecutive positions, as text has, although the family uses positions in
two dimensions.

LamRA's class for Qwen2-VL passes no positions to its model (models/qwen2_vl.py, lines 116 and 236), and the model of
transformers 4.45 then uses consecutive positions. LamRA's class for Qwen2.5-VL calls `get_rope_index`
(models/qwen2_5_vl.py, line 108). Without `vision_start`, as in `vlm2vec`, the family itself uses consecutive
positions."""

"""How an embedder reads a content, and the file beside an adapter that says so: embedding.json."""

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
    if not (folder / EMBEDDING_FILE).is_file():
        return
    trained = read_json(folder / EMBEDDING_FILE, EmbeddingManifest)
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
    kinds: dict[str, type[EmbeddingManifest | JudgingManifest]] = {
        EMBEDDING_FILE: EmbeddingManifest,
        JUDGING_FILE: JudgingManifest,
    }
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
        SettingsError: The way of a released checkpoint, for a model of a kind of which there is no such checkpoint.
        ModelError: `chat`, for a model whose chat template takes no picture.
    """
    if encoding == "chat":
        inputs.encoder.stream([b"a picture", "a"])  # no picture is opened for its place in a prompt
        return partial(_chat, inputs)
    kind, readers = inputs.config.model_type, RELEASED[encoding]
    if kind not in readers:
        raise SettingsError(
            f"model.encoding: {encoding!r} is how {', '.join(readers)} were trained, but {inputs.name} is of the kind "
            f"{kind!r}; set model.encoding = 'chat'"
        )
    inputs.in_line = (encoding, kind) in IN_LINE
    return partial(readers[kind], inputs)


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
        VLM2Vec (arXiv 2410.05160), UniME-V2 (arXiv 2510.13515) and their code, `Qwen2_VL_process_fn`. Of LLaVA-NeXT:
        github.com/TIGER-AI-Lab/VLM2Vec, branch v1, commit 28fdbdd, src/model_utils.py, `Llava_NEXT_process_fn`. UniME
        (v1) measures MMEB by that code (github.com/deepglint/UniME, README.md).
    """
    text = content.text or ""
    parts: list[PromptPart] = [text]
    if content.image is not None:
        parts = [content.image, text if text.startswith(" ") else "\n" + text]
    return inputs.encoder.bare_stream(parts)


def _stripped_chat(inputs: ModelInputs, content: Content) -> Stream:
    """As UniME-V2 feeds LLaVA-OneVision: the chat turn, with the text's outer blanks gone."""
    return _chat(inputs, replace(content, text=(content.text or "").strip()))


def _lamra(inputs: ModelInputs, content: Content) -> Stream:
    """As LamRA-Ret feeds Qwen's models: the chat turn, image then text, with a request to summarise it.

    Its prompt goes on with an answer of the assistant, `<emb>.`, and the embedding is the hidden state of the token
    before `<emb>`: the line break after `assistant`, where our stream ends. What comes later does not change it. In
    M-BEIR a query is an instruction, a blank and a text; an import has both in the text. The state is normalised.

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
    """As UniME (v1) feeds LLaVA-1.6 for retrieval: a string with Mistral's marks, which here are plain text.

    The embedding is the last token's hidden state, normalised.

    Source:
        UniME (arXiv 2504.17432), github.com/deepglint/UniME, commit d565584: self_evaluate/retrieval_self.py, lines
        93 and 94, and self_evaluate/utils/utils.py, lines 104 and 105; the same in README.md.
    """
    _check_alone(inputs, content)
    if content.image is None:
        return inputs.encoder.bare_stream([f"[INST] {content.text}\nSummary above sentence in one word: [/INST]"])
    return inputs.encoder.bare_stream(["[INST] ", content.image, "\nSummary above image in one word: [/INST]"])


def _unime_onevision(inputs: ModelInputs, content: Content) -> Stream:
    """As UniME (v1) feeds LLaVA-OneVision for retrieval: the chat turn, up to the answer.

    The embedding is the last token's hidden state, normalised.

    Source:
        github.com/deepglint/UniME, issue 4, where an author names the image's prompt. The text's prompt is that of the
        sample on the checkpoint's page (DeepGlint-AI/UniME-LLaVA-OneVision-7B), seen in a copy alone:
        github.com/joohyung00/lilac, commit 51054ef, src/models/embedder/unime.py, at its end. How this checkpoint
        reads MMEB is not published.
    """
    _check_alone(inputs, content)
    if content.image is None:
        return inputs.encoder.stream([f"{content.text}\nSummary above sentence in one word:\n"])
    return inputs.encoder.stream([content.image, "Summary above image in one word:\n"])


def _check_alone(inputs: ModelInputs, content: Content) -> None:
    """Refuses an image with a text: UniME's code has no such prompt, and reads MMEB's pairs as VLM2Vec does.

    Raises:
        SettingsError: The content has both.
    """
    if content.image is not None and content.text:
        raise SettingsError(
            f"model.encoding: 'unime' reads an image alone or a text alone, but an input of {inputs.name} has both: "
            f"{shown(content.text)}. Set model.encoding = 'vlm2vec', as for MMEB, or leave out the text beside images "
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
"""By the `model_type` of a configuration: how released checkpoints read.

UniME (v1) of Phi-3.5-V is not among them: that model brings code of its own, which is never run here."""
IN_LINE: frozenset[tuple[Encoding, str]] = frozenset({("lamra", "qwen2_vl")})
"""Where the tokens of a picture count on like text, though the family places them in a plane.

LamRA's class for Qwen2-VL hands its model no positions (models/qwen2_vl.py, lines 116 and 236), and the model of
transformers 4.45 then counts on; the one for Qwen2.5-VL asks `get_rope_index` (models/qwen2_5_vl.py, line 108). Without
`vision_start`, as in `vlm2vec`, the family counts on by itself."""

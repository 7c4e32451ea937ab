"""The formats of released models: ids, positions, pixels and vectors equal those of the reference."""

import io
import json
import logging
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from miner.importers.building.build import build
from miner.importers.unime import read_unime
from tests.families import MAKERS
from trainer.embedding.embed import embed_corpus
from trainer.embedding.settings import EmbedSettings
from trainer.losses.settings import LossSettings
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed, stream_of
from trainer.models.input_formats import EmbeddingManifest, reader_of
from trainer.models.settings import BackboneSettings, LoraSettings
from trainer.training.embedder import train_embedder
from trainer.training.settings import EmbedderSettings, RerankerSettings
from unijudge.content import Content
from unijudge.errors import SettingsError
from unijudge.formats.corpus import Corpus
from unijudge.formats.vectors import VectorManifest
from unijudge.settings import load_settings
from unijudge.storage.files import folder_sha256, read_json

SIDE = 224
QWEN = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
WITH_IMAGE = [
    "<|image_1|>\nRepresent the given image with the following question: What is prohibited in the shade?\n",
    "<|image_1|>\nGiven an image, find a similar everyday image with the described changes: two dogs, no leash\n",
    "<|image_1|>\nRepresent the given image.\n",
    "<|image_1|> Find an image caption describing the given image.",
    "<|image_1|>\n",
]
WITHOUT = [
    "Find me an everyday image that matches the given caption: A man rides a wave.\n",
    "Represent the given dialogue about an image, which is used for image retrieval: Q:is it sunny\nA:yes\n",
    "parking/standing",
    "stop",
]
"""Rows as MMEB and UniME-V2 publish them."""


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory, tiny_model):
    """The name of a family → the folder of a tiny model of this family."""
    made = {"qwen2_5_vl": tiny_model}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("students") / name
            MAKERS[name](made[name])
        return made[name]

    return folder


@pytest.fixture(scope="module")
def picture():
    """A picture with unequal sides and several colours."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def contents(tmp_path_factory, picture):
    """The contents that an import makes of the published rows, in their order."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(picture)
    rows = [
        {
            "query_text": text, "query_image": "a.png" if text in WITH_IMAGE else "", "pos_text": "x", "pos_image": "",
            "query_pos_scores": 0.9, "hard_negatives": [], "hard_negatives_scores": [],
        }
        for text in WITH_IMAGE + WITHOUT
    ]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    build(
        read_unime(folder / "rows.json"),
        images=folder / "images",
        out=folder / "corpus",
        source="t",
        max_rejects=0,
    )
    corpus = Corpus(folder / "corpus")
    return [corpus.content(query) for query in corpus.queries]


def settings_of(folder, **changes):
    return BackboneSettings(
        name=str(folder),
        device="cpu",
        min_pixels=3136,
        max_pixels=SIDE**2,
        resize="square",
        **changes,
    )


def squashed(picture):
    """A picture scaled as in the reference, before its processor."""
    return Image.open(io.BytesIO(picture)).resize((SIDE, SIDE))


@cache
def loaded(folder):
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return transformers.AutoTokenizer.from_pretrained(folder), processor, model


def published(folder, text, image, *, plane=False):
    """The way of the reference, written plainly: the ids of the raw string, 1-D positions, and the vector of the last
    token.
    """
    tokenizer, processor, model = loaded(folder)
    text, arrays = text.replace("<|image_1|>", "<|image_pad|>"), {}
    if image is not None:
        size = {"shortest_edge": 3136, "longest_edge": SIDE**2}
        arrays = dict(processor(images=[squashed(image)], size=size, return_tensors="pt"))
        text = text.replace(
            "<|image_pad|>", "<|image_pad|>" * int(arrays["image_grid_thw"].prod() // 4)
        )
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    kinds = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
    if plane:
        positions, _ = model.model.get_rope_index(
            ids, mm_token_type_ids=kinds, image_grid_thw=arrays["image_grid_thw"]
        )
    with torch.inference_mode():
        hidden = model.model(
            input_ids=ids, position_ids=positions, mm_token_type_ids=kinds, **arrays
        ).last_hidden_state
    return ids[0].tolist(), torch.nn.functional.normalize(hidden[0, -1], dim=-1)


@pytest.mark.parametrize("family", QWEN)
def test_the_bare_string_equals_the_reference(family, folder_of, contents, picture):
    folder = folder_of(family)
    backbone = open_backbone(settings_of(folder, encoding="vlm2vec"))
    streams = [stream_of(backbone, content) for content in contents]
    arrays = backbone.inputs.token_arrays(streams)
    lengths = arrays["attention_mask"].sum(1)
    with torch.inference_mode():
        ours = embed(backbone, contents)
    largest = 0.0
    for row, text in enumerate(WITH_IMAGE + WITHOUT):
        ids, vector = published(folder, text, picture if text in WITH_IMAGE else None)
        assert arrays["input_ids"][row, : lengths[row]].tolist() == ids, text
        assert (arrays["position_ids"][:, row, : lengths[row]] == np.arange(len(ids))).all()
        largest = max(largest, (ours[row] - vector).abs().max().item())
    print(f"{family}: {len(contents)} rows, largest difference {largest:.1e}")
    assert largest < 1e-5
    _, elsewhere = published(folder, WITH_IMAGE[0], picture, plane=True)
    assert (ours[0] - elsewhere).abs().max() > 1e-3, "positions in a plane are another embedder"


@pytest.mark.parametrize("encoding", ["chat", "vlm2vec"])
def test_llava_onevision_reads_its_processors_chat(encoding, folder_of, contents, picture):
    """One turn has the image, then the text, then the generation prompt.

    UniME-V2 removes whitespace around the text.
    """
    folder = folder_of("llava_onevision")
    backbone = open_backbone(settings_of(folder, encoding=encoding))
    processor = transformers.AutoProcessor.from_pretrained(folder)
    for content in contents:
        text = (content.text or "") if encoding == "chat" else (content.text or "").strip()
        parts = [{"type": "image", "image": squashed(picture)}] if content.image else []
        parts += [{"type": "text", "text": text}] if text else []
        theirs = processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        ours = backbone.inputs.token_arrays([stream_of(backbone, content)])
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        with torch.inference_mode():
            hidden = backbone.model.model(**theirs).last_hidden_state[0, -1]
            (vector,) = embed(backbone, [content])
        assert (vector - torch.nn.functional.normalize(hidden, dim=-1)).abs().max() < 1e-5


BESIDE = [("a red\ncar", False), ("", True), ("Find a caption.\n", True)]
"""(text, whether an image stands beside it)."""
LAMRA = [
    "a red\ncar\nSummarize above sentence in one word: ",
    "\nSummarize above image in one word: ",
    "Find a caption.\n\nSummarize above image and sentence in one word: ",
]


@pytest.mark.parametrize(("family", "plane"), [("qwen2_vl", False), ("qwen2_5_vl", True)])
def test_lamra_reads_the_hidden_state_before_the_answer(family, plane, folder_of, picture):
    """As in LaMRA's code, the assistant's answer has the token `<emb>`, and the vector is the hidden state before
    it.
    """
    folder = folder_of(family)
    backbone = open_backbone(settings_of(folder, encoding="lamra"))
    _, processor, _ = loaded(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32
    ).eval()
    tokenizer.add_tokens(["<emb>"])
    model.resize_token_embeddings(len(tokenizer))
    for (text, shown), prompt in zip(BESIDE, LAMRA, strict=True):
        parts = [{"type": "image"}] * shown + [{"type": "text", "text": prompt}]
        answer = {"role": "assistant", "content": [{"type": "text", "text": "<emb>."}]}
        string = tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}, answer], tokenize=False, add_generation_prompt=True
        )
        arrays, kinds = {}, {}
        if shown:
            size = {"shortest_edge": 3136, "longest_edge": SIDE**2}
            arrays = dict(processor(images=[squashed(picture)], size=size, return_tensors="pt"))
            string = string.replace(
                "<|image_pad|>", "<|image_pad|>" * int(arrays["image_grid_thw"].prod() // 4)
            )
        ids = tokenizer(string, return_tensors="pt")["input_ids"]
        place = ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<emb>"))
        kinds = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
        positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
        if plane:
            grid = arrays.get("image_grid_thw")
            positions, _ = model.model.get_rope_index(
                ids, mm_token_type_ids=kinds, image_grid_thw=grid
            )
        with torch.inference_mode():
            hidden = model.model(
                input_ids=ids, position_ids=positions, mm_token_type_ids=kinds, **arrays
            ).last_hidden_state[0, place - 1]
        content = Content(text or None, picture if shown else None)
        ours = backbone.inputs.token_arrays([stream_of(backbone, content)])
        assert ours["input_ids"][0].tolist() == ids[0, :place].tolist()
        assert (ours["position_ids"][:, 0] == positions[:, 0, :place].numpy()).all()
        with torch.inference_mode():
            (vector,) = embed(backbone, [content])
        assert (vector - torch.nn.functional.normalize(hidden, dim=-1)).abs().max() < 1e-5


UNIME = {
    "llava_next": [
        "[INST] a red\ncar\nSummary above sentence in one word: [/INST]",
        "[INST] <image>\nSummary above image in one word: [/INST]",
    ],
    "llava_onevision": [
        "<|im_start|>user a red\ncar\nSummary above sentence in one word:\n<|im_end|><|im_start|>assistant\n",
        "<|im_start|>user <image>Summary above image in one word:\n<|im_end|><|im_start|>assistant\n",
    ],
}
"""Of a text and of an image: what the tokenizer is given."""


def by_own_processor(folder, string, image):
    """Returns the token ids and the vector of a string and a picture, by the model's own processor."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    _, _, model = loaded(folder)
    inputs = processor(
        text=[string], images=None if image is None else [squashed(image)], return_tensors="pt"
    )
    with torch.inference_mode():
        hidden = model.model(**inputs).last_hidden_state[0, -1]
    return inputs["input_ids"][0].tolist(), torch.nn.functional.normalize(hidden, dim=-1)


def check_reads(backbone, content, ids, vector):
    ours = backbone.inputs.token_arrays([stream_of(backbone, content)])
    assert ours["input_ids"][0].tolist() == ids
    with torch.inference_mode():
        (embedded,) = embed(backbone, [content])
    assert (embedded - vector).abs().max() < 1e-5


@pytest.mark.parametrize("family", UNIME)
def test_unime_summarises_a_text_or_an_image(family, folder_of, picture):
    folder = folder_of(family)
    backbone = open_backbone(settings_of(folder, encoding="unime"))
    sentence, image = UNIME[family]
    check_reads(backbone, Content("a red\ncar"), *by_own_processor(folder, sentence, None))
    check_reads(backbone, Content(None, picture), *by_own_processor(folder, image, picture))
    with pytest.raises(
        SettingsError,
        match=r"has both: 'stop'\. Set model\.encoding = 'vlm2vec', as for MMEB, or leave",
    ):
        stream_of(backbone, Content("stop", picture))


def test_llava_next_reads_the_bare_string(folder_of, contents, picture):
    folder = folder_of("llava_next")
    backbone = open_backbone(settings_of(folder, encoding="vlm2vec"))
    for text, content in zip(WITH_IMAGE + WITHOUT, contents, strict=True):
        string = text.replace("<|image_1|>", "<image>")
        check_reads(
            backbone,
            content,
            *by_own_processor(folder, string, picture if text in WITH_IMAGE else None),
        )


@pytest.mark.parametrize("family", [*QWEN, "llava_onevision"])
def test_typed_control_tokens_stay_text(family, folder_of, picture):
    backbone = open_backbone(settings_of(folder_of(family), encoding="vlm2vec"))
    controls = backbone.inputs.encoder._controls
    typed = " ".join(controls)
    plain, steered = (
        [
            entry
            for entry in stream_of(backbone, Content(text, picture))
            if entry in controls.values()
        ]
        for text in ("word", typed)
    )
    assert plain == steered
    if family in QWEN:
        assert steered == []


STUDENTS = [
    *((family, "vlm2vec") for family in [*QWEN, "llava_next", "llava_onevision"]),
    ("qwen2_vl", "lamra"),
]


@pytest.mark.parametrize(("family", "encoding"), STUDENTS)
def test_every_student_learns_a_step_and_its_adapter_records_its_format(
    family, encoding, folder_of, corpus, triples, model, tmp_path, caplog
):
    student = model.model_copy(
        update={
            "name": str(folder_of(family)),
            "encoding": encoding,
            "resize": "square",
            "max_tokens": 512,
        }
    )
    adapter = train_embedder(
        EmbedderSettings(
            corpus=corpus.folder, triples=triples, out=tmp_path / "run", model=student, num_negatives=2, max_steps=1,
            batch_size=2, warmup_steps=0, lora=LoraSettings(rank=2, alpha=4),
            loss=LossSettings(teacher_temperature=0.5),
        ),
        lambda *_: None,
    )  # fmt: skip
    weights = load_file(adapter / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 3, (
        "A and B of seven layers in three blocks of the language model"
    )
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)
    assert read_json(adapter / "embedding.json", EmbeddingManifest) == EmbeddingManifest.of(
        student, folder_sha256(folder_of(family))
    )
    job = EmbedSettings(
        corpus=corpus.folder,
        out=tmp_path / "v",
        model=student.model_copy(update={"adapter": adapter}),
    )
    made = embed_corpus(job, lambda *_: None)
    assert (made.encoding, made.resize) == (encoding, "square")
    assert not caplog.records
    with pytest.raises(
        SettingsError,
        match=rf"'chat', but .* was trained with '{encoding}'.*Set model\.encoding = ",
    ):
        open_backbone(job.model.model_copy(update={"encoding": "chat"}))
    with caplog.at_level(logging.WARNING):
        open_backbone(job.model.model_copy(update={"max_pixels": 4 * 3136}))
    assert "model.max_pixels is 12544, but" in caplog.text


def test_modes_that_make_no_sense_are_refused(tmp_path):
    other = SimpleNamespace(config=SimpleNamespace(model_type="internvl"), name="some/InternVL")
    with pytest.raises(
        SettingsError, match=r"some/InternVL has the type 'internvl'. Set model\.encoding = 'chat'"
    ):
        reader_of("vlm2vec", other)
    with pytest.raises(
        SettingsError, match="'lamra' is the encoding of qwen2_vl, qwen2_5_vl models, but"
    ):
        reader_of("lamra", other)
    with pytest.raises(
        SettingsError, match="'unime' is the encoding of llava_next, llava_onevision models"
    ):
        reader_of("unime", other)
    for change in ("model.encoding=vlm2vec", "model.encoding=unime", "model.resize=square"):
        with pytest.raises(SettingsError, match="a reranker reads its inputs as a judge does"):
            load_settings(RerankerSettings, None, ["corpus=c", "triples=t", "out=o", change])


def test_older_vectors_are_still_the_same_embedding():
    fields = {
        "corpus": "c", "model": "m", "weights": "w", "encoding": "chat", "min_pixels": 1, "max_pixels": 2,
        "model_dtype": "float32", "width": 4, "dtype": "float32", "items": 1, "queries": 1,
    }  # fmt: skip
    older = VectorManifest(**fields)
    assert "resize" not in older.model_dump_json()
    assert VectorManifest(**fields, resize="keep").digest == older.digest
    assert VectorManifest(**fields, resize="square").digest != older.digest

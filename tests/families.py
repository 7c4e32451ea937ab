"""Tiny random models of the families other than Qwen2.5-VL, with the files of their publishers.

Each model has the tokenizer and the chat template of its family. LLaVA-NeXT has a SentencePiece-like tokenizer with a
beginning-of-sequence token, and control words in plain text. LLaVA-OneVision has a template that puts pictures first.
"""

import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from demo.tiny_model import CHAT_TEMPLATE, WORDS, make_tokenizer

WIDTH, SIDE = 128, 56
TILES = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
TOWER = {
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "patch_size": 14, "image_size": SIDE,
    "num_hidden_layers": 3, "initializer_range": 0.08,
}  # fmt: skip

INTERNVL_TEMPLATE = CHAT_TEMPLATE.replace(
    "<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n"
)
NEXT_TEMPLATE = (
    "{% for message in messages %}[INST] {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} [/INST]{% endfor %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }} "
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}\n{{ part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen2_vl(folder):
    tower = {"depth": 2, "embed_dim": 64, "hidden_size": WIDTH, "num_heads": 4, "mlp_ratio": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    _qwen(folder, "Qwen2VL", 14, tower | {"initializer_range": 0.08}, rope)


def qwen3_vl(folder):
    tower = {
        "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": WIDTH,
        "patch_size": 16, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64, "initializer_range": 0.08,
    }  # fmt: skip
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    }
    _qwen(folder, "Qwen3VL", 16, tower, rope, head_dim=32)


def internvl(folder):
    pytest.importorskip("torchvision")  # transformers' processor of this family needs torchvision
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    names = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer = _tokenizer(make_tokenizer().backend_tokenizer, INTERNVL_TEMPLATE, **names)
    config = transformers.InternVLConfig(
        vision_config=TOWER | {"image_size": [SIDE, SIDE], "patch_size": [14, 14]},
        text_config=_text("qwen2", tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=size, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=INTERNVL_TEMPLATE,
    )
    _save(folder, transformers.InternVLForConditionalGeneration, config, processor)


def llava_next(folder):
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    tokenizer = _tokenizer(
        _sentencepiece_like(), NEXT_TEMPLATE, image_token="<image>", bos_token="<s>"
    )
    config = transformers.LlavaNextConfig(
        vision_config=TOWER | {"model_type": "clip_vision_model", "projection_dim": 64},
        text_config=_text("mistral", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=TILES[1:],
        tie_word_embeddings=False,
    )
    crop = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=TILES[1:]
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=NEXT_TEMPLATE,
    )
    _save(folder, transformers.LlavaNextForConditionalGeneration, config, processor)


def llava_onevision(folder):
    pytest.importorskip("torchvision")
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )
    from transformers.models.llava_onevision.video_processing_llava_onevision import (
        LlavaOnevisionVideoProcessor,
    )

    names = {"image_token": "<image>", "video_token": "<video>"}
    tokenizer = _tokenizer(make_tokenizer().backend_tokenizer, ONEVISION_TEMPLATE, **names)
    config = transformers.LlavaOnevisionConfig(
        vision_config=TOWER | {"model_type": "siglip_vision_model", "vision_use_head": False},
        text_config=_text("qwen2", tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=TILES,
        tie_word_embeddings=False,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=TILES),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // 14) ** 2,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION_TEMPLATE,
    )
    _save(folder, transformers.LlavaOnevisionForConditionalGeneration, config, processor)


MAKERS = {
    maker.__name__: maker for maker in (qwen2_vl, qwen3_vl, internvl, llava_next, llava_onevision)
}


def _qwen(folder, name, patch, tower, rope, **text):
    tokenizer = make_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = getattr(transformers, f"{name}Config")(
        text_config=_text(None, tokenizer) | {"rope_parameters": rope} | text,
        vision_config=tower,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    processor = Qwen2VLImageProcessorPil(patch_size=patch)
    _save(folder, getattr(transformers, f"{name}ForConditionalGeneration"), config, processor)
    tokenizer.save_pretrained(folder)


def _text(kind, tokenizer):
    config = {
        "vocab_size": (len(tokenizer) + 63) // 64 * 64, "hidden_size": WIDTH, "intermediate_size": 256,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.08,
    }  # fmt: skip
    return config | ({"model_type": kind} if kind else {})


def _tokenizer(backend, template, bos_token=None, **names):
    backend.add_special_tokens(list(names.values()))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos_token, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=template, model_max_length=4096, extra_special_tokens=names,
    )  # fmt: skip


def _sentencepiece_like():
    """A tokenizer like that of Llama and Mistral: a space is a visible character, which also stands before the first
    text.
    """
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    # These control words are pieces of the vocabulary, and not added tokens.
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, special_tokens=["<unk>", "<s>", "</s>", *bytes_]
    )
    split = [word for text in [*WORDS, "[INST] [/INST]"] for word in re.findall(r" ?\S+", text)]
    bpe.train_from_iterator(split * 20, trainer)
    layout = json.loads(bpe.to_str())
    layout["added_tokens"] = layout["added_tokens"][:3]
    bpe = Tokenizer.from_str(json.dumps(layout))
    bpe.add_special_tokens(["<|im_end|>", "<|endoftext|>"])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return bpe


def _save(folder, kind, config, processor):
    torch.manual_seed(0)
    kind(config).float().save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "model.safetensors"
    published = {
        re.sub(r"^vision_tower\.(?=embeddings|encoder|p)", _tower(config), k): v
        for k, v in load_file(path).items()
    }
    save_file(published, path, metadata={"format": "pt"})


def _tower(config):
    """The names in published CLIP and SigLIP towers have one level more than the names that transformers writes
    today.
    """
    return (
        "vision_tower.vision_model." if config.model_type.startswith("llava") else "vision_tower."
    )

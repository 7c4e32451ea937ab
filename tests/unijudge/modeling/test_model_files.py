"""Model folders of many kinds: judge and trainer read each kind correctly, or refuse it in one line."""

import asyncio
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.pictures import png
from trainer.models.backbone import open_backbone
from trainer.models.embedder import embed
from trainer.models.lora import Adapter, add_lora, save_merged
from trainer.models.settings import BackboneSettings, LoraSettings
from unijudge.content import Content
from unijudge.errors import ModelError
from unijudge.modeling.weight_files import check_numbers, weight_files

CONTENTS = [Content(text="a cat"), Content(text="red", image=png("red", (60, 60)))]
INDEX = "model.safetensors.index.json"


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def attention_of_its_own(folder):
    change(folder / "config.json", _attn_implementation="flash_attention_2")


def quantisation_left_over(folder):
    change(
        folder / "config.json",
        quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128},
    )


def quantisation_of_a_merge(folder):
    """The settings that a merge leaves after training an adapter on four-bit weights. transformers would pack the
    weights again.
    """
    change(
        folder / "config.json",
        quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True},
    )


def code_of_its_own(folder):
    classes = {
        "AutoConfig": "configuration_house.C",
        "AutoModelForImageTextToText": "modeling_house.M",
    }
    change(folder / "config.json", model_type="house_vl", auto_map=classes)
    (folder / "configuration_house.py").write_text("raise SystemExit('was run')")


def template_with_a_mark(folder):
    path = folder / "chat_template.jinja"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def template_with_the_date(folder):
    path = folder / "chat_template.jinja"
    path.write_text("{{ strftime_now('%d %b %Y') }}" + path.read_text())


def tokens(folder, write):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    more = [f"<more {number}>" for number in range(100)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*more, "<picture>"]})
    tokenizer.chat_template = write(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)
    return tokenizer.convert_tokens_to_ids("<picture>")


def token_beyond_the_weights(folder):
    tokens(folder, lambda template: "<picture>" + template)


def picture_beyond_the_weights(folder):
    image_id = tokens(folder, lambda template: template.replace("<|image_pad|>", "<picture>"))
    change(folder / "config.json", image_token_id=image_id)


def picture_beyond_the_tokenizer(folder):
    change(folder / "config.json", image_token_id=10_000)


def last_token(folder, before=""):
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    end = "<|endoftext|>"
    form = processors.TemplateProcessing(
        single=f"{before}$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.post_processor = form
    tokenizer.save(path)


def length_kept_in_the_tokenizer(folder):
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=512)
    tokenizer.save(path)


def patches_of_another_model(folder):
    change(folder / "preprocessor_config.json", patch_size=16)


def processor_of_another_name(folder):
    change(folder / "preprocessor_config.json", image_processor_type="Qwen2_5_VLImageProcessor")


def mean_that_is_none(folder):
    change(folder / "preprocessor_config.json", image_mean=None, image_std=None)


def pixels_that_are_no_numbers(folder):
    change(folder / "preprocessor_config.json", image_std=[0, 0, 0])


def sides_as_pixels(folder):
    change(folder / "preprocessor_config.json", size={"max_pixels": 12_845_056, "min_pixels": 3136})


def generation_that_contradicts_itself(folder):
    said = {"do_sample": False, "temperature": 0.1, "top_p": 0.001, "eos_token_id": [1, 2]}
    (folder / "generation_config.json").write_text(json.dumps(said))


READ = {
    "attention of its own": attention_of_its_own,
    "a template with a byte-order mark": template_with_a_mark,
    "a last token that the tokenizer adds": last_token,
    "a length that the tokenizer keeps": length_kept_in_the_tokenizer,
    "a size in pixels": sides_as_pixels,
    "generation that contradicts itself": generation_that_contradicts_itself,
}
"""Kind → how to spoil a folder; the model in it is the same as before."""
REFUSED = {
    "quantisation left over": (
        quantisation_left_over,
        "are packed by awq, but no weight is packed. Remove",
    ),
    "quantisation of a merge": (
        quantisation_of_a_merge,
        "are packed by bitsandbytes, but no weight is packed",
    ),
    "code of its own": (
        code_of_its_own,
        "its files require their own code, which is never run here",
    ),
    "the date in a template": (template_with_the_date, "its chat template writes today's date"),
    "a token beyond the weights": (
        token_beyond_the_weights,
        r"has a token \d+, but config.json has a vocab_size of \d+",
    ),
    "a picture beyond the weights": (
        picture_beyond_the_weights,
        r"a token \d+, but config.json has a vocab_size of \d+",
    ),
    "a picture beyond the tokenizer": (
        picture_beyond_the_tokenizer,
        "names token 10000 for pictures",
    ),
    "a processor of another name": (
        processor_of_another_name,
        "Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen2VLImageProcessor",
    ),
    "a mean that is none": (
        mean_that_is_none,
        "`image_mean` and `image_std` must both be specified",
    ),
    "pixels that are no numbers": (
        pixels_that_are_no_numbers,
        "turns a picture into numbers that are not finite",
    ),
    "patches of another model": (
        patches_of_another_model,
        r"patch_size is 16, but config\.json says 14",
    ),
}


def damaged_copy(tiny_model, folder, spoil):
    shutil.copytree(tiny_model, folder)
    spoil(folder)
    return str(folder)


def scores(name):
    judge = open_judge(ServiceSettings(model=ModelSettings(name=name, backend="transformers")))
    return [verdict.log_odds for verdict in asyncio.run(judge.judge(CONTENTS[0], CONTENTS))]


def vectors(name, **settings):
    backbone = open_backbone(BackboneSettings(name=name, device="cpu", **settings))
    with torch.inference_mode():
        return embed(backbone, CONTENTS)


@pytest.mark.parametrize("kind", READ)
def test_a_model_folder_of_this_kind_is_read(tiny_model, tmp_path, kind):
    name = damaged_copy(tiny_model, tmp_path / "model", READ[kind])
    assert scores(name) == scores(str(tiny_model))
    assert torch.equal(vectors(name), vectors(str(tiny_model)))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_folder_of_this_kind_is_refused_in_one_line(tiny_model, tmp_path, kind):
    spoil, reason = REFUSED[kind]
    name = damaged_copy(tiny_model, tmp_path / "model", spoil)
    for use in (scores, vectors):
        with pytest.raises(ModelError, match=reason) as refused:
            use(name)
        assert "\n" not in str(refused.value)


def test_the_first_and_last_token_of_the_tokenizer_stand_around_a_bare_string(tiny_model, tmp_path):
    """In a chat, the template writes the special tokens, so only the first token is before the chat."""
    name = damaged_copy(
        tiny_model, tmp_path / "model", lambda folder: last_token(folder, before="<|endoftext|> ")
    )
    encoder = open_backbone(BackboneSettings(name=name, device="cpu")).inputs.encoder
    tokenizer = AutoTokenizer.from_pretrained(name)
    assert encoder.bare_stream(["a cat"]) == tokenizer("a cat")["input_ids"]
    (end,) = tokenizer.convert_tokens_to_ids(["<|endoftext|>"])
    chat = encoder.stream(["a cat"])
    assert (chat[0], chat.count(end)) == (end, 1)


def sharded(tiny_model, folder, name="model-00001-of-00002.safetensors", **index):
    """Two files and an index. The name of the first file may point to another folder."""
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first, second = sorted(weights)[:9], sorted(weights)[9:]
    files = {name: first, "model-00002-of-00002.safetensors": second}
    for file, names in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_file({key: weights[key] for key in names}, folder / file, metadata={"format": "pt"})
    places = {key: file for file, names in files.items() for key in names}
    (folder / INDEX).write_text(
        json.dumps({"weight_map": places, "metadata": {"total_size": 1.5}} | index)
    )
    return folder


def test_an_index_whose_total_size_is_a_float_is_read(tiny_model, tmp_path):
    assert scores(str(sharded(tiny_model, tmp_path / "model"))) == scores(str(tiny_model))


@pytest.mark.parametrize(
    "name",
    ["../other/model-00001.safetensors", "weights/model-00001.safetensors", "./model.safetensors"],
)
def test_an_index_with_weights_outside_of_the_folder_is_refused(tiny_model, tmp_path, name):
    """The files in its folder identify a model. A file outside of the folder could change unnoticed."""
    with pytest.raises(
        ModelError, match=r"index\.json names weights in other folders .*into the model's folder"
    ):
        weight_files(sharded(tiny_model, tmp_path / "model", name))


def test_an_index_that_transformers_cannot_read_is_named(tiny_model, tmp_path):
    with pytest.raises(ModelError, match='has no "metadata", which transformers needs'):
        weight_files(sharded(tiny_model, tmp_path / "model", metadata=None))


def test_an_index_with_a_tensor_in_two_files_is_refused(tiny_model, tmp_path):
    folder = sharded(tiny_model, tmp_path / "model")
    first, second = weight_files(folder)
    twice = min(load_file(first))
    save_file(
        load_file(second) | {twice: load_file(first)[twice] + 1}, second, metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match=rf"its files hold 1 tensors twice \(first {twice}\)"):
        check_numbers(weight_files(folder), "none")


def test_a_generation_config_that_contradicts_itself_can_be_merged(tiny_model, tmp_path):
    """After a training, transformers reads such a file, but refuses to write one."""
    name = damaged_copy(tiny_model, tmp_path / "model", generation_that_contradicts_itself)
    backbone = open_backbone(BackboneSettings(name=name, device="cpu"))
    add_lora(backbone, LoraSettings(rank=2))
    Adapter(backbone.model).save(tmp_path / "adapter")
    save_merged(
        BackboneSettings(name=name, device="cpu"), tmp_path / "adapter", tmp_path / "merged"
    )
    written = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [1, 2]
    assert not {"temperature", "top_p"} & written.keys()
    assert torch.allclose(vectors(str(tmp_path / "merged")), vectors(name), atol=1e-6)

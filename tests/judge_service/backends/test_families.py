"""Judges of other families than Qwen2.5-VL, each with its own chat template and processor, on the transformers
backend.
"""

import asyncio
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.contents import CONTENTS
from tests.families import MAKERS
from tests.judge_service.backends.family_judge import load
from tests.pictures import png
from unijudge.content import Content
from unijudge.errors import ModelError
from unijudge.judging.prompt import Prompt
from unijudge.modeling.families import FAMILIES


@pytest.fixture(scope="module", params=MAKERS)
def family(request, tmp_path_factory):
    """(name of the family, folder of its model)"""
    folder = tmp_path_factory.mktemp("families") / request.param
    MAKERS[request.param](folder)
    return request.param, folder


def test_every_family_is_exercised():
    assert set(MAKERS) | {"qwen2_5_vl"} == set(FAMILIES)


@pytest.mark.parametrize(
    ("order", "queries"),
    [("query_first", CONTENTS[::2]), ("candidate_first", CONTENTS[1::2])],
    ids=["query", "candidate"],
)
def test_shared_prefix_equals_one_pair_at_a_time(family, order, queries):
    """Every content is a query in one of the two orders. test_transformers.py has all contents in both orders."""
    name, folder = family
    judge = load(folder, name, order=order)
    largest = 0.0
    for query in queries:
        together = asyncio.run(judge.judge(query, CONTENTS))
        alone = [asyncio.run(judge.judge(query, [candidate]))[0] for candidate in CONTENTS]
        largest = max(
            largest, *(abs(t.log_odds - a.log_odds) for t, a in zip(together, alone, strict=True))
        )
    print(
        f"{name}, {order}: {len(queries) * len(CONTENTS)} pairs, largest difference {largest:.1e} in log-odds"
    )
    assert largest < 1e-4


@pytest.mark.parametrize("kind", ["text", "picture"])
def test_tokens_and_pixels_are_the_processors_own(family, kind):
    """Compares our arrays with the arrays that transformers makes from messages, for one picture and for no picture."""
    name, folder = family
    judge = load(folder, name)
    picture = png("blue", (200, 60))
    query = Content(text="Which?", image=picture if kind == "picture" else None)
    (stream,) = judge._inputs.renderer.streams(query, [Content(text="seven apples")])
    parts = Prompt().parts(query, Content(text="seven apples"))
    content = [
        {"type": "image"} if isinstance(p, bytes) else {"type": "text", "text": p} for p in parts
    ]
    # The template of this family puts pictures first. Our pictures keep their places.
    if kind == "picture" and name == "llava_onevision":
        content = [
            {
                "type": "text",
                "text": "".join("<image>" if isinstance(p, bytes) else p for p in parts),
            }
        ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ours = judge._inputs.model.token_arrays([stream]) | judge._inputs.model.picture_arrays([stream])
    if kind == "text":
        assert ours["input_ids"].tolist() == [tokenizer(text)["input_ids"]]
        return
    image = judge._inputs.model.pictures(picture).image
    assert isinstance(image, Image.Image)
    if name.startswith("qwen"):
        theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(
            images=[image], size={"shortest_edge": 3136, "longest_edge": 12544}, return_tensors="np"
        )
    else:
        theirs = transformers.AutoProcessor.from_pretrained(folder)(
            text=[text], images=[image], return_tensors="np"
        )
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert np.array_equal(ours["pixel_values"], theirs["pixel_values"])


def test_positions_are_the_models_own(family):
    name, folder = family
    judge = load(folder, name)
    streams = [
        judge._inputs.renderer.streams(query, [candidate])[0]
        for query in CONTENTS
        for candidate in CONTENTS
    ]
    ours = {k: torch.from_numpy(v) for k, v in judge._inputs.model.token_arrays(streams).items()}
    if not name.startswith("qwen"):
        assert all(
            (row == torch.arange(len(row)))[mask > 0].all()
            for row, mask in zip(ours["position_ids"], ours["attention_mask"], strict=True)
        )
        return
    positions = ours.pop("position_ids")
    grids = torch.from_numpy(judge._inputs.model.picture_arrays(streams)["image_grid_thw"])
    theirs, _ = judge._model.model.get_rope_index(**ours, image_grid_thw=grids)
    mask = ours["attention_mask"] > 0
    assert (theirs[:, mask] == positions[:, mask]).all()


def test_pictures_stay_beside_their_names(family):
    """This must also hold if a template puts all pictures first: the picture of the query must not become the picture
    of the candidate.
    """
    name, folder = family
    judge = load(folder, name)
    picture = png("red")
    (asks,) = judge._inputs.renderer.streams(Content(text="a", image=picture), [Content(text="b")])
    (offers,) = judge._inputs.renderer.streams(
        Content(text="a"), [Content(text="b", image=picture)]
    )
    assert asks.index(picture) < offers.index(picture)
    one, other = (
        asyncio.run(judge.judge(*pair))[0]
        for pair in [
            (Content(text="a", image=picture), [Content(text="b")]),
            (Content(text="a"), [Content(text="b", image=picture)]),
        ]
    )
    assert one.log_odds != other.log_odds


def test_the_template_may_be_only_in_the_processor(family, tmp_path):
    """Older repositories have the template in chat_template.json, and a shorter template, or no template, beside the
    tokenizer.
    """
    name, folder = family
    for tokenizers_own in (None, "{% for m in messages %}{{ m['content'] + 'x' }}{% endfor %}"):
        old = tmp_path / ("none" if tokenizers_own is None else "poor")
        shutil.copytree(folder, old)
        template = (old / "chat_template.jinja").read_text()
        (old / "chat_template.jinja").unlink()
        (old / "chat_template.json").write_text(json.dumps({"chat_template": template}))
        config = json.loads((old / "tokenizer_config.json").read_text())
        (old / "tokenizer_config.json").write_text(
            json.dumps(config | {"chat_template": tokenizers_own})
        )
        for layout in (old / "processor_config.json",):
            if layout.exists():
                without = {
                    k: v for k, v in json.loads(layout.read_text()).items() if k != "chat_template"
                }
                layout.write_text(json.dumps(without))
        whole, found = (
            load(place, name)._inputs.renderer.streams(CONTENTS[-1], CONTENTS[:8])
            for place in (folder, old)
        )
        assert whole == found


def test_a_template_that_fails_is_named(family, tmp_path):
    name, folder = family
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "chat_template.jinja").write_text("{{ messages[0]['content'] + 'x' }}")
    with pytest.raises(ModelError, match="does not take a user's turn of texts and pictures"):
        load(tmp_path / "broken", name)


def test_a_picture_keeps_what_a_template_writes_around_it(tmp_path):
    """A Qwen whose template puts pictures first: each picture returns to its place, with the tokens around it."""
    folder = tmp_path / "first"
    MAKERS["qwen2_vl"](folder)
    (plain,) = load(folder, "qwen2_vl")._inputs.renderer.streams(CONTENTS[-1], CONTENTS[-2:-1])
    template = (folder / "chat_template.jinja").read_text()
    loop = "{% for part in message['content'] %}"
    assert loop in template
    first = loop.replace("message['content']", "message['content'] | sort(attribute='type')")
    (folder / "chat_template.jinja").write_text(template.replace(loop, first))
    (found,) = load(folder, "qwen2_vl")._inputs.renderer.streams(CONTENTS[-1], CONTENTS[-2:-1])
    assert found == plain


def test_an_unknown_family_is_refused_by_name(tmp_path):
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(
        ModelError,
        match=r"its model_type is 'gpt2', which is not supported\. Take one of qwen2_vl, ",
    ):
        load(tmp_path, "gpt2")

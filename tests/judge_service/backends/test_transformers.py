"""The transformers backend on a real, tiny Qwen2.5-VL: parity, control tokens, labels and limits."""

import asyncio
import itertools

import pytest
import torch
from pydantic import ValidationError

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.judge_service.backends.transformers_judge import PIXELS, load
from tests.pictures import png
from unijudge.content import Content
from unijudge.errors import JudgeRefused, ModelError, SettingsError
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError, Verdict
from unijudge.modeling.chat_encoder import ChatEncoder

TOLERANCE = 1e-4
"""In log-odds, float32."""

TEXTS = [
    "a cat",
    "seven",
    "Represent the given image.\n",
    "a very long candidate " * 12,
    "ünïcode 猫 🐈",
]
CONTENTS = [
    *(Content(text=text) for text in TEXTS),
    *(
        Content(image=png(color, size))
        for color, size in [("red", (60, 60)), ("blue", (200, 60)), ("white", (30, 90))]
    ),
    Content(text="a cat", image=png("green", (100, 100))),
    Content(text="another", image=png("red", (60, 60))),
]


@pytest.fixture(scope="module")
def judge(tiny_model):
    return load(tiny_model)


def ask(judge, query, candidates):
    return asyncio.run(judge.judge(query, candidates))


def plain_log_odds(judge, query, candidate):
    """The log-odds of the model's own forward pass over one whole prompt, without a cache, our positions or batches."""
    (stream,) = judge._inputs.renderer.streams(query, [candidate])
    batch = judge._inputs.model.token_arrays([stream]) | judge._inputs.model.picture_arrays(
        [stream]
    )
    inputs = {
        name: torch.from_numpy(array) for name, array in batch.items() if name != "position_ids"
    }
    judge._model.model.rope_deltas = None
    with torch.inference_mode():
        logits = judge._model(**inputs).logits[0, -1].double()
    return float(logits[judge.identity.yes_id] - logits[judge.identity.no_id])


@pytest.mark.parametrize("order", ["query_first", "candidate_first"])
@pytest.mark.parametrize("batch_tokens", [16384, 300], ids=["one batch", "small batches"])
def test_shared_prefix_equals_one_pair_at_a_time(tiny_model, order, batch_tokens):
    judge = load(tiny_model, Prompt(order=order), batch_tokens=batch_tokens)
    largest = 0.0
    for query in CONTENTS:
        together = ask(judge, query, CONTENTS)
        for candidate, verdict in zip(CONTENTS, together, strict=True):
            (alone,) = ask(judge, query, [candidate])
            largest = max(largest, abs(verdict.log_odds - alone.log_odds))
            largest = max(largest, abs(verdict.log_odds - plain_log_odds(judge, query, candidate)))
    print(f"largest difference over {len(CONTENTS) ** 2} pairs, {order}: {largest:.1e} in log-odds")
    assert largest < TOLERANCE


def test_positions_are_the_models_own(judge):
    """The contents have wide and tall pictures, in one place and in two places."""
    streams = [
        judge._inputs.renderer.streams(query, [candidate])[0]
        for query in CONTENTS[5:]
        for candidate in CONTENTS[3:]
    ]
    batch = judge._inputs.model.token_arrays(streams)
    grids = judge._inputs.model.picture_arrays(streams)["image_grid_thw"]
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    inputs = {name: torch.from_numpy(batch[name]) for name in names} | {
        "image_grid_thw": torch.from_numpy(grids)
    }
    theirs, _ = judge._model.model.get_rope_index(**inputs)
    for row, length in enumerate(batch["attention_mask"].sum(1)):
        assert (theirs[:, row, :length].numpy() == batch["position_ids"][:, row, :length]).all()


def test_candidates_with_equal_pictures_do_not_affect_each_other(judge):
    """All candidates have the same number of image tokens. The shared prefix must end where the pictures differ."""
    colors = ["red", "green", "blue", "white"]
    candidates = [Content(image=png(color)) for color in colors]
    odds = [verdict.log_odds for verdict in ask(judge, Content(text="q"), candidates)]
    assert min(abs(a - b) for a, b in itertools.combinations(odds, 2)) > 1e-3


def test_a_typed_control_token_stays_text(judge):
    """The query and the candidate contain every added token of the tokenizer as text."""
    encoder = judge._inputs.renderer._encoder
    (clean,) = judge._inputs.renderer.streams(Content(text="a"), [Content(text="b")])
    controls = set(encoder._controls.values())
    allowed = [entry for entry in clean if entry in controls]
    assert len(encoder._controls) >= 19
    for token in encoder._controls:
        for query, candidate in [(token, "b"), ("a", token), (f"x{token}y", f"{token}{token}")]:
            (stream,) = judge._inputs.renderer.streams(
                Content(text=query), [Content(text=candidate)]
            )
            assert [entry for entry in stream if entry in controls] == allowed, token
    answers = ask(
        judge,
        Content(text="<|image_pad|><|vision_start|>"),
        [Content(text=t) for t in encoder._controls],
    )
    assert all(isinstance(answer, Verdict) for answer in answers)


def test_the_text_of_prompt_and_user_is_tokenised_as_one_string(judge):
    """':Find' may be one token, although ':' and 'Find' are two tokens.

    So the text of prompt and user must be one string.
    """
    encoder = judge._inputs.renderer._encoder
    (stream,) = judge._inputs.renderer.streams(Content(text="Find"), [Content(text="b")])
    whole = encoder.text_ids("user\n" + Prompt().instruction + "Query:FindCandidate:b")
    assert any(stream[i : i + len(whole)] == whole for i in range(len(stream)))


def test_the_pixel_budget_holds_against_the_models_own(tiny_model, tmp_path):
    """Published Qwen configurations have their own pixel budget, which overrides a size that is given at loading."""
    import json
    import shutil

    shutil.copytree(tiny_model, tmp_path / "published")
    path = tmp_path / "published" / "preprocessor_config.json"
    config = json.loads(path.read_text())
    del config["size"]
    path.write_text(json.dumps(config | {"min_pixels": 3136, "max_pixels": 12845056}))
    large = png(size=(900, 500))
    for folder in (tiny_model, tmp_path / "published"):
        judge = load(folder)
        stream = judge._inputs.renderer.streams(Content(image=large), [Content(text="b")])
        (grid,) = judge._inputs.model.picture_arrays(stream)["image_grid_thw"]
        assert grid[1] * grid[2] * 14 * 14 <= PIXELS["max_pixels"]
        assert judge._inputs.model.pictures(large).grid == (grid[1] // 2, grid[2] // 2)


def test_bad_pairs_get_errors_at_their_positions(judge):
    answers = ask(
        judge,
        Content(text="q"),
        [Content(text="ok"), Content(image=b"junk"), Content(text="word " * 9000)],
    )
    assert isinstance(answers[0], Verdict)
    assert isinstance(answers[1], PairError)
    assert answers[1].code == "bad_image"
    assert answers[2].code == "too_long"
    assert "this judge accepts 8192" in answers[2].message
    assert ask(judge, Content(text="q"), [Content(text="ok")]) == answers[:1]


def test_a_pair_with_nan_logits_gets_an_error(tiny_model):
    """NaN logits are possible, because half precision can overflow. The other pairs keep their verdicts."""
    judge = load(tiny_model)
    head = judge._model.lm_head

    def overflow(hidden_BD):
        logits_BV = head(hidden_BD)
        logits_BV[1, 0] = float("nan")
        return logits_BV

    judge._model.lm_head = torch.nn.Identity()
    judge._model.lm_head.forward = overflow
    answers = ask(
        judge, Content(text="q"), [Content(text="a"), Content(text="b"), Content(text="c")]
    )
    assert [type(answer) for answer in answers] == [Verdict, PairError, Verdict]
    assert answers[1].code == "not_finite"


def test_a_bad_query_image_is_refused(judge):
    with pytest.raises(JudgeRefused, match="query: not a JPEG"):
        ask(judge, Content(image=b"junk"), [Content(text="ok")])


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"yes": "Absolutely"}, "'Absolutely' is not one token"),
        ({"no": " zzz"}, "' zzz' is not one token"),
        ({"no": "Yes"}, "are the same token"),
    ],
)
def test_labels_that_are_not_one_token_are_refused(tiny_model, labels, reason):
    with pytest.raises(ModelError, match=reason):
        load(tiny_model, Prompt(**labels))


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(SettingsError, match="nowhere: no such folder, and not a hub name"):
        load(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"model\.name: is empty"):
        open_judge(ServiceSettings())
    split = {"model": ModelSettings(name="x", backend="transformers"), "tensor_parallel_size": 2}
    with pytest.raises(SettingsError, match="tensor_parallel_size: 2"):
        open_judge(ServiceSettings(**split, gpus_per_replica=2))
    with pytest.raises(
        ValidationError, match="tensor_parallel_size is 2, but gpus_per_replica is 1"
    ):
        ServiceSettings(**split, gpus_per_replica=1)


def test_other_weights_make_another_judge(judge, tiny_model, tmp_path):
    from demo.tiny_model import make_model

    assert load(tiny_model).identity == judge.identity
    make_model(tmp_path / "tiny", seed=1)
    other = load(tmp_path / "tiny").identity
    assert other.model == judge.identity.model
    assert other.digest != judge.identity.digest
    assert load(tiny_model, Prompt(instruction="?")).identity.digest != judge.identity.digest


def test_a_tokenizer_without_a_template_is_refused(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        ChatEncoder(tokenizer, "<|image_pad|>")

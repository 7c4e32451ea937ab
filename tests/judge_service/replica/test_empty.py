"""Empty or blank contents are errors at their positions, for every judge.

The content of an identity is also tested here.
"""

import asyncio
import json
from dataclasses import replace
from importlib.metadata import version

import httpx2
import pytest

import unijudge.judging.prompt
from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.counting import PairCounter
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.families import MAKERS
from tests.judge_service.backends.family_judge import load as load_family
from tests.judge_service.backends.transformers_judge import load
from tests.judge_service.replica.judges import raw
from tests.pictures import noise, png
from unijudge.client.client import JudgeClient
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.prompt import LAYOUTS, Prompt
from unijudge.judging.protocol import ScoreResponse
from unijudge.judging.verdicts import EMPTY, JudgeIdentity, PairError, Verdict

BLANKS = ["", " ", "\n\t ", "\u200b", " \u00a0\u2003", "\ufeff\u200d"]
QUERY = Content("a query")


@pytest.fixture(scope="module")
def real(tiny_model):
    return load(tiny_model)


@pytest.fixture(params=["scripted", "real"])
def judge(request):
    return (
        ScriptedJudge(Prompt()) if request.param == "scripted" else request.getfixturevalue("real")
    )


def served(judge, query, candidates, method="judge"):
    app = create_app(WatchedJudge(judge, HealthSettings(canary_every_s=0)), LimitSettings())

    async def ask():
        async with JudgeClient(
            "http://judge", transport=httpx2.ASGITransport(app), retry_for_s=1
        ) as client:
            return await getattr(client, method)(query, candidates)

    return asyncio.run(ask())


def test_an_empty_candidate_gets_an_error_at_its_position(judge):
    candidates = [Content("a"), *map(Content, BLANKS), Content(), Content("b")]
    for found in (asyncio.run(judge.judge(QUERY, candidates)), served(judge, QUERY, candidates)):
        assert found[1:-1] == [EMPTY] * (len(BLANKS) + 1)
        assert isinstance(found[0], Verdict)
        assert isinstance(found[-1], Verdict)
    alone = asyncio.run(judge.judge(QUERY, [Content("a"), Content("b")]))
    assert abs(alone[1].log_odds - found[-1].log_odds) < 1e-4


def test_an_image_without_bytes_is_an_error(judge):
    """An image without bytes is not a missing image: a text beside the image is not judged alone."""
    candidates = [Content("a", b""), Content(None, b""), Content("a")]
    for found in (asyncio.run(judge.judge(QUERY, candidates)), served(judge, QUERY, candidates)):
        assert [answer.code for answer in found[:2]] == ["bad_image", "bad_image"]
        assert isinstance(found[2], Verdict)
    with pytest.raises(JudgeRefused, match="query: not a JPEG"):
        served(judge, Content("a", b""), [Content("a")])


@pytest.mark.parametrize("query", [Content(), Content(" \u200b\n")])
def test_an_empty_query_is_refused(judge, query):
    with pytest.raises(
        JudgeRefused, match="query: neither text nor image, so there is nothing to judge"
    ):
        served(judge, query, [Content("a")])


def test_an_empty_entry_of_a_list_is_named(judge):
    found = served(judge, QUERY, [Content("a"), Content(" ")], "choose")
    assert found == PairError(code="empty", message=f"candidate 2: {EMPTY.message}")
    found = served(judge, QUERY, [Content("a"), Content("b", b"")], "choose")
    assert (found.code, found.message[:12]) == ("bad_image", "candidate 2:")


def test_a_blank_text_beside_a_picture_says_nothing(real):
    shown = png("red")
    (with_blank, alone) = asyncio.run(
        real.judge(QUERY, [Content(" \n", shown), Content(None, shown)])
    )
    assert with_blank.log_odds == alone.log_odds
    counts = PairCounter(real.inputs).count(
        QUERY, [Content(" \n", shown), Content(None, shown), Content("\u200b")]
    )
    assert counts[0] == counts[1]
    assert counts[2] == EMPTY


def test_empty_contents_of_a_foreign_client(judge):
    """The request is as a foreign client would send it."""
    app = create_app(WatchedJudge(judge, HealthSettings(canary_every_s=0)), LimitSettings())
    body = {
        "query": {"text": "a"},
        "candidates": [{"text": ""}, {}, {"text": "b", "image": ""}, {"text": "b"}],
    }
    results = ScoreResponse.model_validate_json(raw(app, body).content).results
    assert [getattr(one, "code", None) for one in results] == ["empty", "empty", "bad_image", None]
    large = noise(1)
    both = {"query": {"text": "a"}, "candidates": [{"image": "", "image_sha256": "0" * 64}]}
    assert "both image and image_sha256 are set" in raw(app, both).json()["message"]
    assert len(large) > 4096


def test_the_wording_of_both_questions_is_part_of_the_identity(monkeypatch):
    known = Prompt().fingerprint
    assert (
        len({known, Prompt(order="candidate_first").fingerprint, Prompt(yes="Y").fingerprint}) == 3
    )
    for part in ("query", "candidate", "between", "before_instruction"):
        with monkeypatch.context() as changed:
            layout = replace(LAYOUTS["unime-v2"], **{part: "Other words:"})
            changed.setitem(LAYOUTS, "unime-v2", layout)
            assert Prompt().fingerprint != known, part
    for name in ("LIST_INSTRUCTION", "QUERY"):
        with monkeypatch.context() as changed:
            changed.setattr(unijudge.judging.prompt, name, "Other words:")
            assert Prompt().fingerprint != known, name
    with monkeypatch.context() as changed:
        changed.setattr(unijudge.judging.prompt, "list_answer", lambda number: f"[{number}]")
        assert Prompt().fingerprint != known
    assert Prompt().fingerprint == known


def test_the_identity_has_the_versions_of_tokenizer_and_image_libraries(real, tmp_path):
    """This holds for every engine, because vLLM's version does not determine them. torchvision cuts the tiles."""
    libraries = ["transformers", "tokenizers", "pillow"]
    expected = ", ".join(f"{name} {version(name)}" for name in libraries)
    assert real.identity.inputs_version == expected
    assert real.inputs.identity("vllm", "0").inputs_version == expected
    MAKERS["internvl"](tmp_path / "internvl")
    tiled = load_family(tmp_path / "internvl", "internvl").identity.inputs_version
    assert tiled == f"{expected}, torchvision {version('torchvision').partition('+')[0]}"
    before = json.loads(real.identity.model_dump_json())
    del before["inputs_version"]
    assert JudgeIdentity(**before) != real.identity

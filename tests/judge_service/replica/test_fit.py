"""A judge that fails its canaries scores nothing and tests itself again. A judge without images does not start."""

import asyncio
import math
import shutil

import httpx2
import pytest

from judge_service.backends import open_judge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.replica.known_pairs import ASKED_RED, KNOWN_BLUE, KNOWN_RED, KNOWN_YES
from judge_service.settings import HealthSettings, LimitSettings, ModelSettings, ServiceSettings
from unijudge.content import Content
from unijudge.errors import JudgeBroken, JudgeUnavailable, ModelError
from unijudge.judging.verdicts import EMPTY, Verdict

PAIR = {"query": {"text": "a"}, "candidates": [{"text": "b"}]}
OFTEN = HealthSettings(canary_every_s=0.01, liveness_window_s=0.01)


class Moody:
    """A judge that answers correctly, inverted, or not at all for pictures."""

    def __init__(self, identity):
        self.identity, self.inverted, self.on_pictures = identity, False, None

    async def judge(self, query, candidates):
        def answer(candidate):
            if candidate.image and self.on_pictures is not None:
                if isinstance(self.on_pictures, Exception):
                    raise self.on_pictures
                return self.on_pictures
            right = KNOWN_RED if query is ASKED_RED else KNOWN_BLUE
            yes = 0.9 if (candidate in (KNOWN_YES, right)) != self.inverted else 0.05
            return Verdict(
                yes_logprob=math.log(yes), no_logprob=math.log(0.95 - yes), argmax_is_label=True
            )

        return [answer(candidate) for candidate in candidates]

    async def choose(self, query, candidates):
        raise AssertionError("an unfit judge is not asked")


def test_an_unfit_judge_scores_nothing_until_it_passes_again(identity):
    """Nobody calls /readyz. The application checks the judge by itself."""
    inner = Moody(identity)
    watched = WatchedJudge(inner, OFTEN)
    app = create_app(watched, LimitSettings())

    async def story():
        async with (
            app.router.lifespan_context(None),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url="http://judge"
            ) as http,
        ):

            async def first_with(status):
                for _ in range(2000):
                    if (answer := await http.post("/v1/score", json=PAIR)).status_code == status:
                        return answer
                    await asyncio.sleep(0.005)
                raise AssertionError(answer.text)

            fit = await first_with(200)
            inner.inverted = True
            unfit = await first_with(503)
            listed = await http.post("/v1/choose", json=PAIR)
            ready = await http.get("/readyz")
            with pytest.raises(JudgeUnavailable, match="is unfit"):
                watched.check_fit()  # the error makes Ray replace the replica
            inner.inverted = False
            return fit, unfit, listed, ready, await first_with(200)

    fit, unfit, listed, ready, again = asyncio.run(story())
    assert [fit.status_code, unfit.status_code, listed.status_code, again.status_code] == [
        200,
        503,
        503,
        200,
    ]
    assert ready.status_code == 503
    assert (
        "this judge is unfit, and scores no pairs: a known match scores" in unfit.json()["message"]
    )
    assert again.json()["results"] == fit.json()["results"]


def test_a_judge_that_reports_its_death_is_checked_at_once(identity):
    """The judge scored its last pair a moment ago, and the next check is half a minute away."""
    inner = Moody(identity)
    watched = WatchedJudge(inner, HealthSettings())
    looks = []

    async def dead(query, candidates):
        looks.append(query)
        raise JudgeUnavailable("the engine has died")

    async def story():
        await watched.check_ready()
        watching = asyncio.create_task(watched.watch())
        inner.judge = dead
        with pytest.raises(JudgeUnavailable):
            await watched.judge(Content("a"), [Content("b")])
        for _ in range(20):
            await asyncio.sleep(0)
        with pytest.raises(JudgeUnavailable, match="is dead: the engine has died"):
            watched.check_well()  # the error makes Ray replace the replica
        watching.cancel()

    asyncio.run(story())
    assert len(looks) == 2, (
        "the question, and one known pair: what fails is not tried again and again"
    )


def test_the_checks_stop_with_the_application(identity):
    inner = Moody(identity)
    watched = WatchedJudge(inner, OFTEN)

    async def story():
        async with create_app(watched, LimitSettings()).router.lifespan_context(None):
            pass
        await asyncio.sleep(0.05)
        return [task for task in asyncio.all_tasks() if "watch" in repr(task)]

    assert asyncio.run(story()) == []


@pytest.mark.parametrize("fault", [EMPTY, ZeroDivisionError("in its processor")])
def test_a_judge_that_fails_on_pictures_does_not_start(identity, fault):
    inner = Moody(identity)
    inner.on_pictures = fault
    with pytest.raises(
        JudgeBroken, match=r"a picture gets no verdict \(empty|ZeroDivisionError: in its processor"
    ):
        asyncio.run(WatchedJudge(inner, HealthSettings()).check_ready())


@pytest.mark.parametrize("always", [0.05, 0.9])
def test_a_judge_that_answers_the_same_to_every_picture_is_unfit(identity, always):
    """A judge without a working vision tower behaves like this: it tells texts apart, but not pictures."""
    inner = Moody(identity)
    inner.on_pictures = Verdict(
        yes_logprob=math.log(always), no_logprob=math.log(0.95 - always), argmax_is_label=True
    )
    with pytest.raises(
        JudgeBroken,
        match=r"another colour 0\.\d+ \(equal scores\): .* the check with texts passes\. The judge understands texts",
    ):
        asyncio.run(WatchedJudge(inner, HealthSettings()).check_ready())


def test_a_judge_that_is_busy_is_not_unfit(identity):
    inner = Moody(identity)
    watched = WatchedJudge(inner, OFTEN.model_copy(update={"timeout_s": 0.01}))

    async def slow(query, candidates):
        await asyncio.sleep(9)

    async def story():
        await watched.check_ready()
        inner.judge, quick = slow, inner.judge
        watching = asyncio.create_task(watched.watch())
        await asyncio.sleep(0.1)
        inner.judge = quick
        watching.cancel()
        return await watched.judge(Content("a"), [Content("b")])

    assert len(asyncio.run(story())) == 1


def test_a_template_for_text_alone_is_refused_at_the_start(tiny_model, tmp_path):
    folder = tmp_path / "text"
    shutil.copytree(tiny_model, folder)
    path = folder / "chat_template.jinja"
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert picture in path.read_text()
    path.write_text(path.read_text().replace(picture, ""))
    for backend in ("transformers", "vllm"):
        with pytest.raises(
            ModelError, match=r"does not write '<\|image_pad\|>' once for each picture"
        ):
            open_judge(ServiceSettings(model=ModelSettings(name=str(folder), backend=backend)))

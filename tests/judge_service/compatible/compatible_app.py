"""The service's application with a scripted judge, and requests in the shapes of other servers."""

import base64

from judge_service.backends.scripted import ScriptedJudge
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.judge_service.replica.judges import raw, run
from tests.pictures import png
from unijudge.content import Content
from unijudge.judging.prompt import Prompt

LIMITS = LimitSettings(max_candidates=3, max_documents=8, max_body_bytes=100_000)
JUDGE = ScriptedJudge(Prompt())
PICTURE = png()
BASE64 = base64.b64encode(PICTURE).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"


def app(judge=JUDGE, limits=LIMITS, keys=(), **options):
    watched = WatchedJudge(judge, HealthSettings(canary_every_s=0))
    return create_app(watched, limits, keys, **options)


def post(path, body, headers=()):
    """Returns the status and the body of an answer. The given `body` is JSON or bytes."""
    answer = raw(app(), body, headers, path)
    return answer.status_code, answer.json()


def posted(path, body):
    """Returns the body of a successful answer."""
    status, answer = post(path, body)
    assert status == 200, answer
    return answer


def verdicts(query, *candidates):
    """The verdicts of the judge itself."""
    return run(JUDGE.judge(query, candidates))


def text(words):
    return Content(text=words)


def picture_part(url=DATA_URL):
    return {"type": "image_url", "image_url": {"url": url}}


def input_image(url=DATA_URL):
    return {"type": "input_image", "image_url": url}

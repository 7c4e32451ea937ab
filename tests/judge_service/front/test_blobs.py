"""Images that are sent once: uploaded, lost, refused, shared and removed. No pair is lost, and no answer changes."""

import asyncio

import httpx2
import pytest

from judge_service.backends.scripted import ScriptedJudge
from judge_service.front.blobs import BlobStore
from judge_service.replica.app import create_app
from judge_service.replica.health import WatchedJudge
from judge_service.settings import HealthSettings, LimitSettings
from tests.judge_service.front.blob_images import IMAGES, sha
from tests.judge_service.replica.judges import Counting
from tests.pictures import noise
from unijudge.client.client import JudgeClient
from unijudge.client.request_body import INLINE_BYTES
from unijudge.client.uploads import UPLOADS_AT_ONCE
from unijudge.content import Content
from unijudge.judging.prompt import Prompt
from unijudge.judging.verdicts import PairError, Verdict

QUERY = Content(text="a", image=IMAGES[0])
CANDIDATES = [Content(image=image) for image in IMAGES[1:]] + [
    Content(text="b"),
    Content(text="c", image=IMAGES[1]),
]
LIMITS = LimitSettings(max_body_bytes=200_000)


def app_of(store, delay_s=0.0, limits=LIMITS):
    judge = WatchedJudge(ScriptedJudge(Prompt(), delay_s=delay_s), HealthSettings(canary_every_s=0))
    return create_app(judge, limits, blobs=store)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs", max_bytes=10**6)


class Replicas(httpx2.AsyncBaseTransport):
    """Sends each request to the next of several applications."""

    def __init__(self, *apps):
        self.turns = [Counting(app) for app in apps]
        self.seen = []

    async def handle_async_request(self, request):
        self.seen.append(request)
        return await self.turns[len(self.seen) % len(self.turns)].handle_async_request(request)

    def count(self, method):
        return sum(request.method == method for request in self.seen)


def judge_all(transport, questions):
    async def ask():
        async with JudgeClient("http://judge", transport=transport, retry_for_s=5) as judge:
            return await asyncio.gather(
                *(judge.judge(query, candidates) for query, candidates in questions)
            )

    return asyncio.run(ask())


def raw(app, method, path, **options):
    async def call():
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://judge"
        ) as http:
            return await http.request(method, path, **options)

    return asyncio.run(call())


def test_each_image_is_sent_once(store, tmp_path):
    """Many requests at once, through two replicas with one folder. Each image is in several requests."""
    assert min(map(len, IMAGES)) > INLINE_BYTES
    inside = judge_all(Replicas(app_of(None)), [(QUERY, CANDIDATES)])
    transport = Replicas(app_of(store), app_of(BlobStore(tmp_path / "blobs", max_bytes=10**6)))
    answers = judge_all(transport, [(QUERY, CANDIDATES)] * 12)
    assert answers == inside * 12
    assert transport.count("PUT") == len(IMAGES)
    assert sorted(path.name for path in (tmp_path / "blobs").iterdir()) == sorted(map(sha, IMAGES))
    bodies = sum(len(request.content) for request in transport.seen if request.method == "POST")
    assert bodies < sum(map(len, IMAGES)), "the requests themselves hold no image"
    later = Replicas(app_of(store))
    assert judge_all(later, [(QUERY, CANDIDATES)]) == inside
    assert later.count("PUT") == 0


def test_replicas_without_a_folder_are_sent_the_images(store):
    transport = Replicas(app_of(None))
    judge_all(transport, [(QUERY, CANDIDATES)])
    assert transport.count("PUT") == 0


def test_a_service_that_loses_images_still_answers(tmp_path):
    """Two replicas do not see each other's folder.

    After some rounds, the client sends the images inside the requests.
    """
    transport = Replicas(*(app_of(BlobStore(tmp_path / name, max_bytes=10**6)) for name in "ab"))
    assert (
        judge_all(transport, [(QUERY, CANDIDATES)] * 3)
        == judge_all(Replicas(app_of(None)), [(QUERY, CANDIDATES)]) * 3
    )


def test_a_full_store_does_not_stop_any_client(tmp_path):
    full = BlobStore(tmp_path / "full", max_bytes=2 * len(IMAGES[0]) + 100)
    answers = judge_all(Replicas(app_of(full)), [(QUERY, CANDIDATES)] * 3)
    assert answers == judge_all(Replicas(app_of(None)), [(QUERY, CANDIDATES)]) * 3


def test_bad_images_are_errors_at_their_positions(store):
    """The images are large enough for an upload. The uploads are refused, so the images are sent inside the request."""
    candidates = [
        CANDIDATES[0],
        Content(image=b"junk" * 2000),
        Content(image=IMAGES[2][: INLINE_BYTES + 1]),
        CANDIDATES[1],
    ]
    (answers,) = judge_all(Replicas(app_of(store)), [(QUERY, candidates)])
    assert [type(answer) for answer in answers] == [Verdict, PairError, PairError, Verdict]
    assert {answers[1].code, answers[2].code} == {"bad_image"}


def test_refused_uploads(store):
    app = app_of(store)

    def put(name, data):
        return raw(app, "PUT", f"/v1/blobs/{name}", content=data)

    good = IMAGES[0]
    assert [put(sha(good), good).status_code for _ in range(2)] == [201, 200]
    cases = [
        (sha(b"other"), good, 422, "bad_blob", "not " + sha(b"other")),
        (sha(good).upper(), good, 422, "bad_blob", "Send the image again"),
        ("..%2f..%2fetc%2fpasswd", good, 404, None, ""),
        (sha(b"GIF89a"), b"GIF89a", 422, "bad_blob", "not a JPEG, PNG or WebP"),
        (sha(b""), b"", 422, "bad_blob", "not a JPEG, PNG or WebP"),
        (
            sha(bytes(200_001)),
            bytes(200_001),
            413,
            "too_large",
            "exceeds 200000 bytes. Send fewer",
        ),
    ]
    for name, data, status, code, reason in cases:
        answer = put(name, data)
        assert answer.status_code == status, answer.text
        if code:
            assert answer.json()["code"] == code
            assert reason in answer.json()["message"]
    assert [path.name for path in store._folder.iterdir()] == [sha(good)]
    absent = raw(app_of(None), "PUT", f"/v1/blobs/{sha(good)}", content=good)
    assert (absent.status_code, absent.json()["code"]) == (404, "no_blobs")


def test_requests_that_name_images(store):
    app = app_of(store, limits=LimitSettings(max_body_bytes=2 * len(IMAGES[0]) + 100))
    names = [sha(image) for image in IMAGES]

    def score(*contents, app=app):
        return raw(
            app, "POST", "/v1/score", json={"query": {"text": "a"}, "candidates": list(contents)}
        )

    unknown = score(
        {"image_sha256": names[0]},
        {"text": "b", "image_sha256": names[1]},
        {"image_sha256": names[0]},
    )
    assert unknown.status_code == 409
    assert unknown.json()["missing"] == sorted(names[:2])
    for image, name in zip(IMAGES, names, strict=True):
        store.put(name, image)
    assert (
        score({"image_sha256": names[0]}, {"text": "b", "image_sha256": names[1]}).status_code
        == 200
    )
    large = score(*({"image_sha256": name} for name in names))
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    assert score({"image_sha256": "../../etc/passwd"}).status_code == 400
    assert score({"image_sha256": names[0], "image": "AAAA"}).status_code == 400
    assert score({"image_sha256": names[0]}, app=app_of(None)).json()["code"] == "no_blobs"


def test_eviction_does_not_affect_a_request_in_flight(tmp_path):
    """The images are removed while the judge works.

    The request is still answered, and the client sends nothing again.
    """
    store = BlobStore(tmp_path / "blobs", max_bytes=10**6)
    inner = ScriptedJudge(Prompt())
    working, may_go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        identity = inner.identity

        async def judge(self, query, candidates):
            working.set()
            await may_go_on.wait()
            return await inner.judge(query, candidates)

    watched = WatchedJudge(inner, HealthSettings(canary_every_s=0))
    transport = Replicas(create_app(watched, LIMITS, blobs=store))

    async def ask():
        async with JudgeClient("http://judge", transport=transport) as judge:
            await judge.judge(QUERY, CANDIDATES)
            before = transport.count("POST"), transport.count("PUT")
            watched._judge = Slow()
            asking = asyncio.create_task(judge.judge(QUERY, CANDIDATES))
            await working.wait()
            for path in (tmp_path / "blobs").iterdir():
                path.unlink()
            may_go_on.set()
            answers = await asking
            assert (transport.count("POST"), transport.count("PUT")) == (before[0] + 1, before[1])
            return answers

    assert [asyncio.run(ask())] == judge_all(Replicas(app_of(None)), [(QUERY, CANDIDATES)])


class Broken(Replicas):
    """A proxy or a disk that prevents uploads, and a service that restarted without its folder."""

    def __init__(self, app, status, code="internal", *, only="PUT"):
        super().__init__(app)
        self._answer = status, {"code": code, "message": "the test does not like it"}
        self._only = only

    async def handle_async_request(self, request):
        if request.method == self._only and (
            request.method == "PUT" or b"image_sha256" in await request.aread()
        ):
            self.seen.append(request)
            return httpx2.Response(self._answer[0], json=self._answer[1])
        return await super().handle_async_request(request)


@pytest.mark.parametrize(
    ("status", "code", "only"),
    [
        (404, "x", "PUT"),
        (405, "x", "PUT"),
        (507, "no_room", "PUT"),
        (422, "bad_blob", "PUT"),
        (400, "no_blobs", "POST"),
    ],
)
def test_no_pair_is_lost_if_uploads_fail(store, status, code, only):
    """Three simultaneous requests contain the same images."""
    transport = Broken(app_of(store), status, code, only=only)
    answers = judge_all(transport, [(QUERY, CANDIDATES)] * 3)
    assert answers == judge_all(Replicas(app_of(None)), [(QUERY, CANDIDATES)]) * 3


def test_one_failed_upload_ends_all_waiting_uploads(store, monkeypatch):
    """Uploads to a busy store are retried for some time. Uploads that waited during this time are not tried again."""
    monkeypatch.setattr("unijudge.client.uploads.RETRY_FOR_S", 1)
    candidates = [Content(image=noise(seed)) for seed in range(4 * UPLOADS_AT_ONCE)]
    transport = Broken(app_of(store), 503, "busy")
    assert judge_all(transport, [(QUERY, candidates)]) == judge_all(
        Replicas(app_of(None)), [(QUERY, candidates)]
    )
    assert (
        len({request.url.path for request in transport.seen if request.method == "PUT"})
        == UPLOADS_AT_ONCE
    )


def test_no_pair_is_lost_if_the_folder_of_images_is_removed(tmp_path):
    folder = tmp_path / "blobs"
    app = app_of(BlobStore(folder, max_bytes=10**6))
    folder.rmdir()
    folder.write_text("a file")
    assert judge_all(Replicas(app), [(QUERY, CANDIDATES)]) == judge_all(
        Replicas(app_of(None)), [(QUERY, CANDIDATES)]
    )

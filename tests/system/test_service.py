"""The real service: Ray Serve, two replicas, a tiny model, and HTTP on loopback.

It is started and stopped as a person does it.
"""

import asyncio
import hashlib
import importlib.util
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import httpx2
import psutil
import pytest

from judge_service.backends import open_judge
from judge_service.settings import ModelSettings, ServiceSettings
from tests.contents import CONTENTS
from tests.pictures import noise
from tests.system.services import UNTRAINED, replica_pids, service
from unijudge.client.client import JudgeClient, judge_now
from unijudge.content import Content
from unijudge.errors import JudgeRefused
from unijudge.judging.protocol import ScoreRequest, ScoreResponse, WireContent

IN_WORK = "unijudge-judge-*/in-work/*"
"""A file for each request that a replica of this machine works on."""


def test_both_replicas_answer_as_the_model_does(tmp_path, tiny_model):
    """256 mixed pairs over HTTP, in two orders, from each replica by its name.

    Then queries and lists through the client. The backend is the default backend of this machine.
    tests/judge_service/checks/test_verify.py tests transformers over HTTP.
    """
    backend = "vllm" if importlib.util.find_spec("vllm") else "transformers"
    model = {"name": str(tiny_model), "min_pixels": 3136, "max_pixels": 12544, "max_tokens": 1024}
    direct = open_judge(ServiceSettings(model=ModelSettings(backend="transformers", **model)))
    exact = {(q, c): asyncio.run(direct.judge(q, [c]))[0] for q in CONTENTS for c in CONTENTS}
    pairs = list(exact)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    largest = {}

    async def each_pair_alone(url):
        slots = asyncio.Semaphore(6)

        async def one(http, query, candidate):
            wire = ScoreRequest.model_construct(
                query=WireContent.of(query), candidates=[WireContent.of(candidate)]
            )
            async with slots:
                answer = await http.post("/v1/score", content=wire.model_dump_json())
            (verdict,) = ScoreResponse.model_validate_json(answer.content).results
            name = answer.headers["Judge-Replica"]
            difference = abs(verdict.log_odds - exact[query, candidate].log_odds)
            count, most = largest.get(name, (0, 0.0))
            largest[name] = count + 1, max(most, difference)

        async with httpx2.AsyncClient(base_url=url, timeout=120) as http:
            for order in (pairs, shuffled):
                await asyncio.gather(*(one(http, *pair) for pair in order))

    async def whole_queries(url):
        async with JudgeClient(url) as judge:
            assert judge.identity.backend == backend
            assert judge.identity.weights == direct.identity.weights
            answers = await asyncio.gather(*(judge.judge(query, CONTENTS) for query in CONTENTS))
            return answers, await asyncio.gather(
                *(judge.choose(query, CONTENTS[7:]) for query in CONTENTS)
            )

    settings = [f"model.{name}={value}" for name, value in model.items()]
    with service(tmp_path, "replicas=2", "model.backend=auto", *settings, *UNTRAINED) as (
        process,
        url,
        log,
    ):
        asyncio.run(each_pair_alone(url))
        answers, choices = asyncio.run(whole_queries(url))
        with pytest.raises(JudgeRefused, match="422"):
            judge_now(url, Content(image=b"junk"), CONTENTS)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
        assert "2 replicas" in log.read_text()
    together = max(
        abs(verdict.log_odds - exact[query, candidate].log_odds)
        for query, verdicts in zip(CONTENTS, answers, strict=True)
        for candidate, verdict in zip(CONTENTS, verdicts, strict=True)
    )
    for name, (count, most) in largest.items():
        print(
            f"{backend} over HTTP, replica {name}: {count} pairs alone, largest difference {most:.1e} in log-odds"
        )
    listed = max(
        abs(served - exact)
        for query, choice in zip(CONTENTS, choices, strict=True)
        for served, exact in zip(
            choice.logprobs, asyncio.run(direct.choose(query, CONTENTS[7:])).logprobs, strict=True
        )
    )
    print(
        f"{backend} over HTTP, queries whole: {len(pairs)} pairs, largest difference {together:.1e} in log-odds"
    )
    print(
        f"{backend} over HTTP, lists of 9: {len(choices)}, largest difference {listed:.1e} in log-probability"
    )
    assert len(largest) == 2
    assert min(count for count, _ in largest.values()) >= 50
    assert max(together, listed, *(most for _, most in largest.values())) < 1e-4


class Counting(httpx2.AsyncHTTPTransport):
    """A network that counts the transferred bytes."""

    def __init__(self):
        super().__init__()
        self.sent = {"GET": [], "PUT": [], "POST": []}

    async def handle_async_request(self, request):
        self.sent[request.method].append(len(await request.aread()))
        return await super().handle_async_request(request)


def test_replicas_share_the_images(tmp_path):
    """Each of 12 images is sent once for all replicas. No image is left when the service stops."""
    folders = set(Path(tempfile.gettempdir()).glob("unijudge-judge-*/images"))
    images = [noise(seed) for seed in range(12)]
    transport = Counting()

    async def ask(url):
        async with JudgeClient(url, transport=transport) as judge:
            assert judge.info.limits.blobs
            queries = [Content(text=f"query {number}") for number in range(40)]
            await asyncio.gather(
                *(judge.judge(query, [Content(image=i) for i in images]) for query in queries)
            )

    with service(tmp_path, "replicas=2", "model.backend=scripted") as (_, url, _):
        asyncio.run(ask(url))
        (folder,) = set(Path(tempfile.gettempdir()).glob("unijudge-judge-*/images")) - folders
        kept = sorted(path.name for path in folder.iterdir())
    assert kept == sorted(hashlib.sha256(image).hexdigest() for image in images)
    assert sorted(transport.sent["PUT"]) == sorted(map(len, images))
    assert sum(transport.sent["POST"]) < 2 * 40 * 12 * 120, "the requests hold hashes, not images"
    assert not folder.exists()


def test_a_request_in_flight_is_answered_while_it_drains(tmp_path):
    with service(tmp_path, "model.backend=scripted", "model.scripted_delay_s=3") as (
        process,
        url,
        log,
    ):
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(judge_now(url, Content(text="a"), [Content(text="b")]))
        )
        asking.start()
        deadline = time.monotonic() + 60
        while not list(Path(tempfile.gettempdir()).glob(IN_WORK)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        asking.join(30)
        assert process.wait(60) == 0, log.read_text()
    assert len(answers) == 1


def test_a_killed_and_a_hung_replica_are_replaced(tmp_path):
    """One replica gets SIGKILL, the other SIGSTOP.

    A stopped process answers no probe, and is replaced like a dead process. No pair is lost. Ray gives the stopped
    process `drain_timeout_s` to finish.
    """
    health = ("health.timeout_s=2", "health.liveness_window_s=1", "drain_timeout_s=3")
    with service(tmp_path, "model.backend=scripted", *health) as (process, url, log):
        expected = judge_now(url, Content(text="a"), [Content(text="b")])
        for blow in (signal.SIGKILL, signal.SIGSTOP):
            (victim,) = replica_pids(process)
            psutil.Process(victim).send_signal(blow)
            deadline = time.monotonic() + 120
            while not replica_pids(process) - {victim} and time.monotonic() < deadline:
                time.sleep(0.2)
            assert replica_pids(process) - {victim}, log.read_text()
            assert judge_now(url, Content(text="a"), [Content(text="b")]) == expected
            while victim in replica_pids(process) and time.monotonic() < deadline:
                time.sleep(0.2)


def test_a_full_queue_refuses_with_a_time_for_the_retry(tmp_path):
    """More requests arrive than may wait, and some are refused, only with 429.

    Clients that retry get all their answers.
    """
    limits = (
        "front.max_ongoing_requests=1",
        "front.max_queued_requests=1",
        "model.scripted_delay_s=0.3",
    )
    body = b'{"query": {"text": "a"}, "candidates": [{"text": "b"}]}'

    async def crowd(url):
        async with httpx2.AsyncClient(timeout=60) as http:
            answers = await asyncio.gather(
                *(http.post(f"{url}/v1/score", content=body) for _ in range(12))
            )
        async with JudgeClient(url, retry_for_s=60) as judge:
            patient = [judge.judge(Content(text="a"), [Content(text="b")]) for _ in range(6)]
            return answers, await asyncio.gather(*patient)

    with service(tmp_path, "model.backend=scripted", *limits) as (_, url, log):
        answers, patient = asyncio.run(crowd(url))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}, log.read_text()
    assert all(
        float(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 429
    )
    assert all(len(verdicts) == 1 for verdicts in patient)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["address=127.0.0.1:9"], "address: cannot connect to the Ray cluster at '127.0.0.1:9'"),
        (["gpus_per_replica=1"], "no GPU is visible: torch is a CPU build"),
        (
            ["gpus_per_replica=1", "model.backend=scripted"],
            "1 replicas need 1 GPUs, but this Ray has 0 free",
        ),
        (["model.name=/nowhere"], "/nowhere: no such folder, and not a hub name"),
        (
            ["model.name=TINY", "model.backend=transformers"],
            "cannot tell a match from a mismatch|the model is not answering",
        ),
    ],
)
def test_a_service_that_cannot_start_reports_the_reason(tmp_path, tiny_model, settings, reason):
    settings = [setting.replace("TINY", str(tiny_model)) for setting in settings]
    with service(tmp_path, *settings, wait=False) as (process, _, log):
        assert process.wait(120) == 1, log.read_text()
        assert [
            line
            for line in log.read_text().splitlines()
            if line.startswith("error: ") and re.search(reason, line)
        ]


def test_truncated_weights_are_named_before_an_engine_starts(tmp_path, tiny_model):
    """There is one attempt and one line of output. tests/vllm/test_engine_start.py tests the message of an engine that
    dies.
    """
    pytest.importorskip("vllm")
    torn = tmp_path / "torn"
    shutil.copytree(tiny_model, torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200_000])
    settings = (
        f"model.name={torn}",
        "model.backend=vllm",
        "engine.multiprocessing=true",
        f"log_folder={tmp_path}",
    )
    with service(tmp_path, *settings, wait=False) as (process, _, log):
        assert process.wait(240) == 1, log.read_text()
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert re.search(
        r"torn/model\.safetensors: 200000 bytes, but its header says \d+. Train or download it again$",
        line,
    )
    assert not list(tmp_path.glob("engine-*.log"))

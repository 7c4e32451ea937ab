"""The gate: refusals before a body is read, limits of time and size, and the conversion of Ray's own answers."""

import asyncio
import json

import pytest

from judge_service.front.auth import digest_of
from judge_service.front.gate import Gate, GateRules
from judge_service.front.in_work import HEADER, InWork
from judge_service.front.state import ServiceState, StateFile

RULES = GateRules(max_body_bytes=100, body_timeout_s=0.05, max_held_bytes=150, max_requests=2)
JSON = [(b"content-type", b"application/json")]


class Inner:
    """An application that records its requests, and gives the configured answers."""

    def __init__(self, status=200, headers=JSON, body=b"{}", error=None, silent=False):
        self.status, self.headers, self.body, self.error, self.silent = (
            status,
            headers,
            body,
            error,
            silent,
        )
        self.scopes, self.bodies = [], []
        self.hold = None

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        message = await receive()
        self.bodies.append(message.get("body"))
        if self.hold:
            await self.hold.wait()
        if self.error:
            raise self.error
        if self.silent:
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class Caller:
    """Sends one request in pieces, and records the answer."""

    def __init__(self, *pieces, path="/v1/score", headers=(), stall=False):
        self.pieces, self.stall, self.read = list(pieces), stall, 0
        length = (
            []
            if any(name == b"transfer-encoding" for name, _ in headers)
            else sum(map(len, pieces))
        )
        given = dict(headers)
        if length and b"content-length" not in given:
            given[b"content-length"] = str(length).encode()
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": list(given.items()),
        }
        self.sent = []

    async def receive(self):
        if not self.pieces:
            if self.stall:
                await asyncio.sleep(60)
            return {"type": "http.disconnect"}
        piece = self.pieces.pop(0)
        self.read += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces) or self.stall}

    async def send(self, message):
        self.sent.append(message)

    async def ask(self, gate):
        await gate(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def code(self):
        return json.loads(self.sent[1]["body"])["code"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])


CHUNKED = [(b"transfer-encoding", b"chunked")]


def test_a_body_reaches_the_application_completely_and_once():
    inner = Inner()
    caller = asyncio.run(Caller(b"ab", b"cd", b"e").ask(Gate(inner, RULES)))
    assert (caller.status, inner.bodies) == (200, [b"abcde"])


@pytest.mark.parametrize(
    ("caller", "status", "code"),
    [
        (Caller(b"x", headers=[(b"content-length", b"101")], stall=True), 413, "too_large"),
        (Caller(b"x", headers=[(b"content-length", b"-1")]), 400, "bad_request"),
        (Caller(b"x", headers=[(b"content-length", b"9" * 30)]), 400, "bad_request"),
        (Caller(b"x", headers=[(b"content-encoding", b"gzip")]), 415, "bad_request"),
        (Caller(b"x" * 60, b"x" * 60, headers=CHUNKED), 413, "too_large"),
        (Caller(b"x", headers=CHUNKED, stall=True), 408, "slow_body"),
    ],
)
def test_a_refused_request_never_reaches_the_application(caller, status, code):
    inner = Inner()
    gate = Gate(inner, RULES)
    asyncio.run(caller.ask(gate))
    assert (caller.status, caller.code, inner.bodies) == (status, code, [])
    assert asyncio.run(Caller(b"x" * 100).ask(gate)).status == 200, "nothing stays held"


def test_a_caller_that_leaves_while_sending_is_not_an_error(caplog):
    """Ray reports the lost client to a replica with its own error."""

    class Lost(Caller):
        async def receive(self):
            raise RuntimeError("the task was cancelled")

    inner = Inner()
    caller = Lost(b"x")
    with caplog.at_level("INFO"):
        asyncio.run(caller.ask(Gate(inner, RULES)))
    assert (inner.scopes, caller.sent, caplog.records) == ([], [], [])


def test_without_the_key_nothing_is_read():
    inner = Inner()
    gate = Gate(inner, RULES.model_copy(update={"key_sha256": (digest_of("k"),)}))
    caller = Caller(
        b"x", headers=[(b"expect", b"100-continue"), (b"content-length", b"9")], stall=True
    )
    asyncio.run(caller.ask(gate))
    assert (caller.status, caller.read, inner.scopes) == (401, 0, [])
    assert caller.headers[b"WWW-Authenticate"] == b"Bearer"
    assert caller.headers[b"connection"] == b"close"
    assert (
        asyncio.run(Caller(b"x", headers=[(b"authorization", b"Bearer k")]).ask(gate)).status == 200
    )


def test_a_refused_body_is_discarded_so_that_the_caller_gets_the_reason():
    caller = Caller(*[b"x" * 60] * 50, headers=CHUNKED)
    asyncio.run(caller.ask(Gate(Inner(), RULES)))
    assert (caller.status, caller.pieces) == (413, [])
    assert b"connection" not in caller.headers


def test_all_bodies_together_and_all_requests_together_are_bounded():
    async def story():
        inner = Inner()
        gate = Gate(inner, RULES)
        inner.hold = asyncio.Event()
        first = asyncio.create_task(Caller(b"x" * 90).ask(gate))
        await asyncio.sleep(0.01)
        too_much = await Caller(b"x" * 90).ask(gate)
        second = asyncio.create_task(Caller(b"x" * 9).ask(gate))
        await asyncio.sleep(0.01)
        too_many = await Caller(b"x").ask(gate)
        inner.hold.set()
        done = [await first, await second]
        after = await Caller(b"x" * 90).ask(gate)
        return [caller.status for caller in (too_much, too_many, *done, after)], too_much.headers

    statuses, headers = asyncio.run(story())
    assert statuses == [429, 429, 200, 200, 200]
    assert headers[b"Retry-After"] == b"1"


def test_headers_that_control_ray_are_removed():
    inner = Inner()
    given = [
        (b"X-Request-Timeout-Seconds", b"0"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"if-match", b'"a"'),
    ]
    given += [
        (b"serve_multiplexed_model_id", b"x"),
        (b"Serve-Multiplexed-Model-Id", b"x"),
        (b"x-session-id", b"x"),
    ]
    given += [(b"x-serve-router-key", b"x"), (b"x-request-id", b"\xff")]
    asyncio.run(Caller(b"x", headers=given).ask(Gate(inner, RULES)))
    names = {name for name, _ in inner.scopes[0]["headers"]}
    assert names == {b"if-match", b"content-length"}


def test_a_valid_request_id_reaches_rays_log():
    inner = Inner()
    asyncio.run(Caller(b"x", headers=[(b"x-request-id", b"job-7/row.13")]).ask(Gate(inner, RULES)))
    assert (b"x-request-id", b"job-7/row.13") in inner.scopes[0]["headers"]


@pytest.mark.parametrize(
    ("inner", "status", "code"),
    [
        (Inner(500, [(b"content-type", b"text/plain")], b"The replica died"), 503, "not_ready"),
        (
            Inner(404, [(b"content-type", b"text/plain; charset=utf-8")], b"Path not found"),
            503,
            "not_ready",
        ),
        (Inner(silent=True), 503, "not_ready"),
        (Inner(error=RuntimeError("secret")), 500, "internal"),
        (Inner(error=asyncio.CancelledError("secret")), 503, "not_ready"),
    ],
)
def test_error_answers_of_ray_get_the_format_of_this_service(inner, status, code):
    caller = asyncio.run(Caller(b"x").ask(Gate(inner, RULES)))
    assert (caller.status, caller.code) == (status, code)
    assert b"secret" not in caller.sent[1]["body"]


def test_refusals_of_the_application_pass_unchanged():
    body = b'{"code":"busy","message":"m","missing":[]}'
    caller = asyncio.run(
        Caller(b"x").ask(Gate(Inner(429, [*JSON, (b"Retry-After", b"7")], body), RULES))
    )
    assert (caller.status, caller.sent[1]["body"], caller.headers[b"Retry-After"]) == (
        429,
        body,
        b"7",
    )


def test_a_caller_that_leaves_while_it_sends_leaves_nothing(tmp_path):
    inner = Inner()
    gate = Gate(inner, RULES)
    gone = Caller(b"x" * 90, headers=[(b"content-length", b"99")])
    gone.stall = False
    gone.pieces = [b"x" * 90]
    original = gone.receive

    async def receive():
        message = await original()
        return message | {"more_body": True} if message["type"] == "http.request" else message

    gone.receive = receive
    asyncio.run(gone.ask(gate))
    assert (gone.sent, inner.bodies) == ([], [])
    assert asyncio.run(Caller(b"x" * 100).ask(gate)).status == 200


@pytest.mark.parametrize(
    ("state", "healthz", "readyz", "score"),
    [
        (None, 200, 503, 503),
        (ServiceState(phase="broken", reason="no such folder"), 200, 503, 503),
        (ServiceState(phase="serving", reason="1 of 2 replicas run"), 200, 503, 200),
        (ServiceState(phase="serving", ready=True), 200, 200, 200),
        (ServiceState(phase="stopping", reason="stops"), 200, 503, 503),
    ],
)
def test_probes_are_answered_without_a_replica(tmp_path, state, healthz, readyz, score):
    file = tmp_path / "state.json"
    if state is not None:
        state.write(file)
    inner = Inner()
    gate = Gate(inner, RULES, StateFile(file))
    asked = [
        asyncio.run(Caller(path=path).ask(gate)) for path in ("/healthz", "/readyz", "/v1/score")
    ]
    assert [caller.status for caller in asked] == [healthz, readyz, score]
    assert len(inner.scopes) == (score == 200)
    if state is not None and state.reason:
        assert json.loads(asked[1].sent[1]["body"])["message"] == state.reason
        assert asked[1].headers[b"Retry-After"] == b"1"


def test_the_admission_check_runs_before_the_body_is_read():
    asked = []

    def check(path, judge_timeout):
        asked.append((path, judge_timeout))

    inner = Inner()
    asyncio.run(
        Caller(b"x", headers=[(b"judge-timeout", b"12.5")]).ask(Gate(inner, RULES, check=check))
    )
    assert asked == [("/v1/score", "12.5")]


def test_waiting_requests_are_refused_when_the_last_replica_dies(tmp_path):
    """Ray would let the request wait. Answers that were already sent stay valid."""

    async def story():
        file = tmp_path / "state.json"
        ServiceState(phase="serving", ready=True).write(file)
        inner = Inner()
        inner.hold = asyncio.Event()
        gate = Gate(inner, RULES, StateFile(file))
        waiting = asyncio.create_task(Caller(b"x").ask(gate))
        await asyncio.sleep(0.05)
        ServiceState(phase="broken", reason="no such folder").write(file)
        refused = await waiting
        ServiceState(phase="serving", ready=True).write(file)
        inner.hold.set()
        async with asyncio.timeout(30):
            while (again := await Caller(b"x").ask(gate)).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return refused, again

    refused, _ = asyncio.run(story())
    assert (refused.status, refused.code) == (503, "not_ready")
    assert json.loads(refused.sent[1]["body"])["message"] == "no such folder"


def test_a_full_queue_is_remembered_for_a_moment(tmp_path):
    """Only the first of many requests reaches a replica. After a moment, one request is tried again."""

    async def story():
        file = tmp_path / "state.json"
        ServiceState(phase="serving", ready=True).write(file)
        body = b'{"code":"busy","message":"m","missing":[]}'
        inner = Inner(429, [*JSON, (b"Retry-After", b"7"), (b"Judge-Queue", b"full")], body)
        gate = Gate(inner, RULES, StateFile(file))
        crowd = [await Caller(b"x").ask(gate) for _ in range(20)]
        reached = len(inner.scopes)
        probe = Caller(path="/v1/identity")
        probe.scope["method"] = "GET"
        await probe.ask(gate)
        inner.status = 200
        async with asyncio.timeout(30):
            while (await Caller(b"x").ask(gate)).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return crowd, reached, len(inner.scopes)

    crowd, reached, later = asyncio.run(story())
    assert [(caller.status, caller.headers[b"Retry-After"]) for caller in crowd] == [
        (429, b"7")
    ] * 20
    assert reached < 20
    assert later >= reached + 2


def test_a_caller_with_a_short_deadline_is_the_only_one_refused(tmp_path):
    """The 429 of this client says nothing about the queue: the next client reaches the replica."""
    file = tmp_path / "state.json"
    ServiceState(phase="serving", ready=True).write(file)
    inner = Inner(429, [*JSON, (b"Retry-After", b"1")], b"{}")
    gate = Gate(inner, RULES, StateFile(file))

    async def story():
        return [await Caller(b"x").ask(gate) for _ in range(5)]

    asyncio.run(story())
    assert len(inner.scopes) == 5


def test_websockets_are_closed():
    async def story():
        sent = []

        async def send(message):
            sent.append(message)

        await Gate(Inner(), RULES)({"type": "websocket", "path": "/", "headers": []}, None, send)
        return sent

    assert asyncio.run(story()) == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("in_work", "code"), [(True, "judge_died"), (False, "not_ready")])
def test_after_a_death_running_and_waiting_requests_get_different_errors(tmp_path, in_work, code):
    """Ray answers both requests with its own status. The gate chooses the error name, whatever a client sends."""
    file = tmp_path / "state.json"
    ServiceState(phase="serving", ready=True).write(file)
    folder = StateFile(file).in_work
    folder.mkdir()
    names = []

    async def dies(scope, receive, send):
        names.extend(value.decode() for name, value in scope["headers"] if name == HEADER.encode())
        if in_work:
            (folder / names[-1]).touch()  # a replica that is killed leaves this note
        await send(
            {
                "type": "http.response.start",
                "status": 500,
                "headers": [(b"content-type", b"text/plain")],
            }
        )
        await send({"type": "http.response.body", "body": b"Internal Server Error"})

    caller = Caller(b"x", headers=[(HEADER.encode(), b"0" * 32)])
    asyncio.run(caller.ask(Gate(dies, RULES, StateFile(file))))
    assert (caller.status, caller.code, caller.headers[b"Retry-After"]) == (503, code, b"1")
    assert len(names) == 1
    assert names != ["0" * 32]
    assert not list(folder.iterdir()), "no note stays"


@pytest.mark.parametrize("name", [None, "", "../state.json", "F" * 32, "0" * 31])
def test_a_request_name_that_the_gate_did_not_choose_leaves_no_note(tmp_path, name):
    with InWork(tmp_path / "work").noted(name):
        assert not list(tmp_path.iterdir())


def test_a_note_exists_while_its_request_runs(tmp_path):
    notes, name = InWork(tmp_path / "work"), "0" * 32
    with notes.noted(name):
        assert [note.name for note in (tmp_path / "work").iterdir()] == [name]
    assert not notes.was(name)


def test_requests_continue_if_a_note_cannot_be_written(tmp_path):
    (tmp_path / "work").write_text("a file in its place")
    with InWork(tmp_path / "work").noted("0" * 32):
        pass
    assert not InWork(tmp_path / "work").was("0" * 32)

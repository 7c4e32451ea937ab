"""Judges whose answers follow a rule, and a request as bytes."""

import asyncio
import json
import math

import httpx2

from judge_service.replica.known_pairs import ASKED_RED, KNOWN_BLUE, KNOWN_RED, KNOWN_YES
from unijudge.judging.verdicts import Verdict


class Counting(httpx2.ASGITransport):
    """A judge that counts requests, and that can fail for the first few requests."""

    def __init__(self, app, spoil=()):
        super().__init__(app)
        self.spoil = list(spoil)
        self.seen = []

    async def handle_async_request(self, request):
        self.seen.append(request)
        if request.method == "POST" and self.spoil:
            spoil = self.spoil.pop(0)
            if isinstance(spoil, Exception):
                raise spoil
            return spoil
        return await super().handle_async_request(request)


def run(coroutine):
    return asyncio.run(coroutine)


def raw(app, body, headers=(), path="/v1/score"):
    async def call():
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://judge"
        ) as http:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await http.post(path, content=content, headers=dict(headers))

    return run(call())


class Answering:
    """A judge that gives every pair the same probabilities, except the known match."""

    def __init__(self, identity, match, other):
        self.identity, self.match, self.other = identity, match, other

    async def judge(self, query, candidates):
        def verdict(candidate):
            right = KNOWN_RED if query is ASKED_RED else KNOWN_BLUE
            yes, no = self.match if candidate in (KNOWN_YES, right) else self.other
            return Verdict(
                yes_logprob=math.log(yes), no_logprob=math.log(no), argmax_is_label=yes + no > 0.5
            )

        return [verdict(candidate) for candidate in candidates]

"""A judge that counts its requests."""

from collections import Counter

from judge_service.backends.scripted import ScriptedJudge
from unijudge.judging.prompt import Prompt


class Counting(ScriptedJudge):
    """A judge that records every requested pair."""

    def __init__(self):
        super().__init__(Prompt())
        self.pairs = Counter()

    async def judge(self, query, candidates):
        if not (query.text or "").startswith(
            "Find the sentence"
        ):  # without the known pairs of the service
            self.pairs.update((query, candidate) for candidate in candidates)
        return await super().judge(query, candidates)

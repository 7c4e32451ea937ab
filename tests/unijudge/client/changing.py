"""A service that changes while a client talks to it."""

from itertools import count

from tests.judge_service.replica.judges import Counting


class Changing(Counting):
    """A network between a client and its judge that changes requests or answers, chosen by number."""

    def __init__(self, app, change):
        super().__init__(app)
        self.change, self.numbers = change, count(1)

    async def handle_async_request(self, request):
        if request.method != "POST":
            return await super().handle_async_request(request)
        self.seen.append(request)
        go_on = super(Counting, self).handle_async_request
        return await self.change(next(self.numbers), request, go_on)

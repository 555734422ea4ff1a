"""What a client gets that was away: the Python SDK in both wire formats, on both brokers."""

import asyncio
import contextlib
import inspect
import json
import os
import sys
import urllib.request

from centrifuge import DeltaType, StreamPosition

from support import SOON, Log, run
from test_client import Claims as ClientClaims, RecordedClient, RecordedSubscription

TEXT = "what all of them have in common, приблизительно. " * 4
"""Of every payload, so that a delta is shorter."""

BROKERS = {
    "redis": ("TIDEGATE_TEST_WS", "TIDEGATE_TEST_HTTP"),
    "embedded": ("TIDEGATE_TEST_EMBEDDED_WS", "TIDEGATE_TEST_EMBEDDED_HTTP"),
}


class PositionedSubscription(RecordedSubscription):
    """With what the subscribe replies said."""

    def __init__(self, client, channel: str, **options):
        self.contexts = Log()
        super().__init__(client, channel, **options)

    async def on_subscribed(self, ctx):
        await super().on_subscribed(ctx)
        self.contexts.push(ctx)


class Claims:
    """Every coroutine method is a claim; its docstring says which. One instance per broker and format."""

    def __init__(self, broker: str, name: str):
        self.endpoint, self.http = (os.environ[variable] for variable in BROKERS[broker])
        self.base = ClientClaims(name)
        self.prefix = f"{broker}-{name}"

    def publish(self, channel: str, first: int, last: int) -> None:
        for n in range(first, last + 1):
            request = urllib.request.Request(
                f"{self.http}/api/publish",
                data=json.dumps({"channel": channel, "data": {"n": n, "text": TEXT}}, ensure_ascii=False).encode(),
                headers={"X-API-Key": os.environ["TIDEGATE_TEST_API_KEY"]},
            )
            with urllib.request.urlopen(request, timeout=SOON) as answer:
                result = json.load(answer)
            assert "result" in result, result

    def numbers(self, subscription) -> list[int]:
        return [data["n"] for data in self.base.decoded(subscription)]

    async def until(self, subscription, last: int) -> None:
        await subscription.publications.until(lambda _: last in self.numbers(subscription), f"number {last}")

    @contextlib.asynccontextmanager
    async def subscribed(self, namespace: str, **options):
        channel = f"{namespace}:{self.prefix}-{self.base.channel()}"
        one = RecordedClient(self.base.protobuf, self.endpoint)
        subscription = PositionedSubscription(one.client, channel, **options)
        await subscription.sub.subscribe()
        await one.client.connect()
        try:
            await subscription.sub.ready(SOON)
            yield one.client, subscription, channel
        finally:
            await one.client.disconnect()

    async def away(self, namespace: str, first: int, last: int, **options):
        """Gets three, is away for the others; what it has got then, and the second subscribe's reply."""
        async with self.subscribed(namespace, **options) as (client, subscription, channel):
            await asyncio.to_thread(self.publish, channel, 1, first - 1)
            await self.until(subscription, first - 1)
            await client.disconnect()
            await asyncio.to_thread(self.publish, channel, first, last)
            await client.connect()
            await subscription.contexts.until(lambda items: len(items) == 2, "the second subscription")
            await asyncio.to_thread(self.publish, channel, last + 1, last + 1)
            await self.until(subscription, last + 1)
            assert all(data["text"] == TEXT for data in self.base.decoded(subscription))
            return self.numbers(subscription), subscription.contexts.items[1]

    async def comes_back_in_time(self):
        """who comes back gets all 50 that were published meanwhile, in order"""
        numbers, context = await self.away("kept", 4, 53)
        assert numbers == list(range(1, 55)), numbers
        assert context.recovered and context.was_recovering, context

    async def comes_back_in_time_with_deltas(self):
        """who receives deltas comes back to the same"""
        numbers, context = await self.away("kept", 4, 53, delta=DeltaType.FOSSIL)
        assert numbers == list(range(1, 55)), numbers
        assert context.recovered and context.was_recovering, context

    async def comes_back_too_late(self):
        """who comes back too late is told so, and where the channel is"""
        numbers, context = await self.away("brief", 4, 33)
        assert numbers == [1, 2, 3, 34], numbers
        assert context.was_recovering and not context.recovered, context
        assert context.stream_position.offset == 33, context

    async def reads_history(self):
        """history is read from either end"""
        async with self.subscribed("kept") as (_, subscription, channel):
            await asyncio.to_thread(self.publish, channel, 1, 9)
            await self.until(subscription, 9)

            async def read(**options):
                result = await subscription.sub.history(**options)
                return [self.base.decode(publication.data)["n"] for publication in result.publications], result

            numbers, result = await read(limit=-1)
            assert numbers == list(range(1, 10)) and result.offset == 9, result
            assert (await read(limit=2, reverse=True))[0] == [9, 8]
            since = StreamPosition(offset=4, epoch=result.epoch)
            assert (await read(limit=2, since=since))[0] == [5, 6]
            since = StreamPosition(offset=4, epoch="other")
            await self.base.refused(subscription.sub.history(limit=2, since=since), 112)


def claims_of(claims: type, helpers: set[str]):
    """The claims of a class with an instance for each broker and format, as (text, coroutine function)."""
    for broker in BROKERS:
        for name in ("json", "protobuf"):
            instance = claims(broker, name)
            for method_name, method in vars(claims).items():
                if inspect.iscoroutinefunction(method) and method_name not in helpers:
                    yield f"{broker}, {name}: {inspect.getdoc(method)}", getattr(instance, method_name)


if __name__ == "__main__":
    sys.exit(run(claims_of(Claims, {"until", "subscribed", "away"})))

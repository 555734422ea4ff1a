"""The Python SDK against a real gateway and a real Redis, in both wire formats."""

import asyncio
import contextlib
import inspect
import json
import os
import sys

from centrifuge import (
    Client,
    ClientEventHandler,
    ReplyError,
    SubscriptionEventHandler,
)

from support import AFTER_RESTART, SOON, Log, control, publish_until_taken, redis_burst, redis_publish, run


class RecordedClient(ClientEventHandler):
    """A client with what happened to it on record: (state, code or client id)."""

    def __init__(self, protobuf: bool, endpoint: str | None = None):
        self.states = Log()
        self.client = Client(
            endpoint or os.environ["TIDEGATE_TEST_WS"],
            events=self,
            use_protobuf=protobuf,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.5,
            proxy=None,
        )

    async def on_connecting(self, ctx):
        self.states.push(("connecting", ctx.code))

    async def on_connected(self, ctx):
        self.states.push(("connected", ctx.client))

    async def on_disconnected(self, ctx):
        self.states.push(("disconnected", ctx.code))


class RecordedSubscription(SubscriptionEventHandler):
    """A subscription with its publications and states on record."""

    def __init__(self, client: Client, channel: str, **options):
        self.publications, self.states = Log(), Log()
        delays = {"min_resubscribe_delay": 0.05, "max_resubscribe_delay": 0.5}
        self.sub = client.new_subscription(channel, events=self, **delays, **options)

    async def on_subscribing(self, ctx):
        self.states.push("subscribing")

    async def on_subscribed(self, ctx):
        self.states.push("subscribed")

    async def on_unsubscribed(self, ctx):
        self.states.push(("unsubscribed", ctx.code))

    async def on_publication(self, ctx):
        self.publications.push(ctx.pub)


class Claims:
    """Every coroutine method is a claim; its docstring says which. One instance per format."""

    def __init__(self, name: str):
        self.name = name
        self.protobuf = name == "protobuf"
        self.number = 0

    def encode(self, value):
        """A payload as the application hands it to the SDK."""
        return json.dumps(value, separators=(",", ":")).encode() if self.protobuf else value

    def decode(self, data):
        """A payload as the application gets it from the SDK."""
        return json.loads(data) if self.protobuf else data

    def decoded(self, subscription: RecordedSubscription) -> list:
        return [self.decode(publication.data) for publication in subscription.publications.items]

    def channel(self) -> str:
        self.number += 1
        return f"python-{self.name}-{self.number}"

    @contextlib.asynccontextmanager
    async def connected(self):
        one = RecordedClient(self.protobuf)
        await one.client.connect()
        try:
            await one.client.ready(SOON)
            yield one
        finally:
            await one.client.disconnect()

    async def subscribed(self, one: RecordedClient, channel: str) -> RecordedSubscription:
        subscription = RecordedSubscription(one.client, channel)
        await subscription.sub.subscribe()
        await subscription.sub.ready(SOON)
        return subscription

    async def until_received(self, subscription: RecordedSubscription, value, what: str) -> None:
        await subscription.publications.until(lambda _: value in self.decoded(subscription), what)

    async def connects(self):
        """connects without a token and is given a client id"""
        async with self.connected() as one:
            state, client_id = one.states.items[-1]
            assert state == "connected" and len(client_id) == 36, one.states.items

    async def receives(self):
        """a redis-cli PUBLISH arrives"""
        channel = self.channel()
        async with self.connected() as one:
            subscription = await self.subscribed(one, channel)
            assert redis_publish(channel, b'{"n":1}') == 1
            await self.until_received(subscription, {"n": 1}, "the publication")

    async def receives_a_burst(self):
        """a burst of 500 arrives whole and in order"""
        channel = self.channel()
        async with self.connected() as one:
            subscription = await self.subscribed(one, channel)
            redis_burst(channel, 500)
            await subscription.publications.until(lambda items: len(items) >= 500, "500 publications")
            assert self.decoded(subscription) == [{"n": n} for n in range(1, 501)]

    async def receives_text(self):
        """text that is no JSON arrives as text"""
        channel, text = self.channel(), 'plain text, "quoted"'
        async with self.connected() as one:
            subscription = await self.subscribed(one, channel)
            redis_publish(channel, text.encode())
            items = await subscription.publications.until(len, "the publication")
            assert items[0].data == (text.encode() if self.protobuf else text), items

    async def receives_own_publication_once(self):
        """a publisher that is subscribed gets its publication exactly once, with its info"""
        channel = self.channel()
        async with self.connected() as one:
            subscription = await self.subscribed(one, channel)
            await subscription.sub.publish(self.encode({"mine": 1}))
            await subscription.sub.publish(self.encode({"mine": 2}))
            await self.until_received(subscription, {"mine": 2}, "the second publication")
            assert self.decoded(subscription) == [{"mine": 1}, {"mine": 2}]
            for publication in subscription.publications.items:
                assert publication.info.client == one.states.items[-1][1]

    async def receives_from_another_client(self):
        """another client gets the publication, with the publisher's info"""
        channel = self.channel()
        async with self.connected() as publisher, self.connected() as reader:
            subscription = await self.subscribed(reader, channel)
            await publisher.client.publish(channel, self.encode({"from": "afar"}))
            await self.until_received(subscription, {"from": "afar"}, "the publication")
            assert subscription.publications.items[0].info.client == publisher.states.items[-1][1]

    async def unsubscribes(self):
        """nothing arrives after unsubscribe, and again after a new subscribe"""
        channel, witnessed = self.channel(), self.channel()
        async with self.connected() as one:
            left = await self.subscribed(one, channel)
            witness = await self.subscribed(one, witnessed)
            await left.sub.unsubscribe()
            # The RPC's answer says that the unsubscribe before it took effect.
            await self.refused(one.client.rpc("any", self.encode({})), 108)
            redis_publish(channel, b'{"late":true}')
            redis_publish(witnessed, b'{"late":true}')
            await self.until_received(witness, {"late": True}, "the witness's publication")
            assert left.publications.items == []
            await left.sub.subscribe()
            await left.sub.ready(SOON)
            redis_publish(channel, b'{"back":true}')
            await self.until_received(left, {"back": True}, "the publication after the new subscribe")
            assert len(left.publications.items) == 1

    @staticmethod
    async def refused(call, code: int) -> None:
        try:
            result = await call
        except ReplyError as error:
            assert error.code == code, error
        else:
            raise AssertionError(f"not refused with {code} but answered with {result}")

    async def answers_108(self):
        """rpc, history and presence are answered with 108"""
        async with self.connected() as one:
            subscription = await self.subscribed(one, self.channel())
            await self.refused(one.client.rpc("any", self.encode({})), 108)
            await self.refused(subscription.sub.history(limit=1), 108)
            await self.refused(subscription.sub.presence(), 108)

    async def refuses_names(self):
        """a name in no namespace is refused with 102, one of 300 bytes with 107"""
        async with self.connected() as one:
            for name, code in (("no-such-namespace:news", 102), ("x" * 300, 107)):
                subscription = RecordedSubscription(one.client, name)
                await subscription.sub.subscribe()
                await subscription.states.until_includes(("unsubscribed", code), f"refusal with {code}")
            assert one.states.items[-1][0] == "connected", "the connection goes on"

    async def bad_command(self):
        """a command that makes no sense ends the connection with 3501, for good"""
        async with self.connected() as one:
            # The SDK can't be made to say nonsense, so this borrows its connection.
            await one.client._conn.send(b"\x03\xff\xff\xff" if self.protobuf else "nonsense")
            await one.states.until_includes(("disconnected", 3501), "the disconnect")

    async def restart_of_the_gateway(self):
        """an orderly restart of the gateway closes with 3001, and the client comes back"""
        async with self.connected() as one:
            await self.comes_back(one, "/gateway/restart")
            assert ("connecting", 3001) in one.states.items, one.states.items

    async def crash_of_the_gateway(self):
        """a crash of the gateway is survived"""
        async with self.connected() as one:
            await self.comes_back(one, "/gateway/crash")

    async def comes_back(self, one: RecordedClient, what_happens: str) -> None:
        """Once the SDK has subscribed a second time, what is published arrives."""
        channel = self.channel()
        subscription = await self.subscribed(one, channel)
        await asyncio.to_thread(control, what_happens)
        subscribed_again = lambda items: items.count("subscribed") == 2
        await subscription.states.until(subscribed_again, "subscribed again", AFTER_RESTART)
        assert redis_publish(channel, b'{"again":true}') == 1
        await self.until_received(subscription, {"again": True}, "the publication after the restart")

    async def restart_of_redis(self):
        """a restart of Redis leaves the session connected, and its subscription receives again"""
        channel = self.channel()
        async with self.connected() as one:
            subscription = await self.subscribed(one, channel)
            await asyncio.to_thread(control, "/redis/restart")
            payload = await asyncio.to_thread(publish_until_taken, channel)
            await self.until_received(subscription, payload, "the publication that the node took")
            assert [state for state, _ in one.states.items] == ["connecting", "connected"], one.states.items
            assert subscription.states.items == ["subscribing", "subscribed"], subscription.states.items


HELPERS = {"connected", "subscribed", "until_received", "refused", "comes_back"}


def claims():
    for name in ("json", "protobuf"):
        instance = Claims(name)
        for method_name, method in vars(Claims).items():
            if inspect.iscoroutinefunction(method) and method_name not in HELPERS:
                yield f"{name}: {inspect.getdoc(method)}", getattr(instance, method_name)


if __name__ == "__main__":
    sys.exit(run(claims()))

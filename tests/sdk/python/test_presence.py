"""Who is in a channel, who comes and goes: the Python SDK in both wire formats, on both brokers."""

import contextlib
import os
import sys
import time

from support import SOON, Log, run
from test_client import Claims as ClientClaims, RecordedClient, RecordedSubscription
from test_recovery import BROKERS, claims_of

GONE = 2.0
"""Seconds after which whoever is gone is not listed any more."""


class Member(RecordedSubscription):
    """A subscription of a client of its own, with who came and went while it was there."""

    def __init__(self, one: RecordedClient, channel: str, **options):
        self.one, self.told = one, Log()
        super().__init__(one.client, channel, **options)

    async def on_join(self, ctx):
        self.told.push("+" + ctx.info.client)

    async def on_leave(self, ctx):
        self.told.push("-" + ctx.info.client)

    @property
    def id(self) -> str:
        return next(id for state, id in self.one.states.items if state == "connected")

    async def listed(self) -> set[str]:
        return set((await self.sub.presence()).clients)


class Claims:
    """Every coroutine method is a claim; its docstring says which. One instance per broker and format."""

    def __init__(self, broker: str, name: str):
        self.endpoint = os.environ[BROKERS[broker][0]]
        self.base = ClientClaims(name)
        self.prefix = f"{broker}-{name}"

    @contextlib.asynccontextmanager
    async def room(self, namespace: str = "room"):
        """Lets clients into a channel, and sees them off."""
        channel = f"{namespace}:{self.prefix}-presence-{self.base.channel()}"
        members = []

        async def member(**options) -> Member:
            one = RecordedClient(self.base.protobuf, self.endpoint)
            members.append(Member(one, channel, **options))
            await members[-1].sub.subscribe()
            await one.client.connect()
            await members[-1].sub.ready(SOON)
            return members[-1]

        try:
            yield member
        finally:
            for one in members:
                await one.one.client.disconnect()

    async def lists(self):
        """whoever is subscribed is listed and counted, and gone within 2 s"""
        async with self.room() as member:
            stays, unsubscribes, disconnects = await member(), await member(), await member()
            assert await stays.listed() == {stays.id, unsubscribes.id, disconnects.id}
            stats = await stays.sub.presence_stats()
            assert (stats.num_clients, stats.num_users) == (3, 1), stats
            await unsubscribes.sub.unsubscribe()
            await disconnects.one.client.disconnect()
            end = time.monotonic() + GONE
            while await stays.listed() != {stays.id}:
                assert time.monotonic() < end, await stays.listed()

    async def tells(self):
        """who comes and goes is told to those who asked, and to nobody else"""
        async with self.room() as member:
            asked, other, goes = await member(join_leave=True), await member(), await member()
            await goes.one.client.disconnect()
            expected = ["+" + asked.id, "+" + other.id, "+" + goes.id, "-" + goes.id]
            await asked.told.until(lambda items: len(items) >= len(expected), "all that happened")
            assert asked.told.items == expected, asked.told.items
            assert other.told.items == [], other.told.items

    async def has_none(self):
        """a namespace without presence says so"""
        async with self.room("kept") as member:
            one = await member()
            await self.base.refused(one.sub.presence(), 108)
            await self.base.refused(one.sub.presence_stats(), 108)


if __name__ == "__main__":
    sys.exit(run(claims_of(Claims, {"room"})))

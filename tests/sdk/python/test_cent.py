"""The incumbent's Python server library (`cent`) against the server API of a real gateway."""

import asyncio
import os
import sys
import time

from cent import (
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    ChannelsRequest,
    Client,
    InfoRequest,
    PublishRequest,
)
from centrifuge import Client as SdkClient
from centrifuge import SubscriptionEventHandler

from support import SOON, Log, run

API = os.environ["TIDEGATE_TEST_HTTP"] + "/api"


class Reader(SubscriptionEventHandler):
    """One subscriber of several channels; keeps (channel, data)."""

    def __init__(self):
        self.received = Log()
        self.client = SdkClient(os.environ["TIDEGATE_TEST_WS"], proxy=None)

    async def __aenter__(self):
        await self.client.connect()
        await self.client.ready(SOON)
        return self

    async def __aexit__(self, *_):
        await self.client.disconnect()

    async def subscribe(self, *channels: str):
        for channel in channels:
            events = SubscriptionEventHandler()
            events.on_publication = self.keeper(channel)
            sub = self.client.new_subscription(channel, events=events)
            await sub.subscribe()
            await sub.ready(SOON)

    def keeper(self, channel: str):
        async def keep(ctx):
            self.received.push((channel, ctx.pub.data))

        return keep


def api(key: str | None = None) -> Client:
    return Client(API, os.environ["TIDEGATE_TEST_API_KEY"] if key is None else key, timeout=SOON)


async def call(method, request):
    """The library is synchronous, the reader is not."""
    return await asyncio.to_thread(method, request)


async def publishes():
    """publish reaches a subscriber"""
    async with Reader() as reader:
        await reader.subscribe("cent-publish")
        await call(api().publish, PublishRequest(channel="cent-publish", data={"n": 1, "text": "<ä>"}))
        await reader.received.until_includes(("cent-publish", {"n": 1, "text": "<ä>"}), "the publication")


async def broadcasts():
    """broadcast reaches the subscribers of every channel, and answers once per channel"""
    channels = ["cent-broadcast-1", "cent-broadcast-2", "cent-broadcast-3"]
    async with Reader() as reader:
        await reader.subscribe(*channels)
        result = await call(api().broadcast, BroadcastRequest(channels=channels, data={"to": "all"}))
        assert len(result.responses) == 3 and all(one.error is None for one in result.responses), result
        for channel in channels:
            await reader.received.until_includes((channel, {"to": "all"}), f"the publication in {channel}")


async def informs():
    """info names the node and counts its client and subscriptions"""
    async with Reader() as reader:
        await reader.subscribe("cent-info-1", "cent-info-2")
        end = time.monotonic() + SOON
        while True:  # the clients of earlier claims may still be leaving
            (node,) = (await call(api().info, InfoRequest())).nodes
            if (node.num_clients, node.num_subs, node.num_channels) == (1, 2, 2):
                break
            assert time.monotonic() < end, node
        assert node.uid and node.name and node.version, node


async def lists_channels():
    """channels lists those that match the pattern, with their number of clients"""
    async with Reader() as one, Reader() as another:
        await one.subscribe("cent-list-a", "cent-list-b", "cent-other")
        await another.subscribe("cent-list-a")
        everything = (await call(api().channels, ChannelsRequest())).channels
        assert {"cent-list-a", "cent-list-b", "cent-other"} <= set(everything), everything
        matching = (await call(api().channels, ChannelsRequest(pattern="cent-list-*"))).channels
        numbers = {name: channel.num_clients for name, channel in matching.items()}
        assert numbers == {"cent-list-a": 2, "cent-list-b": 1}, numbers


async def batches():
    """batch carries out every command, in order, and answers each"""
    async with Reader() as reader:
        await reader.subscribe("cent-batch")
        publishes = [PublishRequest(channel="cent-batch", data={"n": n}) for n in range(1, 11)]
        result = await call(api().batch, BatchRequest(requests=[*publishes, InfoRequest()]))
        assert len(result.replies) == 11, result
        assert len(result.replies[10].nodes) == 1, result
        received = await reader.received.until(lambda items: len(items) >= 10, "ten publications")
        assert received == [("cent-batch", {"n": n}) for n in range(1, 11)], received


async def refuses_a_wrong_key():
    """a wrong key raises the library's unauthorised error, and so does none"""
    for key in ("wrong", "tes", "testt", ""):
        try:
            await call(api(key).publish, PublishRequest(channel="cent-key", data={}))
        except CentUnauthorizedError:
            continue
        raise AssertionError(f"the key {key!r} was taken")


async def names_the_error():
    """a publish without a channel raises the library's response error with code 107"""
    try:
        await call(api().publish, PublishRequest(channel="", data={}))
    except CentApiResponseError as error:
        assert error.code == 107, error
    else:
        raise AssertionError("it was taken")


CLAIMS = (publishes, broadcasts, informs, lists_channels, batches, refuses_a_wrong_key, names_the_error)

if __name__ == "__main__":
    sys.exit(run((f"cent: {claim.__doc__}", claim) for claim in CLAIMS))

"""What the tests stand on: the world outside (Redis, the restarts), waiting for a condition with a deadline,
and a runner that prints one line per claim, as `../harness/suites.py` reads them."""

import asyncio
import base64
import json
import os
import time
import traceback
import urllib.error
import urllib.request

SOON = 10.0
"""Seconds for anything that the gateway answers at once."""

AFTER_RESTART = 40.0
"""Seconds for coming back after a restart: the SDK waits between its attempts."""

CLAIM_DEADLINE = 60.0
"""Seconds for one claim as a whole."""

CONTROL = os.environ["TIDEGATE_TEST_CONTROL"]


def control(path: str, body: dict | None = None) -> dict:
    """Asks the harness for something; returns when it is done."""
    request = urllib.request.Request(CONTROL + path, data=json.dumps(body or {}).encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=AFTER_RESTART) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(json.load(error)["error"]) from None


def redis_publish(channel: str, payload: bytes) -> int:
    """Publishes as any backend would; the number of nodes that Redis handed it to."""
    body = {"args": ["PUBLISH", f"push:{channel}"], "payload_base64": base64.b64encode(payload).decode()}
    return int(control("/redis/cli", body)["stdout"])


def redis_burst(channel: str, count: int) -> None:
    """Publishes {"n":1} to {"n":count} as fast as Redis takes them."""
    script = f"for n = 1, {count} do redis.call('PUBLISH', KEYS[1], '{{\"n\":' .. n .. '}}') end"
    control("/redis/cli", {"args": ["EVAL", script, "1", f"push:{channel}"]})


def publish_until_taken(channel: str) -> dict:
    """Publishes until Redis has handed one to a node; returns that payload, which must then arrive."""
    end = time.monotonic() + AFTER_RESTART
    attempt = 1
    while redis_publish(channel, json.dumps({"attempt": attempt}).encode()) == 0:
        if time.monotonic() > end:
            raise AssertionError(f"nothing subscribed to {channel} again")
        attempt += 1
    return {"attempt": attempt}


class Log:
    """Keeps what happened, and lets a test wait until it satisfies a condition."""

    def __init__(self):
        self.items: list = []
        self.changed = asyncio.Event()

    def push(self, item) -> None:
        self.items.append(item)
        self.changed.set()

    async def until(self, condition, what: str, deadline: float = SOON) -> list:
        """Waits for `condition(items)`."""
        end = time.monotonic() + deadline
        while not condition(self.items):
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), end - time.monotonic())
            except asyncio.TimeoutError:
                message = f"{what}: not within {deadline:.0f} s; there was {self.items[-20:]}"
                raise AssertionError(message) from None
        return self.items

    async def until_includes(self, item, what: str, deadline: float = SOON) -> list:
        return await self.until(lambda items: item in items, what, deadline)


def run(claims) -> int:
    """Runs (text, coroutine function) pairs, one after another; the exit code for the shell."""
    failed = 0
    for text, claim in claims:
        started = time.monotonic()
        try:
            asyncio.run(asyncio.wait_for(claim(), CLAIM_DEADLINE))
        except Exception:
            failed += 1
            print(f"not ok - {text}")
            traceback.print_exc()
        else:
            print(f"ok - {text} ({time.monotonic() - started:.2f}s)")
    return 1 if failed else 0

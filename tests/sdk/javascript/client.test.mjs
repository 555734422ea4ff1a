// The JavaScript SDK against a real gateway and a real Redis, in both wire formats.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  AFTER_RESTART, SOON, client, formats, publishUntilTaken, redisBurst, redisPublish, redisSpread, subscription, world,
} from './support.mjs';

const TEST = { timeout: 60_000 };

for (const [name, format] of Object.entries(formats)) {
  describe(name, () => {
    let open;
    let channel;
    let number = 0;

    const connect = async () => {
      const one = client(format);
      open.push(one.centrifuge);
      one.centrifuge.connect();
      await one.centrifuge.ready(SOON);
      return one;
    };
    const subscribe = async (centrifuge, to = channel) => {
      const one = subscription(format, centrifuge, to);
      one.sub.subscribe();
      await one.sub.ready(SOON);
      return one;
    };

    beforeEach(() => {
      open = [];
      channel = `js-${name}-${number++}`;
    });
    afterEach(() => open.forEach((centrifuge) => centrifuge.disconnect()));

    it(`${name}: connects without a token and is given a client id`, TEST, async () => {
      const { states } = await connect();
      assert.match(states.items.at(-1).client, /^[0-9a-f-]{36}$/);
    });

    it(`${name}: a redis-cli PUBLISH arrives`, TEST, async () => {
      const { centrifuge } = await connect();
      const { publications } = await subscribe(centrifuge);
      assert.equal(await redisPublish(channel, '{"n":1}'), 1);
      await publications.untilIncludes({ n: 1 }, 'the publication');
    });

    it(`${name}: a burst of 500 arrives whole and in order`, TEST, async () => {
      const { centrifuge } = await connect();
      const { publications } = await subscribe(centrifuge);
      await redisBurst(channel, 500);
      const items = await publications.until((got) => got.length >= 500, '500 publications');
      assert.deepEqual(items.map((item) => item.n), Array.from({ length: 500 }, (_, index) => index + 1));
    });

    it(`${name}: text that is no JSON arrives as text`, TEST, async () => {
      const { centrifuge } = await connect();
      const { raw } = await subscribe(centrifuge);
      await redisPublish(channel, 'plain text, "quoted"');
      const [data] = await raw.until((got) => got.length === 1, 'the publication');
      assert.equal(name === 'json' ? data : new TextDecoder().decode(data), 'plain text, "quoted"');
    });

    it(`${name}: bytes that are no text reach Protobuf clients only`, TEST, async () => {
      const { centrifuge } = await connect();
      const { raw } = await subscribe(centrifuge);
      await redisPublish(channel, Buffer.from([0xff, 0x00, 0xfe]));
      await redisPublish(channel, '{"marker":true}');
      const expected = name === 'json' ? 1 : 2; // the marker follows on the same channel, so order decides
      await raw.until((got) => got.length >= expected, 'the marker');
      assert.equal(raw.items.length, expected);
      if (name === 'protobuf') assert.deepEqual([...raw.items[0]], [0xff, 0x00, 0xfe]);
    });

    it(`${name}: a publisher that is subscribed gets its publication exactly once, with its info`, TEST, async () => {
      const { centrifuge, states } = await connect();
      const { sub, publications, infos } = await subscribe(centrifuge);
      await sub.publish(format.encode({ mine: 1 }));
      await sub.publish(format.encode({ mine: 2 }));
      await publications.untilIncludes({ mine: 2 }, 'the second publication');
      assert.deepEqual(publications.items, [{ mine: 1 }, { mine: 2 }]);
      for (const info of infos.items) assert.equal(info.client, states.items.at(-1).client);
    });

    it(`${name}: another client gets the publication, with the publisher's info`, TEST, async () => {
      const publisher = await connect();
      const { publications, infos } = await subscribe((await connect()).centrifuge);
      await publisher.centrifuge.publish(channel, format.encode({ from: 'afar' }));
      await publications.untilIncludes({ from: 'afar' }, 'the publication');
      assert.equal(infos.items[0].client, publisher.states.items.at(-1).client);
    });

    it(`${name}: a hundred subscriptions sent with the connect all receive`, TEST, async () => {
      const { centrifuge } = client(format);
      open.push(centrifuge);
      const numbers = Array.from({ length: 100 }, (_, index) => index + 1);
      const all = numbers.map((n) => subscription(format, centrifuge, `${channel}-${n}`));
      all.forEach(({ sub }) => sub.subscribe());
      centrifuge.connect();
      await Promise.all(all.map(({ sub }) => sub.ready(SOON)));
      await redisSpread(`${channel}-`, all.length);
      await Promise.all(all.map(({ publications }, i) => publications.untilIncludes({ n: i + 1 }, `channel ${i + 1}`)));
      all.forEach(({ publications }) => assert.equal(publications.items.length, 1));
    });

    it(`${name}: nothing arrives after unsubscribe, and again after a new subscribe`, TEST, async () => {
      const { centrifuge } = await connect();
      const left = await subscribe(centrifuge);
      const witness = await subscribe(centrifuge, `${channel}-witness`);
      left.sub.unsubscribe();
      // The RPC's answer says that the unsubscribe before it took effect.
      await assert.rejects(centrifuge.rpc('any', format.encode({})));
      await redisPublish(channel, '{"late":true}');
      await redisPublish(`${channel}-witness`, '{"late":true}');
      await witness.publications.untilIncludes({ late: true }, "the witness's publication");
      assert.deepEqual(left.publications.items, []);
      left.sub.subscribe();
      await left.sub.ready(SOON);
      await redisPublish(channel, '{"back":true}');
      await left.publications.untilIncludes({ back: true }, 'the publication after the new subscribe');
      assert.equal(left.publications.items.length, 1);
    });

    it(`${name}: rpc, history and presence are answered with 108`, TEST, async () => {
      const { centrifuge } = await connect();
      const { sub } = await subscribe(centrifuge);
      await assert.rejects(centrifuge.rpc('any', format.encode({})), { code: 108 });
      await assert.rejects(sub.history({ limit: 1 }), { code: 108 });
      await assert.rejects(sub.presence(), { code: 108 });
    });

    it(`${name}: a name in no namespace is refused with 102, one of 300 bytes with 107`, TEST, async () => {
      const { centrifuge, states } = await connect();
      for (const [refused, code] of [['no-such-namespace:news', 102], ['x'.repeat(300), 107]]) {
        const one = subscription(format, centrifuge, refused);
        one.sub.subscribe();
        await one.states.untilIncludes({ state: 'unsubscribed', code }, `refusal with ${code}`);
      }
      assert.equal(states.items.at(-1).state, 'connected', 'the connection goes on');
    });

    it(`${name}: pings come and their pongs are taken`, TEST, async () => {
      const { frames, states } = await connect();
      const ping = name === 'json' ? '{}' : '\0';
      const pings = (got) => got.filter((frame) => frame.trim() === ping).length;
      await frames.until((got) => pings(got) >= 3, 'three pings', 20_000);
      assert.deepEqual(states.items.map(({ state }) => state), ['connecting', 'connected']);
    });

    it(`${name}: a command that makes no sense ends the connection with 3501, for good`, TEST, async () => {
      const { states, sockets } = await connect();
      sockets[0].send(name === 'json' ? 'nonsense' : Buffer.from([3, 0xff, 0xff, 0xff]));
      await states.untilIncludes({ state: 'disconnected', code: 3501 }, 'the disconnect');
      assert.equal(sockets.length, 1, 'the SDK does not come back');
    });

    it(`${name}: an orderly restart of the gateway closes with 3001, and the client comes back`, TEST, async () => {
      const { centrifuge, states } = await connect();
      const subscribed = await subscribe(centrifuge);
      await world.restartGateway();
      await receivesAgain(subscribed);
      assert.ok(states.items.some(({ state, code }) => state === 'connecting' && code === 3001), 'code 3001');
    });

    it(`${name}: a crash of the gateway is survived`, TEST, async () => {
      const subscribed = await subscribe((await connect()).centrifuge);
      await world.crashGateway();
      await receivesAgain(subscribed);
    });

    /** Once the SDK has subscribed a second time, what is published arrives. */
    async function receivesAgain({ publications, states }) {
      const subscribedAgain = (items) => items.filter(({ state }) => state === 'subscribed').length === 2;
      await states.until(subscribedAgain, 'subscribed again', AFTER_RESTART);
      assert.equal(await redisPublish(channel, '{"again":true}'), 1);
      await publications.untilIncludes({ again: true }, 'the publication after the restart');
    }

    it(`${name}: a restart of Redis leaves the session connected, and its subscription receives again`, TEST, async () => {
      const { centrifuge, states } = await connect();
      const { publications, states: subscriptionStates } = await subscribe(centrifuge);
      await world.restartRedis();
      await publications.untilIncludes(await publishUntilTaken(channel), 'the publication that the node took');
      assert.deepEqual(states.items.map(({ state }) => state), ['connecting', 'connected']);
      assert.deepEqual(subscriptionStates.items.map(({ state }) => state), ['subscribing', 'subscribed']);
    });
  });
}

// What a client gets that was away: the JavaScript SDK in both wire formats, on both brokers.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { SOON, api, brokers, client, formats, redisCall, subscription } from './support.mjs';

const TEST = { timeout: 60_000 };

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => ({ n: from + index }));

for (const [brokerName, broker] of Object.entries(brokers)) {
  for (const [formatName, format] of Object.entries(formats)) {
    const name = `${brokerName}, ${formatName}`;
    describe(name, () => {
      let one;
      let channel;
      let number = 0;

      const publish = async (to, from, until) => {
        for (const data of numbers(from, until)) await api(broker, 'publish', { channel: to, data });
      };
      const subscribe = async (to, options) => {
        one = client(format, broker.websocket);
        const log = subscription(format, one.centrifuge, to, options);
        log.sub.subscribe();
        one.centrifuge.connect();
        await log.sub.ready(SOON);
        return log;
      };
      const comeBack = async (log) => {
        const before = log.subscribed.items.length;
        one.centrifuge.connect();
        await log.subscribed.until((got) => got.length > before, 'the subscription');
        return log.subscribed.items.at(-1);
      };

      beforeEach(() => { channel = `js-${formatName}-${number++}`; });
      afterEach(() => one?.centrifuge.disconnect());

      it(`${name}: who comes back gets all 50 that were published meanwhile, in order`, TEST, async () => {
        const log = await subscribe(`kept:${channel}`);
        await publish(`kept:${channel}`, 1, 3);
        await log.publications.untilIncludes({ n: 3 }, 'what is published first');
        one.centrifuge.disconnect();
        await publish(`kept:${channel}`, 4, 53);
        const context = await comeBack(log);
        await log.publications.untilIncludes({ n: 53 }, 'the last of the 50');
        assert.deepEqual(log.publications.items, numbers(1, 53));
        assert.equal(context.recovered, true);
        assert.equal(context.wasRecovering, true);
        await publish(`kept:${channel}`, 54, 55);
        await log.publications.untilIncludes({ n: 55 }, 'what is published after that');
        assert.deepEqual(log.publications.items, numbers(1, 55));
      });

      it(`${name}: who comes back too late is told so, and where the channel is`, TEST, async () => {
        const log = await subscribe(`brief:${channel}`);
        await publish(`brief:${channel}`, 1, 3);
        await log.publications.untilIncludes({ n: 3 }, 'what is published first');
        one.centrifuge.disconnect();
        await publish(`brief:${channel}`, 4, 33);
        const context = await comeBack(log);
        assert.equal(context.recovered, false);
        assert.equal(context.wasRecovering, true);
        assert.equal(context.streamPosition.offset, 33);
        await publish(`brief:${channel}`, 34, 34);
        await log.publications.untilIncludes({ n: 34 }, 'what is published after that');
        assert.deepEqual(log.publications.items, [...numbers(1, 3), { n: 34 }]);
      });

      it(`${name}: a connection that breaks loses nothing`, TEST, async () => {
        const log = await subscribe(`kept:${channel}`);
        await publish(`kept:${channel}`, 1, 2);
        await log.publications.untilIncludes({ n: 2 }, 'what is published first');
        one.sockets.at(-1).terminate();
        await publish(`kept:${channel}`, 3, 30);
        await log.publications.untilIncludes({ n: 30 }, 'the last one');
        assert.deepEqual(log.publications.items, numbers(1, 30));
      });

      it(`${name}: history is read from either end`, TEST, async () => {
        const log = await subscribe(`kept:${channel}`);
        await publish(`kept:${channel}`, 1, 9);
        const read = async (options) => {
          const { publications, offset } = await log.sub.history(options);
          return [publications.map(({ data }) => format.decode(data).n), offset];
        };
        const { epoch } = await log.sub.history({ limit: 0 });
        assert.deepEqual(await read({ limit: 0 }), [[], 9]);
        assert.deepEqual(await read({ limit: -1 }), [[1, 2, 3, 4, 5, 6, 7, 8, 9], 9]);
        assert.deepEqual(await read({ limit: 2, reverse: true }), [[9, 8], 9]);
        assert.deepEqual(await read({ limit: 2, since: { offset: 4, epoch } }), [[5, 6], 9]);
        await assert.rejects(log.sub.history({ limit: 1, since: { offset: 4, epoch: 'other' } }), { code: 112 });
      });

      it(`${name}: deltas come out as what was published, live and after an absence`, TEST, async () => {
        const log = await subscribe(`kept:${channel}`, { delta: 'fossil' });
        const text = 'Was alle gemeinsam haben: ein längerer Text, приблизительно. '.repeat(4);
        const all = Array.from({ length: 12 }, (_, index) => ({ n: index + 1, text, last: 'дгдгд'[index % 5] }));
        const send = async (from, to) => {
          for (const data of all.slice(from - 1, to)) await api(broker, 'publish', { channel: `kept:${channel}`, data });
        };
        await send(1, 5);
        await log.publications.until((got) => got.length >= 5, 'the first five');
        const patches = one.frames.items.filter((frame) => frame.includes(channel) && frame.length < text.length / 2).length;
        assert.ok(patches >= 4, `${patches} short frames`);
        one.centrifuge.disconnect();
        await send(6, 9);
        assert.equal((await comeBack(log)).recovered, true);
        await send(10, 12);
        await log.publications.until((got) => got.length >= 12, 'all twelve');
        assert.deepEqual(log.publications.items, all);
      });

      if (brokerName === 'redis') {
        it(`${name}: what a backend publishes by FCALL is kept and arrives`, TEST, async () => {
          const log = await subscribe(`kept:${channel}`);
          assert.equal(await redisCall(`kept:${channel}`, '{"n":1}'), 1);
          await log.publications.untilIncludes({ n: 1 }, 'the first');
          one.centrifuge.disconnect();
          assert.equal(await redisCall(`kept:${channel}`, '{"n":2}', 'size', '1000', 'ttl', '300'), 2);
          assert.equal((await comeBack(log)).recovered, true);
          await log.publications.untilIncludes({ n: 2 }, 'the second');
          assert.deepEqual(log.publications.items, numbers(1, 2));
        });
      }
    });
  }
}

// Who is in a channel, who comes and goes: the JavaScript SDK in both wire formats, on both brokers.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Log, SOON, api, brokers, client, formats, subscription } from './support.mjs';

const TEST = { timeout: 60_000 };
/** Milliseconds after which whoever is gone is not listed any more. */
const GONE = 2_000;

for (const [brokerName, broker] of Object.entries(brokers)) {
  for (const [formatName, format] of Object.entries(formats)) {
    const name = `${brokerName}, ${formatName}`;
    describe(name, () => {
      let clients;
      let channel;
      let number = 0;

      /** A client that is subscribed, with its id and who came and went while it was. */
      const member = async (options = {}) => {
        const one = client(format, broker.websocket);
        clients.push(one);
        const log = subscription(format, one.centrifuge, channel, options);
        const told = new Log();
        log.sub.on('join', ({ info }) => told.push(`+${info.client}`));
        log.sub.on('leave', ({ info }) => told.push(`-${info.client}`));
        log.sub.subscribe();
        one.centrifuge.connect();
        await log.sub.ready(SOON);
        const { client: id } = one.states.items.find(({ state }) => state === 'connected');
        return { ...one, sub: log.sub, told, id };
      };
      const listed = async ({ sub }) => Object.keys((await sub.presence()).clients).sort();
      const becomes = async (look, expected, within) => {
        let found;
        for (const end = Date.now() + within; Date.now() < end; ) {
          found = await look();
          if (JSON.stringify(found) === JSON.stringify(expected)) return;
        }
        assert.deepEqual(found, expected, `not within ${within} ms`);
      };

      beforeEach(() => {
        clients = [];
        channel = `room:javascript-${brokerName}-${formatName}-${(number += 1)}`;
      });
      afterEach(() => clients.forEach((one) => one.centrifuge.disconnect()));

      it(`${name}: whoever is subscribed is listed and counted, for clients and in the API`, TEST, async () => {
        const all = [await member(), await member(), await member()];
        const ids = all.map(({ id }) => id).sort();
        assert.deepEqual(await listed(all[0]), ids);
        assert.deepEqual(await all[1].sub.presenceStats(), { numClients: 3, numUsers: 1 });
        assert.deepEqual(Object.keys((await api(broker, 'presence', { channel })).presence).sort(), ids);
        assert.deepEqual(await api(broker, 'presence_stats', { channel }), { num_clients: 3, num_users: 1 });
      });

      it(`${name}: whoever unsubscribes, disconnects or breaks off is gone within 2 s`, TEST, async () => {
        const stays = await member();
        const [unsubscribes, disconnects, breaks] = [await member(), await member(), await member()];
        unsubscribes.sub.unsubscribe();
        disconnects.centrifuge.disconnect();
        // It comes back, with another id.
        breaks.sockets.at(-1).terminate();
        await breaks.states.until((items) => items.filter(({ state }) => state === 'connected').length === 2, 'it comes back');
        const again = breaks.states.items.at(-1).client;
        await becomes(() => listed(stays), [stays.id, again].sort(), GONE);
        assert.deepEqual(await stays.sub.presenceStats(), { numClients: 2, numUsers: 1 });
      });

      it(`${name}: who comes and goes is told to those who asked, and to nobody else`, TEST, async () => {
        const asked = await member({ joinLeave: true });
        const other = await member();
        const goes = await member();
        goes.centrifuge.disconnect();
        const expected = [`+${asked.id}`, `+${other.id}`, `+${goes.id}`, `-${goes.id}`];
        await asked.told.until((items) => items.length >= expected.length, 'all that happened');
        assert.deepEqual(asked.told.items, expected);
        assert.deepEqual(other.told.items, []);
      });

      it(`${name}: a namespace without presence says so`, TEST, async () => {
        channel = `kept:${channel}`;
        const one = await member({ joinLeave: true });
        await assert.rejects(one.sub.presence(), { code: 108 });
        await assert.rejects(one.sub.presenceStats(), { code: 108 });
      });
    });
  }
}

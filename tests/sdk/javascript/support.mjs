// What the tests stand on: the world outside (Redis, the restarts) and waiting for a condition with a deadline.
import WebSocket from 'ws';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';

/** Milliseconds for anything that the gateway answers at once. */
export const SOON = 10_000;
/** Milliseconds for coming back after a restart: the SDK waits between its attempts. */
export const AFTER_RESTART = 40_000;

const environment = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start these tests with tests/sdk/run.py`);
  return value;
};

export const endpoints = {
  websocket: environment('TIDEGATE_TEST_WS'),
  http: environment('TIDEGATE_TEST_HTTP'),
  screenshots: environment('TIDEGATE_TEST_SCREENSHOTS'),
};

/** The two brokers: a gateway on Redis, and one that stands alone. */
export const brokers = {
  redis: { websocket: endpoints.websocket, http: endpoints.http },
  embedded: { websocket: environment('TIDEGATE_TEST_EMBEDDED_WS'), http: environment('TIDEGATE_TEST_EMBEDDED_HTTP') },
};

/** Calls the server API; resolves to the result. */
export async function api(broker, method, params) {
  const response = await fetch(`${broker.http}/api/${method}`, {
    method: 'POST',
    headers: { 'X-API-Key': environment('TIDEGATE_TEST_API_KEY') },
    body: JSON.stringify(params),
    signal: AbortSignal.timeout(SOON),
  });
  const answer = await response.json();
  if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
  return answer.result;
}

async function control(path, body = {}) {
  const response = await fetch(environment('TIDEGATE_TEST_CONTROL') + path, {
    method: 'POST',
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(AFTER_RESTART),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

export const world = {
  restartRedis: () => control('/redis/restart'),
  restartGateway: () => control('/gateway/restart'),
  crashGateway: () => control('/gateway/crash'),
};

async function redisCli(args, payload) {
  const body = { args };
  if (payload !== undefined) body.payload_base64 = Buffer.from(payload).toString('base64');
  const { stdout, code } = await control('/redis/cli', body);
  if (code !== 0) throw new Error(`redis-cli ${args.join(' ')}: ${stdout}`);
  return stdout;
}

/** Publishes as any backend would; resolves to the number of nodes that Redis handed it to. */
export async function redisPublish(channel, payload) {
  return Number(await redisCli(['PUBLISH', `push:${channel}`], payload));
}

/** Publishes {"n":1} to {"n":count} as fast as Redis takes them. */
export async function redisBurst(channel, count) {
  const script = `for n = 1, ${count} do redis.call('PUBLISH', KEYS[1], '{"n":' .. n .. '}') end`;
  await redisCli(['EVAL', script, '1', `push:${channel}`]);
}

/** Publishes {"n":i} to `${prefix}${i}` for i from 1 to count. */
export async function redisSpread(prefix, count) {
  const script = `for n = 1, ${count} do redis.call('PUBLISH', KEYS[1] .. n, '{"n":' .. n .. '}') end`;
  await redisCli(['EVAL', script, '1', `push:${prefix}`]);
}

/** Publishes until Redis has handed one to a node; returns that payload, which must then arrive. */
export async function publishUntilTaken(channel) {
  for (let attempt = 1, end = Date.now() + AFTER_RESTART; ; attempt++) {
    if ((await redisPublish(channel, JSON.stringify({ attempt }))) > 0) return { attempt };
    if (Date.now() > end) throw new Error(`nothing subscribed to ${channel} again`);
  }
}

/** Keeps what happened, and lets a test wait until it satisfies a condition. */
export class Log {
  items = [];
  #waiting = new Set();

  push(item) {
    this.items.push(item);
    for (const look of this.#waiting) look();
  }

  until(condition, what, deadline = SOON) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`${what}: not within ${deadline} ms; there was ${JSON.stringify(this.items.slice(-20))}`));
      }, deadline);
      const look = () => {
        if (!condition(this.items)) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(this.items);
      };
      this.#waiting.add(look);
      look();
    });
  }

  untilIncludes(item, what, deadline) {
    const text = JSON.stringify(item);
    return this.until((items) => items.some((other) => JSON.stringify(other) === text), what, deadline);
  }
}

const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));

/** The two wire formats: how to make a client, and how a payload looks to the application. */
export const formats = {
  json: { Client: JsonCentrifuge, encode: (value) => value, decode: (data) => data },
  protobuf: { Client: ProtobufCentrifuge, encode: bytes, decode: (data) => JSON.parse(new TextDecoder().decode(data)) },
};

/** Publishes as a backend that keeps what it publishes does; resolves to the offset. */
export async function redisCall(channel, payload, ...options) {
  const answer = await redisCli(['FCALL', 'push_publish', '1', `push:${channel}`, payload, ...options]);
  return Number(answer.split('\n')[0]);
}

/** A client with everything that happens to it on record; `frames` has the raw frames from the server. */
export function client(format, endpoint = endpoints.websocket) {
  const log = { states: new Log(), frames: new Log(), sockets: [] };
  class RecordedSocket extends WebSocket {
    constructor(...args) {
      super(...args);
      log.sockets.push(this);
      this.on('message', (data) => log.frames.push(Buffer.from(data).toString('latin1')));
    }
  }
  const centrifuge = new format.Client(endpoint, {
    websocket: RecordedSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
  });
  for (const state of ['connecting', 'connected', 'disconnected']) {
    centrifuge.on(state, (context) => log.states.push({ state, code: context.code, client: context.client }));
  }
  return { centrifuge, ...log };
}

/** A subscription with its publications (decoded) and states on record. */
export function subscription(format, centrifuge, channel, options = {}) {
  const log = { publications: new Log(), raw: new Log(), infos: new Log(), states: new Log(), subscribed: new Log() };
  const sub = centrifuge.newSubscription(channel, { minResubscribeDelay: 50, maxResubscribeDelay: 500, ...options });
  sub.on('publication', (context) => {
    log.raw.push(context.data);
    log.infos.push(context.info);
    let decoded;
    try {
      decoded = format.decode(context.data);
    } catch {
      decoded = undefined; // no JSON: the test looks at `raw`
    }
    log.publications.push(decoded);
  });
  for (const state of ['subscribing', 'subscribed', 'unsubscribed']) {
    sub.on(state, (context) => {
      log.states.push({ state, code: context.code });
      if (state === 'subscribed') log.subscribed.push(context);
    });
  }
  return { sub, ...log };
}

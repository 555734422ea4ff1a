// The demo page in headless Chromium, as a person would use it. Leaves screenshots in `.cache/screenshots`.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { chromium } from 'playwright-core';
import { AFTER_RESTART, SOON, endpoints, redisPublish, world } from './support.mjs';

const TEST = { timeout: 60_000 };
const CHANNEL = 'page-news';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);

describe('the demo page', () => {
  let browser;
  let page;
  const faults = [];
  const requests = [];

  before(async () => {
    assert.ok(executablePath, 'no Chromium: apt-get install chromium');
    mkdirSync(endpoints.screenshots, { recursive: true });
    browser = await chromium.launch({
      executablePath,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync'],
    });
    page = await browser.newPage({ viewport: { width: 1100, height: 800 } });
    page.setDefaultTimeout(SOON);
    page.on('pageerror', (error) => faults.push(String(error)));
    page.on('request', (request) => requests.push(request.url()));
    await page.goto(endpoints.http);
  });
  after(() => browser?.close());

  const connected = (timeout = SOON) =>
    page.locator('#state').filter({ hasText: /^\s*connected\s*$/, visible: true }).waitFor({ timeout });
  const shown = (text) => page.locator('#messages').getByText(text).first().waitFor({ state: 'visible' });
  const screenshot = (name) => page.screenshot({ path: join(endpoints.screenshots, `${name}.png`), fullPage: true });

  /** Publishes numbered messages until one is visible; each takes a redis-cli, so this is no busy loop. */
  async function untilListening(prefix) {
    for (let n = 1, end = Date.now() + AFTER_RESTART; Date.now() < end; n++) {
      await redisPublish(CHANNEL, JSON.stringify({ [prefix]: n }));
      if (await page.locator('#messages').getByText(prefix).first().isVisible()) return;
    }
    throw new Error(`no message with ${prefix} became visible`);
  }

  it('page: says that it is connected', TEST, async () => {
    await connected();
    await screenshot('1-connected');
  });

  it('page: shows the commands that publish and connect', TEST, async () => {
    const commands = page.locator('#commands');
    for (const part of ["PUBLISH 'push:news'", '/api/publish', 'new Centrifuge(']) {
      await commands.getByText(part).first().waitFor({ state: 'visible' });
    }
  });

  it('page: a redis-cli PUBLISH appears on it', TEST, async () => {
    await page.getByLabel('Channel', { exact: true }).fill(CHANNEL);
    await page.getByRole('button', { name: 'Subscribe', exact: true }).click();
    await page.locator('#channels [data-state=live]').filter({ hasText: CHANNEL, visible: true }).waitFor();
    await redisPublish(CHANNEL, '{"headline":"hello from redis-cli"}');
    await shown('hello from redis-cli');
    await screenshot('2-published-by-redis');
  });

  it('page: markup in a message is shown as text, not run', TEST, async () => {
    await redisPublish(CHANNEL, JSON.stringify({ markup: '<img src=x onerror="window.broken=true">' }));
    await shown('<img src=x');
    assert.equal(await page.evaluate(() => window.broken), undefined);
  });

  it('page: what is published on it appears', TEST, async () => {
    await page.locator('#data').fill('{"headline":"hello from the page"}');
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await shown('hello from the page');
    await screenshot('3-published-on-the-page');
  });

  it('page: comes back after a restart of the gateway', TEST, async () => {
    await world.restartGateway();
    await connected(AFTER_RESTART);
    await untilListening('back');
    await screenshot('4-after-a-restart');
  });

  it('page: raises no error and asks no other host for anything', TEST, () => {
    assert.deepEqual(faults, []);
    const origin = new URL(endpoints.http).host;
    assert.deepEqual(requests.filter((url) => !url.startsWith('data:') && new URL(url).host !== origin), []);
  });
});

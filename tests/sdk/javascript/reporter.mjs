// Prints one line per test, as `../harness/suites.py` reads them, and the error under a failed one.
export default async function* reporter(events) {
  for await (const { type, data } of events) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    if (data.details?.type === 'suite') continue;
    // Before Node 20 a file counts as a test of its own.
    if (data.name.endsWith('.mjs')) {
      if (type === 'test:fail' && data.details.error?.failureType !== 'subtestsFailed') yield failed(data);
      continue;
    }
    if (data.skip !== undefined) {
      yield `skip - ${data.name} # ${data.skip}\n`;
    } else if (type === 'test:pass') {
      yield `ok - ${data.name} (${(data.details.duration_ms / 1000).toFixed(2)}s)\n`;
    } else {
      yield failed(data);
    }
  }
}

function failed(data) {
  const error = data.details.error?.cause ?? data.details.error;
  // An SDK rejects with plain objects as well.
  return `not ok - ${data.name}\n${error?.stack ?? JSON.stringify(error)}\n`;
}

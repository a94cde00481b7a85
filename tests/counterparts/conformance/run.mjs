// Runs the official suite's server scenarios against a URL and writes what each scenario said.
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { flags } from '../lib/serving.mjs';
import { shim } from './shim.mjs';

const args = flags({
    url: { type: 'string' },
    spec: { type: 'string', default: '2025-11-25' },
    out: { type: 'string' },
    scenario: { type: 'string' },
    'scenario-timeout': { type: 'string', default: '30000' },
    'keep-results': { type: 'string' },
    verbose: { type: 'boolean', default: false }
});
if (args.url === undefined) {
    console.error('--url is missing');
    process.exit(2);
}
// From the environment: arguments show up in process lists.
const token = process.env.TOKEN;

const require = createRequire(import.meta.url);
const tool = path.join(path.dirname(require.resolve('@modelcontextprotocol/conformance/package.json')), 'dist', 'index.js');
const results = args['keep-results'] ?? (await mkdtemp(path.join(tmpdir(), 'conformance-')));
const through = token ? await shim(args.url, token) : { url: args.url, close: () => {} };

// Frozen requirement sets exist for two revisions; the older ones are what the suite tags with them.
const selection = args.scenario
    ? ['--scenario', args.scenario, '--spec-version', args.spec]
    : ['2025-11-25', '2026-07-28'].includes(args.spec)
        ? ['--requirements', args.spec]
        : ['--suite', 'all', '--spec-version', args.spec];
const suite = spawn(process.execPath, [tool, 'server', '--url', through.url, ...selection, '--output-dir', results, '--timeout', args['scenario-timeout']], {
    stdio: ['ignore', 'pipe', 'pipe']
});
let log = '';
for (const stream of [suite.stdout, suite.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (chunk) => {
        log += chunk;
        if (args.verbose) process.stderr.write(chunk);
    });
}
const status = await new Promise((resolve, reject) => {
    suite.on('error', reject);
    suite.on('close', resolve);
});
through.close();

// Which of them count is in the suite's own closing words.
const unscored = new Set([...(log.split('Not scored for')[1] ?? '').matchAll(/^ {2}\S ([\w-]+) \(/gm)].map((match) => match[1]));
const scenarios = {};
for (const folder of (await readdir(results)).sort()) {
    const name = /^server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(folder)?.[1];
    if (name === undefined) continue;
    const checks = JSON.parse(await readFile(path.join(results, folder, 'checks.json'), 'utf8'));
    const told = { required: !unscored.has(name), pass: 0, fail: 0, warn: 0, skip: 0, checks: {}, reasons: [] };
    for (const check of checks) {
        const key = { SUCCESS: 'pass', FAILURE: 'fail', WARNING: 'warn', SKIPPED: 'skip' }[check.status];
        // The rest is a log whose length depends on timing.
        if (key === undefined) continue;
        told[key] += 1;
        const tally = (told.checks[check.id] ??= {});
        tally[key] = (tally[key] ?? 0) + 1;
        if (key === 'fail') told.reasons.push(`${check.id}: ${check.errorMessage ?? check.description}`);
    }
    scenarios[name] = told;
}
if (args['keep-results'] === undefined) await rm(results, { recursive: true, force: true });

const all = Object.values(scenarios);
const required = all.filter((scenario) => scenario.required);
const summary = {
    suite: require('@modelcontextprotocol/conformance/package.json').version,
    spec: args.spec,
    suite_exit: status,
    required: required.length,
    required_failed: required.filter((scenario) => scenario.fail > 0).length,
    unscored: all.length - required.length,
    unscored_failed: all.filter((scenario) => !scenario.required && scenario.fail > 0).length,
    scenarios
};
const text = `${JSON.stringify(summary, null, 2)}\n`;
if (args.out === undefined) process.stdout.write(text);
else await writeFile(args.out, text);
const { scenarios: _, ...short } = summary;
console.error(JSON.stringify(short));
if (all.length === 0) console.error(log.slice(-4000));
process.exit(all.length > 0 && summary.required_failed === 0 && (args.scenario || status === 0) ? 0 : 1);

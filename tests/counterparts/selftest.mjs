// The counterparts against each other, before anything of ours stands between them.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Browser, walk } from './agents/browser.mjs';
import { listen } from './lib/serving.mjs';
import { finish, start } from './lib/spawn.mjs';

const PYTHON = ['venv', '.venv'].map((folder) => path.join(folder, 'bin', 'python')).find(existsSync);
let redirectUri;
let landing;
let as;
let jwtAs;
let upstream;
let jwtUpstream;

before(async () => {
    landing = createServer((_req, res) => res.end('landed'));
    redirectUri = `${await listen(landing, 0)}/oauth/callback/notes`;
    as = await start('authorization-server/server.mjs', ['--open-registration', '--redirect-uri', redirectUri]);
    jwtAs = await start('authorization-server/server.mjs', ['--open-registration', '--access-token-format', 'jwt']);
    upstream = await start('upstream/server.mjs', ['--introspection', as.introspection_endpoint], {
        INTROSPECTION_CLIENT_SECRET: as.introspection_client_secret
    });
    jwtUpstream = await start('upstream/server.mjs', ['--jwks', jwtAs.jwks_uri, '--issuer', jwtAs.issuer]);
});
after(() => {
    landing?.close();
    for (const server of [as, jwtAs, upstream, jwtUpstream]) server?.stop();
});

const control = async (server, order) => (await fetch(server.control, { method: 'POST', body: JSON.stringify(order) })).json();
const look = async (server, what = '') => (await fetch(server.control + what)).json();
const AGENTS = {
    'ts-v1': { command: process.execPath, program: 'agents/agent-ts-v1.mjs', eras: { '2025-11-25': [] } },
    'ts-v2': { command: process.execPath, program: 'agents/agent-ts-v2.mjs', eras: { '2026-07-28': [], '2025-11-25': ['--era', '2025-11-25'], '2025-06-18': ['--era', '2025-06-18'], '2025-03-26': ['--era', '2025-03-26'] } },
    py: { command: PYTHON, program: 'agents/agent_py.py', eras: { '2026-07-28': ['--era', '2026-07-28'], '2025-11-25': ['--era', '2025'] } }
};

for (const [name, agent] of Object.entries(AGENTS)) {
    for (const [version, era] of Object.entries(agent.eras)) {
        for (const [kind, server] of [['opaque', () => upstream], ['JWT', () => jwtUpstream]]) {
            test(`${name} signs in by itself and calls, ${version}, ${kind} tokens`, { skip: agent.command ? false : 'no virtual environment' }, async () => {
                const user = `${name}-${version}-${kind}`;
                const run = await finish(agent.command, [
                    agent.program, '--url', server().url, '--username', user, ...era, '--progress',
                    '--call', 'whoami', '{}', '--call', 'add_note', '{"text":"mine"}', '--call', 'list_notes', '{}',
                    '--call', 'ask', '{}', '--call', 'ask', '{"kind":"sampling"}', '--call', 'slow', '{"steps":2,"delay_ms":5}', '--call', 'erase_notes', '{}'
                ]);
                assert.equal(run.status, 0, JSON.stringify(run.lines));
                assert.equal(run.of('connected')[0].version, version);
                assert.equal(run.of('authorize')[0].resource, server().url);
                assert.equal(run.of('authorize')[0].code_challenge_method, 'S256');
                const texts = run.of('call').map((line) => line.result.content[0].text);
                assert.deepEqual(texts.slice(0, 3), [user, `${user} has 1 note(s)`, '["mine"]']);
                assert.equal(run.of('progress').filter((line) => line.total === 2).length, 2);
            });
        }
    }
}

/** The confidential client's code flow, as the gateway goes through it. */
async function connect(user, { resource, scope = 'notes:read' } = {}) {
    const verifier = randomBytes(32).toString('base64url');
    const query = new URLSearchParams({
        client_id: as.client_id, response_type: 'code', redirect_uri: redirectUri, scope, state: 'abc',
        code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
        ...(resource && { resource })
    });
    const browser = new Browser();
    const { page } = await walk(browser, await browser.open(`${as.authorization_endpoint}?${query}`), {
        who: () => ({ username: user, password: 'pw' }),
        arrived: (reached) => reached.url.href.startsWith(redirectUri)
    });
    const back = page.url;
    assert.equal(back.searchParams.get('iss'), as.issuer);
    return token({ grant_type: 'authorization_code', code: back.searchParams.get('code'), redirect_uri: redirectUri, code_verifier: verifier });
}

const basic = () => `Basic ${Buffer.from(`${as.client_id}:${as.client_secret}`).toString('base64')}`;
const post = (url, body) => fetch(url, { method: 'POST', headers: { authorization: basic() }, body: new URLSearchParams(body) });
const token = async (body) => {
    const answer = await post(as.token_endpoint, body);
    return { status: answer.status, ...(await answer.json()) };
};
const whoami = async (access) => {
    const answer = await fetch(upstream.url, {
        method: 'POST',
        headers: {
            authorization: `Bearer ${access}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream',
            'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'whoami'
        },
        body: JSON.stringify({
            jsonrpc: '2.0', id: 1, method: 'tools/call',
            params: {
                name: 'whoami', arguments: {},
                _meta: { 'io.modelcontextprotocol/protocolVersion': '2026-07-28', 'io.modelcontextprotocol/clientCapabilities': {}, 'io.modelcontextprotocol/clientInfo': { name: 'selftest', version: '1' } }
            }
        })
    });
    return answer.status === 200 ? (await answer.json()).result.structuredContent.subject : answer.status;
};

test('refresh tokens rotate, reuse ends the grant, revoking a user does too', async () => {
    const first = await connect('rotator', { resource: upstream.url });
    assert.equal(await whoami(first.access_token), 'rotator');
    const second = await token({ grant_type: 'refresh_token', refresh_token: first.refresh_token });
    assert.notEqual(second.refresh_token, first.refresh_token);
    assert.equal((await token({ grant_type: 'refresh_token', refresh_token: first.refresh_token })).error, 'invalid_grant');
    assert.equal((await token({ grant_type: 'refresh_token', refresh_token: second.refresh_token })).error, 'invalid_grant');

    const third = await connect('rotator');
    assert.equal(await whoami(third.access_token), 'rotator');
    assert.ok((await control(as, { revoke_user: 'rotator' })).revoked > 0);
    assert.equal(await whoami(third.access_token), 401);
    assert.equal((await token({ grant_type: 'refresh_token', refresh_token: third.refresh_token })).error, 'invalid_grant');
    const { tokens } = await look(as, '/tokens');
    for (const value of [first.access_token, second.refresh_token, third.access_token, as.client_secret]) {
        assert.ok(tokens.some((entry) => entry.value === value));
    }
});

test('a refused audience, a revoked token, a refresh token as bearer', async () => {
    const foreign = await connect('stray', { resource: 'https://elsewhere.example.test/mcp' });
    assert.equal(await whoami(foreign.access_token), 401);
    const own = await connect('stray', { resource: upstream.url });
    assert.equal(await whoami(own.refresh_token), 401);
    assert.equal((await post(as.revocation_endpoint, { token: own.access_token })).status, 200);
    assert.equal(await whoami(own.access_token), 401);
    assert.equal((await look(as)).revocations.at(-1).kind, 'access_token');
});

test('every token fault strikes once, the next request works', async () => {
    const { refresh_token: given } = await connect('unlucky', { resource: upstream.url });
    let refresh = given;
    const ask = () => post(as.token_endpoint, { grant_type: 'refresh_token', refresh_token: refresh });
    const expect = {
        500: async () => assert.equal((await ask()).status, 500),
        html: async () => assert.match((await ask()).headers.get('content-type'), /text\/html/),
        error: async () => assert.equal((await (await ask()).json()).error, 'invalid_grant'),
        '200-error': async () => {
            const answer = await ask();
            assert.equal(answer.status, 200);
            assert.equal((await answer.json()).error, 'invalid_grant');
        },
        form: async () => {
            const values = new URLSearchParams(await (await ask()).text());
            assert.ok(values.get('access_token'));
            refresh = values.get('refresh_token');
        },
        hang: async () => {
            const hanging = new AbortController();
            const answer = fetch(as.token_endpoint, { method: 'POST', headers: { authorization: basic() }, signal: hanging.signal, body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refresh }) });
            await new Promise((resolve) => setTimeout(resolve, 100));
            hanging.abort();
            await assert.rejects(answer, { name: 'AbortError' });
        }
    };
    for (const [mode, check] of Object.entries(expect)) {
        await control(as, { token_fault: { mode } });
        await check();
        const next = await (await ask()).json();
        assert.ok(next.access_token, `after ${mode}: ${JSON.stringify(next)}`);
        refresh = next.refresh_token;
    }
    for (const mode of ['drop', 'truncated']) {
        await control(as, { token_fault: { mode, grant_type: 'refresh_token' } });
        await assert.rejects(async () => (await ask()).json());
        // It was processed: what was sent is used up, and whoever did not get the answer has lost the grant.
        assert.equal((await (await ask()).json()).error, 'invalid_grant');
        refresh = (await connect('unlucky', { resource: upstream.url })).refresh_token;
    }
});

test('the device flow ends in a token', async () => {
    const started = await (await post(as.device_authorization_endpoint, { client_id: as.client_id, scope: 'notes:read' })).json();
    const poll = () => token({ grant_type: 'urn:ietf:params:oauth:grant-type:device_code', device_code: started.device_code });
    assert.equal((await poll()).error, 'authorization_pending');
    const browser = new Browser();
    await walk(browser, await browser.open(started.verification_uri_complete), {
        who: () => ({ username: 'tv', password: 'pw' }),
        press: ['Continue', 'Allow'],
        arrived: (page) => /Device connected/.test(page.text)
    });
    assert.equal(await whoami((await poll()).access_token), 'tv');
});

test('every upstream fault strikes once', async () => {
    const { access_token: access } = await connect('victim', { resource: upstream.url });
    const statuses = { html: 200, status: 500, 401: 401, 403: 403, redirect: 307 };
    for (const mode of ['drop', 'drop-stream', 'truncated', 'not-json', 'garbage', 'html', 'status', '401', '403', 'redirect']) {
        await control(upstream, { fault: { mode, method: 'tools/call' } });
        const broken = async () => {
            const answer = await fetch(upstream.url, { method: 'POST', redirect: 'manual', headers: { authorization: `Bearer ${access}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream' }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: {} }) });
            if (statuses[mode] !== undefined) {
                assert.equal(answer.status, statuses[mode]);
                await answer.text();
            } else await answer.json();
        };
        if (statuses[mode] !== undefined) await broken();
        else await assert.rejects(broken, mode);
        assert.equal(await whoami(access), 'victim');
    }
});

for (const spec of ['2025-03-26', '2025-06-18', '2025-11-25', '2026-07-28']) {
    test(`the upstream passes the official suite, ${spec}`, async () => {
        const open = await start('upstream/server.mjs');
        const out = path.join(tmpdir(), `selftest-${process.pid}-${spec}.json`);
        try {
            const run = await finish(process.execPath, ['conformance/run.mjs', '--url', open.url, '--spec', spec, '--out', out]);
            assert.equal(run.status, 0);
        } finally {
            open.stop();
        }
    });
}

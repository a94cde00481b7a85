// The project's own MCP server: the official SDK, both eras on one endpoint, protected or not, with faults on demand.
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { NodeStreamableHTTPServerTransport, localhostHostValidation, localhostOriginValidation, toNodeHandler } from '@modelcontextprotocol/node';
import { classifyInboundRequest, createMcpHandler, createRequestStateCodec, isInitializeRequest, McpServer } from '@modelcontextprotocol/server';
import { control, endWithParent, Fault, flags, listen, readBody, ready, sendJson } from '../lib/serving.mjs';
import { EventLog } from './events.mjs';
import { registerConformance } from './conformance.mjs';
import { notesOf, registerNotes } from './notes.mjs';
import { protection } from './protection.mjs';
import { FAULTS, strike } from './faults.mjs';
import { signatureOf, signatures } from './signatures.mjs';

const args = flags({
    port: { type: 'string', default: process.env.PORT ?? '0' },
    path: { type: 'string', default: '/mcp' },
    eras: { type: 'string', default: 'both' },
    responses: { type: 'string', default: 'auto' },
    'no-conformance': { type: 'boolean', default: false },
    introspection: { type: 'string' },
    jwks: { type: 'string' },
    issuer: { type: 'string' },
    resource: { type: 'string' },
    'client-id': { type: 'string', default: 'upstream' },
    'client-secret': { type: 'string', default: process.env.INTROSPECTION_CLIENT_SECRET },
    'required-scope': { type: 'string', multiple: true, default: [] },
    'scopes-supported': { type: 'string', default: 'notes:read notes:write' },
    'any-audience': { type: 'boolean', default: false },
    'max-body': { type: 'string', default: String(16 * 1024 * 1024) },
    verbose: { type: 'boolean', default: false }
});

const states = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });
const observed = { requests: [], tokens: new Set(), subjects: {}, cancelled: 0, disconnected: 0, unsigned: [] };
const fault = new Fault(FAULTS);
const unsigned = signatures(process.env.SIGNATURES);
const sessions = new Map();

/** A server for one session of 2025, or for one request of 2026. */
function build({ era }) {
    const server = new McpServer({ name: 'notes', version: '1.0.0' }, {
        capabilities: {
            tools: { listChanged: true },
            prompts: { listChanged: true },
            resources: { listChanged: true, subscribe: true },
            completions: {},
            ...(era === 'legacy' && { logging: {} })
        },
        instructions: 'A small notes service for tests.',
        requestState: { verify: states.verify }
    });
    registerNotes(server, { observed });
    if (!args['no-conformance']) registerConformance(server, { era, states, changed });
    return server;
}

function changed(kind) {
    if (kind === 'tool') modern.notify.toolsChanged();
    if (kind === 'prompt') modern.notify.promptsChanged();
    if (kind === 'resource') modern.notify.resourcesChanged();
    for (const { server } of sessions.values()) {
        const told = { tool: 'sendToolListChanged', prompt: 'sendPromptListChanged', resource: 'sendResourceListChanged' }[kind];
        Promise.resolve(server[told]()).catch(() => {});
    }
}

const complain = (error) => {
    if (args.verbose) console.error(error);
};
const modern = createMcpHandler(build, { legacy: 'reject', responseMode: args.responses, onerror: complain });
const modernNode = toNodeHandler(modern, { onerror: complain });

async function serveLegacy(req, res, body) {
    const id = req.headers['mcp-session-id'];
    if (id !== undefined) {
        const session = sessions.get(id);
        if (session === undefined) return sendJson(res, 404, { jsonrpc: '2.0', error: { code: -32001, message: 'Session not found' }, id: null });
        return session.transport.handleRequest(req, res, body);
    }
    if (req.method !== 'POST' || !isInitializeRequest(body)) {
        return sendJson(res, 400, { jsonrpc: '2.0', error: { code: -32000, message: 'Bad Request: Mcp-Session-Id is missing' }, id: body?.id ?? null });
    }
    const server = build({ era: 'legacy' });
    const transport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        enableJsonResponse: args.responses === 'json',
        eventStore: new EventLog(),
        // How long a client waits before it comes back for a stream that was closed.
        retryInterval: 500,
        onsessioninitialized: (session) => {
            sessions.set(session, { server, transport });
        }
    });
    transport.onclose = () => sessions.delete(transport.sessionId);
    transport.onerror = complain;
    await server.connect(transport);
    return transport.handleRequest(req, res, body);
}

function record(req, body, auth) {
    const members = Array.isArray(body) ? body : [body];
    for (const member of members) {
        observed.requests.push({
            http: req.method,
            method: member?.method ?? null,
            id: member?.id ?? null,
            name: member?.params?.name ?? member?.params?.uri ?? null,
            params: member?.params ?? null,
            subject: auth?.extra?.subject ?? null,
            headers: Object.keys(req.headers),
            signature: signatureOf(req),
            protocol_version: req.headers['mcp-protocol-version'] ?? null,
            session: req.headers['mcp-session-id'] ?? null,
            last_event_id: req.headers['last-event-id'] ?? null
        });
    }
    if (observed.requests.length > 1000) observed.requests.splice(0, observed.requests.length - 1000);
    const subject = auth?.extra?.subject;
    if (subject !== undefined) observed.subjects[subject] = (observed.subjects[subject] ?? 0) + members.length;
    if (auth?.token !== undefined) observed.tokens.add(auth.token);
}

/** Who the token belongs to, in XML, and with the token repeated: as careless as a provider can be. */
async function account(req, res) {
    const auth = await guard?.admit(req, res);
    if (auth === null || auth === undefined) return;
    res.writeHead(200, { 'content-type': 'application/xml' });
    res.end(`<account id="id-of-${auth.extra.subject}" name="${auth.extra.subject} of XML"><token>${auth.token}</token></account>`);
}

let guard = null;
const hostAllowed = localhostHostValidation();
const originAllowed = localhostOriginValidation();

async function serve(req, res) {
    if (!hostAllowed(req, res) || !originAllowed(req, res)) return;
    if (await control(req, res, switches)) return;
    if (guard?.describe(req, res)) return;
    const path = new URL(req.url, 'http://upstream').pathname;
    if (path === '/account') return account(req, res);
    if (path !== args.path) return sendJson(res, 404, { error: 'not here' });

    let auth = null;
    if (guard !== null) {
        auth = await guard.admit(req, res);
        if (auth === null) return;
        req.auth = auth;
    }
    let body;
    const bytes = req.method === 'POST' ? await readBody(req, Number(args['max-body'])) : Buffer.alloc(0);
    const wrong = unsigned?.(req, bytes) ?? null;
    if (wrong !== null) {
        observed.unsigned.push(wrong);
        return sendJson(res, 403, { error: 'bad_signature', error_description: wrong });
    }
    if (req.method === 'POST') {
        try {
            body = JSON.parse(bytes.toString('utf8'));
        } catch {
            return sendJson(res, 400, { jsonrpc: '2.0', error: { code: -32700, message: 'Parse error' }, id: null });
        }
    }
    record(req, body, auth);
    const method = Array.isArray(body) ? 'batch' : (body?.method ?? null);
    const struck = fault.take((armed) => armed.method === undefined ? req.method === 'POST' : armed.method === method);
    if (struck !== null) return strike(struck, { req, res, body, guard });

    res.on('close', () => {
        if (!res.writableFinished) observed.disconnected += 1;
    });
    const inbound = classifyInboundRequest({
        httpMethod: req.method,
        protocolVersionHeader: req.headers['mcp-protocol-version'],
        mcpMethodHeader: req.headers['mcp-method'],
        body
    });
    const legacy = args.eras === '2025' || (args.eras === 'both' && (inbound.kind === 'legacy' || req.headers['mcp-session-id'] !== undefined));
    return legacy ? serveLegacy(req, res, body) : modernNode(req, res, body);
}

const switches = {
    read: (path) => {
        if (path === '/requests') return { requests: observed.requests };
        if (path === '/tokens') return { tokens: [...observed.tokens] };
        if (path === '/notes') return { notes: notesOf() };
        if (path !== '/') return undefined;
        return {
            requests: observed.requests.length,
            subjects: observed.subjects,
            tokens: observed.tokens.size,
            sessions: sessions.size,
            cancelled: observed.cancelled,
            disconnected: observed.disconnected,
            unsigned: observed.unsigned,
            fault: fault.armed
        };
    },
    write: async (order) => {
        for (const [key, value] of Object.entries(order)) {
            if (key === 'fault') fault.set(value);
            else if (key === 'announce') changed(value);
            else if (key === 'drop_sessions') {
                for (const { transport } of [...sessions.values()]) await transport.close();
                sessions.clear();
            } else if (key === 'reset') {
                Object.assign(observed, { requests: [], tokens: new Set(), subjects: {}, cancelled: 0, disconnected: 0, unsigned: [] });
            } else throw new Error(`unknown switch ${key}`);
        }
        return {};
    }
};

const http = createServer((req, res) => {
    serve(req, res).catch((error) => {
        complain(error);
        if (!res.headersSent) sendJson(res, error.status ?? 500, { jsonrpc: '2.0', error: { code: -32603, message: 'Internal error' }, id: null });
        else res.destroy();
    });
});
const origin = await listen(http, args.port);
const url = `${origin}${args.path}`;
guard = protection(args, args.resource ?? url);
endWithParent();
ready({ url, control: `${origin}/_control`, protected: guard !== null, ...(guard && { resource_metadata: guard.resourceMetadataUrl }) });

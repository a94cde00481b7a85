// An agent on top of an official SDK: what both generations of the TypeScript SDK have in common.
import { createServer } from 'node:http';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { listen } from '../lib/serving.mjs';
import { Browser, walk } from './browser.mjs';

const OPTIONS = {
    url: { type: 'string' },
    username: { type: 'string' },
    password: { type: 'string', default: process.env.AGENT_PASSWORD ?? 'pw' },
    'new-password': { type: 'string' },
    'connect-username': { type: 'string' },
    'connect-password': { type: 'string', default: 'pw' },
    era: { type: 'string' },
    token: { type: 'string', default: process.env.AGENT_TOKEN },
    scope: { type: 'string' },
    'client-name': { type: 'string' },
    'client-metadata-url': { type: 'string' },
    elicitation: { type: 'string', default: 'accept-first' },
    'no-url-elicitation': { type: 'boolean', default: false },
    'no-elicitation': { type: 'boolean', default: false },
    'no-sampling': { type: 'boolean', default: false },
    'no-list': { type: 'boolean', default: false },
    progress: { type: 'boolean', default: false },
    timeout: { type: 'string' },
    state: { type: 'string' },
    'forget-tokens': { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false }
};

class Usage extends Error {}

/** `--call` takes two values, which the standard parser can't express. */
function commandLine(argv) {
    const calls = [];
    const rest = [];
    for (let index = 0; index < argv.length; index += 1) {
        if (argv[index] !== '--call') {
            rest.push(argv[index]);
            continue;
        }
        if (index + 2 >= argv.length) throw new Usage('--call wants a tool and its arguments as JSON');
        calls.push({ tool: argv[index + 1], args: JSON.parse(argv[index + 2]) });
        index += 2;
    }
    const { values } = parseArgs({ args: rest, options: OPTIONS, allowPositionals: false });
    if (values.url === undefined) throw new Usage('--url is missing');
    return { ...values, calls };
}

const say = (step, facts = {}) => process.stdout.write(`${JSON.stringify({ step, ...facts })}\n`);
const reasonOf = (error) => {
    const causes = [];
    for (let at = error; at instanceof Error && causes.length < 4; at = at.cause) causes.push(at.message || at.name);
    return causes.join(': ') || String(error);
};

/** Where the agent keeps what it knows between two runs. */
class Memory {
    constructor(file, forgetTokens) {
        this.file = file;
        this.data = { clients: {}, tokens: null, discovery: null, cookies: [], port: 0 };
        if (file && existsSync(file)) Object.assign(this.data, JSON.parse(readFileSync(file, 'utf8')));
        if (forgetTokens) this.data.tokens = null;
    }

    save() {
        if (this.file) writeFileSync(this.file, JSON.stringify(this.data), { mode: 0o600 });
    }
}

class Provider {
    #verifier;

    constructor(options, memory, redirectUrl, sdk) {
        this.memory = memory;
        this.redirectUrl = redirectUrl;
        this.clientMetadata = {
            client_name: options['client-name'] ?? sdk,
            redirect_uris: [redirectUrl],
            grant_types: ['authorization_code', 'refresh_token'],
            response_types: ['code'],
            token_endpoint_auth_method: 'none',
            ...(options.scope && { scope: options.scope })
        };
        if (options['client-metadata-url']) this.clientMetadataUrl = options['client-metadata-url'];
    }

    #key = (context) => context?.issuer ?? 'any';

    clientInformation(context) {
        return this.memory.data.clients[this.#key(context)];
    }

    saveClientInformation(information, context) {
        this.memory.data.clients[this.#key(context)] = information;
        this.memory.save();
        say('registered', { client_id: information.client_id, issuer: context?.issuer });
    }

    tokens() {
        return this.memory.data.tokens ?? undefined;
    }

    saveTokens(tokens) {
        this.memory.data.tokens = tokens;
        this.memory.save();
        say('token', { scope: tokens.scope, expires_in: tokens.expires_in, refresh_token: tokens.refresh_token !== undefined });
    }

    state() {
        this.expectedState = crypto.randomUUID();
        return this.expectedState;
    }

    redirectToAuthorization(url) {
        this.authorizationUrl = url;
        const asked = Object.fromEntries(['resource', 'scope', 'code_challenge_method', 'redirect_uri', 'client_id'].map((name) => [name, url.searchParams.get(name)]));
        say('authorize', { url: url.origin + url.pathname, ...asked });
    }

    saveCodeVerifier(verifier) {
        this.#verifier = verifier;
    }

    codeVerifier() {
        return this.#verifier;
    }

    saveDiscoveryState(state) {
        this.memory.data.discovery = state;
        this.memory.save();
    }

    discoveryState() {
        return this.memory.data.discovery ?? undefined;
    }

    invalidateCredentials(scope) {
        say('invalidated', { scope });
        if (scope === 'all' || scope === 'tokens') this.memory.data.tokens = null;
        if (scope === 'all' || scope === 'client') this.memory.data.clients = {};
        if (scope === 'all' || scope === 'discovery') this.memory.data.discovery = null;
        this.memory.save();
    }
}

/** `sdk` adapts one generation: {name, connect, UnauthorizedError, version}. */
export async function run(sdk) {
    let options;
    try {
        options = commandLine(process.argv.slice(2));
    } catch (error) {
        console.error(error.message);
        process.exit(2);
    }
    try {
        process.exitCode = await new Agent(sdk, options).live();
    } catch (error) {
        say('failed', { reason: reasonOf(error), ...(error.code !== undefined && { code: error.code }), ...(error.data !== undefined && { data: error.data }) });
        process.exitCode = 1;
    }
    // Streams that the SDK holds open must not keep us here.
    process.exit();
}

class Agent {
    #visits = [];
    #failedCalls = 0;

    constructor(sdk, options) {
        this.sdk = sdk;
        this.options = options;
        this.home = new URL(options.url).origin;
        this.memory = new Memory(options.state, options['forget-tokens']);
        this.browser = new Browser({ log: (entry) => options.trace && say('page', entry) });
        this.browser.jar.cookies = this.memory.data.cookies;
    }

    async live() {
        const { options } = this;
        await this.#openRedirectPort();
        this.provider = new Provider(options, this.memory, this.redirectUrl, this.sdk.name);
        await this.#connect();
        if (!options['no-list']) await this.#list();
        for (const { tool, args } of options.calls) await this.#call(tool, args);
        if (options.stdin) await this.#obey();
        await this.#settle();
        await this.session.close();
        say('done', { failed_calls: this.#failedCalls });
        return this.#failedCalls > 0 ? 4 : 0;
    }

    /** The agent's own loopback redirect URI, with a server behind it as in a real one. */
    async #openRedirectPort() {
        const server = createServer((req, res) => {
            const url = new URL(req.url, 'http://agent');
            res.writeHead(url.pathname === '/callback' ? 200 : 404, { 'content-type': 'text/plain' });
            res.end('You can close this page.');
            if (url.pathname === '/callback') this.returned?.(url.searchParams);
        });
        const origin = await listen(server, this.memory.data.port);
        this.memory.data.port = Number(new URL(origin).port);
        this.redirectUrl = `${origin}/callback`;
    }

    #who = (connecting) => (origin) => {
        const { options } = this;
        if (connecting && origin !== this.home) return { username: options['connect-username'], password: options['connect-password'] };
        if (options.username === undefined) throw new Error(`${origin} wants a sign-in and no --username was given`);
        return { username: options.username, password: options.password, newPassword: options['new-password'] };
    };

    /** The user's part of the OAuth flow: from the authorization URL to the redirect URI. */
    async #authorize() {
        const { provider } = this;
        const url = provider.authorizationUrl;
        if (url === undefined) throw new Error('unauthorized, and the SDK did not ask for an authorization');
        provider.authorizationUrl = undefined;
        const back = new Promise((resolve) => {
            this.returned = resolve;
        });
        const { pressed } = await walk(this.browser, await this.browser.open(url), {
            who: this.#who(false),
            arrived: (page) => page.url.href.startsWith(`${this.redirectUrl}?`)
        });
        const query = await back;
        this.memory.data.cookies = this.browser.jar.cookies;
        this.memory.save();
        if (query.has('error')) throw new Error(`authorization refused: ${query.get('error')} ${query.get('error_description') ?? ''}`);
        if (query.get('state') !== provider.expectedState) throw new Error('the state that came back is not ours');
        say('authorized', { pressed, iss: query.get('iss') });
        return query;
    }

    /** Runs what needs a token; when the SDK has to ask the user, does that and runs it again. */
    async #authorized(transport, act) {
        for (let round = 0; ; round += 1) {
            try {
                return await act();
            } catch (error) {
                if (!(error instanceof this.sdk.UnauthorizedError) || this.options.token || round > 1) throw error;
                say('unauthorized', { reason: error.message || undefined });
                await this.sdk.finishAuth(transport(), await this.#authorize());
            }
        }
    }

    async #connect() {
        let transport;
        await this.#authorized(() => transport, async () => {
            // A started transport can't start again, so each attempt gets its own.
            transport = this.sdk.transport({ url: new URL(this.options.url), provider: this.provider, token: this.options.token, fetch: this.#fetch });
            this.session = await this.sdk.connect(transport, this);
        });
        this.transport = transport;
        say('connected', { version: this.session.version(), server: this.session.server(), session: transport.sessionId !== undefined });
    }

    #fetch = async (input, init) => {
        const url = new URL(input instanceof Request ? input.url : input);
        const answer = await fetch(input, init);
        const own = url.href === new URL(this.options.url).href;
        // Requests to the endpoint itself only matter here when they are refused.
        if (!own || !answer.ok) {
            say('http', {
                method: init?.method ?? 'GET',
                url: url.origin + url.pathname,
                status: answer.status,
                ...(answer.headers.has('www-authenticate') && { www_authenticate: answer.headers.get('www-authenticate') })
            });
        }
        return answer;
    };

    async #list() {
        const tools = await this.#authorized(() => this.transport, () => this.session.listTools());
        say('tools', { count: tools.length, names: tools.map((tool) => tool.name) });
    }

    async #call(tool, args) {
        const started = Date.now();
        for (let attempt = 1; ; attempt += 1) {
            let outcome;
            try {
                const result = await this.#authorized(() => this.transport, () => this.session.callTool(tool, args, {
                    ...(this.options.timeout && { timeout: Number(this.options.timeout) }),
                    ...(this.options.progress && { onprogress: (progress) => say('progress', progress) })
                }));
                outcome = { ok: result.isError !== true, result };
            } catch (error) {
                outcome = { ok: false, error: { code: error.code, message: error.message, data: error.data } };
            }
            const links = [
                ...(outcome.error?.data?.elicitations ?? []).map((entry) => entry.url),
                outcome.error?.data?.countersign?.authorize_url,
                outcome.result?._meta?.countersign?.authorize_url
            ].filter(Boolean);
            const link = links[0];
            say('call', { tool, attempt, ms: Date.now() - started, ...outcome });
            if (outcome.ok) return;
            if (link === undefined || attempt > 1 || this.options['connect-username'] === undefined) {
                this.#failedCalls += 1;
                return;
            }
            await this.visit(link);
        }
    }

    /** What a user does with a link: opens it, connects the account, comes back. */
    async visit(link) {
        const url = new URL(link);
        say('visit', { url: url.origin + url.pathname });
        const { page, pressed } = await walk(this.browser, await this.browser.open(url), {
            who: this.#who(true),
            press: ['Connect', 'Reconnect', 'Allow', 'Continue'],
            // Back home after the provider's consent: whatever is shown now is the outcome.
            arrived: (page, pressed) => page.status < 400 && page.url.origin === this.home && pressed.some((label) => ['Connect', 'Reconnect'].includes(label))
                && !page.formWith('Sign in')
        });
        this.memory.data.cookies = this.browser.jar.cookies;
        this.memory.save();
        say('visited', { url: page.url.origin + page.url.pathname, status: page.status, pressed, text: page.words });
    }

    capabilities() {
        const { options } = this;
        return {
            ...(!options['no-sampling'] && { sampling: {} }),
            ...(!options['no-elicitation'] && { elicitation: { form: {}, ...(!options['no-url-elicitation'] && { url: {} }) } })
        };
    }

    /** Answers elicitations, whichever way they arrive. */
    async elicited(params) {
        say('elicitation', { mode: params.mode ?? 'form', message: params.message, url: params.url, elicitation_id: params.elicitationId });
        const manner = this.options.elicitation;
        if (manner === 'decline' || manner === 'cancel') return { action: manner };
        if (params.mode !== 'url') {
            const filled = {};
            for (const [name, schema] of Object.entries(params.requestedSchema?.properties ?? {})) {
                filled[name] = schema.default ?? { string: schema.enum?.[0] ?? 'blue', boolean: true, integer: 1, number: 1 }[schema.type] ?? 'blue';
            }
            return { action: 'accept', content: filled };
        }
        if (this.options['connect-username'] === undefined) return { action: 'cancel' };
        const visit = this.visit(params.url);
        if (manner === 'visit-first') await visit;
        // Accepting only says that the page is open; the user is still at it.
        else this.#visits.push(visit.catch((error) => error));
        return { action: 'accept' };
    }

    async sampled(params) {
        say('sampling', { messages: params.messages.length });
        return { model: 'counterpart', role: 'assistant', content: { type: 'text', text: 'a completion' } };
    }

    notified(notification) {
        say('notification', { method: notification.method, params: notification.params });
    }

    async #settle() {
        for (const failure of await Promise.all(this.#visits.splice(0))) if (failure instanceof Error) throw failure;
    }

    /** One JSON object per line on stdin, until it ends. */
    async #obey() {
        say('listening');
        for await (const line of createInterface({ input: process.stdin })) {
            if (line.trim() === '') continue;
            const order = JSON.parse(line);
            try {
                if (order.call) await this.#call(order.call, order.arguments ?? {});
                else if (order.list) await this.#list();
                else if (order.visit) await this.visit(order.visit);
                else if (order.request) say('answer', { result: await this.#authorized(() => this.transport, () => this.session.request(order.request, order.params ?? {})) });
                else if (order.quit) break;
                else throw new Error('orders are call, list, visit, request, quit');
                await this.#settle();
            } catch (error) {
                say('answer', { error: { code: error.code, message: reasonOf(error), data: error.data } });
            }
        }
    }
}

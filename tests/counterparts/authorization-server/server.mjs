// An upstream provider's authorization server: oidc-provider with plain pages and switches for tests.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import Provider, { errors } from 'oidc-provider';
import { control, endWithParent, escapeHtml, Fault, flags, listen, readBody, ready } from '../lib/serving.mjs';
import { createLocalJWKSet } from 'jose';
import { JWT_BEARER, registerAssertionGrants, TOKEN_EXCHANGE } from './assertions.mjs';
import { MemoryStore } from './store.mjs';

const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code';
const MACHINE_GRANTS = ['client_credentials', TOKEN_EXCHANGE, JWT_BEARER];

const args = flags({
    port: { type: 'string', default: process.env.PORT ?? '0' },
    'client-id': { type: 'string', default: 'countersign' },
    'client-secret': { type: 'string', default: process.env.CLIENT_SECRET },
    'redirect-uri': { type: 'string', multiple: true, default: [] },
    'token-auth-method': { type: 'string', default: 'client_secret_basic' },
    'client-jwks': { type: 'string', default: process.env.CLIENT_JWKS },
    'signing-alg': { type: 'string' },
    'introspection-client-id': { type: 'string', default: 'upstream' },
    'introspection-client-secret': { type: 'string', default: process.env.INTROSPECTION_CLIENT_SECRET },
    scopes: { type: 'string', default: 'openid offline_access notes:read notes:write' },
    resource: { type: 'string', multiple: true, default: [] },
    'access-token-format': { type: 'string', default: 'opaque' },
    'access-ttl': { type: 'string', default: '300' },
    'refresh-ttl': { type: 'string', default: '86400' },
    'refresh-tokens': { type: 'string', default: 'always' },
    'no-rotation': { type: 'boolean', default: false },
    'open-registration': { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false }
});

const settings = {
    access_ttl: Number(args['access-ttl']),
    refresh_ttl: Number(args['refresh-ttl']),
    access_token_format: args['access-token-format'],
    rotation: !args['no-rotation'],
    answer_delay_ms: 0,
    withhold_scopes: [],
    iss_override: null,
    trusted_issuer: { issuer: null, jwks: null }
};
const scopes = args.scopes.split(/[\s,]+/).filter(Boolean);
const resourceScopes = scopes.filter((scope) => scope !== 'openid' && scope !== 'offline_access');

const secretOf = (given) => given ?? randomBytes(24).toString('base64url');
const redirectUris = new Set(args['redirect-uri']);
const client = {
    client_id: args['client-id'],
    client_secret: secretOf(args['client-secret']),
    client_name: 'Countersign',
    application_type: 'web',
    grant_types: ['authorization_code', 'refresh_token', DEVICE_GRANT, ...MACHINE_GRANTS],
    response_types: ['code'],
    token_endpoint_auth_method: args['token-auth-method'],
    ...(args['client-jwks'] && { jwks: JSON.parse(args['client-jwks']) }),
    ...(args['signing-alg'] && { token_endpoint_auth_signing_alg: args['signing-alg'] })
};
// The resource server asks about tokens as itself, never as the client that holds them.
const introspector = {
    client_id: args['introspection-client-id'],
    client_secret: secretOf(args['introspection-client-secret']),
    client_name: 'Resource server',
    grant_types: [],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'client_secret_basic'
};
// oidc-provider wants one redirect URI; without any the client only has the device flow.
const clientRecord = () => {
    const uris = [...redirectUris];
    if (uris.length > 0) return { ...client, redirect_uris: uris };
    return { ...client, grant_types: [DEVICE_GRANT, 'refresh_token', ...MACHINE_GRANTS], response_types: [], redirect_uris: [] };
};

const store = new MemoryStore((id) => {
    if (id === client.client_id) return clientRecord();
    if (id === introspector.client_id) return introspector;
    return undefined;
});

const issued = [];
const assertions = [];
const userCodes = [];
const tallies = { token_requests: {}, token_answers: {}, introspections: 0, registrations: 0, revocations: [], authorizations: [] };
const resetTallies = () => {
    Object.assign(tallies, { token_requests: {}, token_answers: {}, introspections: 0, registrations: 0, revocations: [], authorizations: [] });
};
const tokenFault = new Fault(['500', 'html', '200-error', 'error', '429', 'drop', 'hang', 'form', 'truncated', 'late', 'twice', 'skew']);
const grants = new Map();

const count = (table, key) => {
    table[key] = (table[key] ?? 0) + 1;
};
const remember = (kind, value, facts = {}) => {
    if (typeof value === 'string' && value !== '') issued.push({ kind, value, ...facts });
};

const jwk = (type, options, alg) => ({
    ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }),
    use: 'sig',
    alg
});

async function infoOf(resource) {
    if (args.resource.length > 0 && !args.resource.includes(resource)) throw new errors.InvalidTarget();
    return {
        scope: resourceScopes.join(' '),
        audience: resource,
        accessTokenTTL: settings.access_ttl,
        accessTokenFormat: settings.access_token_format,
        ...(settings.access_token_format === 'jwt' && { jwt: { sign: { alg: 'ES256' } } })
    };
}

const configuration = {
    adapter: store.adapter,
    findAccount: (_ctx, sub) => ({
        accountId: sub,
        claims: () => ({ sub, name: sub, preferred_username: sub, email: `${encodeURIComponent(sub)}@example.test` })
    }),
    claims: { openid: ['sub', 'name', 'preferred_username', 'email'] },
    conformIdTokenClaims: false,
    scopes,
    // Cookies know no port: other servers on this host must not be disturbed by ours.
    cookies: {
        keys: [randomBytes(24).toString('base64url')],
        names: { session: 'provider_session', interaction: 'provider_interaction', resume: 'provider_resume' }
    },
    responseTypes: ['code'],
    jwks: { keys: [jwk('rsa', { modulusLength: 2048 }, 'RS256'), jwk('ec', { namedCurve: 'P-256' }, 'ES256')] },
    pkce: { required: () => true },
    rotateRefreshToken: () => settings.rotation,
    issueRefreshToken: async (_ctx, owner, code) => {
        if (!owner.grantTypeAllowed('refresh_token') || args['refresh-tokens'] === 'never') return false;
        return args['refresh-tokens'] === 'always' || code.scopes.has('offline_access');
    },
    // Also without offline_access: a connection outlives the user's session in the browser.
    expiresWithSession: async () => false,
    ttl: {
        AccessToken: () => settings.access_ttl,
        RefreshToken: () => settings.refresh_ttl,
        ClientCredentials: () => settings.access_ttl,
        AuthorizationCode: 60,
        DeviceCode: 600,
        Grant: 30 * 86400,
        IdToken: 3600,
        Interaction: 3600,
        Session: 86400
    },
    // What was refused before is asked again: a user may have come to grant just that.
    loadExistingGrant: async (ctx) => {
        const decided = ctx.oidc.result?.consent?.grantId;
        const grantId = decided ?? ctx.oidc.session.grantIdFor(ctx.oidc.client.clientId);
        const grant = grantId && (await ctx.oidc.provider.Grant.find(grantId));
        if (grant && !decided) delete grant.rejected;
        return grant || undefined;
    },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
        devInteractions: { enabled: false },
        rpInitiatedLogout: { enabled: false },
        introspection: { enabled: true, allowedPolicy: async () => true },
        revocation: { enabled: true, allowedPolicy: async (_ctx, owner, token) => owner.clientId === token.clientId },
        registration: { enabled: args['open-registration'] },
        registrationManagement: { enabled: args['open-registration'] },
        resourceIndicators: {
            enabled: true,
            defaultResource: async () => undefined,
            useGrantedResource: async () => true,
            getResourceServerInfo: async (_ctx, resource) => infoOf(resource)
        },
        clientCredentials: { enabled: true },
        deviceFlow: {
            enabled: true,
            charset: 'base-20',
            mask: '****-****',
            userCodeInputSource: async (ctx, form, _out, error) => {
                const said = error ? '<p role="alert">That code is not right.</p>' : '';
                ctx.body = page('Connect a device', `${said}${withButtons(form, '<button type="submit">Continue</button>')}`);
            },
            userCodeConfirmSource: async (ctx, form, owner, _device, userCode) => {
                const buttons = '<button type="submit">Continue</button><button type="submit" name="abort" value="yes">Cancel</button>';
                const name = escapeHtml(owner.clientName ?? owner.clientId);
                ctx.body = page('Connect a device', `<p>${name} shows the code ${escapeHtml(userCode)}.</p>${withButtons(form, buttons)}`);
            },
            successSource: async (ctx) => {
                ctx.body = page('Device connected', '<p>You can go back to your device.</p>');
            }
        }
    },
    renderError: async (ctx, out, error) => {
        if (args.verbose) console.error(error);
        ctx.type = 'html';
        ctx.body = page('Something is wrong', `<p role="alert">${escapeHtml(out.error)}: ${escapeHtml(out.error_description ?? '')}</p>`);
    }
};

function page(title, body) {
    return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title></head>`
        + `<body><main><h1>${escapeHtml(title)}</h1>${body}</main></body></html>`;
}

const withButtons = (form, buttons) => form.replace('</form>', `${buttons}</form>`);

function signInPage(uid, owner) {
    return page('Sign in to the provider', `<p>to continue to ${escapeHtml(owner)}</p>
<form method="post" action="/interaction/${uid}/login">
<label>Username <input name="username" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button type="submit">Sign in</button></form>`);
}

function consentPage(uid, owner, account, wanted) {
    const boxes = wanted.map(({ scope, resource }) => {
        const value = escapeHtml(resource === undefined ? scope : `${scope} ${resource}`);
        const checked = settings.withhold_scopes.includes(scope) ? '' : ' checked';
        return `<li><label><input type="checkbox" name="scope" value="${value}"${checked}> ${escapeHtml(scope)}</label></li>`;
    });
    return page('Allow access', `<p>${escapeHtml(owner)} wants to use the account of ${escapeHtml(account)}:</p>
<form method="post" action="/interaction/${uid}/consent"><ul>${boxes.join('')}</ul>
<button type="submit" name="decision" value="allow">Allow</button>
<button type="submit" name="decision" value="deny">Deny</button></form>`);
}

/** Every scope that a consent prompt still misses, with the resource it is for. */
function wantedScopes(details) {
    const wanted = (details.missingOIDCScope ?? []).map((scope) => ({ scope }));
    for (const [resource, names] of Object.entries(details.missingResourceScopes ?? {})) {
        for (const scope of names) wanted.push({ scope, resource });
    }
    return wanted;
}

let provider;

async function interaction(req, res, step) {
    const sendPage = (html) => {
        res.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
        res.end(html);
    };
    const { uid, prompt, params, session, grantId } = await provider.interactionDetails(req, res);
    const owner = await provider.Client.find(params.client_id);
    const name = owner.clientName ?? owner.clientId;
    const finish = (result) => provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });

    if (req.method === 'GET') {
        if (prompt.name === 'login') return sendPage(signInPage(uid, name));
        return sendPage(consentPage(uid, name, session.accountId, wantedScopes(prompt.details)));
    }
    const form = new URLSearchParams((await readBody(req, 65536)).toString('utf8'));
    if (prompt.name === 'login' && step === 'login') {
        const account = (form.get('username') ?? '').trim();
        if (account === '') return sendPage(signInPage(uid, name));
        return finish({ login: { accountId: account } });
    }
    if (prompt.name !== 'consent' || step !== 'consent') throw new Error('this form belongs to another step');
    if (form.get('decision') !== 'allow') {
        return finish({ error: 'access_denied', error_description: 'the user said no' });
    }
    const ticked = new Set(form.getAll('scope'));
    const grant = (grantId && (await provider.Grant.find(grantId)))
        || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    delete grant.rejected;
    for (const { scope, resource } of wantedScopes(prompt.details)) {
        // What is left unticked is noted as refused: otherwise the library asks again at once.
        if (resource === undefined) {
            if (ticked.has(scope)) grant.addOIDCScope(scope);
            else grant.rejectOIDCScope(scope);
        } else if (ticked.has(`${scope} ${resource}`)) grant.addResourceScope(resource, scope);
        else grant.rejectResourceScope(resource, scope);
    }
    if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
    const id = await grant.save();
    if (!grants.has(session.accountId)) grants.set(session.accountId, new Set());
    grants.get(session.accountId).add(id);
    return finish({ consent: { grantId: id } });
}

const HTML_ERROR = page('Bad gateway', '<p>The server is taking a break.</p>');

/** Wraps the library: faults and tallies around its own answers. */
async function observe(ctx, next) {
    const isToken = ctx.path === '/token' && ctx.method === 'POST';
    let fault = null;
    if (isToken) {
        const body = await readBody(ctx.req, 65536);
        ctx.req.body = body;
        const params = new URLSearchParams(body.toString('utf8'));
        const grantType = params.get('grant_type') ?? 'none';
        count(tallies.token_requests, grantType);
        fault = tokenFault.take((armed) => armed.grant_type === undefined || armed.grant_type === grantType);
        const processed = fault?.processed ?? ['drop', 'form', 'truncated', 'late', 'twice', 'skew'].includes(fault?.mode);
        if (!processed && fault !== null) {
            await strike(ctx, fault);
            count(tallies.token_answers, `${grantType} ${fault.mode}`);
            return;
        }
        await next();
        const owner = { client_id: ctx.oidc?.client?.clientId, account: ctx.oidc?.account?.accountId };
        for (const kind of ['access_token', 'refresh_token', 'id_token']) remember(kind, ctx.body?.[kind], owner);
        count(tallies.token_answers, `${grantType} ${fault?.mode ?? ctx.status}`);
        if (settings.answer_delay_ms > 0) await new Promise((done) => setTimeout(done, settings.answer_delay_ms));
        if (fault !== null) await strike(ctx, fault);
        return;
    }
    await next();
    if (ctx.path === '/token/introspection') tallies.introspections += 1;
    if (ctx.path === '/token/revocation') {
        const token = ctx.oidc?.params?.token;
        const known = issued.find((entry) => entry.value === token);
        tallies.revocations.push({ kind: known?.kind ?? 'unknown', client_id: ctx.oidc?.client?.clientId, status: ctx.status });
    }
    if (ctx.path === '/reg' && ctx.status === 201) {
        tallies.registrations += 1;
        remember('client_secret', ctx.body?.client_secret, { client_id: ctx.body?.client_id });
        remember('registration_access_token', ctx.body?.registration_access_token, { client_id: ctx.body?.client_id });
    }
    if (ctx.path === '/device/auth') {
        remember('device_code', ctx.body?.device_code);
        if (ctx.body?.user_code) userCodes.push(ctx.body.user_code);
    }
    const location = ctx.response.get('location');
    if (location && /[?&](code|error)=/.test(location)) {
        const target = new URL(location, provider.issuer);
        remember('code', target.searchParams.get('code'), { client_id: ctx.oidc?.client?.clientId });
        if (settings.iss_override !== null) {
            if (settings.iss_override === '') target.searchParams.delete('iss');
            else target.searchParams.set('iss', settings.iss_override);
            ctx.set('location', target.href);
        }
    }
}

async function strike(ctx, fault) {
    switch (fault.mode) {
        case '500':
            ctx.status = 500;
            ctx.body = { error: 'server_error' };
            break;
        case 'html':
            ctx.status = fault.status ?? 502;
            ctx.type = 'html';
            ctx.body = HTML_ERROR;
            break;
        case 'error':
            ctx.status = fault.status ?? 400;
            ctx.body = { error: fault.error ?? 'invalid_grant' };
            break;
        case '200-error':
            ctx.status = 200;
            ctx.body = { error: fault.error ?? 'invalid_grant', error_description: 'said with status 200' };
            break;
        case '429':
            ctx.status = 429;
            ctx.set('retry-after', String(fault.retry_after ?? 2));
            ctx.body = { error: 'slow_down' };
            break;
        case 'late':
            await new Promise((resolve) => setTimeout(resolve, fault.delay_ms ?? 3000));
            break;
        case 'skew':
            // As of a clock that is ahead: what ends in the past has ended already.
            ctx.body = { ...ctx.body, expires_in: fault.expires_in ?? -3600 };
            break;
        case 'twice': {
            // The same answer twice on one connection; the second belongs to no request.
            const whole = JSON.stringify(ctx.body);
            const head = `HTTP/1.1 ${ctx.status} OK\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(whole)}\r\n\r\n`;
            ctx.respond = false;
            ctx.req.socket.write(`${head}${whole}${head}${whole}`, () => setTimeout(() => ctx.req.socket.destroy(), 200));
            break;
        }
        case 'form':
            ctx.body = new URLSearchParams(ctx.body).toString();
            ctx.type = 'application/x-www-form-urlencoded';
            break;
        case 'truncated': {
            // The announced length is right, what follows is not: the socket goes away half-way.
            const whole = JSON.stringify(ctx.body);
            ctx.respond = false;
            ctx.res.writeHead(ctx.status, { 'content-type': 'application/json', 'content-length': whole.length });
            ctx.res.write(whole.slice(0, Math.floor(whole.length / 2)), () => ctx.req.socket.destroy());
            break;
        }
        case 'drop':
            ctx.respond = false;
            ctx.req.socket.destroy();
            break;
        case 'hang':
            ctx.respond = false;
            break;
    }
}

async function revokeUser(account) {
    const ids = [...(grants.get(account) ?? [])];
    grants.delete(account);
    for (const id of ids) {
        for (const kind of ['AccessToken', 'RefreshToken', 'AuthorizationCode', 'DeviceCode']) {
            await provider[kind].revokeByGrantId(id);
        }
        await (await provider.Grant.find(id))?.destroy();
    }
    return ids.length;
}

const switches = {
    read: (path) => {
        if (path === '/tokens') {
            const own = [client, introspector].map(({ client_id, client_secret }) => ({ kind: 'client_secret', value: client_secret, client_id }));
            return { tokens: [...own, ...issued] };
        }
        if (path === '/assertions') return { assertions };
        if (path !== '/') return undefined;
        return {
            issuer: provider.issuer,
            settings,
            ...tallies,
            token_fault: tokenFault.armed,
            user_codes: userCodes,
            redirect_uris: [...redirectUris],
            grants: Object.fromEntries([...grants].map(([account, ids]) => [account, ids.size]))
        };
    },
    write: async (order) => {
        const done = {};
        for (const [key, value] of Object.entries(order)) {
            if (key === 'token_fault') tokenFault.set(value);
            else if (key === 'revoke_user') done.revoked = await revokeUser(value);
            else if (key === 'redirect_uris') for (const uri of value) redirectUris.add(uri);
            else if (key === 'client_secret') client.client_secret = value;
            else if (key === 'trusted_issuer') Object.assign(settings.trusted_issuer, value);
            else if (key === 'forget_sessions') store.forget('Session');
            else if (key === 'forget_clients') store.forget('Client');
            else if (key === 'reset') resetTallies();
            else if (key in settings) settings[key] = value;
            else throw new Error(`unknown switch ${key}`);
        }
        return done;
    }
};

// The issuer holds the port, so the port has to be known first.
let callback;
const server = createServer(async (req, res) => {
    if (await control(req, res, switches)) return;
    const url = new URL(req.url, provider.issuer);
    const step = /^\/interaction\/[\w-]+(?:\/(login|consent))?$/.exec(url.pathname);
    if (step) {
        try {
            await interaction(req, res, step[1]);
        } catch (error) {
            if (args.verbose) console.error(error);
            res.writeHead(400, { 'content-type': 'text/html; charset=utf-8' });
            res.end(page('Something is wrong', `<p role="alert">${escapeHtml(error.message)}</p>`));
        }
        return;
    }
    if (url.pathname === '/auth') tallies.authorizations.push(Object.fromEntries(url.searchParams));
    // RFC 8414 clients look here first; the document is the same.
    if (url.pathname === '/.well-known/oauth-authorization-server') req.url = '/.well-known/openid-configuration';
    callback(req, res);
});

const issuer = await listen(server, args.port);
provider = new Provider(issuer, configuration);
provider.use(observe);
registerAssertionGrants(provider, {
    trust: settings.trusted_issuer,
    clientKey: args['client-jwks'] ? createLocalJWKSet(JSON.parse(args['client-jwks'])) : null,
    seen: assertions,
    infoOf
});
callback = provider.callback();
if (args.verbose) {
    provider.on('server_error', (_ctx, error) => console.error(error));
    for (const event of ['grant.error', 'authorization.error', 'registration_create.error', 'introspection.error', 'revocation.error']) {
        provider.on(event, (_ctx, error) => console.error(event, error.message, error.error_description, error.error_detail));
    }
}
endWithParent();
ready({
    issuer,
    control: `${issuer}/_control`,
    metadata: `${issuer}/.well-known/oauth-authorization-server`,
    authorization_endpoint: `${issuer}/auth`,
    token_endpoint: `${issuer}/token`,
    introspection_endpoint: `${issuer}/token/introspection`,
    revocation_endpoint: `${issuer}/token/revocation`,
    device_authorization_endpoint: `${issuer}/device/auth`,
    jwks_uri: `${issuer}/jwks`,
    client_id: client.client_id,
    client_secret: client.client_secret,
    introspection_client_id: introspector.client_id,
    introspection_client_secret: introspector.client_secret
});

// Two grants that oidc-provider does not bring, registered as its documentation says (`registerGrantType`): token
// exchange (RFC 8693 §2.1) and JWT bearer (RFC 7523 §2.1). The library authenticates the client and makes the token;
// `jose` verifies the assertion against the issuer's published keys.
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

/**
 * `trust.issuer` is whose word about users counts here (null: nobody's), `trust.jwks` where its keys are; `clientKey`
 * verifies what the client says about itself. `seen` collects what was presented, `infoOf(resource)` describes it.
 */
export function registerAssertionGrants(provider, { trust, clientKey, seen, infoOf }) {
    const used = new Set();
    let remote;
    let own;

    /** The claims of an assertion that is good for this token endpoint, once. */
    async function verified(ctx, token, why) {
        const { client } = ctx.oidc;
        const options = { audience: ctx.oidc.urlFor('token'), clockTolerance: 5, maxTokenAge: 3600 };
        try {
            let claims;
            if (token.split('.').length === 3 && unverified(token).iss === provider.issuer) {
                // What it issued itself (RFC 9068) says enough about its user.
                own ??= createRemoteJWKSet(new URL(`${provider.issuer}/jwks`));
                ({ payload: claims } = await jwtVerify(token, own, { issuer: provider.issuer, typ: 'at+jwt' }));
                seen.push({ why, claims, own: true, params: { ...ctx.oidc.params } });
                return claims;
            }
            if (clientKey !== null && token.split('.').length === 3 && unverified(token).iss === client.clientId) {
                ({ payload: claims } = await jwtVerify(token, clientKey, { ...options, issuer: client.clientId }));
            } else {
                if (trust.issuer === null) throw new Error('no issuer is trusted');
                if (remote?.url !== trust.jwks) remote = { url: trust.jwks, keys: createRemoteJWKSet(new URL(trust.jwks)) };
                ({ payload: claims } = await jwtVerify(token, remote.keys, { ...options, issuer: trust.issuer }));
            }
            if (!claims.sub || !claims.exp || !claims.jti) throw new Error('sub, exp and jti are required');
            if (claims.exp - claims.iat > 300 && claims.iss !== client.clientId) throw new Error('it lives too long');
            if (used.has(claims.jti)) throw new Error('it was used before');
            used.add(claims.jti);
            seen.push({ why, claims, params: { ...ctx.oidc.params } });
            return claims;
        } catch (error) {
            throw new errors.InvalidGrant(error.message);
        }
    }

    async function issue(ctx, account, extra) {
        const { client, params } = ctx.oidc;
        if ([].concat(params.resource ?? []).length > 1) throw new errors.InvalidTarget();
        const token = new provider.AccessToken({ accountId: account, client, scope: params.scope || undefined, gty: 'assertion' });
        const grant = new provider.Grant({ accountId: account, clientId: client.clientId });
        if (params.resource) {
            const info = await infoOf(params.resource);
            const scope = (params.scope ?? '').split(' ').filter((name) => info.scope.split(' ').includes(name)).join(' ');
            token.resourceServer = new provider.ResourceServer(params.resource, info);
            token.scope = scope || undefined;
            grant.addResourceScope(params.resource, scope);
        }
        token.grantId = await grant.save();
        ctx.oidc.entity('AccessToken', token);
        const value = await token.save();
        ctx.body = { access_token: value, expires_in: token.expiration, scope: token.scope, token_type: token.tokenType, ...extra };
    }

    const exchange = async (ctx) => {
        const { params } = ctx.oidc;
        const types = [JWT_TYPE, ACCESS_TOKEN_TYPE];
        if (!params.subject_token || !types.includes(params.subject_token_type)) throw new errors.InvalidRequest('a JWT is taken here');
        if (params.requested_token_type && params.requested_token_type !== ACCESS_TOKEN_TYPE) throw new errors.InvalidRequest('an access token is given here');
        const { sub } = await verified(ctx, params.subject_token, 'subject_token');
        await issue(ctx, sub, { issued_token_type: ACCESS_TOKEN_TYPE });
    };
    const bearer = async (ctx) => {
        const { params } = ctx.oidc;
        if (!params.assertion) throw new errors.InvalidRequest('assertion is missing');
        const { sub } = await verified(ctx, params.assertion, 'assertion');
        await issue(ctx, sub, {});
    };
    const common = ['scope', 'resource', 'audience'];
    provider.registerGrantType(TOKEN_EXCHANGE, exchange, [...common, 'subject_token', 'subject_token_type', 'requested_token_type'], ['resource', 'audience']);
    provider.registerGrantType(JWT_BEARER, bearer, [...common, 'assertion', 'requested_token_use'], ['resource', 'audience']);
}

function unverified(token) {
    return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString('utf8'));
}

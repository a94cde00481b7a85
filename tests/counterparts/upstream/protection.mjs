// The upstream as an OAuth protected resource: asks the authorization server about every token, remembers none.
import { getOAuthProtectedResourceMetadataUrl, OAuthError, OAuthErrorCode, requireBearerAuth } from '@modelcontextprotocol/server';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { sendJson } from '../lib/serving.mjs';

const refused = (why) => new OAuthError(OAuthErrorCode.InvalidToken, why);
const listed = (value) => (value === undefined ? [] : [].concat(value));

/** What is left of a valid token, the same from introspection and from a JWT's claims. */
function authInfo(token, claims, resource, checkAudience) {
    const audience = listed(claims.aud);
    // A token without audience is for whoever takes it: providers without resource indicators issue such.
    if (checkAudience && audience.length > 0 && !audience.includes(resource)) throw refused('the token is meant for someone else');
    return {
        token,
        clientId: claims.client_id ?? '',
        scopes: (claims.scope ?? '').split(' ').filter(Boolean),
        expiresAt: claims.exp,
        extra: { subject: claims.sub ?? 'unknown', audience }
    };
}

export function protection(options, resource) {
    if (options.introspection === undefined && options.jwks === undefined) return null;
    const keys = options.jwks && createRemoteJWKSet(new URL(options.jwks));
    const credentials = [options['client-id'], options['client-secret']].map((part) => encodeURIComponent(part ?? '')).join(':');
    const basic = `Basic ${Buffer.from(credentials).toString('base64')}`;

    async function introspect(token) {
        const answer = await fetch(options.introspection, {
            method: 'POST',
            headers: { authorization: basic, 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
            body: new URLSearchParams({ token, token_type_hint: 'access_token' })
        });
        if (!answer.ok) throw new Error(`introspection answered ${answer.status}`);
        const claims = await answer.json();
        // A refresh token is active too, but no one may call with it.
        if (claims.active !== true || claims.token_type === undefined) throw refused('the token is not active');
        return claims;
    }

    async function verifyAccessToken(token) {
        let claims;
        if (keys && token.split('.').length === 3) {
            try {
                ({ payload: claims } = await jwtVerify(token, keys, { typ: 'at+jwt' }));
            } catch (error) {
                throw refused(error.message);
            }
        } else claims = await introspect(token);
        return authInfo(token, claims, resource, !options['any-audience']);
    }

    const resourceMetadataUrl = getOAuthProtectedResourceMetadataUrl(new URL(resource));
    const gate = requireBearerAuth({
        verifier: { verifyAccessToken },
        requiredScopes: options['required-scope'].length > 0 ? options['required-scope'] : undefined,
        resourceMetadataUrl
    });
    const metadata = {
        resource,
        authorization_servers: [options.issuer ?? new URL(options.introspection ?? options.jwks).origin],
        scopes_supported: options['scopes-supported'].split(/[\s,]+/).filter(Boolean),
        bearer_methods_supported: ['header'],
        resource_name: 'Notes'
    };
    return {
        resourceMetadataUrl,
        metadata,
        /** Answers the metadata document; gives false when the request is for something else. */
        describe(req, res) {
            const path = new URL(req.url, resource).pathname;
            if (path !== new URL(resourceMetadataUrl).pathname) return false;
            sendJson(res, 200, metadata);
            return true;
        },
        /** Gives the caller, or null after having answered with the challenge. */
        async admit(req, res) {
            const headers = req.headers.authorization === undefined ? {} : { authorization: req.headers.authorization };
            const outcome = await gate(new Request(resource, { headers }));
            if (!(outcome instanceof Response)) return outcome;
            res.writeHead(outcome.status, Object.fromEntries(outcome.headers));
            res.end(Buffer.from(await outcome.arrayBuffer()));
            return null;
        },
        challenge(error) {
            return `Bearer error="${error}", resource_metadata="${resourceMetadataUrl}"`;
        }
    };
}

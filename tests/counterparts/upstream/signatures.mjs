// The upstream as one that wants each request signed: checked with node's own crypto, from the bytes received.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const hmac = (key, data, kind = 'sha256') => createHmac(kind, key).update(data).digest();
const same = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
const encode = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

/** AWS Signature Version 4, by https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html */
function aws({ id, secret, session, region, service }) {
    return (req, body) => {
        const given = /^AWS4-HMAC-SHA256 Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(req.headers.authorization ?? '');
        if (given === null) return 'there is no AWS signature';
        const [, credential, names, signature] = given;
        const date = req.headers['x-amz-date'] ?? '';
        const scope = [date.slice(0, 8), region, service, 'aws4_request'].join('/');
        if (credential !== `${id}/${scope}`) return 'the credential is for something else';
        if (Math.abs(Date.now() - Date.parse(date.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z'))) > 300_000) return 'the signature is not of now';
        if (session !== undefined && !same(req.headers['x-amz-security-token'] ?? '', session)) return 'the session token is missing';
        if (req.headers['x-amz-content-sha256'] !== sha256(body)) return 'the body is another one';
        const signed = names.split(';');
        for (const must of ['host', 'x-amz-date', 'x-amz-content-sha256', ...Object.keys(req.headers).filter((name) => name.startsWith('mcp-') || name === 'content-type')]) {
            if (!signed.includes(must)) return `${must} is not signed`;
        }
        const [path, query = ''] = req.url.split('?');
        const canonical = [
            req.method,
            path.split('/').map(encode).join('/'),
            [...new URLSearchParams(query)].map(([name, value]) => `${encode(name)}=${encode(value)}`).sort().join('&'),
            ...signed.map((name) => `${name}:${(req.headers[name] ?? '').trim().replace(/\s+/g, ' ')}`),
            '',
            names,
            sha256(body)
        ].join('\n');
        const toSign = ['AWS4-HMAC-SHA256', date, scope, sha256(canonical)].join('\n');
        const key = scope.split('/').reduce((made, part) => hmac(made, part), `AWS4${secret}`);
        return same(hmac(key, toSign).toString('hex'), signature) ? null : 'the AWS signature is wrong';
    };
}

/** A chain of two HMACs, as the fixture preset `hooked` makes it. `token` as the key means the bearer token. */
function chained({ key }) {
    return (req, body) => {
        const given = /^t=(\d+),v1=([\w-]+)$/.exec(req.headers['x-signature'] ?? '');
        if (given === null) return 'there is no signature';
        const [, time, signature] = given;
        if (Math.abs(Date.now() / 1000 - Number(time)) > 300) return 'the signature is not of now';
        const secret = key === 'token' ? (req.headers.authorization ?? '').replace(/^Bearer /, '') : key;
        const text = [req.method, req.headers.host, req.url.split('?')[0], sha256(body), req.headers['x-key-id'] ?? '', req.headers['mcp-method'] ?? ''].join('\n');
        return same(hmac(hmac(secret, time), text, 'sha512').toString('base64url'), signature) ? null : 'the signature is wrong';
    };
}

/** Gives a check that answers null for a request that is signed rightly, else why not. */
export function signatures(json) {
    if (json === undefined) return null;
    const options = JSON.parse(json);
    return options.kind === 'aws' ? aws(options) : chained(options);
}

/** What a request was signed with, for tests that want each to be signed anew. */
export const signatureOf = (req) => req.headers['x-signature'] ?? /Signature=([0-9a-f]+)/.exec(req.headers.authorization ?? '')?.[1] ?? null;

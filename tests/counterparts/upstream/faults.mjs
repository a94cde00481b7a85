// The ways in which an upstream can let a proxy down.
import { sendJson } from '../lib/serving.mjs';

export const FAULTS = ['hang', 'hang-stream', 'drop', 'drop-stream', 'truncated', 'html', 'status', '401', '403', 'oversized', 'oversized-stream', 'not-json', 'wrong-id', 'redirect', 'garbage'];

const result = (body, text) => ({
    jsonrpc: '2.0',
    id: body?.id ?? null,
    result: { content: [{ type: 'text', text }], resultType: 'complete' }
});

export function strike(fault, { req, res, body, guard }) {
    const startStream = () => res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    const challenge = (error, more = '') => (guard?.challenge(error) ?? `Bearer error="${error}"`) + more;
    switch (fault.mode) {
        case 'hang':
            return;
        case 'hang-stream':
            startStream();
            res.write(': waiting\n\n');
            return;
        case 'drop':
            req.socket.destroy();
            return;
        case 'drop-stream':
            startStream();
            res.write('event: message\ndata: {"jsonrpc":"2.0","id":', () => req.socket.destroy());
            return;
        case 'truncated': {
            const whole = JSON.stringify(result(body, 'never arrives in full'));
            res.writeHead(200, { 'content-type': 'application/json', 'content-length': whole.length });
            res.write(whole.slice(0, whole.length >> 1), () => req.socket.destroy());
            return;
        }
        case 'html':
            res.writeHead(fault.status ?? 200, { 'content-type': 'text/html; charset=utf-8' });
            res.end('<!doctype html><title>Down for maintenance</title><p>Come back later.</p>');
            return;
        case 'status':
            res.writeHead(fault.status ?? 500, { 'content-type': 'text/plain', ...fault.headers });
            res.end(fault.body ?? 'no');
            return;
        case '401':
            sendJson(res, 401, { error: 'invalid_token' }, { 'www-authenticate': challenge('invalid_token') });
            return;
        case '403':
            sendJson(res, 403, { error: 'insufficient_scope' }, {
                'www-authenticate': challenge('insufficient_scope', `, scope="${fault.scope ?? 'notes:write'}"`)
            });
            return;
        case 'oversized':
            sendJson(res, 200, result(body, 'x'.repeat(fault.bytes ?? 64 * 1024 * 1024)));
            return;
        case 'oversized-stream': {
            // One event without end; stops when the other side has had enough.
            startStream();
            res.write('event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"');
            let left = fault.bytes ?? 256 * 1024 * 1024;
            const pour = () => {
                while (left > 0 && !res.destroyed) {
                    left -= 65536;
                    if (!res.write('x'.repeat(65536))) return void res.once('drain', pour);
                }
                res.end();
            };
            pour();
            return;
        }
        case 'not-json':
            res.writeHead(200, { 'content-type': 'application/json' });
            res.end('{"jsonrpc":"2.0", oops');
            return;
        case 'wrong-id':
            sendJson(res, 200, { ...result(body, 'for someone else'), id: 'another-request' });
            return;
        case 'redirect':
            res.writeHead(fault.status ?? 307, { location: fault.location ?? 'http://169.254.169.254/latest/meta-data/' });
            res.end();
            return;
        case 'garbage':
            // Not HTTP at all.
            req.socket.end('\u0000\u0001 hello?\n');
    }
}

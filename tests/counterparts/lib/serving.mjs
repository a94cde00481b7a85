// What the counterpart servers share: flags, the ready line, bodies, the control endpoint.
import { parseArgs } from 'node:util';

/** Parses flags; `--help` prints them and exits, an unknown flag exits with 2. */
export function flags(options) {
    let values;
    try {
        ({ values } = parseArgs({ options: { ...options, help: { type: 'boolean' } }, allowPositionals: false }));
    } catch (error) {
        console.error(error.message);
        process.exit(2);
    }
    if (values.help) {
        for (const [name, option] of Object.entries(options)) {
            const shown = option.default === undefined ? '' : ` (default ${JSON.stringify(option.default)})`;
            console.error(`--${name}${option.type === 'string' ? ' VALUE' : ''}${option.multiple ? ' …' : ''}${shown}`);
        }
        process.exit(0);
    }
    return values;
}

/** Binds to loopback and gives the origin back; port 0 picks a free one. */
export function listen(server, port, host = '127.0.0.1') {
    return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(Number(port), host, () => {
            resolve(`http://${host}:${server.address().port}`);
        });
    });
}

/** One JSON line on stdout: the caller waits for it. */
export function ready(facts) {
    process.stdout.write(`${JSON.stringify({ ready: true, pid: process.pid, ...facts })}\n`);
}

/** Ends with the parent: a test that dies must not leave servers behind. */
export function endWithParent() {
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
    // Only a pipe says anything about the parent; a terminal or /dev/null does not.
    if (process.env.COUNTERPART_STDIN === 'pipe') {
        process.stdin.resume();
        process.stdin.on('end', () => process.exit(0));
    }
}

/** Reads a request body, refusing what is over the limit. */
export async function readBody(req, limit = 16 * 1024 * 1024) {
    const chunks = [];
    let size = 0;
    for await (const chunk of req) {
        size += chunk.length;
        if (size > limit) throw Object.assign(new Error('request body too large'), { status: 413 });
        chunks.push(chunk);
    }
    return Buffer.concat(chunks);
}

export function sendJson(res, status, body, headers = {}) {
    res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
    res.end(JSON.stringify(body));
}

const LOOPBACK = new Set(['127.0.0.1', '::1', '::ffff:127.0.0.1']);

/** Answers `/_control…`; gives false when the request is not for it. */
export async function control(req, res, { read, write }) {
    const path = new URL(req.url, 'http://control').pathname;
    if (path !== '/_control' && !path.startsWith('/_control/')) return false;
    // A page in a browser must not be able to press the switches.
    if (!LOOPBACK.has(req.socket.remoteAddress) || req.headers.origin !== undefined) {
        sendJson(res, 403, { error: 'control is for local tests only' });
        return true;
    }
    try {
        if (req.method === 'GET') {
            const answer = await read(path.slice('/_control'.length) || '/');
            sendJson(res, answer === undefined ? 404 : 200, answer ?? { error: 'nothing here' });
        } else if (req.method === 'POST') {
            const text = (await readBody(req)).toString('utf8');
            sendJson(res, 200, (await write(text === '' ? {} : JSON.parse(text))) ?? {});
        } else {
            sendJson(res, 405, { error: 'GET or POST' });
        }
    } catch (error) {
        sendJson(res, 400, { error: error.message });
    }
    return true;
}

/** A fault that strikes a number of times (-1: until cleared) and then is gone. */
export class Fault {
    #armed = null;

    constructor(modes) {
        this.modes = modes;
    }

    set(spec) {
        if (spec === null || spec === undefined || spec.mode === 'none') {
            this.#armed = null;
            return;
        }
        if (!this.modes.includes(spec.mode)) throw new Error(`fault mode is one of ${this.modes.join(', ')}, none`);
        this.#armed = { times: 1, ...spec };
    }

    get armed() {
        return this.#armed;
    }

    /** The fault to apply now, if any and if `matches` agrees; counts it down. */
    take(matches = () => true) {
        const fault = this.#armed;
        if (fault === null || !matches(fault)) return null;
        if (fault.times > 0) {
            fault.times -= 1;
            if (fault.times === 0) this.#armed = null;
        }
        return fault;
    }
}


export function escapeHtml(text) {
    return String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

// Forwards everything to one origin with a bearer token added: the suite itself sends none.
import http from 'node:http';
import { listen } from '../lib/serving.mjs';

export async function shim(target, token) {
    const { host, hostname, port, origin } = new URL(target);
    let own;
    const server = http.createServer((req, res) => {
        // Only our own name is swapped: a foreign Host or Origin is what a scenario wants to see refused.
        const headers = { ...req.headers, authorization: `Bearer ${token}` };
        if (headers.host === new URL(own).host) headers.host = host;
        if (headers.origin === own) headers.origin = origin;
        const onward = http.request({ hostname, port, method: req.method, path: req.url, headers }, (answer) => {
            res.writeHead(answer.statusCode, answer.rawHeaders);
            res.flushHeaders();
            answer.pipe(res);
            answer.on('error', () => res.destroy());
        });
        onward.on('error', () => res.destroy());
        res.on('close', () => onward.destroy());
        req.pipe(onward);
    });
    own = await listen(server, 0);
    return { url: own + new URL(target).pathname, close: () => server.close() };
}

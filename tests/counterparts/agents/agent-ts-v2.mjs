// The agent on the second generation of the official TypeScript SDK: 2026-07-28, and back to 2025 on demand.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import * as z from 'zod';
import { run } from './agent.mjs';

/** `--era`: a revision to insist on, `auto` to find out. */
function negotiation(era = '2026-07-28') {
    if (era === 'auto') return { versionNegotiation: { mode: 'auto' } };
    if (era.startsWith('2026')) return { versionNegotiation: { mode: { pin: era } } };
    if (era === '2025' || era === '2025-11-25') return { versionNegotiation: { mode: 'legacy' } };
    return { versionNegotiation: { mode: 'legacy' }, supportedProtocolVersions: [era] };
}

await run({
    name: 'agent-ts-v2',
    UnauthorizedError,
    transport: ({ url, provider, token, fetch }) => new StreamableHTTPClientTransport(url, {
        fetch,
        ...(token ? { requestInit: { headers: { authorization: `Bearer ${token}` } } } : { authProvider: provider })
    }),
    finishAuth: (transport, query) => transport.finishAuth(query),
    async connect(transport, agent) {
        const client = new Client({ name: 'agent-ts-v2', version: '1.0.0' }, { capabilities: agent.capabilities(), ...negotiation(agent.options.era) });
        if (agent.capabilities().elicitation) client.setRequestHandler('elicitation/create', (request) => agent.elicited(request.params));
        if (agent.capabilities().sampling) client.setRequestHandler('sampling/createMessage', (request) => agent.sampled(request.params));
        client.fallbackNotificationHandler = async (notification) => agent.notified(notification);
        await client.connect(transport);
        return {
            version: () => client.getNegotiatedProtocolVersion(),
            server: () => client.getServerVersion()?.name,
            // Fresh each time: what the user may see changes when an account is connected.
            listTools: async () => (await client.listTools({}, { cacheMode: 'refresh' })).tools,
            callTool: (name, args, options) => client.callTool({ name, arguments: args }, options),
            request: (method, params) => client.request({ method, params }, z.looseObject({})),
            close: async () => {
                await transport.terminateSession?.().catch(() => {});
                await client.close();
            }
        };
    }
});

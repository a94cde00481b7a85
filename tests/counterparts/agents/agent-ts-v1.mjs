// The agent on the first generation of the official TypeScript SDK: the revisions of 2025.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { CreateMessageRequestSchema, ElicitRequestSchema, LATEST_PROTOCOL_VERSION, ResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { run } from './agent.mjs';

await run({
    name: 'agent-ts-v1',
    UnauthorizedError,
    transport: ({ url, provider, token, fetch }) => new StreamableHTTPClientTransport(url, {
        fetch,
        ...(token ? { requestInit: { headers: { authorization: `Bearer ${token}` } } } : { authProvider: provider })
    }),
    // This generation takes the code alone and does not look at `iss`.
    finishAuth: (transport, query) => transport.finishAuth(query.get('code')),
    async connect(transport, agent) {
        // It always offers its newest revision and has no switch for another.
        const { era = LATEST_PROTOCOL_VERSION } = agent.options;
        if (era !== LATEST_PROTOCOL_VERSION) throw new Error(`this SDK only offers ${LATEST_PROTOCOL_VERSION}, not ${era}`);
        const client = new Client({ name: 'agent-ts-v1', version: '1.0.0' }, { capabilities: agent.capabilities() });
        if (agent.capabilities().elicitation) client.setRequestHandler(ElicitRequestSchema, (request) => agent.elicited(request.params));
        if (agent.capabilities().sampling) client.setRequestHandler(CreateMessageRequestSchema, (request) => agent.sampled(request.params));
        client.fallbackNotificationHandler = async (notification) => agent.notified(notification);
        await client.connect(transport);
        return {
            version: () => transport.protocolVersion,
            server: () => client.getServerVersion()?.name,
            listTools: async () => {
                const tools = [];
                let cursor;
                do {
                    const page = await client.listTools(cursor === undefined ? {} : { cursor });
                    tools.push(...page.tools);
                    cursor = page.nextCursor;
                } while (cursor !== undefined);
                return tools;
            },
            callTool: (name, args, options) => client.callTool({ name, arguments: args }, undefined, options),
            request: (method, params) => client.request({ method, params }, ResultSchema),
            close: async () => {
                await transport.terminateSession().catch(() => {});
                await client.close();
            }
        };
    }
});

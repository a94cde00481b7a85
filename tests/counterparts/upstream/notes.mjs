// The tools of the notes service: what a test needs to see which user the upstream took the call for.
import { inputRequired, inputResponse, requireScopes } from '@modelcontextprotocol/server';
import * as z from 'zod';

const CREDENTIAL = /auth|cookie|token|secret|key|credential|signature/i;
const notes = new Map();
const text = (value, extra) => ({ content: [{ type: 'text', text: value }], ...extra });
const wait = (ms, signal) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
    });
});

export const subjectOf = (ctx) => ctx.http?.authInfo?.extra?.subject ?? 'anonymous';
export const notesOf = () => Object.fromEntries(notes);

export function registerNotes(server, { observed }) {
    server.registerTool('whoami', {
        description: 'Says whose token the call arrived with',
        outputSchema: z.object({ subject: z.string(), client_id: z.string(), scopes: z.array(z.string()) })
    }, async (ctx) => {
        const auth = ctx.http?.authInfo;
        const structuredContent = { subject: subjectOf(ctx), client_id: auth?.clientId ?? '', scopes: auth?.scopes ?? [] };
        return text(structuredContent.subject, { structuredContent });
    });

    server.registerTool('list_notes', {
        description: 'Lists the notes of the caller',
        annotations: { readOnlyHint: true }
    }, async (ctx) => text(JSON.stringify(notes.get(subjectOf(ctx)) ?? [])));

    server.registerTool('add_note', {
        description: 'Adds a note for the caller',
        inputSchema: z.object({ text: z.string().max(10_000) })
    }, async (args, ctx) => {
        const subject = subjectOf(ctx);
        const own = [...(notes.get(subject) ?? []), args.text];
        notes.set(subject, own);
        return text(`${subject} has ${own.length} note(s)`);
    });

    // The refusal comes from the SDK as HTTP 403 insufficient_scope, before the tool runs.
    server.registerTool('erase_notes', {
        description: 'Erases the notes of the caller; needs the scope notes:write',
        annotations: { destructiveHint: true },
        scopeChallenge: requireScopes('notes:write')
    }, async (ctx) => {
        notes.delete(subjectOf(ctx));
        return text('erased');
    });

    server.registerTool('echo_headers', {
        description: 'Lists the names of the headers received, with values where they are no credentials'
    }, async (ctx) => {
        const seen = {};
        for (const [name, value] of ctx.http?.req?.headers ?? []) seen[name] = CREDENTIAL.test(name) ? null : value;
        return text(JSON.stringify(seen), { structuredContent: { headers: seen } });
    });

    server.registerTool('echo', {
        description: 'Gives back what it was given',
        inputSchema: z.object({ text: z.string() })
    }, async (args) => text(args.text));

    server.registerTool('big', {
        description: 'Answers with that many bytes of text',
        inputSchema: z.object({ bytes: z.number().int().min(0).max(256 * 1024 * 1024) })
    }, async (args) => text('x'.repeat(args.bytes)));

    server.registerTool('slow', {
        description: 'Takes its time, with a progress notification per step',
        inputSchema: z.object({ steps: z.number().int().min(1).max(1000).default(5), delay_ms: z.number().int().min(0).max(600_000).default(200) })
    }, async ({ steps, delay_ms: delay }, ctx) => {
        const progressToken = ctx.mcpReq._meta?.progressToken;
        for (let progress = 1; progress <= steps; progress += 1) {
            await wait(delay, ctx.mcpReq.signal);
            if (ctx.mcpReq.signal?.aborted) {
                observed.cancelled += 1;
                break;
            }
            if (progressToken === undefined) continue;
            await ctx.mcpReq.notify({
                method: 'notifications/progress',
                params: { progressToken, progress, total: steps, message: `step ${progress} of ${steps}` }
            });
        }
        return text(`slept ${steps} times`);
    });

    // Written once for both eras: the SDK turns it into a pushed request for sessions of 2025.
    server.registerTool('ask', {
        description: 'Asks the client something: a form, a page to open, or a completion of its model',
        inputSchema: z.object({
            kind: z.enum(['form', 'url', 'sampling']).default('form'),
            message: z.string().default('What is your favourite colour?'),
            url: z.string().default('https://upstream.example.test/page')
        })
    }, async ({ kind, message, url }, ctx) => {
        const answer = inputResponse(ctx.mcpReq.inputResponses, 'answer');
        if (answer.kind === 'elicit') return text(JSON.stringify({ action: answer.action, content: answer.content ?? null }));
        if (answer.kind === 'sampling') return text(JSON.stringify(answer.result.content));
        const requests = {
            form: () => inputRequired.elicit({
                message,
                requestedSchema: { type: 'object', properties: { colour: { type: 'string' } }, required: ['colour'] }
            }),
            url: () => inputRequired.elicitUrl({ message, url, elicitationId: crypto.randomUUID() }),
            sampling: () => inputRequired.createMessage({
                messages: [{ role: 'user', content: { type: 'text', text: message } }],
                maxTokens: 64
            })
        };
        return inputRequired({ inputRequests: { answer: requests[kind]() } });
    });

    server.registerResource('own-notes', 'notes://mine', {
        description: 'The notes of the caller',
        mimeType: 'application/json'
    }, async (uri, ctx) => ({
        contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify(notes.get(subjectOf(ctx)) ?? []) }]
    }));

    server.registerPrompt('summarise_notes', {
        description: 'Asks a model to sum up the notes of the caller'
    }, async (ctx) => ({
        messages: [{ role: 'user', content: { type: 'text', text: `Sum up: ${JSON.stringify(notes.get(subjectOf(ctx)) ?? [])}` } }]
    }));
}

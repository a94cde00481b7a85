// What the official conformance suite looks for by name: tools, prompts, resources with given answers.
import { acceptedContent, CLIENT_CAPABILITIES_META_KEY, fromJsonSchema, inputRequired, inputResponse, ResourceTemplate } from '@modelcontextprotocol/server';
import * as z from 'zod';

// One red pixel, and a WAV file without a sample.
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC';
const SILENCE = Buffer.concat([
    Buffer.from('RIFF'), Buffer.from([36, 0, 0, 0]), Buffer.from('WAVEfmt '),
    Buffer.from([16, 0, 0, 0, 1, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x40, 0x1f, 0, 0, 1, 0, 8, 0]),
    Buffer.from('data'), Buffer.from([0, 0, 0, 0])
]).toString('base64');

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (text) => ({ content: [{ type: 'text', text }] });
const image = { type: 'image', data: PIXEL, mimeType: 'image/png' };
const embedded = (uri, mimeType, text) => ({ type: 'resource', resource: { uri, mimeType, text } });
const asked = (message, field, type = 'string') => inputRequired.elicit({
    message,
    requestedSchema: { type: 'object', properties: { [field]: { type } }, required: [field] }
});
const completion = (text, maxTokens) => inputRequired.createMessage({
    messages: [{ role: 'user', content: { type: 'text', text } }],
    maxTokens
});

const SCHEMA_2020_12 = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    $defs: {
        address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } }
    },
    properties: {
        name: { type: 'string' },
        address: { $ref: '#/$defs/address' },
        contactMethod: { type: 'string', enum: ['phone', 'email'] },
        phone: { type: 'string' },
        email: { type: 'string' }
    },
    allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
    if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
    then: { required: ['phone'] },
    else: { required: ['email'] },
    additionalProperties: false
};

const titled = (names) => names.map((title, index) => ({ const: `value${index + 1}`, title }));
const ENUM_FORM = {
    untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
    titledSingle: { type: 'string', oneOf: titled(['First Option', 'Second Option', 'Third Option']) },
    legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
    untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
    titledMulti: { type: 'array', items: { anyOf: titled(['First Choice', 'Second Choice', 'Third Choice']) } }
};
const DEFAULTS_FORM = {
    name: { type: 'string', default: 'John Doe' },
    age: { type: 'integer', default: 30 },
    score: { type: 'number', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', default: true }
};

export function registerConformance(server, { era, states, changed }) {
    registerContent(server);
    registerStreams(server, changed);
    // A 2025 session gets requests pushed; a 2026 request can only be answered with what is still missing.
    if (era === 'legacy') registerPushed(server);
    registerRounds(server, states);
    registerResources(server, era);
    registerPrompts(server);
    server.server.setRequestHandler('completion/complete', async (request) => {
        const values = ['paris', 'park', 'party'].filter((word) => word.startsWith(request.params.argument.value));
        return { completion: { values, total: values.length, hasMore: false } };
    });
    if (era === 'legacy') server.server.setRequestHandler('logging/setLevel', async () => ({}));
}

function registerContent(server) {
    const answers = {
        test_simple_text: [{ type: 'text', text: 'This is a simple text response for testing.' }],
        test_image_content: [image],
        test_audio_content: [{ type: 'audio', data: SILENCE, mimeType: 'audio/wav' }],
        test_embedded_resource: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')],
        test_multiple_content_types: [
            { type: 'text', text: 'Multiple content types test:' },
            image,
            embedded('test://mixed-content-resource', 'application/json', JSON.stringify({ test: 'data', value: 123 }))
        ]
    };
    for (const [name, content] of Object.entries(answers)) {
        server.registerTool(name, { description: `Conformance: ${name}` }, async () => ({ content }));
    }
    server.registerTool('test_error_handling', { description: 'Conformance: always fails' }, async () => {
        throw new Error('This tool intentionally returns an error for testing');
    });
    server.registerTool('json_schema_2020_12_tool', {
        description: 'Tool with JSON Schema 2020-12 features',
        inputSchema: fromJsonSchema(SCHEMA_2020_12)
    }, async (args) => say(JSON.stringify(args)));
    server.registerTool('test_x_mcp_header', {
        description: 'Conformance: a parameter that is mirrored into a header',
        inputSchema: fromJsonSchema({
            type: 'object',
            properties: { region: { type: 'string', 'x-mcp-header': 'Region' }, level: { type: 'integer' } }
        })
    }, async (args) => say(`region=${args.region ?? ''}`));
}

function registerStreams(server, changed) {
    server.registerTool('test_tool_with_logging', { description: 'Conformance: three log messages' }, async (ctx) => {
        for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
            await ctx.mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } });
            await pause(50);
        }
        return say('logged three times');
    });
    server.registerTool('test_tool_with_progress', { description: 'Conformance: three progress notifications' }, async (ctx) => {
        const progressToken = ctx.mcpReq._meta?.progressToken;
        for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
            await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
            await pause(50);
        }
        return say('progress made');
    });
    // The client has to come back with Last-Event-ID for the result.
    server.registerTool('test_reconnection', { description: 'Conformance: closes its own stream half-way' }, async (ctx) => {
        ctx.http?.closeSSE?.();
        await pause(100);
        return say('delivered after the stream was closed');
    });
    server.registerTool('test_streaming_elicitation', { description: 'Conformance: no request of its own on the stream' }, async () => say('done'));
    server.registerTool('test_logging_tool', { description: 'Conformance: logs only to those who asked for it' }, async (ctx) => {
        await ctx.mcpReq.log('info', 'logged on demand');
        return say('done');
    });
    for (const kind of ['tool', 'prompt']) {
        server.registerTool(`test_trigger_${kind}_change`, { description: `Conformance: announces a changed ${kind} list` }, async () => {
            changed(kind);
            return say('announced');
        });
    }
}

function registerPushed(server) {
    const push = async (ctx, request, told) => {
        try {
            return say(told(await ctx.mcpReq.send(request)));
        } catch (error) {
            return { ...say(`the client could not be asked: ${error.message}`), isError: true };
        }
    };
    const form = (message, properties, required = []) => ({
        method: 'elicitation/create',
        params: { message, requestedSchema: { type: 'object', properties, required } }
    });
    const outcome = (word) => (answer) => `${word}: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`;

    server.registerTool('test_sampling', {
        description: 'Conformance: asks the model of the client',
        inputSchema: z.object({ prompt: z.string() })
    }, async ({ prompt }, ctx) => push(ctx, {
        method: 'sampling/createMessage',
        params: { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 100 }
    }, (answer) => `LLM response: ${answer.content?.text}`));
    server.registerTool('test_elicitation', {
        description: 'Conformance: asks the user of the client',
        inputSchema: z.object({ message: z.string() })
    }, async ({ message }, ctx) => push(ctx, form(message, {
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" }
    }, ['username', 'email']), outcome('User response')));
    server.registerTool('test_elicitation_sep1034_defaults', { description: 'Conformance: a form with defaults' }, async (ctx) =>
        push(ctx, form('Check these values', DEFAULTS_FORM), outcome('Elicitation completed')));
    server.registerTool('test_elicitation_sep1330_enums', { description: 'Conformance: a form with every kind of enum' }, async (ctx) =>
        push(ctx, form('Choose', ENUM_FORM), outcome('Elicitation completed')));
}

function registerRounds(server, states) {
    const tool = (name, description, run) => server.registerTool(name, { description: `Conformance: ${description}` }, run);

    tool('test_missing_capability', 'needs a client that samples', async (ctx) => {
        if (inputResponse(ctx.mcpReq.inputResponses, 'word').kind === 'sampling') return say('sampled');
        return inputRequired({ inputRequests: { word: completion('Say a word', 16) } });
    });
    tool('test_input_required_result_elicitation', 'one question to the user', async (ctx) => {
        const given = acceptedContent(ctx.mcpReq.inputResponses, 'user_name', z.object({ name: z.string() }));
        if (given) return say(`Hello, ${given.name}!`);
        return inputRequired({ inputRequests: { user_name: asked('What is your name?', 'name') } });
    });
    tool('test_input_required_result_sampling', 'one question to the model', async (ctx) => {
        const given = inputResponse(ctx.mcpReq.inputResponses, 'capital_question');
        if (given.kind === 'sampling') return say(`The model says: ${given.result.content?.text ?? ''}`);
        return inputRequired({ inputRequests: { capital_question: completion('What is the capital of France?', 100) } });
    });
    tool('test_input_required_result_list_roots', 'the roots of the client', async (ctx) => {
        const given = inputResponse(ctx.mcpReq.inputResponses, 'client_roots');
        if (given.kind === 'roots') return say(`Roots: ${given.roots.map((root) => root.uri).join(', ')}`);
        return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
    });
    tool('test_input_required_result_request_state', 'a state that comes back', async (ctx) => {
        const given = inputResponse(ctx.mcpReq.inputResponses, 'confirm');
        if (given.kind === 'elicit' && ctx.mcpReq.requestState()?.round === 1) return say('state-ok');
        return inputRequired({
            inputRequests: { confirm: asked('Please confirm', 'ok', 'boolean') },
            requestState: await states.mint({ round: 1 })
        });
    });
    tool('test_input_required_result_tampered_state', 'a state that must not be changed', async (ctx) => {
        if (ctx.mcpReq.requestState()?.round === 1) return say('the state is as it was');
        return inputRequired({
            inputRequests: { confirm: asked('Please confirm', 'ok', 'boolean') },
            requestState: await states.mint({ round: 1 })
        });
    });
    tool('test_input_required_result_multiple_inputs', 'three questions at once', async (ctx) => {
        const responses = ctx.mcpReq.inputResponses;
        const kinds = ['user_name', 'greeting', 'client_roots'].map((key) => inputResponse(responses, key).kind);
        if (kinds.every((kind) => kind !== 'missing')) return say(`Got ${kinds.join(', ')}`);
        return inputRequired({
            inputRequests: {
                user_name: asked('What is your name?', 'name'),
                greeting: completion('Generate a greeting', 50),
                client_roots: inputRequired.listRoots()
            },
            requestState: await states.mint({ asked: 3 })
        });
    });
    tool('test_input_required_result_multi_round', 'two questions in turn', async (ctx) => {
        const state = ctx.mcpReq.requestState();
        const responses = ctx.mcpReq.inputResponses;
        if (state?.step === 2) {
            const colour = acceptedContent(responses, 'step2', z.object({ color: z.string() }));
            if (colour) return say(`${state.name} likes ${colour.color}`);
        }
        const name = state?.name ?? acceptedContent(responses, 'step1', z.object({ name: z.string() }))?.name;
        if (state?.step >= 1 && name !== undefined) {
            return inputRequired({
                inputRequests: { step2: asked('Step 2: What is your favorite color?', 'color') },
                requestState: await states.mint({ step: 2, name })
            });
        }
        return inputRequired({
            inputRequests: { step1: asked('Step 1: What is your name?', 'name') },
            requestState: await states.mint({ step: 1 })
        });
    });
    tool('test_input_required_result_capabilities', 'only what the client can answer', async (ctx) => {
        if (ctx.mcpReq.inputResponses !== undefined) return say('answered');
        const able = ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
        const inputRequests = {
            ...(able.elicitation && { user_name: asked('What is your name?', 'name') }),
            ...(able.sampling && { greeting: completion('Generate a greeting', 50) }),
            ...(able.roots && { client_roots: inputRequired.listRoots() })
        };
        return Object.keys(inputRequests).length === 0 ? say('nothing to ask') : inputRequired({ inputRequests });
    });
}

function registerResources(server, era) {
    const text = (name, uri, body) => server.registerResource(name, uri, {
        description: `Conformance: ${name}`,
        mimeType: 'text/plain'
    }, async () => ({ contents: [{ uri, mimeType: 'text/plain', text: body }] }));
    text('static-text', 'test://static-text', 'This is the content of the static text resource.');
    text('watched-resource', 'test://watched-resource', 'Subscribe to me.');
    server.registerResource('static-binary', 'test://static-binary', { description: 'Conformance: a picture', mimeType: 'image/png' },
        async (uri) => ({ contents: [{ uri: uri.href, mimeType: 'image/png', blob: PIXEL }] }));
    server.registerResource('template', new ResourceTemplate('test://template/{id}/data', { list: undefined }), {
        description: 'Conformance: a template',
        mimeType: 'application/json'
    }, async (uri, { id }) => ({
        contents: [{ uri: uri.href, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }]
    }));
    if (era === 'legacy') {
        server.server.setRequestHandler('resources/subscribe', async () => ({}));
        server.server.setRequestHandler('resources/unsubscribe', async () => ({}));
    }
}

function registerPrompts(server) {
    const user = (content) => ({ role: 'user', content });
    const words = (text) => user({ type: 'text', text });
    server.registerPrompt('test_simple_prompt', { description: 'Conformance: a prompt' }, async () => ({
        messages: [words('This is a simple prompt for testing.')]
    }));
    server.registerPrompt('test_prompt_with_arguments', {
        description: 'Conformance: a prompt with arguments',
        argsSchema: z.object({ arg1: z.string(), arg2: z.string() })
    }, async ({ arg1, arg2 }) => ({ messages: [words(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }));
    server.registerPrompt('test_prompt_with_embedded_resource', {
        description: 'Conformance: a prompt with a resource',
        argsSchema: z.object({ resourceUri: z.string() })
    }, async ({ resourceUri }) => ({
        messages: [
            user(embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
            words('Please process the embedded resource above.')
        ]
    }));
    server.registerPrompt('test_prompt_with_image', { description: 'Conformance: a prompt with a picture' }, async () => ({
        messages: [user(image), words('Please analyze the image above.')]
    }));
    server.registerPrompt('test_input_required_result_prompt', { description: 'Conformance: a prompt that asks first' }, async (ctx) => {
        const given = acceptedContent(ctx.mcpReq.inputResponses, 'user_context', z.object({ context: z.string() }));
        if (given) return { messages: [words(`In the context of ${given.context}`)] };
        return inputRequired({ inputRequests: { user_context: asked('What context should the prompt use?', 'context') } });
    });
}

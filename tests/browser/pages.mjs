// A person in Chromium: signs in, allows an agent, connects, disconnects. Prints what was wrong.
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import path from 'node:path';
import { chromium } from 'playwright-core';

const { HOST, CHROMIUM, USERNAME, PASSWORD, SCREENSHOTS } = process.env;
const CHOSEN = 'a-password-of-my-own';

// The agent, at its own address.
let answered;
const agent = createServer((request, response) => {
    if (request.url.startsWith('/callback')) answered = new URL(request.url, 'http://agent');
    response.end('You can close this page.');
});
await new Promise((resolve) => agent.listen(0, '127.0.0.1', resolve));
const REDIRECT = `http://127.0.0.1:${agent.address().port}/callback`;

const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // A container's root has no other way.
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : []
});
// Pages work without JavaScript: so they are used without.
const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1100, height: 800 } });
const page = await context.newPage();
const problems = [];
page.on('console', (message) => {
    // A refused sign-in has its status, and Chromium says so.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) problems.push(`console: ${message.text()}`);
});
page.on('requestfailed', (request) => {
    // What a navigation cuts short did not fail.
    const reason = request.failure()?.errorText;
    if (reason !== 'net::ERR_ABORTED') problems.push(`failed: ${request.url()} ${reason}`);
});

let count = 0;
const shot = async (name) => {
    count += 1;
    await page.screenshot({ path: path.join(SCREENSHOTS, `${String(count).padStart(2, '0')}-${name}.png`), fullPage: true });
};
const press = (name) => page.getByRole('button', { name, exact: true }).first().click();
const expect = (holds, claim) => {
    if (!holds) problems.push(`not so: ${claim} (at ${page.url()})`);
};

// Sign-in: labels are what people and screen readers go by.
await page.goto(`${HOST}/login`);
await shot('sign-in');
await page.getByLabel('Username').fill(USERNAME);
await page.getByLabel('Password', { exact: true }).fill('wrong');
await press('Sign in');
await shot('sign-in-refused');
expect(await page.getByLabel('Username').isVisible(), 'a wrong password stays at the sign-in');
await page.getByLabel('Username').fill(USERNAME);
await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
await press('Sign in');

// The first sign-in chooses a new password.
await shot('new-password');
await page.locator('[name=new_password]').fill(CHOSEN);
await page.locator('[name=new_password_again]').fill(CHOSEN);
await page.locator('form:has([name=new_password]) button').first().click();
await page.waitForURL(`${HOST}/connections`);
await shot('connections-empty');

// An agent asks.
const registered = await (
    await fetch(`${HOST}/oauth2/register`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ client_name: 'A browser test', redirect_uris: [REDIRECT], token_endpoint_auth_method: 'none' })
    })
).json();
const question = new URL(`${HOST}/oauth2/authorize`);
question.search = new URLSearchParams({
    response_type: 'code',
    client_id: registered.client_id,
    redirect_uri: REDIRECT,
    state: 's',
    resource: `${HOST}/mcp/notes`,
    code_challenge: createHash('sha256').update(randomBytes(32)).digest('base64url'),
    code_challenge_method: 'S256'
});
await page.goto(question.href);
await shot('allow-an-agent');
expect((await page.textContent('body')).includes('A browser test'), "the agent's name is on the page");
expect(await page.getByRole('button', { name: 'Deny' }).isVisible(), 'there is a way to say no');
await press('Allow');
await page.waitForURL(`${REDIRECT}*`);
expect(answered?.searchParams.has('code'), 'the agent gets a code');

// The user connects an account: the page's policy lets the form lead to the vendor.
await page.goto(`${HOST}/connect/notes`);
await shot('connect');
await press('Connect');
await page.locator('[name=username]').fill('ada-at-vendor');
await page.locator('[name=password]').fill('any');
await shot('at-the-vendor');
await press('Sign in');
await press('Allow');
await page.waitForURL(`${HOST}/**`);
await page.goto(`${HOST}/connections`);
await shot('connections');
expect((await page.textContent('body')).includes('Notes'), 'the connection is listed');
await press('Disconnect');
await shot('disconnected');

// Small screens: nothing is cut off.
await page.setViewportSize({ width: 360, height: 700 });
for (const [name, address] of [['connections', '/connections'], ['connect', '/connect/notes']]) {
    await page.goto(HOST + address);
    await shot(`small-${name}`);
}
await browser.close();
agent.close();
agent.closeAllConnections();
console.log(JSON.stringify({ problems }));

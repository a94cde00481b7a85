// An administrator in Chromium: looks at the presets, approves what waits, goes back a version, without scripts.
// Prints what was wrong.
import path from 'node:path';
import { chromium } from 'playwright-core';

const { HOST, CHROMIUM, USERNAME, PASSWORD, PRESET, SCREENSHOTS } = process.env;
const CHOSEN = 'a-password-of-my-own';

const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // A container's root has no other way.
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : []
});
const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1100, height: 800 } });
const page = await context.newPage();
const problems = [];
page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) problems.push(`console: ${message.text()}`);
});
const expect = (holds, claim) => {
    if (!holds) problems.push(`not so: ${claim} (at ${page.url()})`);
};
let count = 0;
// As it is on a desk and on a phone, by day and by night.
const shots = async (name) => {
    count += 1;
    for (const [device, width] of [['desktop', 1100], ['phone', 390]]) {
        for (const scheme of ['light', 'dark']) {
            await page.setViewportSize({ width, height: 800 });
            await page.emulateMedia({ colorScheme: scheme });
            const file = `admin-${count}-${name}-${device}-${scheme}.png`;
            await page.screenshot({ path: path.join(SCREENSHOTS, file), fullPage: true });
            const wide = await page.locator('html').evaluate((html) => html.scrollWidth > html.clientWidth);
            expect(!wide, `${name} fits a ${device}`);
        }
    }
    await page.setViewportSize({ width: 1100, height: 800 });
};
const press = (name) => page.getByRole('button', { name, exact: true }).first().click();

await page.goto(`${HOST}/admin/presets`);
await page.getByLabel('Username').fill(USERNAME);
await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
await press('Sign in');
if (await page.locator('[name=new_password]').count()) {
    await page.locator('[name=new_password]').fill(CHOSEN);
    await page.locator('[name=new_password_again]').fill(CHOSEN);
    await page.locator('form:has([name=new_password]) button[type=submit]').click();
}
await page.goto(`${HOST}/admin/presets`);
expect(await page.getByRole('heading', { name: 'Presets' }).isVisible(), 'the list is shown');
expect(await page.getByText('Refused', { exact: true }).first().isVisible(), 'a bad file is shown as refused');
await shots('list');

await page.getByRole('link', { name: PRESET }).first().click();
expect(await page.getByText('audience host evil.example.net').isVisible(), 'what is new is shown');
await shots('waiting');
// What is approved is what was looked at: the page knows its hash.
await press('Approve');
expect(await page.getByText('Approved.', { exact: true }).isVisible(), 'it is approved');
await shots('approved');
await press('Disable');
expect(await page.getByText('Disabled', { exact: true }).first().isVisible(), 'it is disabled');
await press('Enable');
expect(await page.getByText('Enabled', { exact: true }).first().isVisible(), 'it is enabled again');
await press('Go back a version');
const refused = await page.getByRole('alert').textContent();
expect(refused.includes('nothing older'), `there is nothing to go back to: ${refused}`);
await shots('nothing-older');

await browser.close();
console.log(JSON.stringify({ problems }));

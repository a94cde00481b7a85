// An administrator in Chromium judges an upgrade: what it asks for, who signed it, and what it would have decided
// about calls that were recorded. Prints what was wrong.
import path from 'node:path';
import { chromium } from 'playwright-core';

const { HOST, CHROMIUM, USERNAME, PASSWORD, SCREENSHOTS } = process.env;
const CHOSEN = 'a-password-of-my-own';

const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // A container's root has no other way.
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : []
});
const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 1100, height: 800 } });
const page = await context.newPage();
const problems = [];
const expect = (holds, claim) => {
    if (!holds) problems.push(`not so: ${claim} (at ${page.url()})`);
};
const sees = async (text) => expect(await page.getByText(text).first().isVisible(), `"${text}" is shown`);
const shots = async (name) => {
    for (const [device, width] of [['desktop', 1100], ['phone', 390]]) {
        await page.setViewportSize({ width, height: 800 });
        await page.screenshot({ path: path.join(SCREENSHOTS, `upgrade-${name}-${device}.png`), fullPage: true });
        const wide = await page.locator('html').evaluate((html) => html.scrollWidth > html.clientWidth);
        expect(!wide, `${name} fits a ${device}`);
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
await sees('acme');
await sees('unsigned');
await shots('list');

await page.goto(`${HOST}/admin/presets/probe`);
await sees('Version 1.1.0 asks for an approval');
await sees('sees account');
await sees('denied (read_only)');
await sees('Tried on recorded calls');
await sees('unsigned');
await sees('it is not signed');
await page.locator('details').evaluateAll((all) => all.forEach((one) => (one.open = true)));
await sees('tools/call add_note');
await shots('waiting');

await press('Approve');
await sees('Approved.');
await sees('one call finishes on it');
await shots('approved');

await browser.close();
console.log(JSON.stringify({ problems }));

// A user's browser without JavaScript: cookies, redirects, forms, and the headers a real one sends.
import { parse } from 'node-html-parser';

const LOOPBACK = /^(127\.|localhost$|\[::1\]$)/;
const siteOf = (url) => `${url.protocol}//${url.hostname}`;

class Jar {
    cookies = [];

    store(url, header) {
        const [pair, ...rest] = header.split(';').map((part) => part.trim());
        const at = pair.indexOf('=');
        if (at < 1) return;
        const attribute = Object.fromEntries(rest.map((part) => {
            const [name, ...value] = part.split('=');
            return [name.toLowerCase(), value.join('=')];
        }));
        const name = pair.slice(0, at);
        if (name.startsWith('__Host-') && (attribute.secure === undefined || attribute.path !== '/' || attribute.domain !== undefined)) return;
        if (attribute.secure !== undefined && url.protocol !== 'https:' && !LOOPBACK.test(url.hostname)) return;
        const path = attribute.path?.startsWith('/') ? attribute.path : url.pathname.replace(/\/[^/]*$/, '') || '/';
        // Browsers tell cookies apart by host and path, never by port.
        const key = JSON.stringify([url.hostname, path, name]);
        this.cookies = this.cookies.filter((cookie) => cookie.key !== key);
        const until = attribute['max-age'] !== undefined ? Date.now() + 1000 * Number(attribute['max-age'])
            : attribute.expires !== undefined ? Date.parse(attribute.expires) : Infinity;
        if (until <= Date.now()) return;
        this.cookies.push({ key, host: url.hostname, path, name, value: pair.slice(at + 1), until: until === Infinity ? null : until, strict: attribute.samesite?.toLowerCase() === 'strict' });
    }

    header(url, crossSite) {
        return this.cookies
            .filter((cookie) => cookie.host === url.hostname && (cookie.until === null || cookie.until > Date.now()) && !(crossSite && cookie.strict))
            .filter((cookie) => url.pathname === cookie.path || url.pathname.startsWith(cookie.path.endsWith('/') ? cookie.path : `${cookie.path}/`))
            .sort((a, b) => b.path.length - a.path.length)
            .map((cookie) => `${cookie.name}=${cookie.value}`)
            .join('; ');
    }
}

class Form {
    constructor(page, element) {
        this.page = page;
        this.element = element;
        const id = element.getAttribute('id');
        // A control may also stand elsewhere and name its form.
        const own = (selector) => page.root.querySelectorAll(selector)
            .filter((control) => (control.hasAttribute('form') ? control.getAttribute('form') === id : control.closest('form') === element));
        this.controls = own('input, select, textarea');
        this.buttons = [...own('button'), ...this.controls.filter((control) => ['submit', 'image'].includes(control.getAttribute('type')))];
    }

    has(name) {
        return this.controls.some((control) => control.getAttribute('name') === name);
    }

    button(label) {
        return this.buttons.find((button) => labelOf(button) === label && !['button', 'reset'].includes(button.getAttribute('type')));
    }
}

const labelOf = (button) => (button.tagName === 'BUTTON' ? button.text : (button.getAttribute('value') ?? '')).replace(/\s+/g, ' ').trim();

export class Page {
    constructor(url, status, headers, text) {
        Object.assign(this, { url, status, headers, text });
        // Without JavaScript, what stands in <noscript> is part of the page.
        this.root = parse(text, { blockTextElements: { script: true, style: true } });
        this.forms = this.root.querySelectorAll('form').map((element) => new Form(this, element));
    }

    get words() {
        for (const hidden of this.root.querySelectorAll('script, style')) hidden.remove();
        return (this.root.querySelector('body') ?? this.root).text.replace(/\s+/g, ' ').trim().slice(0, 400);
    }

    formWith(label) {
        return this.forms.find((form) => form.button(label));
    }
}

/** Whether a Content-Security-Policy lets a form of this page end up at `target`; redirects count too. */
function formActionAllows(page, target) {
    for (const policy of (page.headers.get('content-security-policy') ?? '').split(',')) {
        const directive = policy.split(';').map((part) => part.trim().split(/\s+/)).find(([name]) => name.toLowerCase() === 'form-action');
        if (directive === undefined) continue;
        const allowed = directive.slice(1).some((source) => {
            if (source === "'self'") return target.origin === page.url.origin;
            if (source === '*' || source === target.protocol) return true;
            const [, scheme, host, port] = /^(?:([a-z]+:)\/\/)?([^:/]+)(?::(\d+|\*))?/.exec(source) ?? [];
            if (scheme !== undefined && scheme !== target.protocol) return false;
            const sameHost = host?.startsWith('*.') ? target.hostname.endsWith(host.slice(1)) : host === target.hostname;
            return sameHost && (port === '*' || (port ?? '') === target.port);
        });
        if (!allowed) return false;
    }
    return true;
}

export class Browser {
    constructor({ log = () => {} } = {}) {
        this.jar = new Jar();
        this.log = log;
    }

    /** A visit that no page led to: an address typed, or opened by another program. */
    open(url) {
        return this.#navigate({ url: new URL(url), method: 'GET', from: null });
    }

    submit(form, label, values = {}) {
        const button = form.button(label);
        const fields = new URLSearchParams();
        for (const control of form.controls) {
            const name = control.getAttribute('name');
            const type = (control.getAttribute('type') ?? 'text').toLowerCase();
            if (!name || control.hasAttribute('disabled') || ['submit', 'image', 'button', 'reset', 'file'].includes(type)) continue;
            if (['checkbox', 'radio'].includes(type)) {
                if (control.hasAttribute('checked')) fields.append(name, control.getAttribute('value') ?? 'on');
            } else if (control.tagName === 'SELECT') {
                const options = control.querySelectorAll('option');
                const chosen = options.find((option) => option.hasAttribute('selected')) ?? options[0];
                if (chosen) fields.append(name, values[name] ?? chosen.getAttribute('value') ?? chosen.text);
            } else if (control.tagName === 'TEXTAREA') fields.append(name, values[name] ?? control.text);
            else fields.append(name, values[name] ?? control.getAttribute('value') ?? '');
        }
        if (button.getAttribute('name')) fields.append(button.getAttribute('name'), button.getAttribute('value') ?? '');
        const action = button.getAttribute('formaction') ?? form.element.getAttribute('action') ?? '';
        const url = new URL(action || form.page.url, form.page.url);
        const method = (button.getAttribute('formmethod') ?? form.element.getAttribute('method') ?? 'get').toUpperCase();
        if (method === 'GET') url.search = fields.toString();
        return this.#navigate({ url, method, body: method === 'POST' ? fields : undefined, from: form.page, submitted: true });
    }

    async #navigate({ url, method, body, from, submitted = false }) {
        let site = from === null ? 'none' : null;
        let tainted = false;
        for (let hops = 0; hops < 20; hops += 1) {
            if (submitted && !formActionAllows(from, url)) throw new Error(`form-action of ${from.url.origin}${from.url.pathname} forbids ${url.origin}`);
            if (from !== null) {
                const step = from.url.origin === url.origin ? 'same-origin' : siteOf(from.url) === siteOf(url) ? 'same-site' : 'cross-site';
                // A chain of redirects is as foreign as its most foreign part.
                const rank = ['same-origin', 'same-site', 'cross-site'];
                site = site === null || rank.indexOf(step) > rank.indexOf(site) ? step : site;
            }
            const headers = {
                accept: 'text/html,application/xhtml+xml;q=0.9,*/*;q=0.8',
                'accept-language': 'en',
                'user-agent': 'Mozilla/5.0 (counterpart)',
                'sec-fetch-site': site,
                'sec-fetch-mode': 'navigate',
                'sec-fetch-dest': 'document',
                'sec-fetch-user': '?1',
                'upgrade-insecure-requests': '1'
            };
            const cookies = this.jar.header(url, site === 'cross-site');
            if (cookies) headers.cookie = cookies;
            if (method === 'POST') {
                const policy = (from.headers.get('referrer-policy') ?? '').split(',').at(-1).trim();
                const silent = policy === 'no-referrer' || (policy === 'same-origin' && from.url.origin !== url.origin);
                headers.origin = tainted || silent ? 'null' : from.url.origin;
            }
            const answer = await fetch(url, { method, headers, body, redirect: 'manual' });
            for (const cookie of answer.headers.getSetCookie()) this.jar.store(url, cookie);
            const location = answer.headers.get('location');
            this.log({ method, url: url.origin + url.pathname, status: answer.status });
            if (![301, 302, 303, 307, 308].includes(answer.status) || location === null) {
                return new Page(url, answer.status, answer.headers, await answer.text());
            }
            await answer.arrayBuffer();
            const next = new URL(location, url);
            if (next.origin !== url.origin) tainted = true;
            if (!/^https?:$/.test(next.protocol)) throw new Error(`redirected to ${next.protocol}`);
            if (answer.status < 307 && method === 'POST') [method, body] = ['GET', undefined];
            url = next;
        }
        throw new Error('too many redirects');
    }
}

/**
 * Walks through sign-in and consent pages until `arrived(page)`.
 * `who(origin)` gives the credentials for the server that asks.
 */
export async function walk(browser, page, { who, arrived, press = ['Allow'] }) {
    const pressed = [];
    for (let pages = 0; pages < 15; pages += 1) {
        if (arrived(page, pressed)) return { page, pressed };
        const where = `${page.url.origin}${page.url.pathname}`;
        if (page.status >= 400) throw new Error(`${where} answered ${page.status}: ${page.words}`);
        const fresh = page.forms.find((form) => form.has('new_password'));
        const signIn = page.formWith('Sign in');
        const label = press.find((name) => page.formWith(name));
        const user = who(page.url.origin);
        if (fresh) {
            if (!user.newPassword) throw new Error(`${where} wants a new password and none was given`);
            const button = fresh.buttons[0];
            pressed.push(labelOf(button));
            const values = { username: user.username, password: user.password, new_password: user.newPassword, new_password_again: user.newPassword };
            page = await browser.submit(fresh, labelOf(button), values);
        } else if (signIn) {
            if (pressed.filter((entry) => entry === `Sign in ${page.url.origin}`).length > 0) throw new Error(`${where} refused the sign-in of ${user.username}: ${page.words}`);
            pressed.push(`Sign in ${page.url.origin}`);
            page = await browser.submit(signIn, 'Sign in', user);
        } else if (label) {
            pressed.push(label);
            page = await browser.submit(page.formWith(label), label);
        } else throw new Error(`${where} shows nothing to press (${press.join(', ')}): ${page.words}`);
    }
    throw new Error('the pages do not come to an end');
}

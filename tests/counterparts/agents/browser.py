"""A user's browser without JavaScript: cookies, redirects, forms, and the headers a real one sends."""

from __future__ import annotations

import email.utils
import re
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Callable
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

import httpx2


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def shown(url: str) -> str:
    """An address without its query: that is where codes and states are."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


@dataclass
class Control:
    tag: str
    attributes: dict[str, str]
    form: str | None
    text: str = ""

    @property
    def type(self) -> str:
        return self.attributes.get("type", "submit" if self.tag == "button" else "text").lower()

    @property
    def label(self) -> str:
        return " ".join((self.text if self.tag == "button" else self.attributes.get("value", "")).split())


@dataclass
class Form:
    page: "Page"
    attributes: dict[str, str]
    controls: list[Control] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return any(control.attributes.get("name") == name for control in self.controls)

    @property
    def buttons(self) -> list[Control]:
        return [c for c in self.controls if c.type in ("submit", "image") and c.tag in ("button", "input")]

    def button(self, label: str) -> Control | None:
        return next((button for button in self.buttons if button.label == label), None)


class Reader(HTMLParser):
    """Collects forms, their controls and the words of a page."""

    def __init__(self, page: "Page") -> None:
        super().__init__()
        self.page = page
        self.forms: dict[str, Form] = {}
        self.controls: list[Control] = []
        self.words: list[str] = []
        self._form: str | None = None
        self._open: Control | None = None
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag in ("script", "style", "head"):
            self._silent += 1
        elif tag == "form":
            self._form = attributes.get("id") or f"#{len(self.forms)}"
            self.forms[self._form] = Form(self.page, attributes)
        elif tag in ("input", "button", "select", "textarea"):
            control = Control(tag, attributes, attributes.get("form", self._form))
            self.controls.append(control)
            if tag in ("button", "textarea"):
                self._open = control
        elif tag == "option" and self.controls and self.controls[-1].tag == "select":
            select = self.controls[-1].attributes
            if "selected" in attributes or "value" not in select:
                select["value"] = attributes.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "head"):
            self._silent -= 1
        elif tag == "form":
            self._form = None
        elif tag in ("button", "textarea"):
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.text += data
        if not self._silent:
            self.words.append(data)


class Page:
    def __init__(self, url: str, status: int, headers: httpx2.Headers, text: str) -> None:
        self.url, self.status, self.headers = url, status, headers
        reader = Reader(self)
        reader.feed(text)
        for control in reader.controls:
            if control.form in reader.forms:
                reader.forms[control.form].controls.append(control)
        self.forms = list(reader.forms.values())
        self.words = " ".join(" ".join(reader.words).split())[:400]

    def form_with(self, label: str) -> Form | None:
        return next((form for form in self.forms if form.button(label)), None)


def form_action_allows(page: Page, target: str) -> bool:
    """Whether a Content-Security-Policy lets a form of this page end up there; redirects count too."""
    parts = urlsplit(target)
    for policy in page.headers.get("content-security-policy", "").split(","):
        directives = [part.split() for part in policy.split(";") if part.strip()]
        sources = next((words[1:] for words in directives if words[0].lower() == "form-action"), None)
        if sources is not None and not any(_source_allows(source, page, parts) for source in sources):
            return False
    return True


def _source_allows(source: str, page: Page, parts: SplitResult) -> bool:
    if source == "'self'":
        return origin_of(page.url) == f"{parts.scheme}://{parts.netloc}"
    if source in ("*", f"{parts.scheme}:"):
        return True
    match = re.match(r"^(?:([a-z]+)://)?([^:/]+)(?::(\d+|\*))?", source)
    if match is None or (match[1] and match[1] != parts.scheme):
        return False
    host = parts.hostname or ""
    same_host = host.endswith(match[2][1:]) if match[2].startswith("*.") else host == match[2]
    return same_host and (match[3] == "*" or match[3] == (str(parts.port) if parts.port else None))


class Browser:
    def __init__(self, log: Callable[[dict[str, object]], None] = lambda entry: None) -> None:
        self.cookies: list[dict[str, object]] = []
        self.log = log

    async def open(self, url: str) -> Page:
        """A visit that no page led to: an address typed, or opened by another program."""
        return await self._navigate(url, "GET", None, None, False)

    async def submit(self, form: Form, label: str, values: dict[str, str] | None = None) -> Page:
        button = form.button(label)
        assert button is not None
        fields: list[tuple[str, str]] = []
        for control in form.controls:
            name = control.attributes.get("name")
            if not name or "disabled" in control.attributes or control.tag == "button":
                continue
            if control.type in ("submit", "image", "button", "reset", "file"):
                continue
            if control.type in ("checkbox", "radio"):
                if "checked" in control.attributes:
                    fields.append((name, control.attributes.get("value", "on")))
                continue
            given = control.text if control.tag == "textarea" else control.attributes.get("value", "")
            fields.append((name, (values or {}).get(name, given)))
        if button.attributes.get("name"):
            fields.append((button.attributes["name"], button.attributes.get("value", "")))
        action = button.attributes.get("formaction") or form.attributes.get("action") or form.page.url
        url = urljoin(form.page.url, action)
        method = (button.attributes.get("formmethod") or form.attributes.get("method") or "get").upper()
        if method == "GET":
            return await self._navigate(urlsplit(url)._replace(query=urlencode(fields)).geturl(), "GET", None, form.page, True)
        return await self._navigate(url, method, urlencode(fields), form.page, True)

    async def _navigate(self, url: str, method: str, body: str | None, page: Page | None, submitted: bool) -> Page:
        ranks = ["same-origin", "same-site", "cross-site"]
        site = None if page is not None else "none"
        tainted = False
        async with httpx2.AsyncClient(follow_redirects=False, timeout=60) as client:
            for _hop in range(20):
                if submitted and page is not None and not form_action_allows(page, url):
                    raise RuntimeError(f"form-action of {shown(page.url)} forbids {origin_of(url)}")
                if page is not None:
                    step = self._site(page.url, url)
                    # A chain of redirects is as foreign as its most foreign part.
                    site = step if site is None or ranks.index(step) > ranks.index(site) else site
                headers = {
                    "accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
                    "accept-language": "en",
                    "user-agent": "Mozilla/5.0 (counterpart)",
                    "sec-fetch-site": site or "none",
                    "sec-fetch-mode": "navigate",
                    "sec-fetch-dest": "document",
                    "sec-fetch-user": "?1",
                }
                cookies = self._cookie_header(url, site == "cross-site")
                if cookies:
                    headers["cookie"] = cookies
                if method == "POST" and page is not None:
                    policy = page.headers.get("referrer-policy", "").split(",")[-1].strip()
                    silent = policy == "no-referrer" or (policy == "same-origin" and origin_of(page.url) != origin_of(url))
                    headers["origin"] = "null" if tainted or silent else origin_of(page.url)
                    headers["content-type"] = "application/x-www-form-urlencoded"
                answer = await client.request(method, url, headers=headers, content=body)
                for cookie in answer.headers.get_list("set-cookie"):
                    self._store(url, cookie)
                self.log({"method": method, "url": shown(url), "status": answer.status_code})
                location = answer.headers.get("location")
                if answer.status_code not in (301, 302, 303, 307, 308) or location is None:
                    return Page(url, answer.status_code, answer.headers, answer.text)
                onward = urljoin(url, location)
                if origin_of(onward) != origin_of(url):
                    tainted = True
                if urlsplit(onward).scheme not in ("http", "https"):
                    raise RuntimeError(f"redirected to {urlsplit(onward).scheme}:")
                if answer.status_code < 307 and method == "POST":
                    method, body = "GET", None
                url = onward
        raise RuntimeError("too many redirects")

    @staticmethod
    def _site(before: str, after: str) -> str:
        one, other = urlsplit(before), urlsplit(after)
        if origin_of(before) == origin_of(after):
            return "same-origin"
        return "same-site" if (one.scheme, one.hostname) == (other.scheme, other.hostname) else "cross-site"

    def _store(self, url: str, header: str) -> None:
        parts = urlsplit(url)
        pair, *rest = [part.strip() for part in header.split(";")]
        name, separator, value = pair.partition("=")
        if not separator or not name:
            return
        attributes = {key.lower(): given for key, _, given in (part.partition("=") for part in rest)}
        if name.startswith("__Host-") and ("secure" not in attributes or attributes.get("path") != "/" or "domain" in attributes):
            return
        loopback = re.match(r"^(127\.|localhost$|::1$)", parts.hostname or "")
        if "secure" in attributes and parts.scheme != "https" and not loopback:
            return
        path = attributes.get("path", "")
        if not path.startswith("/"):
            path = parts.path.rsplit("/", 1)[0] or "/"
        # Browsers tell cookies apart by host and path, never by port.
        key = (parts.hostname, path, name)
        self.cookies = [cookie for cookie in self.cookies if (cookie["host"], cookie["path"], cookie["name"]) != key]
        until: float | None = None
        if attributes.get("max-age"):
            until = time.time() + float(attributes["max-age"])
        elif attributes.get("expires"):
            until = email.utils.parsedate_to_datetime(attributes["expires"]).timestamp()
        if until is not None and until <= time.time():
            return
        strict = attributes.get("samesite", "").lower() == "strict"
        self.cookies.append({"host": parts.hostname, "path": path, "name": name, "value": value, "until": until, "strict": strict})

    def _cookie_header(self, url: str, cross_site: bool) -> str:
        parts = urlsplit(url)
        path = parts.path or "/"
        sent = []
        for cookie in self.cookies:
            root = str(cookie["path"])
            prefix = root if root.endswith("/") else f"{root}/"
            alive = cookie["until"] is None or float(str(cookie["until"])) > time.time()
            if cookie["host"] == parts.hostname and alive and (path == root or path.startswith(prefix)) and not (cross_site and cookie["strict"]):
                sent.append(cookie)
        sent.sort(key=lambda cookie: -len(str(cookie["path"])))
        return "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in sent)


@dataclass
class Person:
    username: str
    password: str
    new_password: str | None = None


async def walk(
    browser: Browser,
    page: Page,
    who: Callable[[str], Person],
    arrived: Callable[[Page, list[str]], bool],
    press: tuple[str, ...] = ("Allow",),
) -> tuple[Page, list[str]]:
    """Goes through sign-in and consent pages until `arrived`; `who` gives the credentials for an origin."""
    pressed: list[str] = []
    for _page in range(15):
        if arrived(page, pressed):
            return page, pressed
        if page.status >= 400:
            raise RuntimeError(f"{shown(page.url)} answered {page.status}: {page.words}")
        fresh = next((form for form in page.forms if form.has("new_password")), None)
        sign_in = page.form_with("Sign in")
        label = next((name for name in press if page.form_with(name)), None)
        if fresh is not None:
            person = who(origin_of(page.url))
            if person.new_password is None:
                raise RuntimeError(f"{shown(page.url)} wants a new password and none was given")
            name = fresh.buttons[0].label
            pressed.append(name)
            values = {
                "username": person.username,
                "password": person.password,
                "new_password": person.new_password,
                "new_password_again": person.new_password,
            }
            page = await browser.submit(fresh, name, values)
        elif sign_in is not None:
            person = who(origin_of(page.url))
            mark = f"Sign in {origin_of(page.url)}"
            if mark in pressed:
                raise RuntimeError(f"{shown(page.url)} refused the sign-in of {person.username}: {page.words}")
            pressed.append(mark)
            page = await browser.submit(sign_in, "Sign in", {"username": person.username, "password": person.password})
        elif label is not None:
            form = page.form_with(label)
            assert form is not None
            pressed.append(label)
            page = await browser.submit(form, label)
        else:
            raise RuntimeError(f"{shown(page.url)} shows nothing to press ({', '.join(press)}): {page.words}")
    raise RuntimeError("the pages do not come to an end")

"""The agent on the official Python SDK: both eras, by its own OAuth client."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.exceptions import MCPError

from browser import Browser, Page, Person, origin_of, shown, walk


def say(step: str, **facts: Any) -> None:
    print(json.dumps({"step": step, **{name: value for name, value in facts.items() if value is not None}}), flush=True)


def plain(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def reason_of(error: BaseException) -> str:
    """Task groups wrap what went wrong; the innermost is what a person wants to read."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class Memory:
    """Where the agent keeps what it knows between two runs."""

    def __init__(self, file: str | None, forget_tokens: bool) -> None:
        self.file = Path(file) if file else None
        self.data: dict[str, Any] = {"client": None, "tokens": None, "cookies": [], "port": 0}
        if self.file and self.file.exists():
            self.data.update(json.loads(self.file.read_text()))
        if forget_tokens:
            self.data["tokens"] = None

    def save(self) -> None:
        if self.file:
            self.file.write_text(json.dumps(self.data))
            self.file.chmod(0o600)

    async def get_tokens(self) -> OAuthToken | None:
        return OAuthToken.model_validate(self.data["tokens"]) if self.data["tokens"] else None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.data["tokens"] = plain(tokens)
        self.save()
        say("token", scope=tokens.scope, expires_in=tokens.expires_in, refresh_token=tokens.refresh_token is not None)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return OAuthClientInformationFull.model_validate(self.data["client"]) if self.data["client"] else None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.data["client"] = plain(client_info)
        self.save()
        say("registered", client_id=client_info.client_id)


class Agent:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.home = origin_of(options.url)
        self.memory = Memory(options.state, options.forget_tokens)
        self.browser = Browser(lambda entry: say("page", **entry) if options.trace else None)
        self.browser.cookies = self.memory.data["cookies"]
        self.failed_calls = 0
        self.callback: dict[str, str] = {}
        self.redirect_url = ""
        self.failures: list[BaseException] = []

    async def live(self) -> int:
        """Everything from the first request to the last call; gives the exit status."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.memory.data["port"])
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.memory.data["port"] = port
        self.redirect_url = f"http://127.0.0.1:{port}/callback"
        async with anyio.create_task_group() as tasks:
            self.tasks = tasks
            tasks.start_soon(listener.serve, self._returned)
            await self._work()
            tasks.cancel_scope.cancel()
        if self.failures:
            raise self.failures[0]
        say("done", failed_calls=self.failed_calls)
        return 4 if self.failed_calls else 0

    async def _work(self) -> None:
        options = self.options
        headers = {"authorization": f"Bearer {options.token}"} if options.token else None
        timeout = httpx2.Timeout(30, read=300)
        async with httpx2.AsyncClient(
            auth=None if options.token else self._provider(),
            headers=headers,
            timeout=timeout,
            event_hooks={"response": [self._observe]},
        ) as http:
            transport = streamable_http_client(options.url, http_client=http)
            async with Client(
                transport,
                mode=self._mode(),
                client_info=types.Implementation(name="agent-py", version="1.0.0"),
                elicitation_callback=None if options.no_elicitation or options.no_url_elicitation else self._elicited,
                sampling_callback=None if options.no_sampling else self._sampled,
                message_handler=self._notified,
                read_timeout_seconds=options.timeout / 1000 if options.timeout else None,
            ) as client:
                self.client = client
                server = client.server_info
                say("connected", version=client.protocol_version, server=server.name if server else None)
                if not options.no_list:
                    await self._list()
                for tool, arguments in options.call or []:
                    await self._call(tool, json.loads(arguments))
                if options.stdin:
                    await self._obey()
                await self._settle()

    def _mode(self) -> str:
        era = self.options.era
        if era in ("auto", "legacy") or era.startswith("2026"):
            return era
        # This SDK always offers its newest revision of 2025 and has no switch for another.
        if era in ("2025", "2025-11-25"):
            return "legacy"
        raise RuntimeError(f"this SDK has no way to insist on {era}")

    def _provider(self) -> OAuthClientProvider:
        options = self.options
        metadata = OAuthClientMetadata.model_validate(
            {
                "client_name": options.client_name or "agent-py",
                "redirect_uris": [self.redirect_url],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
                "scope": options.scope,
            }
        )
        return OAuthClientProvider(
            server_url=options.url,
            client_metadata=metadata,
            storage=self.memory,
            redirect_handler=self._authorize,
            callback_handler=self._take_callback,
            client_metadata_url=options.client_metadata_url,
        )

    async def _observe(self, answer: httpx2.Response) -> None:
        url = str(answer.request.url)
        # Requests to the endpoint itself only matter here when they are refused.
        if shown(url) != shown(self.options.url) or not answer.is_success:
            challenge = answer.headers.get("www-authenticate")
            say("http", method=answer.request.method, url=shown(url), status=answer.status_code, www_authenticate=challenge)

    async def _returned(self, stream: anyio.abc.SocketStream) -> None:
        """The server behind the agent's own redirect URI."""
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                try:
                    head += await stream.receive()
                except anyio.EndOfStream:
                    return
            target = head.split(b" ", 2)[1].decode()
            if urlsplit(target).path == "/callback":
                self.callback = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
            body = b"You can close this page."
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def _who(self, connecting: bool, origin: str) -> Person:
        options = self.options
        if connecting and origin != self.home:
            return Person(options.connect_username, options.connect_password)
        if options.username is None:
            raise RuntimeError(f"{origin} wants a sign-in and no --username was given")
        return Person(options.username, options.password, options.new_password)

    async def _authorize(self, url: str) -> None:
        """The user's part of the OAuth flow: from the authorization URL to the redirect URI."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        names = ("resource", "scope", "code_challenge_method", "redirect_uri", "client_id")
        say("authorize", url=shown(url), **{name: asked.get(name) for name in names})
        self.callback = {}
        _, pressed = await walk(
            self.browser,
            await self.browser.open(url),
            who=lambda origin: self._who(False, origin),
            arrived=lambda page, _: page.url.startswith(f"{self.redirect_url}?"),
        )
        self._keep_cookies()
        say("authorized", pressed=pressed, iss=self.callback.get("iss"))

    async def _take_callback(self) -> AuthorizationCodeResult:
        if "error" in self.callback:
            raise RuntimeError(f"authorization refused: {self.callback['error']} {self.callback.get('error_description', '')}")
        return AuthorizationCodeResult(code=self.callback["code"], state=self.callback.get("state"), iss=self.callback.get("iss"))

    def _keep_cookies(self) -> None:
        self.memory.data["cookies"] = self.browser.cookies
        self.memory.save()

    async def _list(self) -> None:
        names: list[str] = []
        cursor: str | None = None
        while True:
            # Fresh each time: what the user may see changes when an account is connected.
            page = await self.client.list_tools(cursor=cursor, cache_mode="refresh")
            names.extend(tool.name for tool in page.tools)
            cursor = page.next_cursor
            if cursor is None:
                break
        say("tools", count=len(names), names=names)

    async def _call(self, tool: str, arguments: dict[str, Any]) -> None:
        started = time.monotonic()
        for attempt in (1, 2):
            outcome: dict[str, Any]
            links: list[str] = []
            try:
                progress = self._progress if self.options.progress else None
                result = plain(await self.client.call_tool(tool, arguments, progress_callback=progress))
                outcome = {"ok": result.get("isError") is not True, "result": result}
                links.append(result.get("_meta", {}).get("countersign", {}).get("authorize_url"))
            except MCPError as error:
                outcome = {"ok": False, "error": {"code": error.code, "message": error.message, "data": error.data}}
                data = error.data if isinstance(error.data, dict) else {}
                links.extend(entry.get("url") for entry in data.get("elicitations", []))
                links.append(data.get("countersign", {}).get("authorize_url"))
            say("call", tool=tool, attempt=attempt, ms=round((time.monotonic() - started) * 1000), **outcome)
            if outcome["ok"]:
                return
            link = next((entry for entry in links if entry), None)
            if link is None or attempt > 1 or self.options.connect_username is None:
                break
            await self.visit(link)
        self.failed_calls += 1

    async def visit(self, link: str) -> None:
        """What a user does with a link: opens it, connects the account, comes back."""
        say("visit", url=shown(link))

        def arrived(page: Page, pressed: list[str]) -> bool:
            # Back home after the provider's consent: whatever is shown now is the outcome.
            connected = any(label in pressed for label in ("Connect", "Reconnect"))
            return page.status < 400 and origin_of(page.url) == self.home and connected and page.form_with("Sign in") is None

        page, pressed = await walk(
            self.browser,
            await self.browser.open(link),
            who=lambda origin: self._who(True, origin),
            arrived=arrived,
            press=("Connect", "Reconnect", "Allow", "Continue"),
        )
        self._keep_cookies()
        say("visited", url=shown(page.url), status=page.status, pressed=pressed, text=page.words)

    async def _visit_later(self, link: str) -> None:
        self.visiting = getattr(self, "visiting", 0) + 1
        try:
            await self.visit(link)
        except Exception as error:
            self.failures.append(error)
        finally:
            self.visiting -= 1

    async def _settle(self) -> None:
        while getattr(self, "visiting", 0) > 0:
            await anyio.sleep(0.02)

    async def _elicited(self, _context: Any, params: Any) -> types.ElicitResult:
        """Answers elicitations, whichever way they arrive."""
        mode = getattr(params, "mode", None) or "form"
        url = getattr(params, "url", None)
        say("elicitation", mode=mode, message=params.message, url=url, elicitation_id=getattr(params, "elicitation_id", None))
        manner = self.options.elicitation
        if manner in ("decline", "cancel"):
            return types.ElicitResult(action=manner)
        if mode != "url":
            kinds: dict[str, Any] = {"string": "blue", "boolean": True, "integer": 1, "number": 1}
            filled = {
                name: schema.get("default", (schema.get("enum") or [kinds.get(schema.get("type"), "blue")])[0])
                for name, schema in params.requested_schema.get("properties", {}).items()
            }
            return types.ElicitResult(action="accept", content=filled)
        if self.options.connect_username is None:
            return types.ElicitResult(action="cancel")
        if manner == "visit-first":
            await self.visit(url)
        else:
            # Accepting only says that the page is open; the user is still at it.
            self.tasks.start_soon(self._visit_later, url)
        return types.ElicitResult(action="accept")

    async def _sampled(self, _context: Any, params: Any) -> types.CreateMessageResult:
        say("sampling", messages=len(params.messages))
        return types.CreateMessageResult(model="counterpart", role="assistant", content=types.TextContent(type="text", text="a completion"))

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        say("progress", progress=progress, total=total, message=message)

    async def _notified(self, message: Any) -> None:
        if isinstance(message, Exception):
            say("stream", reason=reason_of(message))
            return
        content = plain(message)
        say("notification", method=content.get("method"), params=content.get("params"))

    async def _obey(self) -> None:
        """One JSON object per line on stdin, until it ends."""
        say("listening")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if not line.strip():
                continue
            order = json.loads(line)
            try:
                if "call" in order:
                    await self._call(order["call"], order.get("arguments") or {})
                elif "list" in order:
                    await self._list()
                elif "visit" in order:
                    await self.visit(order["visit"])
                elif "quit" in order:
                    break
                else:
                    raise RuntimeError("orders are call, list, visit, quit")
                await self._settle()
            except Exception as error:
                say("answer", error={"message": reason_of(error)})


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent_py", allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--username")
    parser.add_argument("--password", default=os.environ.get("AGENT_PASSWORD", "pw"))
    parser.add_argument("--new-password")
    parser.add_argument("--connect-username")
    parser.add_argument("--connect-password", default="pw")
    parser.add_argument("--era", default="auto")
    parser.add_argument("--token", default=os.environ.get("AGENT_TOKEN"))
    parser.add_argument("--scope")
    parser.add_argument("--client-name")
    parser.add_argument("--client-metadata-url")
    parser.add_argument("--elicitation", default="accept-first", choices=["accept-first", "visit-first", "decline", "cancel"])
    for switch in ("no-url-elicitation", "no-elicitation", "no-sampling", "no-list", "progress", "forget-tokens", "stdin", "trace"):
        parser.add_argument(f"--{switch}", action="store_true")
    parser.add_argument("--timeout", type=int)
    parser.add_argument("--state")
    parser.add_argument("--call", nargs=2, action="append", metavar=("TOOL", "JSON"))
    return parser.parse_args()


async def main() -> int:
    try:
        return await Agent(command_line()).live()
    except Exception as error:
        say("failed", reason=reason_of(error))
        return 1


if __name__ == "__main__":
    sys.exit(anyio.run(main))

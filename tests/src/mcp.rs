//! An agent that speaks MCP by hand, so that a test can say anything.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::browser::{Page, Person};
use crate::host::Host;
use crate::web::{Answer, Web};

/// Where the agent would listen; nothing does.
const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// RFC 7636 asks for 43 characters or more.
const VERIFIER: &str = "a-verifier-that-is-long-enough-for-everybody-here";

/// Which MCP revision an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25: sessions.
    Sessions,
    /// 2026-07-28: every request on its own.
    PerRequest,
}

impl Era {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sessions, Self::PerRequest];

    /// The revision's name.
    pub fn revision(self) -> &'static str {
        match self {
            Self::Sessions => "2025-11-25",
            Self::PerRequest => "2026-07-28",
        }
    }
}

/// An agent with a token that a user allowed it.
pub struct Agent {
    /// The MCP endpoint.
    pub endpoint: String,
    /// Sent as bearer.
    pub token: String,
    /// From the token answer.
    pub refresh_token: String,
    /// What it registered as.
    pub client_id: String,
    /// What it speaks.
    pub era: Era,
    /// What it declares it can do.
    pub capabilities: Value,
    /// In the era of sessions, after [`Agent::initialize`].
    pub session: Option<String>,
    web: Web,
    last_id: u64,
}

/// A response, and what came before it on its stream.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    /// The JSON-RPC response; `null` if there was none.
    pub message: Value,
    /// Notifications and requests that came first.
    pub before: Vec<Value>,
}

impl Reply {
    /// The text of the first content block of a tool result.
    pub fn text(&self) -> &str {
        self.message["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
    }

    /// Countersign's own object, wherever the carrier put it.
    pub fn countersign(&self) -> &Value {
        let message = &self.message;
        let places = [
            &message["error"]["data"]["countersign"],
            &message["result"]["_meta"]["countersign"],
        ];
        places
            .into_iter()
            .find(|place| place.is_object())
            .unwrap_or(&Value::Null)
    }

    /// A tool result that is no error.
    ///
    /// # Errors
    /// With what came in its place.
    pub fn ok(&self) -> Result<&Value> {
        let result = &self.message["result"];
        ensure!(
            self.status == 200 && result.is_object() && result["isError"] != true,
            "{} {}",
            self.status,
            self.message
        );
        Ok(result)
    }
}

impl Agent {
    /// Registers, lets the person sign in and allow, and takes the token: all
    /// that an SDK does by itself. `path` is `/mcp/{server}` or `/mcp`.
    ///
    /// # Errors
    /// If any step is not as it should be.
    pub async fn sign_in(host: &Host, person: &mut Person, path: &str, era: Era) -> Result<Self> {
        let asked = Consent::ask(host, person, path, "A test's agent").await?;
        asked.allow(person, era).await
    }

    /// An agent with this token.
    ///
    /// # Errors
    /// If its client cannot be set up.
    pub fn with_token(endpoint: String, token: String, era: Era) -> Result<Self> {
        Ok(Self {
            endpoint,
            token,
            refresh_token: String::new(),
            client_id: String::new(),
            era,
            capabilities: json!({}),
            session: None,
            web: Web::new()?,
            last_id: 0,
        })
    }

    /// The same agent that can show its user a URL.
    #[must_use]
    pub fn with_url_elicitation(mut self) -> Self {
        self.capabilities = json!({ "elicitation": { "form": {}, "url": {} } });
        self
    }

    /// Begins a session, in the era that has them.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn initialize(&mut self) -> Result<Reply> {
        let params = json!({
            "protocolVersion": self.era.revision(),
            "capabilities": self.capabilities,
            "clientInfo": { "name": "test", "version": "1" },
        });
        let reply = self.ask("initialize", params).await?;
        ensure!(
            reply.message["result"].is_object(),
            "{} {}",
            reply.status,
            reply.message
        );
        self.session = reply
            .headers
            .get("mcp-session-id")
            .and_then(|value| value.to_str().ok())
            .map(Into::into);
        let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let answer = Web::send(self.post(&body)).await?;
        ensure!(
            answer.status == 202,
            "initialized: {} {}",
            answer.status,
            answer.text
        );
        Ok(reply)
    }

    /// Whatever has to come first in its era.
    ///
    /// # Errors
    /// As [`Agent::initialize`].
    pub async fn ready(mut self) -> Result<Self> {
        if self.era == Era::Sessions {
            self.initialize().await?;
        }
        Ok(self)
    }

    /// The JSON-RPC message of a request, as its era wants it.
    pub fn message(&mut self, method: &str, mut params: Value) -> Value {
        self.last_id += 1;
        if self.era == Era::PerRequest {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = self.era.revision().into();
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
                self.capabilities.clone();
            params["_meta"]["io.modelcontextprotocol/clientInfo"] =
                json!({ "name": "test", "version": "1" });
        }
        json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params })
    }

    /// A `POST` of this message, with the headers its era wants.
    pub fn post(&self, message: &Value) -> RequestBuilder {
        let mut request = self.bare(Method::POST).json(message);
        if self.era == Era::PerRequest {
            let method = message["method"].as_str().unwrap_or_default();
            request = request.header("mcp-method", method);
            let named = match method {
                "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
                "resources/read" => message["params"]["uri"].as_str(),
                _ => None,
            };
            if let Some(name) = named {
                request = request.header("mcp-name", name);
            }
        }
        if message["method"] != "initialize" {
            request = request.header("mcp-protocol-version", self.era.revision());
        }
        request
    }

    /// A request with token, session and what it accepts, nothing else.
    pub fn bare(&self, method: Method) -> RequestBuilder {
        let mut request = self
            .web
            .request(method, &self.endpoint)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        request
    }

    /// Sends a request and reads to its response.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn ask(&mut self, method: &str, params: Value) -> Result<Reply> {
        let message = self.message(method, params);
        self.exchange(&message).await
    }

    /// Sends this message and reads to its response.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn exchange(&self, message: &Value) -> Result<Reply> {
        let mut events = Events::of(self.post(message).send().await?);
        events.reply(&message["id"]).await
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn call(&mut self, tool: &str, arguments: Value) -> Result<Reply> {
        self.ask(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        )
        .await
    }

    /// Sends a request and leaves its stream to the caller.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn open(&mut self, method: &str, params: Value) -> Result<(Value, Events)> {
        let message = self.message(method, params);
        let response = self.post(&message).send().await?;
        Ok((message["id"].clone(), Events::of(response)))
    }

    /// Answers a request of the server.
    ///
    /// # Errors
    /// If it is not accepted.
    pub async fn answer(&self, id: &Value, result: Value) -> Result<Answer> {
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        Web::send(self.post(&message)).await
    }

    /// The names `tools/list` gives.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn tools(&mut self) -> Result<Vec<String>> {
        let reply = self.ask("tools/list", json!({})).await?;
        let result = reply.ok()?;
        Ok(result["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| tool["name"].as_str().map(Into::into))
            .collect())
    }
}

/// What comes back on one response, message by message.
pub struct Events {
    status: u16,
    headers: HeaderMap,
    response: Response,
    streams: bool,
    buffer: Vec<u8>,
}

impl Events {
    /// Of a response whose body was not read yet.
    pub fn of(response: Response) -> Self {
        let kind = response.headers().get("content-type");
        let streams = kind
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            response,
            streams,
            buffer: Vec::new(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// Of the transport, and of what is no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        if !self.streams {
            while let Some(chunk) = self.response.chunk().await? {
                self.buffer.extend_from_slice(&chunk);
            }
            let body = std::mem::take(&mut self.buffer);
            return Ok(serde_json::from_slice(&body).ok());
        }
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event)?;
                let data: Vec<_> = event
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .map(|data| data.strip_prefix(' ').unwrap_or(data))
                    .collect();
                let data = data.join("\n");
                if !data.is_empty() {
                    return serde_json::from_str(&data).map(Some).context(data);
                }
                continue;
            }
            match self.response.chunk().await? {
                // CR is only allowed before LF here: no server in these tests
                // sends it alone.
                Some(chunk) => self
                    .buffer
                    .extend(chunk.iter().filter(|byte| **byte != b'\r')),
                None => return Ok(None),
            }
        }
    }

    /// Reads to the response with this id.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn reply(&mut self, id: &Value) -> Result<Reply> {
        let mut before = Vec::new();
        let message = loop {
            match self.next().await? {
                Some(message) if message.get("method").is_some() => before.push(message),
                Some(message) if self.streams && message["id"] != *id => before.push(message),
                Some(message) => break message,
                None => break Value::Null,
            }
        };
        Ok(Reply {
            status: self.status,
            headers: self.headers.clone(),
            message,
            before,
        })
    }
}

/// The host asks the user whether this agent may.
pub struct Consent {
    /// The page with "Allow" and "Deny".
    pub page: Page,
    client_id: String,
    endpoint: String,
    metadata: Value,
    web: Web,
}

impl Consent {
    /// Registers an agent and brings the person to the question.
    ///
    /// # Errors
    /// If any step is not as it should be.
    pub async fn ask(host: &Host, person: &mut Person, path: &str, name: &str) -> Result<Self> {
        let web = Web::new()?;
        let metadata = web
            .get(&host.at("/.well-known/oauth-authorization-server"))
            .await?
            .json();
        let endpoint = |name: &str| -> Result<String> {
            Ok(metadata[name]
                .as_str()
                .with_context(|| format!("the metadata has no {name}"))?
                .to_owned())
        };
        let registration = json!({
            "client_name": name,
            "redirect_uris": [REDIRECT],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        let registered = web
            .post_json(&endpoint("registration_endpoint")?, &registration)
            .await?;
        ensure!(
            registered.status == 201,
            "{} {}",
            registered.status,
            registered.text
        );
        let client_id = registered.json()["client_id"]
            .as_str()
            .context("no client_id")?
            .to_owned();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let resource = host.at(path);
        let mut url = Url::parse(&endpoint("authorization_endpoint")?)?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", &resource)
            .append_pair("state", "the-agents-own");
        person.browser.stops = vec![REDIRECT.into()];
        let page = person.browser.open(url.as_str()).await?;
        let page = person.enter(page).await?;
        Ok(Self {
            page,
            client_id,
            endpoint: resource,
            metadata,
            web,
        })
    }

    /// The person allows it.
    ///
    /// # Errors
    /// If no token comes of it.
    pub async fn allow(self, person: &mut Person, era: Era) -> Result<Agent> {
        let back = person.browser.press(&self.page, "Allow", &[]).await?;
        ensure!(
            back.url.as_str().starts_with(REDIRECT),
            "{} {}",
            back.url,
            back.text()
        );
        ensure!(
            back.query("state").as_deref() == Some("the-agents-own"),
            "{}",
            back.url
        );
        ensure!(
            back.query("iss").as_deref() == self.metadata["issuer"].as_str(),
            "{} is not from {}",
            back.url,
            self.metadata["issuer"]
        );
        let code = back.query("code").context("no code came back")?;
        let token_endpoint = self.metadata["token_endpoint"].as_str().unwrap_or_default();
        let answer = self
            .web
            .post_form(
                token_endpoint,
                &[
                    ("grant_type", "authorization_code"),
                    ("code", &code),
                    ("redirect_uri", REDIRECT),
                    ("client_id", &self.client_id),
                    ("code_verifier", VERIFIER),
                    ("resource", &self.endpoint),
                ],
            )
            .await?;
        let token = answer.json();
        let mut agent = Agent::with_token(
            self.endpoint,
            token["access_token"]
                .as_str()
                .with_context(|| answer.text.clone())?
                .to_owned(),
            era,
        )?;
        agent.refresh_token = token["refresh_token"].as_str().unwrap_or_default().into();
        agent.client_id = self.client_id;
        Ok(agent)
    }

    /// The person does not; gives the address the agent is sent back to.
    ///
    /// # Errors
    /// Of the browser.
    pub async fn deny(self, person: &mut Person) -> Result<Page> {
        person.browser.press(&self.page, "Deny", &[]).await
    }
}

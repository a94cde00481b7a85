//! Asking an MCP server whether it wants credentials.
//!
//! By GET and by POST, in both eras of the protocol: some protect one of them
//! only, and some let anybody begin and ask for credentials later. That none
//! are needed has to be shown by a proper answer to a list of tools.

use countersign_core::challenge::Challenge;
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::{Discovery, DiscoveryError, Look, Looked, PATIENCE};

/// Longest answer to `initialize` or a list, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
const SESSIONS: &str = "2025-11-25";
const PER_REQUEST: &str = "2026-07-28";
const SESSION_ID: &str = "mcp-session-id";

/// What the server turned out to be.
pub(super) enum Probed {
    /// It listed its tools to nobody in particular.
    Open,
    /// It answered 401, with this challenge if there was one.
    Protected(Option<Challenge>),
}

/// What a 401 asks for.
enum Wanted {
    /// A bearer token.
    Bearer(Challenge),
    /// It does not say; many do not.
    Unsaid,
    /// Something else than a bearer token.
    Another,
}

/// What one request showed.
enum Shown {
    Unauthorized(Wanted),
    /// A JSON-RPC result, and the session it began.
    Result(Value, Option<String>),
    /// A JSON-RPC error: MCP is spoken here.
    Refusal,
    /// Something else, in words.
    Else(String),
}

/// Probes.
pub(super) async fn run(discovery: &mut Discovery<'_>) -> Result<Probed, DiscoveryError> {
    let by_get = get(discovery).await?;
    let mut open = false;
    let mut said = String::new();
    for era in [Era::PerRequest, Era::Sessions] {
        match begin_and_list(discovery, era).await? {
            Begun::Unauthorized(wanted) => return protected(discovery, wanted, by_get),
            Begun::Listed => open = true,
            Begun::Not(what) => said = what,
        }
    }
    match by_get {
        Some(wanted) => protected(discovery, wanted, None),
        None if open => Ok(Probed::Open),
        None => Err(DiscoveryError::NotMcp {
            url: discovery.typed.clone(),
            what: said,
        }),
    }
}

/// Protected; the challenge of a POST goes before that of a GET.
fn protected(
    discovery: &Discovery<'_>,
    by_post: Wanted,
    by_get: Option<Wanted>,
) -> Result<Probed, DiscoveryError> {
    match (by_post, by_get) {
        (Wanted::Bearer(challenge), _) | (_, Some(Wanted::Bearer(challenge))) => {
            Ok(Probed::Protected(Some(challenge)))
        }
        (Wanted::Unsaid, _) | (_, Some(Wanted::Unsaid)) => Ok(Probed::Protected(None)),
        (Wanted::Another, _) => Err(DiscoveryError::NoBearer {
            url: discovery.typed.clone(),
            what: "its WWW-Authenticate names another scheme than Bearer".into(),
        }),
    }
}

fn wanted(headers: &HeaderMap) -> Wanted {
    match Challenge::find(headers) {
        Some(challenge) => Wanted::Bearer(challenge),
        None if headers.contains_key(header::WWW_AUTHENTICATE) => Wanted::Another,
        None => Wanted::Unsaid,
    }
}

/// `Some` if a GET wants credentials.
async fn get(discovery: &mut Discovery<'_>) -> Result<Option<Wanted>, DiscoveryError> {
    let url = discovery.typed.clone();
    let look = Look {
        method: Method::GET,
        url: &url,
        headers: &[("accept", "text/event-stream, application/json")],
        body: None,
        limit: ANSWER_LIMIT,
        timeout: PATIENCE,
    };
    // A stream need not say anything: its headers are enough.
    match discovery.look("", look, |_| true).await {
        Ok(looked) => Ok((looked.status == 401).then(|| wanted(&looked.headers))),
        // Some keep silent until there is something to say; a POST tells more.
        Err(error) if error.may_have_arrived() => Ok(None),
        Err(error) => Err(DiscoveryError::Unreachable { url, error }),
    }
}

#[derive(Clone, Copy)]
enum Era {
    Sessions,
    PerRequest,
}

impl Era {
    fn begins(self) -> (&'static str, Value) {
        match self {
            Self::Sessions => (
                "initialize",
                json!({
                    "protocolVersion": SESSIONS,
                    "capabilities": {},
                    "clientInfo": client_info(),
                }),
            ),
            Self::PerRequest => ("server/discover", json!({})),
        }
    }

    fn revision(self) -> &'static str {
        match self {
            Self::Sessions => SESSIONS,
            Self::PerRequest => PER_REQUEST,
        }
    }
}

fn client_info() -> Value {
    json!({ "name": "countersign", "version": env!("CARGO_PKG_VERSION") })
}

/// How a server took the first requests of an era.
enum Begun {
    Unauthorized(Wanted),
    Listed,
    Not(String),
}

async fn begin_and_list(discovery: &mut Discovery<'_>, era: Era) -> Result<Begun, DiscoveryError> {
    let (method, params) = era.begins();
    let (result, session) = match ask(discovery, era, method, Some(params), None).await? {
        Shown::Unauthorized(wanted) => return Ok(Begun::Unauthorized(wanted)),
        Shown::Result(result, session) => (result, session),
        Shown::Refusal => return Ok(Begun::Not(format!("{method} is refused"))),
        Shown::Else(what) => return Ok(Begun::Not(format!("{method}: {what}"))),
    };
    let is_mcp = match era {
        Era::Sessions => result["protocolVersion"].is_string(),
        Era::PerRequest => result["supportedVersions"].is_array(),
    };
    if !is_mcp {
        return Ok(Begun::Not(format!("its result of {method} is not MCP's")));
    }
    let session = session.as_deref();
    if matches!(era, Era::Sessions) {
        let told = ask(discovery, era, "notifications/initialized", None, session).await?;
        if let Shown::Unauthorized(wanted) = told {
            return Ok(Begun::Unauthorized(wanted));
        }
    }
    let listed = ask(discovery, era, "tools/list", Some(json!({})), session).await?;
    if let Some(session) = session {
        end(discovery, era, session).await;
    }
    Ok(match listed {
        Shown::Unauthorized(wanted) => Begun::Unauthorized(wanted),
        // A server without tools refuses the list, and has nothing to protect.
        Shown::Result(..) | Shown::Refusal => Begun::Listed,
        Shown::Else(what) => Begun::Not(format!("tools/list: {what}")),
    })
}

/// Sends one message. One without `params` is a notification.
async fn ask(
    discovery: &mut Discovery<'_>,
    era: Era,
    method: &str,
    params: Option<Value>,
    session: Option<&str>,
) -> Result<Shown, DiscoveryError> {
    let url = discovery.typed.clone();
    let is_notification = params.is_none();
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if let Some(mut params) = params {
        if let Era::PerRequest = era {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": PER_REQUEST,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
        }
        message["id"] = 1.into();
        message["params"] = params;
    }
    let mut headers = vec![("accept", "application/json, text/event-stream")];
    // What is negotiated by `initialize` is not named before.
    if method != "initialize" {
        headers.push(("mcp-protocol-version", era.revision()));
    }
    if let Era::PerRequest = era {
        headers.push(("mcp-method", method));
    }
    headers.extend(session.map(|id| (SESSION_ID, id)));
    let look = Look {
        method: Method::POST,
        url: &url,
        headers: &headers,
        body: Some(message.to_string()),
        limit: ANSWER_LIMIT,
        timeout: PATIENCE,
    };
    let what = format!("{method} ");
    let looked = match discovery
        .look(&what, look, |read| response(read).is_some())
        .await
    {
        Ok(looked) => looked,
        Err(error) if error.may_have_arrived() => return Ok(Shown::Else(error.to_string())),
        Err(error) => return Err(DiscoveryError::Unreachable { url, error }),
    };
    Ok(judge(&looked, is_notification))
}

fn judge(looked: &Looked, is_notification: bool) -> Shown {
    if looked.status == 401 {
        return Shown::Unauthorized(wanted(&looked.headers));
    }
    if is_notification && (200..300).contains(&looked.status) {
        return Shown::Refusal;
    }
    match response(&looked.body) {
        Some(mut message) if looked.status == 200 => {
            let session = looked.headers.get(SESSION_ID);
            let session = session.and_then(|id| id.to_str().ok()).map(str::to_owned);
            match message.get_mut("result").map(Value::take) {
                Some(result) => Shown::Result(result, session),
                None => Shown::Refusal,
            }
        }
        _ => Shown::Else(super::in_words(looked)),
    }
}

/// The JSON-RPC response in a body, which is JSON or a stream of events.
fn response(body: &[u8]) -> Option<Value> {
    let is_response = |message: &Value| {
        message["jsonrpc"] == "2.0"
            && message["id"] == 1
            && (message["result"].is_object() || message["error"].is_object())
    };
    if let Ok(message) = serde_json::from_slice::<Value>(body) {
        return Some(message).filter(is_response);
    }
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n");
    // What follows the last empty line is not complete yet.
    let (complete, _) = text.rsplit_once("\n\n")?;
    complete
        .split("\n\n")
        .filter_map(|event| {
            let data: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(|data| data.strip_prefix(' ').unwrap_or(data))
                .collect();
            serde_json::from_str::<Value>(&data.join("\n")).ok()
        })
        .find(is_response)
}

/// Ends the session that the probe began; if that fails it ends by itself.
async fn end(discovery: &mut Discovery<'_>, era: Era, session: &str) {
    let url = discovery.typed.clone();
    let look = Look {
        method: Method::DELETE,
        url: &url,
        headers: &[
            (SESSION_ID, session),
            ("mcp-protocol-version", era.revision()),
        ],
        body: None,
        limit: ANSWER_LIMIT,
        timeout: PATIENCE,
    };
    let _ = discovery.look("", look, |_| true).await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_response_is_found_in_json_and_in_a_stream() {
        let good = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let cases = [
            (good.to_owned(), true),
            (format!("event: message\ndata: {good}\n\n"), true),
            (format!(": hello\n\ndata:{good}\r\n\r\n"), true),
            // Not complete yet.
            (format!("data: {good}\n"), false),
            (
                format!(
                    "data: {}\n\ndata: {good}\n\n",
                    r#"{"jsonrpc":"2.0","method":"x"}"#
                ),
                true,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#.to_owned(),
                true,
            ),
            (r#"{"jsonrpc":"2.0","id":2,"result":{}}"#.to_owned(), false),
            (r#"{"id":1,"result":{}}"#.to_owned(), false),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":"ok"}"#.to_owned(),
                false,
            ),
            ("<html>ok</html>".to_owned(), false),
            (String::new(), false),
        ];
        for (body, expected) in cases {
            assert_eq!(response(body.as_bytes()).is_some(), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = response(&body);
        }
    }
}

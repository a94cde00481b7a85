//! `login` and `logout`: the authorization code flow of the embedded server,
//! with PKCE and a redirect to this machine (RFC 8252), or its device flow.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_core::ports::{Clock as _, random_token};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use zeroize::Zeroizing;

mod device;

use super::client::{host_url, http, unreachable_host};
use super::output::Printer;
use super::session::{Locked, Session, Sessions};
use super::{CliError, Global};
use crate::surroundings::{OsRandom, SystemClock};

/// The embedded server knows the command line by this name.
const CLIENT_ID: &str = "countersign-cli";
/// How long the browser may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// A token that ends sooner than this is renewed before it is used.
const MARGIN: Duration = Duration::from_secs(30);
/// The browser's request line; the code is far shorter.
const LONGEST_LINE: u64 = 8 * 1024;

/// What is needed of RFC 8414.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    revocation_endpoint: Option<Url>,
    device_authorization_endpoint: Option<Url>,
}

impl Metadata {
    /// What the tokens are for (RFC 8707).
    fn resource(&self) -> String {
        format!("{}/api", self.issuer)
    }
}

/// A token endpoint's answer (RFC 6749 §5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Zeroizing<String>,
    refresh_token: Option<Zeroizing<String>>,
    expires_in: u64,
}

/// What the browser brought back.
struct Returned {
    code: Option<String>,
    state: Option<String>,
    issuer: Option<String>,
    error: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// Sign in with a browser on any machine: shows a code to type there
    #[arg(long)]
    device: bool,
}

impl LoginArgs {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        let base = host_url(global)?;
        let http = http()?;
        let metadata = discover(&http, &base).await?;
        let answer = if self.device {
            device::tokens(&http, &metadata).await?
        } else {
            by_browser(&http, &metadata).await?
        };
        let lifetime = Duration::from_secs(answer.expires_in);
        let session = Session {
            expires_at: SystemClock::default().now().plus(lifetime),
            access_token: answer.access_token,
            refresh_token: answer.refresh_token,
            token_endpoint: metadata.token_endpoint.to_string(),
            revocation_endpoint: metadata.revocation_endpoint.map(String::from),
        };
        let mut kept = Locked::open()?;
        kept.sessions.put(base.as_str(), session);
        kept.save()?;
        printer.done(&format!("Signed in to {}", shown(&base)))
    }
}

async fn by_browser(http: &reqwest::Client, metadata: &Metadata) -> Result<TokenAnswer, CliError> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(CliError::new)?;
    let port = listener.local_addr().map_err(CliError::new)?.port();
    let redirect_uri = format!("http://127.0.0.1:{port}/callback");
    let verifier = Zeroizing::new(random_token::<32>(&OsRandom));
    let state = random_token::<16>(&OsRandom);
    let challenge = {
        use sha2::Digest as _;
        URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()))
    };
    let resource = metadata.resource();
    let mut url = metadata.authorization_endpoint.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("redirect_uri", &redirect_uri)
        .append_pair("scope", "api")
        .append_pair("resource", &resource)
        .append_pair("state", &state)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    eprintln!(
        "Open this in a browser on this machine and sign in (elsewhere: `countersign login --device`):\n\n  {url}\n"
    );
    let returned = tokio::time::timeout(PATIENCE, wait_for_browser(&listener, &state))
        .await
        .map_err(|_| {
            CliError("nobody signed in within ten minutes; run `countersign login` again".into())
        })??;
    let code = accept(returned, &state, metadata)?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", redirect_uri.as_str()),
        ("client_id", CLIENT_ID),
        ("code_verifier", verifier.as_str()),
        ("resource", resource.as_str()),
    ];
    token_request(http, &metadata.token_endpoint, &form).await
}

pub(super) async fn logout(global: &Global, printer: &Printer) -> Result<(), CliError> {
    let base = host_url(global)?;
    let mut kept = Locked::open()?;
    let Some(session) = kept.sessions.remove(base.as_str()) else {
        return printer.done(&format!("You were not signed in to {}", shown(&base)));
    };
    kept.save()?;
    let token = session
        .refresh_token
        .as_ref()
        .unwrap_or(&session.access_token);
    if let Some(endpoint) = &session.revocation_endpoint {
        let form = [("token", token.as_str()), ("client_id", CLIENT_ID)];
        let sent = http()?.post(endpoint).form(&form).send().await;
        if !sent.is_ok_and(|answer| answer.status().is_success()) {
            eprintln!("The host did not confirm; the session there ends by itself.");
        }
    }
    printer.done(&format!("Signed out of {}", shown(&base)))
}

/// The token that `login` kept for this host, renewed if need be.
pub(super) async fn kept_token(
    http: &reqwest::Client,
    base: &Url,
) -> Result<Zeroizing<String>, CliError> {
    let sign_in = || {
        CliError(format!(
            "you are not signed in to {base}; run `countersign login`, or set COUNTERSIGN_TOKEN"
        ))
    };
    if Sessions::load()?.get(base.as_str()).is_none() {
        return Err(sign_in());
    }
    let mut kept = Locked::open()?;
    let session = kept.sessions.get(base.as_str()).ok_or_else(sign_in)?;
    let now = SystemClock::default().now();
    if session.expires_at > now.plus(MARGIN) {
        return Ok(session.access_token.clone());
    }
    let Some(refresh_token) = &session.refresh_token else {
        return Err(sign_in());
    };
    let endpoint = Url::parse(&session.token_endpoint).map_err(CliError::new)?;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.as_str()),
        ("client_id", CLIENT_ID),
    ];
    let answer = token_request(http, &endpoint, &form).await.map_err(|e| {
        CliError(format!(
            "the session has ended ({e}); run `countersign login`"
        ))
    })?;
    let renewed = Session {
        access_token: answer.access_token.clone(),
        refresh_token: answer.refresh_token.or_else(|| Some(refresh_token.clone())),
        expires_at: now.plus(Duration::from_secs(answer.expires_in)),
        token_endpoint: session.token_endpoint.clone(),
        revocation_endpoint: session.revocation_endpoint.clone(),
    };
    kept.sessions.put(base.as_str(), renewed);
    kept.save()?;
    Ok(answer.access_token)
}

/// The host as people write it.
fn shown(base: &Url) -> &str {
    base.as_str().trim_end_matches('/')
}

async fn discover(http: &reqwest::Client, base: &Url) -> Result<Metadata, CliError> {
    let mut url = base.clone();
    url.set_path("/.well-known/oauth-authorization-server");
    let answer = http
        .get(url)
        .send()
        .await
        .map_err(|e| unreachable_host(base, &e))?;
    let metadata: Metadata = answer.json().await.map_err(|_| {
        CliError(format!(
            "{base} does not answer as Countersign does; is --url right?"
        ))
    })?;
    // RFC 8414 §3.3, and nothing is sent to another place.
    let issuer = base.as_str().trim_end_matches('/');
    let endpoints = [
        Some(&metadata.authorization_endpoint),
        Some(&metadata.token_endpoint),
        metadata.revocation_endpoint.as_ref(),
        metadata.device_authorization_endpoint.as_ref(),
    ];
    if metadata.issuer != issuer
        || endpoints
            .into_iter()
            .flatten()
            .any(|e| e.origin() != base.origin())
    {
        return Err(CliError(format!(
            "{base} calls itself {}; use that as --url",
            metadata.issuer
        )));
    }
    Ok(metadata)
}

/// An error of the authorization server (RFC 6749 §5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl From<Refusal> for CliError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.error_description.unwrap_or(refusal.error))
    }
}

async fn token_request(
    http: &reqwest::Client,
    endpoint: &Url,
    form: &[(&str, &str)],
) -> Result<TokenAnswer, CliError> {
    Ok(ask(http, endpoint, form).await??)
}

/// Posts a form; the answer, or why there is none.
async fn ask<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    endpoint: &Url,
    form: &[(&str, &str)],
) -> Result<Result<T, Refusal>, CliError> {
    let answer = http
        .post(endpoint.clone())
        .form(form)
        .send()
        .await
        .map_err(|e| unreachable_host(endpoint, &e))?;
    let good = answer.status().is_success();
    let body = answer
        .bytes()
        .await
        .map_err(|e| unreachable_host(endpoint, &e))?;
    if good {
        // The parser's words could repeat a token.
        return serde_json::from_slice(&body)
            .map(Ok)
            .map_err(|_| CliError("the host's answer is not what it should be".into()));
    }
    serde_json::from_slice(&body)
        .map(Err)
        .map_err(|_| CliError("the host refused without a reason".into()))
}

fn accept(
    returned: Returned,
    state: &str,
    metadata: &Metadata,
) -> Result<Zeroizing<String>, CliError> {
    if returned.state.as_deref() != Some(state)
        || returned.issuer.as_deref() != Some(&metadata.issuer)
    {
        return Err(CliError(
            "the browser came back from another sign-in; run `countersign login` again".into(),
        ));
    }
    if let Some(error) = returned.error {
        let shown: String = error
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(60)
            .collect();
        return Err(CliError(format!("sign-in was refused: {shown}")));
    }
    returned
        .code
        .map(Zeroizing::new)
        .ok_or_else(|| CliError("the browser brought no code back".into()))
}

/// Answers browsers until one brings the state back; favicons and strangers get
/// a 404.
async fn wait_for_browser(listener: &TcpListener, state: &str) -> Result<Returned, CliError> {
    loop {
        let (stream, _) = listener.accept().await.map_err(CliError::new)?;
        let answered = tokio::time::timeout(Duration::from_secs(10), answer(stream, state)).await;
        if let Ok(Ok(Some(returned))) = answered {
            return Ok(returned);
        }
    }
}

async fn answer(stream: TcpStream, state: &str) -> std::io::Result<Option<Returned>> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(read, LONGEST_LINE))
        .read_line(&mut line)
        .await?;
    let returned = read_request(&line).filter(|r| r.state.as_deref() == Some(state));
    let (status, text) = match &returned {
        Some(r) if r.error.is_none() => ("200 OK", "You are signed in. You can close this page."),
        Some(_) => ("200 OK", "Sign-in was refused. You can close this page."),
        None => ("404 Not Found", "Nothing here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await?;
    Ok(returned)
}

fn read_request(line: &str) -> Option<Returned> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse("http://127.0.0.1/").ok()?.join(target).ok()?;
    if url.path() != "/callback" {
        return None;
    }
    let value = |name: &str| {
        url.query_pairs()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.into_owned())
    };
    Some(Returned {
        code: value("code"),
        state: value("state"),
        issuer: value("iss"),
        error: value("error"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        Metadata {
            issuer: "https://cs.example".into(),
            authorization_endpoint: Url::parse("https://cs.example/a").unwrap(),
            token_endpoint: Url::parse("https://cs.example/t").unwrap(),
            revocation_endpoint: None,
            device_authorization_endpoint: None,
        }
    }

    #[test]
    fn only_the_answer_to_this_very_sign_in_is_accepted() {
        let cases = [
            (
                "GET /callback?code=c&state=s&iss=https%3A%2F%2Fcs.example HTTP/1.1",
                Ok("c"),
            ),
            (
                "GET /callback?code=c&state=x&iss=https%3A%2F%2Fcs.example HTTP/1.1",
                Err("another sign-in"),
            ),
            (
                "GET /callback?code=c&state=s&iss=https%3A%2F%2Fevil.example HTTP/1.1",
                Err("another sign-in"),
            ),
            (
                "GET /callback?code=c&state=s HTTP/1.1",
                Err("another sign-in"),
            ),
            (
                "GET /callback?error=access_denied&state=s&iss=https%3A%2F%2Fcs.example HTTP/1.1",
                Err("access_denied"),
            ),
            (
                "GET /callback?state=s&iss=https%3A%2F%2Fcs.example HTTP/1.1",
                Err("no code"),
            ),
        ];
        for (line, expected) in cases {
            let result = accept(read_request(line).unwrap(), "s", &metadata());
            match (result, expected) {
                (Ok(code), Ok(want)) => assert_eq!(code.as_str(), want),
                (Err(e), Err(want)) => assert!(e.to_string().contains(want), "{line}: {e}"),
                (Ok(_), Err(_)) => panic!("{line} was accepted"),
                (Err(e), Ok(_)) => panic!("{line}: {e}"),
            }
        }
        for stranger in [
            "GET /favicon.ico HTTP/1.1",
            "POST /callback?code=c HTTP/1.1",
            "",
            "GET http://[ HTTP/1.1",
        ] {
            assert!(read_request(stranger).is_none(), "{stranger}");
        }
    }
}

//! Sending: the credential goes where it may, as described, and nowhere else.

use countersign_core::connection::Connection;
use countersign_core::inject::{Plan, Request, Vaulted};
use countersign_core::preset::{Call, Credential, Part, Rule, Slot};
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::secret::Sealed;
use countersign_core::template::render_text;
use http::HeaderMap;
use url::Url;

use super::report::Group;
use super::stage::{NOW, Stage, attach, audience, connection, decide};
use super::{KitError, Subject, samples};

pub(super) async fn check(subject: &Subject) -> Result<Group, KitError> {
    let mut group = Group::new("Injection");
    let d = subject.description();
    let hosts = audience(&subject.party);
    if hosts.is_empty() {
        group.fail(
            "tokens go somewhere",
            "at least one audience host",
            "none",
            "say `.audience([HOST])`; where the provider record says it, write it into the table: [provider] audience_hosts = [HOST]",
        );
        return Ok(group);
    }
    if d.authorization.is_none() {
        group.skip(
            "tokens are sent as described",
            "users do not sign in at this provider",
        );
        return Ok(group);
    }
    let stage = Stage::new(&subject.party).await?;
    if let Err(error) = stage.connect().await {
        group.skip(
            "tokens are sent as described",
            format!("the sign-in itself fails: {error}"),
        );
        return Ok(group);
    }
    let Some(held) = stage.held().await else {
        return Err(KitError::Setup("the connection is gone".into()));
    };
    let Some(sealed) = &held.sealed else {
        return Err(KitError::Setup("the tokens are gone".into()));
    };
    let mut connection = Connection::clone(&held.connection);
    // Everything granted: this is about where, not about whether.
    let all: ScopeSet = d
        .scopes
        .iter()
        .filter_map(|s| Scope::parse(&s.name).ok())
        .collect();
    for facts in &mut connection.credentials {
        facts.scopes = all.clone();
    }
    for host in &hosts {
        on_audience(&mut group, subject, host, &connection, sealed);
    }
    off_audience(&mut group, subject, &hosts, &connection, sealed);
    Ok(group)
}

/// What would be sent to this address; an error if nothing would.
fn sent(
    subject: &Subject,
    url: &Url,
    connection: &Connection,
    sealed: &Sealed,
) -> Result<(String, String, HeaderMap), String> {
    let attachment = attach(&subject.party, url)?;
    let call = Call {
        method: "tools/list",
        name: None,
        arguments: None,
        host: url.host_str().unwrap_or_default(),
    };
    let (credential, permit) = decide(&attachment, connection, call).map_err(|e| e.to_string())?;
    let credential = credential.unwrap_or_default();
    let plan = Plan::new(permit, Some(connection)).map_err(|e| e.to_string())?;
    let vaulted = Vaulted {
        tokens: Some(sealed),
        ..Vaulted::default()
    };
    let request = Request {
        method: http::Method::POST,
        headers: HeaderMap::new(),
        body: Default::default(),
    };
    let filled = plan
        .fill(&vaulted, request, NOW)
        .map_err(|e| e.to_string())?
        .into_parts();
    Ok((credential, filled.uri.to_string(), filled.headers))
}

fn on_audience(
    group: &mut Group,
    subject: &Subject,
    host: &str,
    connection: &Connection,
    sealed: &Sealed,
) {
    let d = subject.description();
    let name = format!("to {host}");
    let Ok(url) = Url::parse(&format!("https://{host}/mcp")) else {
        group.fail(name, "a host", host, "see `audience`");
        return;
    };
    let (credential, address, headers) = match sent(subject, &url, connection, sealed) {
        Ok(sent) => sent,
        Err(error) => {
            group.fail(
                name,
                "the credential, as described",
                error,
                "a credential's own `hosts` must cover it, or `evaluate` must choose another one for this host",
            );
            return;
        }
    };
    let Some(described) = d.credentials.iter().find(|c| c.name == credential) else {
        group.fail(
            name,
            "a described credential",
            credential,
            "see `credentials`",
        );
        return;
    };
    let shape = samples::shapes(d, None)
        .into_iter()
        .find(|s| s.credential == credential);
    let Some(shape) = shape else {
        group.fail(
            name,
            format!("a token for the credential {credential}"),
            "no token shape gives it one",
            "add a `TokenShape` for it",
        );
        return;
    };
    let carriers: Vec<&str> = headers
        .iter()
        .filter(|(_, value)| value.as_bytes().windows(9).any(|w| w == b"kitAccess"))
        .map(|(name, _)| name.as_str())
        .collect();
    let leak = address.contains("kitAccess") || shape.credential != credential;
    let expected = carried_by(described);
    if leak {
        group.fail(
            name,
            "no token in the address",
            "one in it",
            "tokens stand in headers only",
        );
    } else {
        group.equal(
            format!(
                "to {host}: the {credential} token in {}",
                expected.join(", ")
            ),
            expected.join(", "),
            carriers.join(", "),
            "see the rules of the credential, and those `evaluate` answers with",
        );
    }
}

/// Headers that carry the access token, as described.
fn carried_by(credential: &Credential) -> Vec<String> {
    let is_token = |slot: &Slot| *slot == Slot::AccessToken;
    let carries = |part: &Part| match part {
        Part::Slot(slot) => is_token(slot),
        Part::Basic(basic) => {
            is_token(&basic.user) || basic.password.as_ref().is_some_and(is_token)
        }
        Part::Literal(_) | Part::Variable(_) => false,
    };
    let mut names: Vec<String> = credential
        .rules
        .iter()
        .filter_map(|rule| match rule {
            Rule::SetHeader(header) if header.value.iter().any(carries) => {
                Some(header.name.to_ascii_lowercase())
            }
            Rule::SetHeader(_) | Rule::SetQuery(_) => None,
        })
        .collect();
    names.sort();
    names
}

fn off_audience(
    group: &mut Group,
    subject: &Subject,
    hosts: &[String],
    connection: &Connection,
    sealed: &Sealed,
) {
    let mut tried = 0;
    let mut wrong = Vec::new();
    let look_alikes = hosts.iter().flat_map(|host| {
        let bare = host.split(':').next().unwrap_or(host).to_owned();
        [
            format!("https://{bare}.attacker.test/mcp"),
            format!("https://attacker-{bare}/mcp"),
            format!("https://{bare}@attacker.test/mcp"),
            format!("https://{bare}:8443/mcp"),
        ]
    });
    for address in look_alikes.chain([
        "https://attacker.test/mcp".to_owned(),
        "https://192.0.2.1/mcp".to_owned(),
    ]) {
        let Ok(url) = Url::parse(&address) else {
            continue;
        };
        // The audience may name the port, or all hosts below a name.
        if connection.origins.audience.iter().any(|p| p.matches(&url)) {
            continue;
        }
        // As if the user had consented to it: the audience alone decides.
        let mut fooled = connection.clone();
        if let Some(pattern) = url
            .host_str()
            .and_then(|h| countersign_core::hosts::HostPattern::parse(&format!("{h}:*")).ok())
        {
            fooled.origins.audience.push(pattern);
        }
        tried += 1;
        if let Ok((_, _, headers)) = sent(subject, &url, &fooled, sealed)
            && headers
                .values()
                .any(|v| v.as_bytes().windows(9).any(|w| w == b"kitAccess"))
        {
            wrong.push(address);
        }
    }
    group.none(
        format!("nothing is sent to {tried} hosts off the audience, look-alikes among them"),
        &wrong,
        "an audience host may not be wider than the vendor: name hosts, not suffixes",
    );
}

/// The first of its MCP servers that its tokens may not go to.
pub(super) fn server_off_audience(subject: &Subject) -> Option<String> {
    let d = subject.description();
    let connection = connection(&subject.party, &ScopeSet::default()).ok()?;
    let values = countersign_core::template::Values::resolve(
        d,
        &subject.party.provider.settings,
        &connection.facts,
    )
    .ok()?;
    d.mcp_servers
        .iter()
        .filter(|server| !server.own_authorization_server)
        .filter_map(|server| render_text(&server.url, values.variables()).ok())
        .filter_map(|text| Url::parse(&text).ok())
        .find(|url| !connection.origins.audience.iter().any(|p| p.matches(url)))
        .map(|url| url.host_str().unwrap_or_default().to_owned())
}

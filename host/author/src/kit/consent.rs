//! The way to the provider: is the authorization request what it expects?

use std::collections::BTreeMap;

use countersign_core::preset::{Description, Offline, Parameter};
use countersign_core::request::scope_parameters;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::template::{Values, render_text};
use countersign_oauth::consent::Outcome;
use url::Url;

use super::report::Group;
use super::stage::{CLIENT_ID, Stage, asked, uses_pkce};
use super::{KitError, Subject};

const BUILDER: &str =
    "see `authorization_request` in src/lib.rs; the WIT's authorization-request says each field";

pub(super) async fn check(subject: &Subject) -> Result<Group, KitError> {
    let mut group = Group::new("Sign-in");
    let d = subject.description();
    if d.authorization.is_none() {
        group.skip("a sign-in begins", "users do not sign in at this provider");
        return Ok(group);
    }
    let stage = Stage::new(&subject.party).await?;
    let url = match stage.begin(&ScopeSet::default()).await {
        Ok(url) => url,
        Err(error) => {
            group.fail(
                "a sign-in begins",
                "an authorization URL",
                error.to_string(),
                "what the preset leaves to the provider record, the table says: [provider] authorization_endpoint = …, token_endpoint = …",
            );
            return Ok(group);
        }
    };
    group.pass(format!("a sign-in begins at {}", place(&url)));
    request(&mut group, subject, &url);
    scopes(&mut group, d, &url, &asked(d));
    offline(&mut group, subject, &url);
    more_scopes(&mut group, subject).await?;
    refusals(&mut group, subject).await?;
    Ok(group)
}

/// Without what differs from run to run.
fn place(url: &Url) -> String {
    format!("{}{}", url.host_str().unwrap_or_default(), url.path())
}

fn pairs(url: &Url) -> BTreeMap<String, String> {
    url.query_pairs().into_owned().collect()
}

fn request(group: &mut Group, subject: &Subject, url: &Url) {
    let d = subject.description();
    let sent = pairs(url);
    let Some(authorization) = &d.authorization else {
        return;
    };
    let callback = format!(
        "https://gateway.example/oauth/callback/{}",
        subject.party.provider.name
    );
    let mut wrong = Vec::new();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", callback.as_str()),
    ] {
        let expected = (!authorization.suppress.iter().any(|s| s == name)).then_some(value);
        if sent.get(name).map(String::as_str) != expected {
            wrong.push(name);
        }
    }
    if !sent.contains_key("state") {
        wrong.push("state");
    }
    group.none(
        "it carries client, redirect URI and state, but for what is suppressed",
        &wrong,
        BUILDER,
    );

    let name = "PKCE (S256), unless the provider does not know it";
    let has = sent.get("code_challenge_method").map(String::as_str) == Some("S256")
        && sent.contains_key("code_challenge");
    let suppressed = authorization
        .suppress
        .iter()
        .any(|s| s.starts_with("code_challenge"));
    if suppressed && uses_pkce(d) {
        group.fail(
            name,
            "a code_challenge, or `.pkce(Pkce::Unsupported)`",
            "the parameters are suppressed while PKCE is said to be supported",
            "say `.pkce(Pkce::Unsupported)` in place of suppressing them",
        );
    } else if uses_pkce(d) == has {
        group.pass(name);
    } else {
        group.fail(name, format!("{}", uses_pkce(d)), format!("{has}"), BUILDER);
    }

    let facts = Values::resolve(d, &subject.party.provider.settings, &[]);
    let missing = facts.map_or_else(
        |e| vec![e.to_string()],
        |values| absent(&authorization.parameters, &values, &sent),
    );
    let name = "the parameters it describes are in it";
    if authorization.parameters.is_empty() {
        group.skip(name, "it describes none");
    } else {
        group.none(name, &missing, BUILDER);
    }
}

fn absent(
    described: &[Parameter],
    values: &Values,
    sent: &BTreeMap<String, String>,
) -> Vec<String> {
    let there = |p: &&Parameter| {
        render_text(&p.value, values.variables())
            .is_ok_and(|value| sent.get(&p.name) == Some(&value))
    };
    described
        .iter()
        .filter(|p| !there(p))
        .map(|p| p.name.clone())
        .collect()
}

fn scopes(group: &mut Group, d: &Description, url: &Url, asked: &ScopeSet) {
    let name = "each scope goes into its parameter, separated as described";
    let Some(authorization) = &d.authorization else {
        return;
    };
    if authorization.scope_parameters.is_empty() {
        let sent: Vec<String> = pairs(url).remove("scope").into_iter().collect();
        group.none(
            "no scopes are sent, as the provider takes none",
            &sent,
            BUILDER,
        );
        return;
    }
    if asked.is_empty() {
        group.skip(name, "it has no default scopes");
        return;
    }
    let mut parameters = scope_parameters(d, asked);
    if let (Some(first), Offline::Scope(scope)) = (parameters.first_mut(), &authorization.offline)
        && let Ok(scope) = Scope::parse(scope)
    {
        first.scopes.insert(scope);
    }
    let list = |found: &mut dyn Iterator<Item = (String, String)>| {
        found
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let mut expected = parameters
        .iter()
        .filter(|p| !p.scopes.is_empty() || p.send_empty)
        .map(|p| (p.name.clone(), p.scopes.join(&p.separator)));
    let sent = pairs(url);
    let mut found = parameters
        .iter()
        .filter_map(|p| Some((p.name.clone(), sent.get(&p.name)?.clone())));
    group.equal(
        name,
        list(&mut expected),
        list(&mut found),
        "see `scope_separator` and `scope_parameters`",
    );
}

fn offline(group: &mut Group, subject: &Subject, url: &Url) {
    let name = "long-lived access is asked for";
    let Some(authorization) = &subject.description().authorization else {
        return;
    };
    let sent = pairs(url);
    match &authorization.offline {
        Offline::None => group.skip(name, "there is nothing to ask for"),
        Offline::AppSetting(text) => group.skip(name, format!("a switch at the provider: {text}")),
        Offline::Scope(scope) => {
            let asked = sent
                .values()
                .any(|v| v.split([' ', ',', '+']).any(|s| s == scope));
            if asked {
                group.pass(name);
            } else {
                group.fail(
                    name,
                    format!("the scope {scope}"),
                    url.query().unwrap_or_default(),
                    "see `offline`",
                );
            }
        }
        Offline::Parameters(parameters) => {
            let values =
                Values::resolve(subject.description(), &subject.party.provider.settings, &[]);
            let missing =
                values.map_or_else(|e| vec![e.to_string()], |v| absent(parameters, &v, &sent));
            group.none(name, &missing, "see `offline`");
        }
    }
}

/// Scopes on top of granted ones, as after a call that needed more.
async fn more_scopes(group: &mut Group, subject: &Subject) -> Result<(), KitError> {
    let name = "more scopes can be asked for later, without losing those granted";
    let d = subject.description();
    let first = asked(d);
    let more = d
        .scopes
        .iter()
        .filter(|s| !s.prefix)
        .filter_map(|s| Scope::parse(&s.name).ok())
        .find(|s| !first.contains(s));
    let takes_scopes = d
        .authorization
        .as_ref()
        .is_some_and(|a| !a.scope_parameters.is_empty());
    let (Some(more), true, false) = (more, takes_scopes, first.is_empty()) else {
        group.skip(name, "it describes no further scope");
        return Ok(());
    };
    let stage = Stage::new(&subject.party).await?;
    if stage.connect().await.is_err() {
        group.skip(name, "the sign-in itself fails; see below");
        return Ok(());
    }
    let url = match stage.begin(&[more.clone()].into_iter().collect()).await {
        Ok(url) => url,
        Err(error) => {
            group.fail(name, "an authorization URL", error.to_string(), BUILDER);
            return Ok(());
        }
    };
    let sent: Vec<String> = pairs(&url)
        .into_values()
        .flat_map(|v| {
            v.split([' ', ',', '+'])
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    // Where it says how to ask on top, what is granted is not asked for again.
    let adds = d
        .authorization
        .as_ref()
        .is_some_and(|a| !a.incremental_parameters.is_empty());
    let missing: Vec<&str> = first
        .iter()
        .filter(|_| !adds)
        .chain([&more])
        .map(Scope::as_str)
        .filter(|s| !sent.iter().any(|x| x == s))
        .collect();
    group.none(
        name,
        &missing,
        "scopes that are asked for must be described: see `scopes`",
    );
    if let Some(a) = d
        .authorization
        .as_ref()
        .filter(|a| !a.incremental_parameters.is_empty())
    {
        let values = Values::resolve(d, &subject.party.provider.settings, &[]);
        let missing = values.map_or_else(
            |e| vec![e.to_string()],
            |v| absent(&a.incremental_parameters, &v, &pairs(&url)),
        );
        group.none(
            "its parameters for asking on top are in it",
            &missing,
            "see `incremental_parameter`",
        );
    }
    Ok(())
}

async fn refusals(group: &mut Group, subject: &Subject) -> Result<(), KitError> {
    let stage = Stage::new(&subject.party).await?;
    let d = subject.description();
    let mut codes = vec![("access_denied", None)];
    codes.extend(
        d.error_advice
            .iter()
            .map(|a| (a.code.as_str(), Some(a.advice.as_str()))),
    );
    let mut wrong = Vec::new();
    for (code, advice) in &codes {
        let Ok(url) = stage.begin(&ScopeSet::default()).await else {
            continue;
        };
        match stage.finish(&url, &[("error", code)]).await {
            Ok(Outcome::Refused {
                code: shown,
                advice: words,
                ..
            }) => {
                if shown != *code || advice.is_some_and(|a| a != words) {
                    wrong.push(format!("{code}: shown as {shown}: {words}"));
                }
            }
            Ok(Outcome::Connected { .. }) => wrong.push(format!("{code}: connected")),
            Err(error) => wrong.push(format!("{code}: {error}")),
        }
    }
    if stage.held().await.is_some() {
        wrong.push("something was stored".into());
    }
    group.none(
        format!(
            "a refusal stores nothing and is put into words ({} codes)",
            codes.len()
        ),
        &wrong,
        "an error code is letters and underscores; its advice comes from `advise`",
    );
    Ok(())
}

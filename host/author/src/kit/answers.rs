//! The token answer: is it read for what it says, and refused for what it is
//! not?

use countersign_core::connection::Connection;
use countersign_core::preset::GrantDifference;
use countersign_core::request::SendError;
use countersign_core::scope::ScopeSet;
use countersign_oauth::consent::{ConsentError, Outcome};
use serde_json::{Value, json};

use super::box_provider::{Reply, Seen};
use super::report::Group;
use super::samples::{self, LIFETIME, Tokens};
use super::stage::{CLIENT_ID, CLIENT_SECRET, CODE, Stage, asked, uses_pkce};
use super::table::{Meaning, Sample};
use super::{KitError, Subject};

const SHAPES: &str =
    "see `token_shapes` and `token_answer`; docs/quirks.md has a line for each oddity";

pub(super) async fn check(subject: &Subject) -> Result<Group, KitError> {
    let mut group = Group::new("Token answers");
    let d = subject.description();
    if d.authorization.is_none() {
        group.skip("tokens are read", "users do not sign in at this provider");
        return Ok(group);
    }
    let stage = Stage::new(&subject.party).await?;
    if let Err(error) = stage.begin(&ScopeSet::default()).await {
        group.skip("tokens are read", format!("no sign-in begins: {error}"));
        return Ok(group);
    }
    ordinary(&mut group, subject).await?;
    readable(&mut group, subject).await?;
    refused(&mut group, subject).await?;
    for sample in subject.table.answers.iter().filter(|s| !s.refresh) {
        written(&mut group, subject, sample).await?;
    }
    Ok(group)
}

async fn ordinary(group: &mut Group, subject: &Subject) -> Result<(), KitError> {
    let stage = Stage::new(&subject.party).await?;
    let connection = stage.connect().await;
    let seen = stage.vendor.take_seen();
    match seen.first() {
        Some(request) => code_request(group, subject, request),
        None => group.fail(
            "the code is exchanged",
            "a request to the token endpoint",
            "none",
            SHAPES,
        ),
    }
    let d = subject.description();
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => {
            group.fail("an ordinary answer connects", "a connection", error, SHAPES);
            return Ok(());
        }
    };
    let expected: Vec<&str> = samples::shapes(d, None)
        .iter()
        .map(|s| s.credential.as_str())
        .collect();
    let found: Vec<&str> = connection
        .credentials
        .iter()
        .map(|c| c.credential.as_str())
        .collect();
    group.equal(
        format!("an ordinary answer connects ({})", expected.join(", ")),
        expected.join(", "),
        found.join(", "),
        SHAPES,
    );
    group.equal(
        "granted scopes are read as they are written",
        asked(d).join(" "),
        connection.scopes().join(" "),
        "see `scopes_at` and `scope_separators` of the token shape",
    );
    if let Some(wrong) = wrong_ends(subject, &connection, &stage, true) {
        group.fail(
            "it is read when the token ends",
            format!("{LIFETIME} s"),
            wrong,
            "see `expires`",
        );
    } else {
        group.pass("it is read when the token ends");
    }
    let name = "the account is known";
    match (&d.identity, &connection.account) {
        (None, _) => group.skip(name, "it describes no identity request"),
        (Some(_), Some(account)) => {
            group.pass(format!("{name} ({} is {})", account.id, account.label))
        }
        (Some(i), None) => group.fail(
            name,
            format!("an identifier at {}", i.id),
            "none",
            "the pointer must lead to a text or a number of the identity answer; see `identity`",
        ),
    }
    let lacking: Vec<&str> = d
        .metadata
        .iter()
        .map(|m| m.name.as_str())
        .filter(|name| !connection.facts.iter().any(|(n, _)| n == name))
        .collect();
    if d.metadata.is_empty() {
        group.skip("what it wants remembered is remembered", "it wants nothing");
    } else {
        group.none(
            "what it wants remembered is remembered",
            &lacking,
            "see `metadata`: pointer and kind must suit the answer",
        );
    }
    Ok(())
}

/// What the provider got.
fn code_request(group: &mut Group, subject: &Subject, request: &Seen) {
    let d = subject.description();
    let described = d
        .token_requests
        .iter()
        .find(|t| t.grant == countersign_core::preset::Grant::AuthorizationCode);
    let suppressed = |name: &str| described.is_some_and(|t| t.suppress.iter().any(|s| s == name));
    let mut wrong = Vec::new();
    if request.method != "POST" {
        wrong.push(format!("it is a {}", request.method));
    }
    for (name, value) in [("grant_type", "authorization_code"), ("code", CODE)] {
        if !suppressed(name) && request.field(name) != Some(value) {
            wrong.push(format!("{name} is not {value}"));
        }
    }
    if uses_pkce(d)
        && !suppressed("code_verifier")
        && request.field("code_verifier").is_none_or(|v| v.len() < 43)
    {
        wrong.push("code_verifier is missing".into());
    }
    if let Some(format) = described.map(|t| &t.body)
        && request.content_type != samples::content_type(format)
    {
        wrong.push(format!("the body is {}", request.content_type));
    }
    for parameter in described.iter().flat_map(|t| &t.parameters) {
        if request.field(&parameter.name).is_none() {
            wrong.push(format!("{} is missing", parameter.name));
        }
    }
    for header in described.iter().flat_map(|t| &t.headers) {
        if !request.headers.contains_key(&header.name) {
            wrong.push(format!("the header {} is missing", header.name));
        }
    }
    group.none(
        format!(
            "the code is exchanged at {}{}",
            request.url.host_str().unwrap_or_default(),
            request.url.path()
        ),
        &wrong,
        "see `token_request`",
    );
    let carried: Vec<String> = request
        .headers
        .values()
        .filter_map(|v| v.to_str().ok().map(str::to_owned))
        .chain(request.fields.iter().map(|(_, v)| v.clone()))
        .collect();
    let basic = format!("{CLIENT_ID}:{CLIENT_SECRET}");
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, basic);
    let proven = carried
        .iter()
        .any(|v| v.contains(CLIENT_SECRET) || v.contains(&basic));
    let name = "the client proves itself, and never in the address";
    if request.url.as_str().contains(CLIENT_SECRET) {
        group.fail(
            name,
            "the secret in a header or in the body",
            "it stands in the URL",
            "see `client_authentication`",
        );
    } else if subject.party.provider.client_secret_ref.is_none() {
        group.skip(name, "the table says it is a public client");
    } else if proven || carried.iter().any(|v| v == CLIENT_ID) {
        group.pass(name);
    } else {
        group.fail(
            name,
            "the client's identifier or secret",
            "neither",
            "see `client_authentication`",
        );
    }
}

/// Whether the ends of tokens are as described; a sentence if not.
fn wrong_ends(
    subject: &Subject,
    connection: &Connection,
    stage: &Stage,
    told: bool,
) -> Option<String> {
    let d = subject.description();
    for shape in samples::shapes(d, None) {
        let facts = connection.credential(Some(&shape.credential))?;
        let left = facts.expires_at.map(|end| end.since(stage.now()).as_secs());
        let tells = samples::tells_expiry(shape);
        if told && tells && left.is_none() {
            return Some(format!("no end for {}", shape.credential));
        }
        if left == Some(0) {
            return Some(format!("{} has ended already", shape.credential));
        }
    }
    None
}

/// Answers that differ from the ordinary one and mean the same.
async fn readable(group: &mut Group, subject: &Subject) -> Result<(), KitError> {
    let d = subject.description();
    let scopes = asked(d);
    let base = Stage::new(&subject.party).await?;
    let tokens = base.tokens(&scopes, 1);
    let ordinary = samples::token_answer(&tokens);

    let mut extra = ordinary.clone();
    samples::put(
        &mut extra,
        "/kit_unknown",
        json!({"nested": [1, 2, {"deep": true}], "text": "x".repeat(2000)}),
    );
    expect_connected(
        group,
        subject,
        "members it does not know do no harm",
        base.good(&extra),
    )
    .await?;

    let silent = samples::token_answer(&Tokens {
        with_expiry: false,
        ..tokens
    });
    let name = "an answer that does not say when the token ends";
    let stage = Stage::new(&subject.party).await?;
    match stage.sign_in(base.good(&silent)).await {
        Ok(Outcome::Connected { connection, .. }) => {
            match wrong_ends(subject, &connection, &stage, false) {
                None => group.pass(name),
                Some(wrong) => group.fail(
                    name,
                    "a token that is good, or its described constant",
                    wrong,
                    "see `expires`",
                ),
            }
        }
        other => group.fail(
            name,
            "a connection",
            words(&other),
            "see `expires`: the last source may be `Expiry::Never` or a constant",
        ),
    }

    let mut textual = ordinary.clone();
    if let Some(pointer) = samples::shapes(d, None)
        .iter()
        .flat_map(|s| &s.expires)
        .find_map(|e| match e {
            countersign_core::preset::Expiry::Lifetime(pointer) => Some(pointer),
            _ => None,
        })
    {
        samples::put(&mut textual, pointer, LIFETIME.to_string().into());
        expect_connected(
            group,
            subject,
            "a lifetime that is written as a text",
            base.good(&textual),
        )
        .await?;
    }

    let name = "an answer that is form-encoded";
    match samples::form(&ordinary) {
        None => group.skip(name, "its tokens are nested, which a form cannot be"),
        Some(form) => {
            let status = super::stage::status_of(&d.token_answer.success_codes);
            let reply = Reply::text(status, "application/x-www-form-urlencoded", form);
            expect_connected(group, subject, name, reply).await?;
        }
    }

    let name = "fewer scopes than asked for";
    let fewer: Vec<_> = scopes.iter().skip(1).cloned().collect();
    let says_scopes = samples::shapes(d, None)
        .iter()
        .all(|s| !s.scopes.is_empty());
    if fewer.is_empty() || !says_scopes {
        group.skip(
            name,
            "by default at most one is asked for, or the answer does not say",
        );
    } else {
        let fewer = fewer.into_iter().collect();
        let answer = samples::token_answer(&Tokens {
            scopes: &fewer,
            ..tokens
        });
        let stage = Stage::new(&subject.party).await?;
        let outcome = stage.sign_in(base.good(&answer)).await;
        let (expected, good) = match (&d.grant_difference, &outcome) {
            (GrantDifference::Refuse, Ok(Outcome::Refused { code, .. })) => {
                ("a refusal", code == "grant_differs")
            }
            (GrantDifference::Refuse, _) => ("a refusal", false),
            (_, Ok(Outcome::Connected { .. })) => ("a connection with what was granted", true),
            _ => ("a connection with what was granted", false),
        };
        if good {
            group.pass(format!("{name}: {expected}"));
        } else {
            group.fail(name, expected, words(&outcome), "see `grant_difference`");
        }
    }
    Ok(())
}

async fn expect_connected(
    group: &mut Group,
    subject: &Subject,
    name: &str,
    reply: Reply,
) -> Result<(), KitError> {
    let stage = Stage::new(&subject.party).await?;
    match stage.sign_in(reply).await {
        Ok(Outcome::Connected { .. }) => group.pass(name),
        other => group.fail(name, "a connection", words(&other), SHAPES),
    }
    Ok(())
}

/// Answers that hold no tokens, whatever their status.
async fn refused(group: &mut Group, subject: &Subject) -> Result<(), KitError> {
    let d = subject.description();
    let error = samples::refusal(&d.token_answer, "invalid_request");
    let truncated = {
        let stage = Stage::new(&subject.party).await?;
        let scopes = asked(d);
        let mut text = samples::token_answer(&stage.tokens(&scopes, 1)).to_string();
        text.truncate(text.len() / 2);
        text
    };
    let good = super::stage::status_of(&d.token_answer.success_codes);
    let replies = [
        ("an error with status 200", Reply::json(good, &error)),
        ("an error with status 400", Reply::json(400, &error)),
        ("an HTML page with status 200", Reply::html(good)),
        ("an HTML page with status 502", Reply::html(502)),
        ("an empty object", Reply::json(good, &json!({}))),
        (
            "an answer that breaks off",
            Reply::text(good, "application/json", truncated),
        ),
        ("no answer at all", Reply::Silence(SendError::Timeout)),
    ];
    for (name, reply) in replies {
        let stage = Stage::new(&subject.party).await?;
        let outcome = stage.sign_in(reply).await;
        let stored = stage.held().await.is_some();
        let name = format!("{name} connects nothing");
        match outcome {
            Ok(Outcome::Refused { .. }) if !stored => group.pass(name),
            other => group.fail(
                name,
                "a refusal in words",
                words(&other),
                "say how a success looks: `token_answer(AnswerShape::rfc6749().success_when(…))`",
            ),
        }
    }
    Ok(())
}

fn words(outcome: &Result<Outcome, ConsentError>) -> String {
    match outcome {
        Ok(Outcome::Connected { connection, .. }) => {
            format!("connected, with {}", connection.scopes().join(" "))
        }
        Ok(Outcome::Refused { code, advice, .. }) => format!("{code}: {advice}"),
        Err(error) => format!("failed: {error}"),
    }
}

/// An answer out of the vendor's documentation.
async fn written(group: &mut Group, subject: &Subject, sample: &Sample) -> Result<(), KitError> {
    let stage = Stage::new(&subject.party).await?;
    let reply = Reply::text(sample.status, &sample.content_type, sample.body.as_str());
    let outcome = stage.sign_in(reply).await;
    let file = subject.table.file.as_deref().unwrap_or_default();
    let name = format!("{file}:{} {}", sample.line, said(&sample.expect));
    let found = match &outcome {
        Ok(Outcome::Connected { connection, .. }) => {
            let names: Vec<String> = connection
                .credentials
                .iter()
                .map(|c| c.credential.clone())
                .collect();
            if let Some(scopes) = sample
                .scopes
                .as_ref()
                .filter(|s| **s != connection.scopes())
            {
                group.fail(
                    name,
                    format!("scopes {}", scopes.join(" ")),
                    connection.scopes().join(" "),
                    SHAPES,
                );
                return Ok(());
            }
            let left = connection
                .credentials
                .first()
                .and_then(|c| c.expires_at)
                .map(|e| e.since(stage.now()).as_secs());
            if sample.expires_in.is_some() && left != sample.expires_in {
                let text = |s: Option<u64>| s.map_or("no end".to_owned(), |s| format!("{s} s"));
                group.fail(name, text(sample.expires_in), text(left), "see `expires`");
                return Ok(());
            }
            Meaning::Tokens(names)
        }
        Ok(Outcome::Refused { code, .. }) => Meaning::Refused(Some(code.clone())),
        Err(_) => Meaning::Refused(None),
    };
    let good = match (&sample.expect, &found) {
        (Meaning::Tokens(wanted), Meaning::Tokens(names)) => wanted.is_empty() || wanted == names,
        (Meaning::Refused(wanted), Meaning::Refused(code)) => wanted.is_none() || wanted == code,
        _ => false,
    };
    if good {
        group.pass(name);
    } else {
        group.fail(
            name,
            said(&sample.expect),
            format!("{} ({})", said(&found), words(&outcome)),
            SHAPES,
        );
    }
    Ok(())
}

pub(super) fn said(meaning: &Meaning) -> String {
    let list = |word: &str, names: &[String]| [&[word.to_owned()], names].concat().join(" ");
    match meaning {
        Meaning::Tokens(names) => list("tokens", names),
        Meaning::Refused(code) => list("refused", code.as_slice()),
        Meaning::Ended => "ended".into(),
        Meaning::Passing => "passing".into(),
    }
}

/// A refresh's answer as JSON.
pub(super) fn refreshed(tokens: &Tokens<'_>) -> Value {
    samples::token_answer(tokens)
}

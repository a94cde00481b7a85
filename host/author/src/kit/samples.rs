//! Answers made from a description: what the provider would say if it is as
//! described.

use base64::Engine as _;
use countersign_core::preset::{
    AnswerShape, BodyFormat, Check, Description, Expiry, FollowUp, Pick, Source, TimeFormat,
    TokenShape, ValueKind,
};
use countersign_core::request::scope_parameters;
use countersign_core::scope::ScopeSet;
use countersign_core::time::Timestamp;
use serde_json::{Map, Value, json};

/// How long the box's tokens live.
pub(super) const LIFETIME: u64 = 3600;

/// What a token answer is made of.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'a> {
    pub(super) description: &'a Description,
    /// What was asked for.
    pub(super) scopes: &'a ScopeSet,
    /// Tells one answer's tokens from another's.
    pub(super) round: u32,
    /// A refresh's one credential.
    pub(super) only: Option<&'a str>,
    /// Whether there is a new refresh token in it.
    pub(super) rotates: bool,
    /// Whether it says when the token ends.
    pub(super) with_expiry: bool,
    pub(super) now: Timestamp,
}

/// The access token of a credential in a round.
pub(super) fn access_token(shape: &TokenShape, round: u32, now: Timestamp) -> String {
    let plain = format!("kitAccess{round}Of{}Zzzz", shape.credential);
    let is_jwt = shape.expires.contains(&Expiry::JwtClaim)
        && !shape
            .expires
            .iter()
            .any(|e| matches!(e, Expiry::Lifetime(_) | Expiry::Absolute(..)));
    if !is_jwt {
        return plain;
    }
    let part =
        |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let end = now.as_secs() + i64::try_from(LIFETIME).unwrap_or(i64::MAX);
    format!(
        "{}.{}.{plain}",
        part(json!({"alg":"RS256"})),
        part(json!({"exp":end}))
    )
}

/// The refresh token of a credential in a round.
pub(super) fn refresh_token(shape: &TokenShape, round: u32) -> String {
    format!("kitRefresh{round}Of{}Yyyy", shape.credential)
}

/// The shapes an ordinary answer has: of each credential the first that does
/// not contradict the others.
pub(super) fn shapes<'a>(description: &'a Description, only: Option<&str>) -> Vec<&'a TokenShape> {
    let mut chosen: Vec<&TokenShape> = Vec::new();
    let wanted = |shape: &&TokenShape| only.is_none_or(|name| shape.credential == name);
    for shape in description.token_shapes.iter().filter(wanted) {
        let agrees = |other: &&TokenShape| {
            other.credential != shape.credential
                && shape.when.iter().all(|c| !contradicts(c, &other.when))
                && shape.access_token.first() != other.access_token.first()
        };
        if chosen.iter().all(agrees) {
            chosen.push(shape);
        }
    }
    chosen
}

fn contradicts(check: &Check, others: &[Check]) -> bool {
    others.iter().any(|other| match (check, other) {
        (Check::Equals(a, x), Check::Equals(b, y)) => a == b && x != y,
        (Check::Absent(a), Check::Present(b) | Check::Equals(b, _))
        | (Check::Present(b) | Check::Equals(b, _), Check::Absent(a)) => a == b,
        _ => false,
    })
}

/// An ordinary token answer.
pub(super) fn token_answer(tokens: &Tokens<'_>) -> Value {
    let d = tokens.description;
    let mut body = Value::Object(Map::new());
    satisfy(&mut body, &d.token_answer.success_checks);
    for metadata in &d.metadata {
        put(&mut body, &metadata.pointer, fitting(&metadata.kind).into());
    }
    for variable in &d.variables {
        if let Source::TokenAnswer(pointer) = &variable.source {
            put(&mut body, pointer, captured(&variable.kind).into());
        }
    }
    let asked = scope_parameters(d, tokens.scopes);
    for shape in shapes(d, tokens.only) {
        satisfy(&mut body, &shape.when);
        let mut set = |pointers: &[String], value: Value| {
            if let Some(pointer) = pointers.first() {
                put(&mut body, pointer, value);
            }
        };
        set(
            &shape.access_token,
            access_token(shape, tokens.round, tokens.now).into(),
        );
        if tokens.rotates {
            set(
                &shape.refresh_token,
                refresh_token(shape, tokens.round).into(),
            );
        }
        let separator = shape.scope_separators.first().map_or(" ", String::as_str);
        let of_this: ScopeSet = asked
            .iter()
            .filter(|p| {
                p.credential
                    .as_deref()
                    .is_none_or(|c| c == shape.credential)
            })
            .flat_map(|p| p.scopes.iter().cloned())
            .collect();
        if !of_this.is_empty() {
            set(&shape.scopes, of_this.join(separator).into());
        }
        if tokens.with_expiry {
            expire(&mut body, &shape.expires, tokens.now);
        }
    }
    if body.pointer("/token_type").is_none() {
        put(&mut body, "/token_type", "bearer".into());
    }
    body
}

/// The first source that stands in the answer.
fn expire(body: &mut Value, sources: &[Expiry], now: Timestamp) {
    let end = now.plus(std::time::Duration::from_secs(LIFETIME));
    for source in sources {
        match source {
            Expiry::Lifetime(pointer) => return put(body, pointer, LIFETIME.into()),
            Expiry::Absolute(pointer, format) => {
                let value = match format {
                    TimeFormat::UnixSeconds => end.as_secs().into(),
                    TimeFormat::UnixMilliseconds => end.as_millis().into(),
                    TimeFormat::Rfc3339 => end.to_string().into(),
                };
                return put(body, pointer, value);
            }
            Expiry::JwtClaim | Expiry::Introspection | Expiry::Constant(_) | Expiry::Never => {}
        }
    }
}

/// Whether an answer of this provider can tell when its tokens end.
pub(super) fn tells_expiry(shape: &TokenShape) -> bool {
    let known = |e: &Expiry| {
        matches!(
            e,
            Expiry::Lifetime(_) | Expiry::Absolute(..) | Expiry::JwtClaim | Expiry::Constant(_)
        )
    };
    shape.expires.iter().any(known)
}

/// An answer to the identity request.
pub(super) fn identity_answer(description: &Description) -> Value {
    let mut body = Value::Object(Map::new());
    if let Some(identity) = &description.identity {
        satisfy(&mut body, &identity.request.answer.success_checks);
        put(&mut body, &identity.id, "4711".into());
        if let Some(label) = identity.label.first() {
            put(&mut body, label, "kit@example.org".into());
        }
        if let Some(tenant) = &identity.tenant {
            put(&mut body, tenant, "tenant-1".into());
        }
    }
    body
}

/// An answer to a follow-up request.
pub(super) fn follow_up_answer(description: &Description, follow_up: &FollowUp) -> Value {
    let mut body = Value::Object(Map::new());
    satisfy(&mut body, &follow_up.request.answer.success_checks);
    for variable in &description.variables {
        let Source::FollowUp(wanted) = &variable.source else {
            continue;
        };
        if wanted.follow_up != follow_up.name {
            continue;
        }
        let value = captured(&variable.kind);
        let Some(selection) = &wanted.selection else {
            put(&mut body, &wanted.pointer, value.into());
            continue;
        };
        let mut item = body
            .pointer(&format!("{}/0", selection.items))
            .cloned()
            .unwrap_or_else(|| Value::Object(Map::new()));
        put(&mut item, &wanted.pointer, value.into());
        match &selection.pick {
            Pick::WhereEqual(pointer, text) => put(&mut item, pointer, scalar(text)),
            Pick::AskUser(pointer) if item.pointer(pointer).is_none() => {
                put(&mut item, pointer, "The only one".into());
            }
            Pick::AskUser(_) | Pick::Only | Pick::First => {}
        }
        if selection.items.is_empty() {
            body = Value::Array(vec![item]);
        } else {
            put(&mut body, &selection.items, Value::Array(vec![item]));
        }
    }
    body
}

/// A refusal in the provider's own form.
pub(super) fn refusal(shape: &AnswerShape, code: &str) -> Value {
    let mut body = Value::Object(Map::new());
    // What has to hold for a success does not.
    for check in &shape.success_checks {
        match check {
            Check::Equals(pointer, text) if text == "true" => put(&mut body, pointer, false.into()),
            Check::Absent(pointer) => put(&mut body, pointer, code.into()),
            Check::Equals(..) | Check::Present(_) => {}
        }
    }
    let pointer = shape.error_code.first().map_or("/error", String::as_str);
    put(&mut body, pointer, code.into());
    if let Some(pointer) = shape.error_description.first() {
        put(&mut body, pointer, "The box refuses.".into());
    }
    body
}

/// A form with the top-level members of an answer.
pub(super) fn form(body: &Value) -> Option<String> {
    let members = body.as_object()?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        match value {
            Value::String(text) => form.append_pair(name, text),
            Value::Number(number) => form.append_pair(name, &number.to_string()),
            Value::Bool(flag) => form.append_pair(name, &flag.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
    }
    Some(form.finish())
}

/// The word for a body format.
pub(super) fn content_type(format: &BodyFormat) -> &'static str {
    match format {
        BodyFormat::Form => "application/x-www-form-urlencoded",
        BodyFormat::Json => "application/json",
    }
}

/// A value that fits the kind.
pub(super) fn fitting(kind: &ValueKind) -> String {
    let host = |suffixes: &[String]| {
        let suffix = suffixes.first().map_or("", String::as_str);
        if suffix.starts_with('.') {
            format!("kit{suffix}")
        } else {
            suffix.to_owned()
        }
    };
    match kind {
        ValueKind::Identifier => "id-1".into(),
        ValueKind::Label => "kit".into(),
        ValueKind::Host(suffixes) | ValueKind::Origin(suffixes) => host(suffixes),
        ValueKind::Enumeration(choices) => choices
            .first()
            .map_or_else(String::new, |c| c.value.clone()),
    }
}

/// The same as a provider writes it.
fn captured(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Origin(_) => format!("https://{}", fitting(kind)),
        _ => fitting(kind),
    }
}

fn satisfy(body: &mut Value, checks: &[Check]) {
    for check in checks {
        match check {
            Check::Equals(pointer, text) => put(body, pointer, scalar(text)),
            Check::Present(pointer) if body.pointer(pointer).is_none() => {
                put(body, pointer, "x".into())
            }
            Check::Present(_) | Check::Absent(_) => {}
        }
    }
}

/// `true` and `3` as JSON has them, anything else as a text.
fn scalar(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => text.into(),
    }
}

/// Sets a value at a JSON pointer, with objects on the way (arrays where a
/// step is a number).
pub(super) fn put(at: &mut Value, pointer: &str, value: Value) {
    let Some(rest) = pointer.strip_prefix('/') else {
        *at = value;
        return;
    };
    let (step, rest) = match rest.split_once('/') {
        Some((step, rest)) => (step, Some(format!("/{rest}"))),
        None => (rest, None),
    };
    let step = step.replace("~1", "/").replace("~0", "~");
    let next = match step.parse::<usize>() {
        Ok(index) if index < 16 && at.as_object().is_none_or(serde_json::Map::is_empty) => {
            if !at.is_array() {
                *at = Value::Array(Vec::new());
            }
            let Value::Array(items) = at else { return };
            while items.len() <= index {
                items.push(Value::Object(Map::new()));
            }
            items.get_mut(index)
        }
        _ => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at.as_object_mut()
                .map(|o| o.entry(step).or_insert_with(|| Value::Object(Map::new())))
        }
    };
    if let Some(next) = next {
        put(next, rest.as_deref().unwrap_or_default(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_where_it_was_put() {
        for pointer in ["", "/a", "/a/b", "/a/0/b", "/a~1b/c", "/0/x"] {
            let mut body = Value::Object(Map::new());
            put(&mut body, pointer, "v".into());
            assert_eq!(
                body.pointer(pointer).and_then(Value::as_str),
                Some("v"),
                "{pointer}"
            );
        }
    }
}

//! Each hook that the preset names, called as the host calls it.

use countersign_core::names::Digest;
use countersign_core::preset::{Call, GrantFacts, PresetFault};
use countersign_core::scope::ScopeSet;
use countersign_core::signing::Unsigned;
use countersign_core::token_answer::{Answer, masked_body};

use super::report::Group;
use super::stage::{NOW, Stage, asked};
use super::{KitError, Subject, samples};

pub(super) async fn check(subject: &Subject) -> Result<Group, KitError> {
    let mut group = Group::new("Hooks");
    let d = subject.description();
    let preset = &subject.party.preset;
    let hooks = d.hooks;
    let scopes = asked(d);
    let stage = Stage::new(&subject.party).await?;
    let before = group.checks.len();

    if hooks.authorize_parameters {
        answered(
            &mut group,
            "authorize-parameters",
            preset
                .authorize_parameters(&scopes)
                .map(|p| format!("{} parameters", p.len())),
        );
    }
    let masked = |status: u16, body: &serde_json::Value| {
        let answer = Answer::new(
            status,
            Some("application/json"),
            body.to_string().into_bytes(),
        );
        masked_body(&answer, d.token_answer.may_be_form, &[])
    };
    if hooks.token_answer {
        let body = samples::token_answer(&stage.tokens(&scopes, 1));
        let found = preset.token_answer(200, &masked(200, &body));
        answered(
            &mut group,
            "token-answer (an ordinary answer)",
            found.map(|s| format!("{} shapes", s.map_or(0, |s| s.len()))),
        );
        for (what, text) in [("an empty object", "{}"), ("an array", "[]")] {
            survived(
                &mut group,
                &format!("token-answer ({what})"),
                preset.token_answer(200, text).map(drop),
            );
        }
    }
    if hooks.refresh_error {
        let body = samples::refusal(&d.token_answer, "invalid_grant");
        let found = preset.refresh_error(400, Some("invalid_grant"), &masked(400, &body));
        answered(
            &mut group,
            "refresh-error (invalid_grant)",
            found.map(|f| format!("{f:?}")),
        );
        let unknown = preset.refresh_error(500, None, "{}");
        if unknown == Ok(Some(true)) {
            group.fail(
                "refresh-error (status 500 without a code)",
                "transient",
                "permanent",
                "only what says that the grant is over may end it: everything else passes",
            );
        } else {
            survived(
                &mut group,
                "refresh-error (status 500 without a code)",
                unknown.map(drop),
            );
        }
    }
    if hooks.filter_tools {
        let tools: Vec<String> = d
            .mcp_servers
            .iter()
            .flat_map(|s| &s.tools)
            .map(|t| t.name.clone())
            .chain(["kit_unknown".to_owned()])
            .collect();
        for (what, scopes) in [
            ("without scopes", &ScopeSet::default()),
            ("with the default scopes", &scopes),
        ] {
            let grant = GrantFacts {
                scopes,
                account: None,
                facts: &[],
            };
            let kept = preset.filter_tools(&tools, &grant);
            answered(
                &mut group,
                &format!("filter-tools {what}"),
                kept.map(|k| format!("{} of {}", k.map_or(0, |k| k.len()), tools.len())),
            );
        }
    }
    if hooks.sign {
        let request = Unsigned {
            method: "POST".into(),
            host: "mcp.example.com".into(),
            path: "/mcp".into(),
            query: Vec::new(),
            headers: vec![("content-type".into(), "application/json".into())],
            body_sha256: Digest::of(b"{}").to_string().replace("sha256:", ""),
            time: NOW.as_secs().unsigned_abs(),
        };
        let found = preset.sign(&request);
        answered(
            &mut group,
            "sign",
            found.map(|r| {
                let r = r.unwrap_or_default();
                format!("{} headers of {} HMACs", r.headers.len(), r.steps.len())
            }),
        );
    }
    if hooks.identity {
        for (what, text) in [("an empty object", "{}"), ("no JSON", "<html></html>")] {
            survived(
                &mut group,
                &format!("identity ({what})"),
                preset.identity(text).map(drop),
            );
        }
    }
    if hooks.redact {
        let call = Call {
            method: "tools/call",
            name: Some("kit_unknown"),
            arguments: None,
            host: "mcp.example.com",
        };
        let result = r#"{"content":[{"type":"text","text":"to ada@example.com"}],"structuredContent":{"n":1}}"#;
        let found = preset.redact(&call, result);
        answered(
            &mut group,
            "redact (text and structure)",
            found.map(|r| format!("{} redactions", r.map_or(0, |r| r.len()))),
        );
        survived(
            &mut group,
            "redact (an empty result)",
            preset.redact(&call, "{}").map(drop),
        );
        let error = r#"{"error":{"code":-32602,"message":"no note of ada@example.com"}}"#;
        survived(
            &mut group,
            "redact (an error)",
            preset.redact(&call, error).map(drop),
        );
    }
    if group.checks.len() == before {
        group.skip("hooks answer", "it names none");
    }
    Ok(group)
}

fn answered(group: &mut Group, name: &str, result: Result<String, PresetFault>) {
    match result {
        Ok(what) => group.pass(format!("{name} answers: {what}")),
        Err(fault) => group.fail(
            name,
            "an answer",
            fault.to_string(),
            "a native test of the hook with this input shows why",
        ),
    }
}

/// An error in so many words is an answer, too.
fn survived(group: &mut Group, name: &str, result: Result<(), PresetFault>) {
    match result {
        Ok(()) | Err(PresetFault::Reported(_)) => group.pass(format!("{name} is survived")),
        Err(fault) => group.fail(
            name,
            "an answer or an error in words",
            fault.to_string(),
            "do not unwrap what a provider sends",
        ),
    }
}

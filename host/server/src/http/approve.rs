//! The page where a user answers whether a call may be made: exactly this one,
//! once.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use countersign_core::approval::{ALLOWED_FOR, Answer, Approval, ApprovalId, NotAsked, Question};
use countersign_core::names::TeamName;
use countersign_identity::BrowserSession;
use countersign_pages::Page;
use countersign_pages::parts::{self, Look, Tone};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;

use crate::http::connections::viewer;
use crate::wiring::App;

/// `/approve/{id}`.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/approve/{id}", get(show).post(answer))
}

/// What the page's buttons send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerForm {
    csrf: String,
    answer: Choice,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Allow,
    Deny,
}

async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let found = match ApprovalId::parse(&id) {
        Some(id) => app.approvals.show(&session.user, &id).await,
        None => Err(NotAsked::Unknown),
    };
    match found {
        Ok(approval) if approval.answer == Answer::Open => question(&session, &id, &approval),
        Ok(approval) => answered(&session, approval.answer),
        Err(why) => not_asked(&session, &why),
    }
}

async fn answer(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    form: Result<Form<AnswerForm>, axum::extract::rejection::FormRejection>,
) -> Response {
    let session = match app.identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(redirect) => return redirect,
    };
    let Ok(Form(form)) = form else {
        return said(
            &session,
            StatusCode::BAD_REQUEST,
            "That form is not complete",
            html! { p { "Go back and try again." } },
        );
    };
    if let Err(page) = app.identity.check_form(&session, &headers, &form.csrf) {
        return page;
    }
    let Some(id) = ApprovalId::parse(&id) else {
        return not_asked(&session, &NotAsked::Unknown);
    };
    let allow = form.answer == Choice::Allow;
    match app.approvals.decide(&session.user, &id, allow).await {
        Ok(approval) => answered(&session, approval.answer),
        Err(why) => not_asked(&session, &why),
    }
}

/// The question, with all that is bound by its answer.
fn question(session: &BrowserSession, id: &str, approval: &Approval) -> Response {
    let asked = &approval.question;
    let reasons = asked.reasons.iter().map(|r| r.message.as_str());
    let body = html! {
        @for reason in reasons { (parts::notice(Tone::Warning, reason)) }
        (parts::facts(rows(session, asked)))
        @if !asked.arguments.is_empty() {
            h2 { "With exactly this" }
            pre.exact aria-label="Arguments" { (visible(&asked.arguments)) }
        }
        p { "Allow it only if you know why your agent wants to do this. Your answer is for this one call, and "
            "can be used once in the next " (ALLOWED_FOR.as_secs() / 60) " minutes." }
        (parts::form(&format!("/approve/{id}"), &session.csrf, parts::actions(html! {
            (parts::button_named(Look::Plain, "Deny", "answer", "deny"))
            (parts::button_named(Look::Primary, "Allow", "answer", "allow"))
        })))
    };
    Page::new("Allow this call?")
        .viewer(viewer(session))
        .narrow()
        .body(parts::card("", body))
        .into_response()
}

fn rows<'a>(session: &BrowserSession, asked: &Question) -> Vec<(&'a str, Markup)> {
    let what = match asked.method.as_str() {
        "prompts/get" => "Prompt",
        "resources/read" => "Resource",
        _ => "Tool",
    };
    let name = asked.name.as_deref().unwrap_or_default();
    let mut rows = vec![
        (what, html! { strong { (parts::code(&visible(name))) } }),
        (
            "Server",
            html! { (visible(&asked.server_title)) " (" (asked.server.as_str()) ", " (asked.address) ")" },
        ),
        ("Asked for by", html! { (visible(&asked.client_name)) }),
        ("Signed in as", html! { (session.user.as_str()) }),
    ];
    if asked.team != TeamName::default_team() {
        rows.push(("Team", html! { (asked.team.as_str()) }));
    }
    rows
}

/// Text in which nothing hides: characters that turn the direction of writing,
/// take no room or end a line elsewhere are shown by their number.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
        if hides {
            out.push_str(&format!("\u{2039}U+{:04X}\u{203a}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

fn answered(session: &BrowserSession, answer: Answer) -> Response {
    let (title, tone, text, next) = match answer {
        Answer::Allowed => (
            "Allowed",
            Tone::Good,
            "Your agent may make this call once.",
            "You can close this page and go back to your agent. A call that is waiting goes on by itself.",
        ),
        Answer::Denied => (
            "Denied",
            Tone::Info,
            "Your agent is told that you said no.",
            "You can close this page and go back to your agent.",
        ),
        Answer::Open => return not_asked(session, &NotAsked::Unknown),
    };
    let body = html! {
        (parts::notice(tone, text))
        p { (next) }
    };
    said(session, StatusCode::OK, title, body)
}

fn not_asked(session: &BrowserSession, why: &NotAsked) -> Response {
    match why {
        NotAsked::Store(error) => crate::http::store_failed(error),
        NotAsked::Answered(answer) => answered(session, *answer),
        NotAsked::Unknown => said(
            session,
            StatusCode::NOT_FOUND,
            "There is nothing to answer",
            html! {
                p { "Nobody asks " strong { (session.user) } " anything here. The question was meant for another "
                    "user, was answered and used, or has ended." }
                p { "If your agent still needs an answer, let it try again." }
            },
        ),
    }
}

fn said(session: &BrowserSession, status: StatusCode, title: &str, body: Markup) -> Response {
    let body = html! {
        (body)
        (parts::actions(parts::link_button(Look::Plain, "Connections", "/connections")))
    };
    Page::new(title)
        .viewer(viewer(session))
        .narrow()
        .status(status)
        .body(parts::card("", body))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_in_what_a_user_is_shown() {
        assert_eq!(visible("plain ä 漢 \"q\"\n"), "plain ä 漢 \"q\"\n");
        assert_eq!(
            visible("a\u{202e}b\u{200b}c\u{1b}[2J\r"),
            "a‹U+202E›b‹U+200B›c‹U+001B›[2J‹U+000D›"
        );
    }
}

//! `/device`: where the user types the code of his terminal, and says yes.

use axum::body::Bytes;
use axum::extract::State as Of;
use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::UserName;
use countersign_core::ports::{Expect, Revision, StoreError, load};
use countersign_core::time::Timestamp;
use countersign_pages::parts::{
    Field, Look, Tone, actions, button, button_named, card, code, facts, field, form, hidden,
    notice,
};
use countersign_pages::{Page, Viewer};
use http::{HeaderMap, StatusCode, Uri};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{Device, Pointer, State, normal, pointer_key, write_device};
use crate::audience::Audience;
use crate::oauth::authorize::Choice;
use crate::oauth::client::COMMAND_LINE;
use crate::oauth::consent::team_field;
use crate::params::Params;
use crate::service::Identity;
use crate::session::{BrowserSession, unavailable};

/// What a page is about, sealed into its form for one session: what was shown
/// is what is agreed to.
#[derive(Serialize, Deserialize)]
struct Ask {
    device: String,
    user: UserName,
    until: Timestamp,
}

fn seal_place(session: &BrowserSession) -> String {
    format!("device 1 {}", session.id)
}

pub(in crate::oauth) async fn show(
    Of(identity): Of<Identity>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let session = match identity.require_session(&headers, &uri).await {
        Ok(session) => session,
        Err(sign_in) => return sign_in,
    };
    // The tokens may mint others while the sign-in is fresh: so let it be.
    let fresh = session.signed_in_at.plus(identity.settings().fresh_sign_in) > identity.now();
    if !fresh {
        return identity.to_sign_in(&uri);
    }
    let typed = Params::parse(uri.query().unwrap_or_default().as_bytes())
        .ok()
        .and_then(|mut params| params.take("user_code"));
    let Some(typed) = typed else {
        return entry(&session, StatusCode::OK, None);
    };
    match identity.typed(&session, &typed).await {
        Ok(Some((name, device))) => identity.confirm(&session, &name, &device, &typed).await,
        Ok(None) => entry(
            &session,
            StatusCode::NOT_FOUND,
            Some(
                "That code is not known, was used, or has ended. Type the one that your terminal shows now.",
            ),
        ),
        Err(Refused::Wait(seconds)) => {
            let text = format!("Too many wrong codes. Wait {seconds} seconds, then try again.");
            entry(&session, StatusCode::TOO_MANY_REQUESTS, Some(&text))
        }
        Err(Refused::Store(error)) => unavailable(&error),
    }
}

enum Refused {
    Wait(u64),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn page(session: &BrowserSession, title: &str, status: StatusCode, body: Markup) -> Response {
    let viewer = Viewer {
        name: session.user.as_str(),
        csrf: &session.csrf,
        admin: false,
    };
    Page::new(title)
        .narrow()
        .viewer(viewer)
        .status(status)
        .body(card("", body))
        .into_response()
}

fn entry(session: &BrowserSession, status: StatusCode, problem: Option<&str>) -> Response {
    let body = html! {
        p { "Sign a terminal in as " strong { (session.user) } ": type the code that "
            (code("countersign login --device")) " shows there." }
        @if let Some(text) = problem { (notice(Tone::Bad, text)) }
        form method="get" action="/device" {
            (field(&Field::text("Code", "user_code")))
            (actions(button(Look::Primary, "Continue")))
        }
    };
    page(session, "Sign in at a terminal", status, body)
}

impl Identity {
    /// Finds what a typed code is for; each user has few guesses.
    async fn typed(
        &self,
        session: &BrowserSession,
        typed: &str,
    ) -> Result<Option<(String, Device)>, Refused> {
        let (now, guesses) = (self.now(), &self.0.user_codes);
        let user = session.user.as_str().to_ascii_lowercase();
        if let Err(wait) = guesses.begin(&user, now) {
            if guesses.is_first_refusal(&user) {
                let event = AuditEvent::new(now, "device.guess", Outcome::Denied)
                    .by(&session.user)
                    .detail("too many wrong codes");
                self.0.world.audit.enqueue(event);
            }
            return Err(Refused::Wait(wait.as_secs().max(1)));
        }
        let found = match normal(typed) {
            Some(code) => self.pending(&code).await?,
            None => None,
        };
        if found.is_some() {
            guesses.take_back(&user, now);
        }
        Ok(found)
    }

    async fn pending(&self, code: &str) -> Result<Option<(String, Device)>, StoreError> {
        let key = pointer_key(&self.fingerprint(code));
        let Some((pointer, _)) = load::<Pointer>(&*self.0.world.records, &key).await? else {
            return Ok(None);
        };
        let found = self.unanswered(&pointer.device).await?;
        Ok(found.map(|(device, _)| (pointer.device, device)))
    }

    async fn unanswered(&self, name: &str) -> Result<Option<(Device, Revision)>, StoreError> {
        let found = self.device(name).await?;
        Ok(found.filter(|(d, _)| d.state == State::Pending && d.expires_at > self.now()))
    }

    async fn teams_to_choose(&self, session: &BrowserSession) -> Result<Choice, StoreError> {
        let user = self.load_user(&session.user).await?;
        Ok(Choice {
            resource_name: "Administration and your account (REST)".into(),
            teams: user.map(|(user, _)| user.teams).unwrap_or_default(),
        })
    }

    async fn confirm(
        &self,
        session: &BrowserSession,
        name: &str,
        device: &Device,
        typed: &str,
    ) -> Response {
        let choice = match self.teams_to_choose(session).await {
            Ok(choice) => choice,
            Err(error) => return unavailable(&error),
        };
        let ask = Ask {
            device: name.to_owned(),
            user: session.user.clone(),
            until: device.expires_at,
        };
        let Some(sealed) = self.seal(&seal_place(session), &ask) else {
            return self.foreign_form();
        };
        let shown = normal(typed).unwrap_or_default();
        let (first, second) = shown.split_at(shown.len() / 2);
        let minutes = self.now().since(device.asked_at).as_secs() / 60;
        let body = html! {
            p { "A terminal asks to act for you, " strong { (session.user) } "." }
            (facts(vec![
                ("Its code", html! { (code(&format!("{first}-{second}"))) }),
                ("It may use", html! { (choice.resource_name) br; (code("/api")) }),
                ("Asked from", html! { (device.asked_from) }),
                ("When", html! { @if minutes == 0 { "less than a minute ago" } @else { (minutes) " min ago" } }),
            ]))
            (notice(Tone::Warning, "Only go on if you just started this yourself and your own terminal shows this code. Nobody else has a reason to send you a code."))
            (form("/device", &session.csrf, html! {
                (hidden("request", &sealed))
                (team_field(&choice))
                (actions(html! {
                    (button_named(Look::Plain, "Deny", "decision", "deny"))
                    (button_named(Look::Primary, "Allow", "decision", "allow"))
                }))
            }))
        };
        page(session, "Let this terminal in?", StatusCode::OK, body)
    }

    /// The user pressed a button.
    async fn answered(
        &self,
        session: &BrowserSession,
        params: &Params,
    ) -> Result<Response, StoreError> {
        let ask = self.unseal::<Ask>(
            &seal_place(session),
            params.find("request").unwrap_or_default(),
        );
        let ask = ask
            .ok()
            .filter(|ask| ask.user == session.user && ask.until > self.now());
        let Some(ask) = ask else {
            return Ok(self.foreign_form());
        };
        let Some((mut device, revision)) = self.unanswered(&ask.device).await? else {
            return Ok(self.foreign_form());
        };
        let allowed = params.find("decision") == Some("allow");
        let (state, team) = if allowed {
            let teams = self.teams_to_choose(session).await?.teams;
            let team = match params.find("team") {
                Some(name) => teams.iter().find(|t| t.as_str() == name),
                None => teams.first().filter(|_| teams.len() == 1),
            };
            let user = self.load_user(&session.user).await?;
            let (Some(team), Some((user, _))) = (team.cloned(), user) else {
                return Ok(self.foreign_form());
            };
            let state = State::Allowed {
                user: user.name,
                epoch: user.epoch,
                team: team.clone(),
                fresh_until: session.signed_in_at.plus(self.settings().fresh_sign_in),
            };
            (state, Some(team))
        } else {
            (State::Denied, None)
        };
        device.state = state;
        let write = write_device(&ask.device, Expect::At(revision), &device)?;
        match self.0.world.records.write(vec![write]).await {
            Err(StoreError::Conflict) => return Ok(self.foreign_form()),
            other => other?,
        };
        let (action, outcome) = match allowed {
            true => ("consent.give", Outcome::Allowed),
            false => ("consent.deny", Outcome::Denied),
        };
        let mut event = AuditEvent::new(self.now(), action, outcome)
            .by(&session.user)
            .on(Audience::Api.resource(&self.settings().public_url))
            .detail(format!(
                "by a code, for a terminal at {}",
                device.asked_from
            ));
        event.client = Some(COMMAND_LINE.to_owned());
        event.team = team.map(|t| t.to_string());
        self.audit(event).await?;
        let (title, tone, text) = match allowed {
            true => (
                "Signed in",
                Tone::Good,
                "Your terminal is signed in. You can close this page.",
            ),
            false => (
                "Not signed in",
                Tone::Warning,
                "Nothing was given to that terminal. You can close this page.",
            ),
        };
        Ok(page(session, title, StatusCode::OK, notice(tone, text)))
    }
}

pub(in crate::oauth) async fn decide(
    Of(identity): Of<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(params) = Params::form(&headers, &body) else {
        return identity.foreign_form();
    };
    let session = match identity.session(&headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return Redirect::to("/login").into_response(),
        Err(error) => return unavailable(&error),
    };
    let csrf = params.find("csrf").unwrap_or_default();
    if let Err(response) = identity.check_form(&session, &headers, csrf) {
        return response;
    }
    match identity.answered(&session, &params).await {
        Ok(response) => response,
        Err(error) => unavailable(&error),
    }
}

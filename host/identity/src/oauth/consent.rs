//! The user's word to an agent: asked on a page of its own, per client.

use std::time::Duration;

use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::{ClientId, Digest, TeamName, UserName};
use countersign_core::ports::{Expect, Kind, RecordKey, load, put, put_until};
use countersign_core::time::Timestamp;
use countersign_pages::parts::{
    Look, Tone, actions, button_named, card, code, facts, form, hidden, notice, select,
};
use countersign_pages::{Page, Viewer};
use http::HeaderMap;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::authorize::{Choice, Refusal, Request};
use super::client::{COMMAND_LINE, Client, client_key};
use super::code::{Code, CodeState};
use super::error::OAuthError;
use super::redirect;
use crate::audience::Audience;
use crate::params::Params;
use crate::service::Identity;
use crate::session::{BrowserSession, unavailable};

/// How long a consent page may stay open.
const OPEN: Duration = Duration::from_secs(15 * 60);
/// How long a consent is remembered.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a consent page is about, sealed into its form for one session: what was
/// shown is what is agreed to.
#[derive(Serialize, Deserialize)]
struct Ask {
    request: Request,
    user: UserName,
    until: Timestamp,
}

/// A consent that need not be asked for again: same user, client, redirect URI
/// and resource (which has one scope).
#[derive(Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) client: ClientId,
    epoch: String,
    team: TeamName,
    expires_at: Timestamp,
}

fn remembered_key(user: &UserName, request: &Request, identity: &Identity) -> RecordKey {
    let resource = request.audience.resource(&identity.settings().public_url);
    let parts = [request.client.id.as_str(), &request.redirect_uri, &resource]
        .map(|p| format!("{}:{p}", p.len()));
    RecordKey::within(
        Kind::AgentConsent,
        user.as_str(),
        Digest::of(parts.concat().as_bytes()).to_string(),
    )
}

fn seal_place(session: &BrowserSession) -> String {
    format!("consent 1 {}", session.id)
}

impl Identity {
    /// Shows the page, or goes on at once where the same was agreed to before.
    pub(super) async fn ask(
        &self,
        session: &BrowserSession,
        request: Request,
    ) -> Result<Response, Refusal> {
        let choice = self.choice(session, &request).await?;
        if let Some(team) = self
            .remembered(session, &request)
            .await?
            .filter(|t| choice.teams.contains(t))
        {
            return self.give(session, &request, team).await;
        }
        let ask = Ask {
            user: session.user.clone(),
            until: self.now().plus(OPEN),
            request,
        };
        let Some(sealed) = self.seal(&seal_place(session), &ask) else {
            return Err(ask
                .request
                .refuse(OAuthError::new("server_error", "the request can't be kept")));
        };
        Ok(page(session, &ask.request, &choice, &sealed))
    }

    /// The user pressed a button.
    pub(super) async fn decided(
        &self,
        headers: &HeaderMap,
        params: &Params,
    ) -> Result<Response, Refusal> {
        let session = match self.session(headers).await {
            Ok(Some(session)) => session,
            Ok(None) => return Ok(Redirect::to("/login").into_response()),
            Err(error) => return Ok(unavailable(&error)),
        };
        if let Err(response) =
            self.check_form(&session, headers, params.find("csrf").unwrap_or_default())
        {
            return Ok(response);
        }
        let ask = self.unseal::<Ask>(
            &seal_place(&session),
            params.find("request").unwrap_or_default(),
        );
        let Some(Ask { request, .. }) = ask
            .ok()
            .filter(|ask| ask.user == session.user && ask.until > self.now())
        else {
            return Ok(self.foreign_form());
        };
        if params.find("decision") != Some("allow") {
            let event = self.consent_event("consent.deny", Outcome::Denied, &session, &request);
            self.audit(event)
                .await
                .map_err(|e| request.refuse(e.into()))?;
            return Err(request.refuse(OAuthError::new("access_denied", "the user said no")));
        }
        if !self
            .client_stands(&request.client.id)
            .await
            .map_err(|e| request.refuse(e.into()))?
        {
            return Err(request.refuse(OAuthError::new(
                "unauthorized_client",
                "this client is no longer registered",
            )));
        }
        let choice = self.choice(&session, &request).await?;
        let team = match params.find("team") {
            Some(name) => choice.teams.iter().find(|t| t.as_str() == name).cloned(),
            None => (choice.teams.len() == 1)
                .then(|| choice.teams.first().cloned())
                .flatten(),
        };
        let Some(team) = team else {
            return Ok(self.foreign_form());
        };
        self.remember(&session, &request, &team).await?;
        self.give(&session, &request, team).await
    }

    async fn remembered(
        &self,
        session: &BrowserSession,
        request: &Request,
    ) -> Result<Option<TeamName>, Refusal> {
        if !redirect::is_exclusive(&request.redirect_uri) {
            return Ok(None);
        }
        let refuse = |error| request.refuse(OAuthError::from(error));
        let key = remembered_key(&session.user, request, self);
        let Some((found, _)) = load::<Remembered>(&*self.0.world.records, &key)
            .await
            .map_err(refuse)?
        else {
            return Ok(None);
        };
        let live = self
            .live_user(&session.user, &found.epoch)
            .await
            .map_err(refuse)?
            .is_some();
        Ok((live && found.expires_at > self.now()).then_some(found.team))
    }

    async fn remember(
        &self,
        session: &BrowserSession,
        request: &Request,
        team: &TeamName,
    ) -> Result<(), Refusal> {
        let refuse = |error| request.refuse(OAuthError::from(error));
        let mut writes = Vec::new();
        // A registered client that a user lets in is kept.
        if !request.client.known {
            let known = Client {
                known: true,
                ..request.client.clone()
            };
            writes.push(put(client_key(&known.id), Expect::Anything, &known).map_err(refuse)?);
        }
        if redirect::is_exclusive(&request.redirect_uri) {
            let user = self.load_user(&session.user).await.map_err(refuse)?;
            let epoch = user.map(|(user, _)| user.epoch).unwrap_or_default();
            let expires_at = self.now().plus(REMEMBERED);
            let remembered = Remembered {
                client: request.client.id.clone(),
                epoch,
                team: team.clone(),
                expires_at,
            };
            let key = remembered_key(&session.user, request, self);
            writes.push(
                put_until(key, Expect::Anything, &remembered, Some(expires_at)).map_err(refuse)?,
            );
        }
        if !writes.is_empty() {
            self.0.world.records.write(writes).await.map_err(refuse)?;
        }
        let event = self.consent_event("consent.give", Outcome::Allowed, session, request);
        self.audit(event).await.map_err(refuse)
    }

    /// Issues a code and sends the browser back with it.
    async fn give(
        &self,
        session: &BrowserSession,
        request: &Request,
        team: TeamName,
    ) -> Result<Response, Refusal> {
        let refuse = |error| request.refuse(OAuthError::from(error));
        let Some((user, _)) = self.load_user(&session.user).await.map_err(refuse)? else {
            return Err(request.refuse(OAuthError::new("access_denied", "the user is gone")));
        };
        let (text, write) = self
            .new_code(|grant, expires_at| Code {
                client: request.client.id.clone(),
                client_name: request.client.name.clone(),
                redirect_uri: request.redirect_uri.clone(),
                challenge: request.challenge.clone(),
                audience: request.audience.clone(),
                refresh: request.client.refresh,
                user: user.name,
                epoch: user.epoch,
                team,
                grant,
                fresh_until: session.signed_in_at.plus(self.settings().fresh_sign_in),
                expires_at,
                state: CodeState::Fresh,
            })
            .map_err(|error| request.refuse(error))?;
        self.0
            .world
            .records
            .write(vec![write])
            .await
            .map_err(refuse)?;
        Ok(self.back_to_agent(
            &request.redirect_uri,
            request.state.as_deref(),
            &[("code", &text)],
        ))
    }

    fn consent_event(
        &self,
        action: &str,
        outcome: Outcome,
        session: &BrowserSession,
        request: &Request,
    ) -> AuditEvent {
        let resource = request.audience.resource(&self.settings().public_url);
        let mut event = AuditEvent::new(self.now(), action, outcome)
            .by(&session.user)
            .on(resource);
        event.client = Some(request.client.id.to_string());
        event.detail(format!(
            "redirect to {}",
            redirect::shown(&request.redirect_uri)
        ))
    }
}

fn page(session: &BrowserSession, request: &Request, choice: &Choice, sealed: &str) -> Response {
    let client = &request.client;
    let name = if client.name.is_empty() {
        "An agent without a name"
    } else {
        &client.name
    };
    let first_party = client.id.as_str() == COMMAND_LINE;
    let body = card(
        "",
        html! {
            p { strong { (name) } " asks to act for you, " strong { (session.user) } "." }
            (facts(vec![
                ("It may use", html! { (choice.resource_name) br; (code(&may(&request.audience))) }),
                ("Where it is", html! { (redirect::shown(&request.redirect_uri)) }),
                ("Who it is", identity_of(client, first_party)),
            ]))
            @if !first_party && !redirect::is_exclusive(&request.redirect_uri) {
                (notice(Tone::Warning, "Only go on if you just started this sign-in yourself, in that program."))
            }
            (form("/oauth2/authorize", &session.csrf, html! {
                (hidden("request", sealed))
                (team_field(choice))
                (actions(html! {
                    (button_named(Look::Plain, "Deny", "decision", "deny"))
                    (button_named(Look::Primary, "Allow", "decision", "allow"))
                }))
            }))
            p.hint { "It never sees your password or the keys to your connected accounts. You can remove it on the Connections page." }
        },
    );
    let viewer = Viewer {
        name: session.user.as_str(),
        csrf: &session.csrf,
        admin: false,
    };
    let page = Page::new("Let this agent in?")
        .narrow()
        .viewer(viewer)
        .body(body);
    // The answer to this form is a redirect to the agent, which browsers check
    // against this page's policy.
    match redirect::policy_source(&request.redirect_uri) {
        Some(source) => page.form_target(source),
        None => page,
    }
    .into_response()
}

fn may(audience: &Audience) -> String {
    match audience {
        Audience::McpAll => "/mcp".into(),
        Audience::Mcp(server) => format!("/mcp/{server}"),
        Audience::Api => "/api".into(),
    }
}

/// How sure the client's identity is.
fn identity_of(client: &Client, first_party: bool) -> Markup {
    let host = url::Url::parse(client.id.as_str())
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    html! {
        @if first_party { "part of Countersign" }
        @else if let Some(host) = host { "described by " (host) }
        @else { "not verified: it chose its name itself" }
    }
}

pub(super) fn team_field(choice: &Choice) -> Markup {
    let teams: Vec<(&str, &str)> = choice
        .teams
        .iter()
        .map(|t| (t.as_str(), t.as_str()))
        .collect();
    let default = TeamName::default_team();
    let chosen = choice.teams.get(&default).or_else(|| choice.teams.first());
    match (teams.as_slice(), chosen) {
        ([(only, _)], _) => html! {
            // Who is in no team but everybody's need not know of teams.
            @if *only != default.as_str() { p { "In the team " strong { (only) } "." } }
            (hidden("team", only))
        },
        (_, Some(chosen)) => select("In the team", "team", &teams, chosen.as_str()),
        (_, None) => html! {},
    }
}

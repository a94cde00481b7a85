//! `/oauth2/authorize`: from an agent's request to a code, by way of the user.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::names::{ClientId, TeamName};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::client::{COMMAND_LINE, Client};
use super::error::OAuthError;
use super::redirect;
use crate::audience::Audience;
use crate::params::Params;
use crate::service::Identity;
use crate::session::{BrowserSession, unavailable};
use crate::tokens::{Grant, GrantFor};

/// A request that may be put before the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) client: Client,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    pub(super) audience: Audience,
    pub(super) challenge: String,
}

/// A request that may not, and where its agent is told so.
pub(super) struct Refusal {
    redirect_uri: String,
    state: Option<String>,
    error: OAuthError,
}

impl Request {
    pub(super) fn refuse(&self, error: OAuthError) -> Refusal {
        Refusal {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.clone(),
            error,
        }
    }
}

/// What the user may choose from, and what he is shown.
pub(super) struct Choice {
    pub(super) resource_name: String,
    pub(super) teams: BTreeSet<TeamName>,
}

pub(super) async fn show(
    State(identity): State<Identity>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let params = match Params::parse(uri.query().unwrap_or_default().as_bytes()) {
        Ok(params) => params,
        Err(bad) => return error_page(&bad.into()),
    };
    let session = identity.require_session(&headers, &uri).await;
    // A stranger can't make this host fetch documents: sign-in comes first.
    let by_document = params
        .find("client_id")
        .is_some_and(|id| id.starts_with("https://"));
    let session = match session {
        Err(sign_in) if by_document => return sign_in,
        other => other,
    };
    let (client, redirect_uri) = match identity.client_and_redirect(&params).await {
        Ok(found) => found,
        // Nothing is known to be the agent's: it is told nothing, the user is.
        Err(error) => return error_page(&error),
    };
    // Nobody is sent on by this host who is not signed in to it (RFC 9700 §4.11.2).
    let session = match session {
        Ok(session) => session,
        Err(sign_in) => return sign_in,
    };
    let state = params.find("state").map(str::to_owned);
    let asked = match read_rest(&identity, &params, &client) {
        Ok((audience, challenge)) => Request {
            client,
            redirect_uri,
            state,
            audience,
            challenge,
        },
        Err(error) => {
            let agent = client.id.clone();
            let refusal = Refusal {
                redirect_uri,
                state,
                error,
            };
            return identity.tell_own_agent(&session, &agent, &refusal).await;
        }
    };
    // Tokens for REST may mint others while the sign-in is fresh: so let it be.
    let fresh = session.signed_in_at.plus(identity.settings().fresh_sign_in) > identity.now();
    if asked.audience == Audience::Api && !fresh {
        return identity.to_sign_in(&uri);
    }
    let agent = asked.client.id.clone();
    match identity.ask(&session, asked).await {
        Ok(response) => response,
        Err(refusal) => identity.tell_own_agent(&session, &agent, &refusal).await,
    }
}

fn read_rest(
    identity: &Identity,
    params: &Params,
    client: &Client,
) -> Result<(Audience, String), OAuthError> {
    let demand = |name: &str| {
        params
            .find(name)
            .ok_or_else(|| OAuthError::request(format!("{name} is missing")))
    };
    if params.find("request").is_some() {
        return Err(OAuthError::new(
            "request_not_supported",
            "request objects are not supported",
        ));
    }
    if params.find("request_uri").is_some() {
        return Err(OAuthError::new(
            "request_uri_not_supported",
            "request objects are not supported",
        ));
    }
    if demand("response_type")? != "code" {
        return Err(OAuthError::new(
            "unsupported_response_type",
            "response_type must be code",
        ));
    }
    if params
        .find("response_mode")
        .is_some_and(|mode| mode != "query")
    {
        return Err(OAuthError::request("response_mode must be query"));
    }
    let challenge = demand("code_challenge")?;
    // The absence of a method would mean `plain` (RFC 7636 §4.3).
    if params.find("code_challenge_method") != Some("S256") {
        return Err(OAuthError::request("code_challenge_method must be S256"));
    }
    if challenge.len() != 43
        || !challenge
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    {
        return Err(OAuthError::request(
            "code_challenge must be a base64url SHA-256, 43 characters",
        ));
    }
    let target = |text: &str| OAuthError::new("invalid_target", text);
    let resource = params.find("resource").ok_or_else(|| {
        target("resource is missing: name the MCP endpoint's address, as its protected-resource metadata does")
    })?;
    let audience = Audience::parse(resource, &identity.settings().public_url)
        .ok_or_else(|| target("resource is not one of this host's, exactly as its protected-resource metadata writes it"))?;
    if !client.may_ask_for(&audience) {
        return Err(target("this client can't have tokens for this resource"));
    }
    if params.find("scope").is_some_and(|s| {
        s.split(' ')
            .any(|scope| !scope.is_empty() && scope != audience.scope())
    }) {
        return Err(OAuthError::new(
            "invalid_scope",
            format!("the only scope of this resource is {}", audience.scope()),
        ));
    }
    Ok((audience, challenge.to_owned()))
}

impl Identity {
    async fn client_and_redirect(&self, params: &Params) -> Result<(Client, String), OAuthError> {
        let id = params
            .find("client_id")
            .ok_or_else(|| OAuthError::request("client_id is missing"))?;
        let client = self.client(id).await?;
        let redirect_uri = params
            .find("redirect_uri")
            .ok_or_else(|| OAuthError::request("redirect_uri is missing"))?;
        if !client.may_redirect_to(redirect_uri) {
            return Err(OAuthError::request(
                "redirect_uri is not one that this client registered",
            ));
        }
        let redirect_uri = redirect_uri.to_owned();
        Ok((client, redirect_uri))
    }

    /// What the user may choose from.
    pub(super) async fn choice(
        &self,
        session: &BrowserSession,
        request: &Request,
    ) -> Result<Choice, Refusal> {
        let store = |error| request.refuse(OAuthError::from(error));
        let own = self
            .load_user(&session.user)
            .await
            .map_err(store)?
            .map(|(user, _)| user.teams)
            .unwrap_or_default();
        let (resource_name, allowed) = match &request.audience {
            Audience::McpAll => ("All MCP servers you may use".to_owned(), BTreeSet::new()),
            Audience::Api => (
                "Administration and your account (REST)".to_owned(),
                BTreeSet::new(),
            ),
            Audience::Mcp(name) => match self.0.resources.server(name).await.map_err(store)? {
                Some(facts) => (facts.display_name, facts.teams),
                None => {
                    return Err(request
                        .refuse(OAuthError::new("invalid_target", "there is no such server")));
                }
            },
        };
        let teams: BTreeSet<TeamName> = own
            .into_iter()
            .filter(|team| allowed.is_empty() || allowed.contains(team))
            .collect();
        if teams.is_empty() {
            return Err(request.refuse(OAuthError::new(
                "access_denied",
                "none of the user's teams may use this server",
            )));
        }
        Ok(Choice {
            resource_name,
            teams,
        })
    }

    /// Sends the browser back to the agent.
    pub(super) fn back_to_agent(
        &self,
        redirect_uri: &str,
        state: Option<&str>,
        pairs: &[(&str, &str)],
    ) -> Response {
        let mut all = pairs.to_vec();
        all.extend(state.map(|state| ("state", state)));
        // RFC 9207 §2: in every answer, errors included.
        all.push(("iss", self.issuer()));
        match redirect::with(redirect_uri, &all) {
            Some(url) => Redirect::to(&url).into_response(),
            None => error_page(&OAuthError::request("redirect_uri is not a URL")),
        }
    }

    /// Tells an agent that this user has let in. Anybody may register one whose
    /// redirect URI is his own site: it is not sent a browser that did not ask
    /// for it, and the user is told instead (RFC 9700 §4.11.2).
    async fn tell_own_agent(
        &self,
        session: &BrowserSession,
        client: &ClientId,
        refusal: &Refusal,
    ) -> Response {
        let lets_in = |grant: &Grant| matches!(&grant.subject, GrantFor::Agent { client: own, .. } if own == client);
        let is_own = client.as_str() == COMMAND_LINE
            || match self.grants_of(&session.user).await {
                Ok(grants) => grants.iter().any(lets_in),
                Err(error) => return unavailable(&error),
            };
        if is_own {
            self.tell_agent(refusal)
        } else {
            error_page(&refusal.error)
        }
    }

    pub(super) fn tell_agent(&self, refusal: &Refusal) -> Response {
        let error = [
            ("error", refusal.error.code),
            ("error_description", &refusal.error.description),
        ];
        self.back_to_agent(&refusal.redirect_uri, refusal.state.as_deref(), &error)
    }
}

pub(super) async fn decide(
    State(identity): State<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = match Params::form(&headers, &body) {
        Ok(params) => params,
        Err(bad) => return error_page(&bad.into()),
    };
    match identity.decided(&headers, &params).await {
        Ok(response) => response,
        Err(refusal) => identity.tell_agent(&refusal),
    }
}

pub(super) fn error_page(error: &OAuthError) -> Response {
    let status = if error.code == "temporarily_unavailable" {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::BAD_REQUEST
    };
    let text = format!(
        "The agent that sent you here made a request that can't be used: {}. Nothing was given to it. \
         Remove and add this connection in the agent, then try again.",
        error.description
    );
    countersign_pages::message(status, "This sign-in request can't be used", &text)
}

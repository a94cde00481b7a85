//! Dynamic registration (RFC 7591).

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::ClientId;
use countersign_core::ports::{Expect, put_until, random_token};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, client_key, presentable};
use super::error::OAuthError;
use super::redirect;
use crate::audience::SCOPE_MCP;
use crate::service::Identity;
use crate::throttle::neighbourhood;
use crate::web::ClientAddress;

/// A client nobody let in is forgotten after this long.
const UNKNOWN_CLIENT: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
struct Request {
    redirect_uris: Vec<String>,
    #[serde(default)]
    client_name: Option<String>,
    #[serde(default)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    response_types: Option<Vec<String>>,
}

pub(super) async fn register(
    State(identity): State<Identity>,
    address: ClientAddress,
    body: Bytes,
) -> Response {
    match identity.register(address, &body).await {
        Ok(client) => answer(&client),
        Err(error) => error.into_response(),
    }
}

fn answer(client: &Client) -> Response {
    let grants: &[&str] = if client.refresh {
        &["authorization_code", "refresh_token"]
    } else {
        &["authorization_code"]
    };
    let body = json!({
        "client_id": client.id,
        "client_id_issued_at": client.registered_at.as_secs(),
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "grant_types": grants,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": SCOPE_MCP,
    });
    (
        StatusCode::CREATED,
        [(CACHE_CONTROL, "no-store")],
        Json(body),
    )
        .into_response()
}

impl Identity {
    async fn register(&self, address: ClientAddress, body: &[u8]) -> Result<Client, OAuthError> {
        let now = self.now();
        let place = neighbourhood(address.0);
        let refused = |why: &str| {
            let event = AuditEvent::new(now, "client.register", Outcome::Denied)
                .from_address(address.0)
                .detail(why);
            self.0.world.audit.enqueue(event);
        };
        if let Err(wait) = self.0.registrations.begin(&place, now) {
            if self.0.registrations.is_first_refusal(&place) {
                refused("throttled");
            }
            return Err(OAuthError::new(
                "slow_down",
                format!(
                    "too many registrations; try again in {} s",
                    wait.as_secs().max(1)
                ),
            ));
        }
        let client = self.read_registration(body).inspect_err(|error| {
            // The throttle bounds how many there are; what was sent is not kept.
            refused(error.code);
        })?;
        let until = Some(now.plus(UNKNOWN_CLIENT));
        self.0
            .world
            .records
            .write(vec![put_until(
                client_key(&client.id),
                Expect::Absent,
                &client,
                until,
            )?])
            .await?;
        let event = AuditEvent::new(now, "client.register", Outcome::Allowed)
            .on(format!("client:{}", client.id))
            .from_address(address.0)
            .detail(format!("{:?}", client.name));
        self.audit(event).await?;
        Ok(client)
    }

    fn read_registration(&self, body: &[u8]) -> Result<Client, OAuthError> {
        let metadata = |text: &str| OAuthError::new("invalid_client_metadata", text);
        let request: Request = serde_json::from_slice(body)
            .map_err(|_| metadata("the body must be JSON with redirect_uris, a list of texts"))?;
        if !(1..=10).contains(&request.redirect_uris.len()) {
            return Err(OAuthError::new(
                "invalid_redirect_uri",
                "name 1 to 10 redirect_uris",
            ));
        }
        for uri in &request.redirect_uris {
            redirect::check(uri).map_err(|why| OAuthError::new("invalid_redirect_uri", why))?;
        }
        let grants = request
            .grant_types
            .unwrap_or_else(|| vec!["authorization_code".into()]);
        if !grants.iter().any(|g| g == "authorization_code") {
            return Err(metadata(
                "grant_types must include authorization_code; others than refresh_token are not supported",
            ));
        }
        if request
            .response_types
            .is_some_and(|r| !r.iter().any(|t| t == "code"))
        {
            return Err(metadata("response_types must include code"));
        }
        let id = format!("cs_client_{}", random_token::<16>(&*self.0.world.random));
        Ok(Client {
            id: ClientId::parse(&id).map_err(|e| metadata(&e.to_string()))?,
            name: presentable(request.client_name.as_deref().unwrap_or_default()),
            redirect_uris: request.redirect_uris,
            refresh: grants.iter().any(|g| g == "refresh_token"),
            registered_at: self.now(),
            known: false,
        })
    }
}

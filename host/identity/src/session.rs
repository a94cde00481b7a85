//! Browser sessions, and the short visit before a sign-in.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::caller::Caller;
use countersign_core::names::{ClientId, UserName, hex};
use countersign_core::ports::{
    Expect, Kind, StoreError, Write, delete, load, put_until, random_token,
};
use countersign_core::time::Timestamp;
use http::header::{COOKIE, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::accounts::User;
use crate::service::Identity;
use crate::tokens::{SESSION, record_key};

/// How long a sign-in page stays good.
const VISIT: Duration = Duration::from_secs(30 * 60);
/// How stale `seen_at` may get before it is written again.
const SEEN_STEP: Duration = Duration::from_secs(5 * 60);
/// Longest address to come back to after sign-in; a cookie holds 4 KiB.
const LONGEST_RETURN: usize = 2_400;

/// A signed-in browser.
#[derive(Clone)]
pub struct BrowserSession {
    /// Who.
    pub user: UserName,
    /// The same, with permissions; in his team `default`, or his first.
    pub caller: Arc<Caller>,
    /// Goes into the field `csrf` of every form.
    pub csrf: String,
    /// When he typed his password.
    pub signed_in_at: Timestamp,
    /// A fingerprint that is no secret: to bind what is begun in this browser.
    pub id: String,
}

/// The stored record.
#[derive(Serialize, Deserialize)]
struct StoredSession {
    user: UserName,
    epoch: String,
    signed_in_at: Timestamp,
    seen_at: Timestamp,
}

/// A browser on its way to a sign-in, kept sealed in its own cookie: nothing is
/// stored for people who are not signed in, and where to return is no parameter.
#[derive(Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) id: String,
    pub(crate) until: Timestamp,
    pub(crate) stage: Stage,
    pub(crate) back: Option<String>,
}

/// How far the visit is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Asked for name and password.
    SignIn,
    /// Gave a password that works once: asked for a new one.
    NewPassword { user: UserName, epoch: String },
}

const VISIT_PLACE: &str = "sign-in visit 1";

impl BrowserSession {
    /// Whether a form's CSRF token is this session's. Constant time.
    #[must_use]
    pub fn csrf_matches(&self, sent: &str) -> bool {
        self.csrf.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

impl Identity {
    fn cookie_names(&self) -> (&'static str, &'static str) {
        if self.0.settings.public_url.is_https() {
            ("__Host-countersign", "__Host-countersign-visit")
        } else {
            ("countersign", "countersign-visit")
        }
    }

    fn set_cookie(&self, name: &str, value: &str, lifetime: Duration) -> HeaderValue {
        let secure = if self.0.settings.public_url.is_https() {
            "; Secure"
        } else {
            ""
        };
        let age = lifetime.as_secs();
        HeaderValue::from_str(&format!(
            "{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"
        ))
        .unwrap_or(HeaderValue::from_static(""))
    }

    /// The session of the request's cookie.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn session(&self, headers: &HeaderMap) -> Result<Option<BrowserSession>, StoreError> {
        let (name, _) = self.cookie_names();
        let Some(cookie) = cookie(headers, name).filter(|c| c.starts_with(SESSION)) else {
            return Ok(None);
        };
        let fingerprint = self.fingerprint(cookie);
        let key = record_key(Kind::Session, &fingerprint);
        let records = &*self.0.world.records;
        let Some((mut stored, revision)) = load::<StoredSession>(records, &key).await? else {
            return Ok(None);
        };
        let now = self.now();
        if self.session_end(&stored) <= now {
            return Ok(None);
        }
        let Some(user) = self.live_user(&stored.user, &stored.epoch).await? else {
            return Ok(None);
        };
        if now.since(stored.seen_at) >= SEEN_STEP {
            stored.seen_at = now;
            let end = self.session_end(&stored);
            // A conflict means that another request of this session just did it, or that it ended.
            match records
                .write(vec![put_until(
                    key,
                    Expect::At(revision),
                    &stored,
                    Some(end),
                )?])
                .await
            {
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(other) => return Err(other),
            }
        }
        let client = ClientId::parse("browser").map_err(|e| StoreError::Damaged(e.to_string()))?;
        let caller = self.caller(&user, None, client, "Browser".into()).await?;
        Ok(caller.map(|caller| BrowserSession {
            user: user.name,
            caller: Arc::new(caller),
            csrf: self.csrf_of("session", cookie),
            signed_in_at: stored.signed_in_at,
            id: hex(&fingerprint),
        }))
    }

    fn session_end(&self, stored: &StoredSession) -> Timestamp {
        let settings = &self.0.settings;
        stored
            .seen_at
            .plus(settings.session_idle)
            .min(stored.signed_in_at.plus(settings.session_lifetime))
    }

    /// A new session for a user who just proved who he is: the write that
    /// stores it, and the cookie.
    pub(crate) fn new_session(&self, user: &User) -> Result<(Write, HeaderValue), StoreError> {
        let now = self.now();
        let token = self.new_token(SESSION);
        let stored = StoredSession {
            user: user.name.clone(),
            epoch: user.epoch.clone(),
            signed_in_at: now,
            seen_at: now,
        };
        let key = record_key(Kind::Session, &self.fingerprint(&token));
        let write = put_until(
            key,
            Expect::Absent,
            &stored,
            Some(self.session_end(&stored)),
        )?;
        let cookie = self.set_cookie(
            self.cookie_names().0,
            &token,
            self.0.settings.session_lifetime,
        );
        Ok((write, cookie))
    }

    /// Ends the session of the request's cookie; gives the cookie that clears it.
    pub(crate) async fn end_session(&self, headers: &HeaderMap) -> Result<HeaderValue, StoreError> {
        let (name, _) = self.cookie_names();
        if let Some(cookie) = cookie(headers, name) {
            let key = record_key(Kind::Session, &self.fingerprint(cookie));
            self.0
                .world
                .records
                .write(vec![delete(key, Expect::Anything)])
                .await?;
        }
        Ok(self.set_cookie(name, "", Duration::ZERO))
    }

    /// The session, or the way to the sign-in page, which comes back to `uri`.
    ///
    /// # Errors
    /// The response to give instead.
    pub async fn require_session(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<BrowserSession, Response> {
        match self.session(headers).await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(self.to_sign_in(uri)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// A session whose user typed his password lately, or the way to do so, which
    /// comes back to `uri`: for what would be worth stealing a browser for.
    ///
    /// # Errors
    /// The response to give instead.
    pub async fn require_fresh_session(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<BrowserSession, Response> {
        let session = self.require_session(headers, uri).await?;
        if session.signed_in_at.plus(self.settings().fresh_sign_in) > self.now() {
            Ok(session)
        } else {
            Err(self.to_sign_in(uri))
        }
    }

    /// The way to the sign-in page, which comes back to `uri`; also for somebody
    /// whose sign-in is not fresh enough.
    #[must_use]
    pub fn to_sign_in(&self, uri: &Uri) -> Response {
        let back = uri.path_and_query().map_or("/", |p| p.as_str());
        let ours = back.starts_with('/') && !back.starts_with("//") && !back.contains('\\');
        if back.len() > LONGEST_RETURN {
            return countersign_pages::message(
                StatusCode::URI_TOO_LONG,
                "The request is too long",
                "Its address is too long to come back to after signing in. Sign in first, then try again.",
            );
        }
        let visit = self.new_visit(ours.then(|| back.to_owned()));
        let mut response = Redirect::to("/login").into_response();
        if let Some(cookie) = self.visit_cookie(&visit) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }

    pub(crate) fn new_visit(&self, back: Option<String>) -> Visit {
        let id = random_token::<16>(&*self.0.world.random);
        Visit {
            id,
            until: self.now().plus(VISIT),
            stage: Stage::SignIn,
            back,
        }
    }

    /// The visit of the request's cookie, if it is ours and not over.
    pub(crate) fn visit(&self, headers: &HeaderMap) -> Option<Visit> {
        let sealed = cookie(headers, self.cookie_names().1)?;
        let visit: Visit = self.unseal(VISIT_PLACE, sealed).ok()?;
        (visit.until > self.now()).then_some(visit)
    }

    pub(crate) fn visit_cookie(&self, visit: &Visit) -> Option<HeaderValue> {
        let sealed = self.seal(VISIT_PLACE, visit)?;
        Some(self.set_cookie(self.cookie_names().1, &sealed, VISIT))
    }

    pub(crate) fn no_visit_cookie(&self) -> HeaderValue {
        self.set_cookie(self.cookie_names().1, "", Duration::ZERO)
    }

    pub(crate) fn visit_csrf(&self, visit: &Visit) -> String {
        self.csrf_of("visit", &visit.id)
    }

    /// Whether a posted form comes from a page of ours and of this session.
    ///
    /// # Errors
    /// The response to give instead.
    #[expect(
        clippy::result_large_err,
        reason = "the error is the answer itself, as in axum's extractors"
    )]
    pub fn check_form(
        &self,
        session: &BrowserSession,
        headers: &HeaderMap,
        csrf: &str,
    ) -> Result<(), Response> {
        if self.is_same_origin(headers) && session.csrf_matches(csrf) {
            Ok(())
        } else {
            Err(self.foreign_form())
        }
    }

    #[expect(
        clippy::result_large_err,
        reason = "the error is the answer itself, as in axum's extractors"
    )]
    pub(crate) fn check_visit_form(
        &self,
        visit: &Visit,
        headers: &HeaderMap,
        csrf: &str,
    ) -> Result<(), Response> {
        let matches: bool = self
            .visit_csrf(visit)
            .as_bytes()
            .ct_eq(csrf.as_bytes())
            .into();
        if self.is_same_origin(headers) && matches {
            Ok(())
        } else {
            Err(self.foreign_form())
        }
    }

    /// What the browser says about where a POST comes from. Programs say
    /// nothing; for them the CSRF token alone decides.
    pub(crate) fn is_same_origin(&self, headers: &HeaderMap) -> bool {
        if let Some(origin) = headers.get(ORIGIN) {
            return origin.as_bytes() == self.issuer().as_bytes();
        }
        match headers.get("sec-fetch-site") {
            Some(site) => site == "same-origin" || site == "none",
            None => true,
        }
    }

    pub(crate) fn foreign_form(&self) -> Response {
        let text = format!(
            "The form does not belong to this sign-in, or was open too long. Nothing was done. \
             Open {} again and retry there.",
            self.issuer()
        );
        countersign_pages::message(StatusCode::FORBIDDEN, "That form can't be used", &text)
    }
}

pub(crate) fn unavailable(error: &StoreError) -> Response {
    tracing::error!(%error, "identity can't reach the store");
    countersign_pages::message(
        StatusCode::SERVICE_UNAVAILABLE,
        "Not right now",
        "Countersign can't reach its store. Try again in a moment; if it stays so, tell the operator.",
    )
}

/// The value of the one cookie of this name; none if there are several, since
/// then somebody else set one of them.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(n, _)| *n == name).map(|(_, v)| v);
    let value = values.next()?;
    values
        .next()
        .is_none()
        .then_some(value)
        .filter(|v| !v.is_empty())
}

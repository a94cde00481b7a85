//! `/login` and `/logout`.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::UserName;
use countersign_core::ports::StoreError;
use countersign_pages::parts::{Field, Look, Tone, actions, button, card, field, form, notice};
use countersign_pages::{Page, Viewer};
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use maud::html;

use super::ClientAddress;
use crate::accounts::{PasswordState, User};
use crate::params::Params;
use crate::password::Password;
use crate::service::Identity;
use crate::session::{Stage, Visit, unavailable};
use crate::throttle::neighbourhood;

/// Where a sign-in leads when nothing else was asked for.
const HOME: &str = "/connections";

pub(super) async fn show(State(identity): State<Identity>, headers: HeaderMap) -> Response {
    let visit = identity.visit(&headers);
    // Who was sent here to sign in again does so, even if he is signed in.
    if visit.as_ref().is_none_or(|visit| visit.back.is_none()) {
        match identity.session(&headers).await {
            Ok(Some(_)) => return Redirect::to(HOME).into_response(),
            Ok(None) => {}
            Err(error) => return unavailable(&error),
        }
    }
    let visit = visit.map_or_else(
        || identity.new_visit(None),
        |visit| Visit {
            stage: Stage::SignIn,
            ..visit
        },
    );
    page(&identity, &visit, StatusCode::OK, None, "")
}

fn page(
    identity: &Identity,
    visit: &Visit,
    status: StatusCode,
    problem: Option<&str>,
    username: &str,
) -> Response {
    let fields = html! {
        @if let Some(text) = problem { (notice(Tone::Bad, text)) }
        (field(&Field::text("Username", "username").value(username).autocomplete("username")))
        (field(&Field::password("Password", "password")))
        (actions(button(Look::Primary, "Sign in")))
    };
    let body = card("", form("/login", &identity.visit_csrf(visit), fields));
    let page = lead_on(Page::new("Sign in").narrow().status(status).body(body));
    let mut response = page.into_response();
    if let Some(cookie) = identity.visit_cookie(visit) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// The redirects that may follow a sign-in: to an agent whose consent is
/// remembered (https), or that is told of an error. Browsers check them against
/// the policy of the page whose form was sent.
pub(super) fn lead_on(page: Page<'_>) -> Page<'_> {
    page.form_target("https:")
        .form_target("http://127.0.0.1:*")
        .form_target("http://localhost:*")
}

pub(super) async fn sign_in(
    State(identity): State<Identity>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(mut params) = Params::form(&headers, &body) else {
        return identity.foreign_form();
    };
    let Some(visit) = identity.visit(&headers) else {
        return identity.foreign_form();
    };
    let csrf = params.take("csrf").unwrap_or_default();
    if let Err(response) = identity.check_visit_form(&visit, &headers, &csrf) {
        return response;
    }
    let username = params.take("username").unwrap_or_default();
    let password = Password::new(params.take("password").unwrap_or_default());
    let again = |status, problem: &str| page(&identity, &visit, status, Some(problem), &username);
    match identity.check_password(&username, password, address).await {
        Ok(user) => match identity.admit(user, visit, address).await {
            Ok(response) => response,
            Err(error) => unavailable(&error),
        },
        Err(Refused::Wrong) => again(
            StatusCode::UNAUTHORIZED,
            "That username and password don't go together. Check both and try again.",
        ),
        Err(Refused::Wait(seconds)) => {
            let text = format!("Too many tries. Wait {seconds} seconds, then try again.");
            let mut response = again(StatusCode::TOO_MANY_REQUESTS, &text);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
        Err(Refused::Busy) => again(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many people sign in right now. Try again in a moment.",
        ),
        Err(Refused::Store(error)) => unavailable(&error),
    }
}

enum Refused {
    Wrong,
    Wait(u64),
    Busy,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Identity {
    /// Throttles, then verifies; the same work is done for unknown users.
    async fn check_password(
        &self,
        username: &str,
        password: Password,
        address: ClientAddress,
    ) -> Result<User, Refused> {
        let now = self.now();
        let place = neighbourhood(address.0);
        let name: String = username
            .chars()
            .take(128)
            .collect::<String>()
            .to_ascii_lowercase();
        // The address first: who may not try at all does not use up the tries
        // of the user whose name he gives.
        let (by_address, by_user) = (&self.0.by_address, &self.0.by_user);
        let refused = match by_address.begin(&place, now) {
            Err(wait) => Some((wait, by_address.is_first_refusal(&place))),
            Ok(()) => by_user
                .begin(&name, now)
                .err()
                .map(|wait| (wait, by_user.is_first_refusal(&name))),
        };
        if let Some((wait, is_news)) = refused {
            if is_news {
                let event = self.failed(&name, address, "throttled");
                self.0.world.audit.enqueue(event);
            }
            return Err(Refused::Wait(wait.as_secs().max(1)));
        }
        let parsed = UserName::parse(username).ok();
        let user = match &parsed {
            Some(name) => self
                .load_user(name)
                .await?
                .map(|(user, _)| user)
                .filter(|u| u.enabled),
            None => None,
        };
        let hash = user.as_ref().and_then(|u| match &u.password {
            PasswordState::None => None,
            PasswordState::ChooseNew(hash) | PasswordState::Chosen(hash) => Some(hash),
        });
        let good = self
            .0
            .hasher
            .verify(password, hash)
            .await
            .map_err(|_| Refused::Busy)?;
        match user.filter(|_| good) {
            Some(user) => {
                self.0.by_user.forget(&name);
                self.0.by_address.take_back(&place, now);
                Ok(user)
            }
            None => {
                self.0.world.audit.enqueue(self.failed(
                    &name,
                    address,
                    "wrong user name or password",
                ));
                Err(Refused::Wrong)
            }
        }
    }

    fn failed(&self, name: &str, address: ClientAddress, why: &str) -> AuditEvent {
        // What was typed as a name may be a password: only a real name's form is kept.
        let shown = UserName::parse(name)
            .map_or_else(|_| "(not a user name)".to_owned(), |n| n.to_string());
        AuditEvent::new(self.now(), "sign_in", Outcome::Denied)
            .on(format!("user:{shown}"))
            .from_address(address.0)
            .detail(why)
    }

    /// Lets the user in, or to the page for a new password.
    async fn admit(
        &self,
        user: User,
        visit: Visit,
        address: ClientAddress,
    ) -> Result<Response, StoreError> {
        if matches!(user.password, PasswordState::ChooseNew(_)) {
            let stage = Stage::NewPassword {
                user: user.name,
                epoch: user.epoch,
            };
            let fresh = self.new_visit(visit.back);
            let mut response = Redirect::to("/login/new-password").into_response();
            if let Some(cookie) = self.visit_cookie(&Visit { stage, ..fresh }) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            return Ok(response);
        }
        let (write, cookie) = self.new_session(&user)?;
        self.0.world.records.write(vec![write]).await?;
        self.signed_in(&user, visit, address, cookie).await
    }

    /// The way on after a sign-in that is already stored.
    pub(crate) async fn signed_in(
        &self,
        user: &User,
        visit: Visit,
        address: ClientAddress,
        cookie: HeaderValue,
    ) -> Result<Response, StoreError> {
        let event = AuditEvent::new(self.now(), "sign_in", Outcome::Allowed)
            .by(&user.name)
            .from_address(address.0);
        self.audit(event).await?;
        let mut response = Redirect::to(visit.back.as_deref().unwrap_or(HOME)).into_response();
        response.headers_mut().append(SET_COOKIE, cookie);
        response
            .headers_mut()
            .append(SET_COOKIE, self.no_visit_cookie());
        Ok(response)
    }
}

pub(super) async fn ask_sign_out(State(identity): State<Identity>, headers: HeaderMap) -> Response {
    let session = match identity.session(&headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return Redirect::to("/login").into_response(),
        Err(error) => return unavailable(&error),
    };
    let viewer = Viewer {
        name: session.user.as_str(),
        csrf: &session.csrf,
        admin: false,
    };
    let body = card(
        "",
        form(
            "/logout",
            &session.csrf,
            html! {
                p { "You are signed in as " strong { (session.user) } ". Your agents stay signed in; you can remove them on the Connections page." }
                (actions(button(Look::Primary, "Sign out")))
            },
        ),
    );
    Page::new("Sign out")
        .narrow()
        .viewer(viewer)
        .body(body)
        .into_response()
}

pub(super) async fn sign_out(
    State(identity): State<Identity>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let session = match identity.session(&headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return Redirect::to("/login").into_response(),
        Err(error) => return unavailable(&error),
    };
    let csrf = Params::form(&headers, &body)
        .ok()
        .and_then(|mut p| p.take("csrf"))
        .unwrap_or_default();
    if let Err(response) = identity.check_form(&session, &headers, &csrf) {
        return response;
    }
    let cookie = match identity.end_session(&headers).await {
        Ok(cookie) => cookie,
        Err(error) => return unavailable(&error),
    };
    identity
        .0
        .world
        .audit
        .enqueue(AuditEvent::new(identity.now(), "sign_out", Outcome::Allowed).by(&session.user));
    let mut response = Redirect::to("/login").into_response();
    response.headers_mut().append(SET_COOKIE, cookie);
    response
}

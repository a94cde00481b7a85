//! `/login/new-password`: after a password that works once.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::names::UserName;
use countersign_core::ports::{Expect, Revision, StoreError, put};
use countersign_pages::Page;
use countersign_pages::parts::{Field, Look, Tone, actions, button, card, field, form, notice};
use http::{HeaderMap, StatusCode};
use maud::html;

use super::ClientAddress;
use super::login::lead_on;
use crate::accounts::{PasswordState, User, user_key};
use crate::params::Params;
use crate::password::{Password, PasswordHash};
use crate::service::Identity;
use crate::session::{Stage, Visit, unavailable};

pub(super) async fn show(State(identity): State<Identity>, headers: HeaderMap) -> Response {
    match identity.visit(&headers) {
        Some(
            visit @ Visit {
                stage: Stage::NewPassword { .. },
                ..
            },
        ) => page(&identity, &visit, StatusCode::OK, None),
        _ => Redirect::to("/login").into_response(),
    }
}

fn page(identity: &Identity, visit: &Visit, status: StatusCode, problem: Option<&str>) -> Response {
    let new = Field::password("New password", "new_password").autocomplete("new-password");
    let again =
        Field::password("New password again", "new_password_again").autocomplete("new-password");
    let fields = html! {
        @if let Some(text) = problem { (notice(Tone::Bad, text)) }
        p.soft { "The password you were given works once. Choose your own now." }
        (field(&new.hint("At least 8 characters. A few words that only you put together are best.")))
        (field(&again))
        (actions(button(Look::Primary, "Save and sign in")))
    };
    let body = card(
        "",
        form("/login/new-password", &identity.visit_csrf(visit), fields),
    );
    lead_on(
        Page::new("Choose a new password")
            .narrow()
            .status(status)
            .body(body),
    )
    .into_response()
}

pub(super) async fn choose(
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
    let Stage::NewPassword { user, epoch } = &visit.stage else {
        return identity.foreign_form();
    };
    let password = Password::new(params.take("new_password").unwrap_or_default());
    let repeated = Password::new(params.take("new_password_again").unwrap_or_default());
    let again = |problem: &str| page(&identity, &visit, StatusCode::BAD_REQUEST, Some(problem));
    if !password.same_as(&repeated) {
        return again("The two passwords differ. Type the same one twice.");
    }
    if let Err(weak) = password.check(user.as_str()) {
        return again(&format!("Not this one: {weak}."));
    }
    let (current, old, revision) = match identity.choosing(user, epoch).await {
        Ok(Some(found)) => found,
        Ok(None) => return identity.foreign_form(),
        Err(error) => return unavailable(&error),
    };
    let hasher = &identity.0.hasher;
    let busy = || again("Too many people sign in right now. Try again in a moment.");
    match hasher.verify(password.copy(), Some(&old)).await {
        Ok(false) => {}
        Ok(true) => return again("That is the password you were given. Choose another."),
        Err(_) => return busy(),
    }
    let Ok(hash) = hasher.hash(password, &*identity.0.world.random).await else {
        return busy();
    };
    match identity
        .store_choice(current, revision, hash, visit, address)
        .await
    {
        Ok(response) => response,
        Err(StoreError::Conflict) => identity.foreign_form(),
        Err(error) => unavailable(&error),
    }
}

impl Identity {
    /// The user, if his password still is the one that works once.
    async fn choosing(
        &self,
        name: &UserName,
        epoch: &str,
    ) -> Result<Option<(User, PasswordHash, Revision)>, StoreError> {
        let Some((user, revision)) = self.load_user(name).await? else {
            return Ok(None);
        };
        let PasswordState::ChooseNew(old) = user.password.clone() else {
            return Ok(None);
        };
        let same = user.enabled && user.epoch == epoch;
        Ok(same.then_some((user, old, revision)))
    }

    /// Password and session in one write: whoever loses a race gets neither.
    async fn store_choice(
        &self,
        mut user: User,
        revision: Revision,
        hash: PasswordHash,
        visit: Visit,
        address: ClientAddress,
    ) -> Result<Response, StoreError> {
        user.password = PasswordState::Chosen(hash);
        user.updated_at = self.now();
        let (session, cookie) = self.new_session(&user)?;
        let change = put(user_key(&user.name), Expect::At(revision), &user)?;
        self.0.world.records.write(vec![change, session]).await?;
        let event =
            AuditEvent::new(self.now(), "user.choose_password", Outcome::Allowed).by(&user.name);
        self.audit(event.on(format!("user:{}", user.name))).await?;
        self.signed_in(&user, visit, address, cookie).await
    }
}

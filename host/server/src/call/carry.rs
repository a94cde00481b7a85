//! How a [`CallError`] reaches the client: CONTRACT's carriers.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::connection::{Connection, ReauthReason, Status};
use countersign_core::decide::Attachment;
use countersign_core::error::{CallError, ErrorFacts};
use countersign_core::names::ProviderName;
use countersign_core::ports::StoreError;
use countersign_core::scope::ScopeSet;
use countersign_mcp::answer::synthetic::Unconnected;
use countersign_mcp::answer::{Carrier, Client, Elicitation, Trouble};
use countersign_mcp::body::AnswerBody;
use countersign_mcp::envelope::Request;
use countersign_mcp::revision::Era;
use countersign_mcp::session::declares_url_elicitation;
use countersign_oauth::links::{LINK_LIFETIME, LinkError, LinkRequest};
use http::{Response, StatusCode};
use url::Url;

use crate::call::answer::{new_session, seal};
use crate::call::{Exchange, connection_key, held, look_up, own_key};
use crate::http::connections::resource_of;
use crate::mode_changes::change_of;
use crate::user_keys::takes_keys;
use crate::wiring::{App, store_error};

/// An error with all that is needed to say it.
pub(crate) struct Case {
    pub(crate) error: CallError,
    pub(crate) facts: ErrorFacts,
    pub(crate) attachment: Option<Arc<Attachment>>,
}

impl Case {
    /// Makes the link that the user has to open, if there is something for
    /// him to do.
    pub(crate) async fn new(app: &App, exchange: &Exchange, error: CallError) -> Self {
        let attachment = look_up(app, &exchange.server).ok();
        let mut error = match attachment.as_deref() {
            Some(attachment) => without_browser(exchange, attachment, error),
            None => error,
        };
        let mut url = None;
        match (&error, &attachment) {
            (CallError::ApprovalRequired { page, .. }, _) => {
                url = page.as_ref().map(|id| app.approvals.address(id));
            }
            (_, Some(attachment)) if error.wants_user() && !has_no_page(&error) => {
                match link(app, exchange, attachment, &error).await {
                    Ok(link) => url = link,
                    Err(failed) => error = store_error(&failed),
                }
            }
            _ => {}
        }
        let provider = attachment
            .as_ref()
            .and_then(|a| a.provider())
            .map(|p| p.name.clone());
        let mut facts = error.facts(&exchange.server, provider.as_ref(), url, &exchange.id);
        if let (true, Some(attachment)) = (facts.scopes.is_empty(), &attachment)
            && error.wants_user()
            && !matches!(error, CallError::ApprovalRequired { .. })
        {
            let asked = asked_scopes(attachment, &error);
            facts.scopes = asked.iter().map(ToString::to_string).collect();
        }
        Self {
            error,
            facts,
            attachment,
        }
    }

    /// The same without a page: for waiting only.
    pub(crate) fn without_link(app: &App, exchange: &Exchange, error: CallError) -> Self {
        let attachment = look_up(app, &exchange.server).ok();
        let facts = error.facts(&exchange.server, None, None, &exchange.id);
        Self {
            error,
            facts,
            attachment,
        }
    }

    /// As the answer to this request.
    pub(crate) fn trouble<'a>(&'a self, exchange: &Exchange, id: &'a str) -> Trouble<'a> {
        Trouble {
            id,
            revision: exchange.revision,
            error: &self.error,
            facts: &self.facts,
        }
    }

    /// Whether this connection ends the user's errand: it is as the call needs
    /// it, or the user has decided against that.
    pub(crate) fn is_mended_by(
        &self,
        connection: &Connection,
        now: countersign_core::time::Timestamp,
    ) -> bool {
        let Some(attachment) = &self.attachment else {
            return false;
        };
        let mut needed = attachment.server().auth.required_scopes.clone();
        if let CallError::NeedsScopes { missing, .. } = &self.error {
            needed = needed.union(missing);
        }
        let was_refused = needed.iter().any(|s| connection.withheld.contains(s));
        let auth = &attachment.server().auth;
        match attachment.standing(connection, &needed, now).0 {
            Status::Connected => !auth.asks_again(connection.consented_at()),
            Status::NeedsScopes => was_refused,
            _ => false,
        }
    }
}

fn has_no_page(error: &CallError) -> bool {
    matches!(
        error,
        CallError::NeedsReauth {
            reason: ReauthReason::NoBrowserIdentity,
            ..
        }
    )
}

/// Somebody who cannot open a page here is told that instead.
fn without_browser(exchange: &Exchange, attachment: &Attachment, error: CallError) -> CallError {
    let approval = matches!(error, CallError::ApprovalRequired { .. });
    if exchange.caller.has_browser_identity || !error.wants_user() || approval {
        return error;
    }
    CallError::NeedsReauth {
        provider: attachment.counterpart_label(),
        reason: ReauthReason::NoBrowserIdentity,
    }
}

/// What the provider is going to be asked for.
fn asked_scopes(attachment: &Attachment, error: &CallError) -> ScopeSet {
    let required = &attachment.server().auth.required_scopes;
    let scopes = match attachment.provider() {
        Some(provider) => provider.scopes.union(required),
        None => required.clone(),
    };
    match error {
        CallError::NeedsScopes { missing, .. } => scopes.union(missing),
        _ => scopes,
    }
}

async fn link(
    app: &App,
    exchange: &Exchange,
    attachment: &Attachment,
    error: &CallError,
) -> Result<Option<String>, StoreError> {
    if takes_keys(attachment.server()) {
        return Ok(Some(crate::http::keys::page_of(app, attachment.server())));
    }
    if attachment.server().auth.is_obtained() {
        // Nothing can be connected; there may be something to know.
        let server = attachment.server();
        return Ok(change_of(server).map(|_| crate::http::changes::page_of(app, server)));
    }
    let Some(provider) = attachment.provider() else {
        return Ok(None);
    };
    let scopes = asked_scopes(attachment, error);
    let request = LinkRequest {
        user: exchange.caller.user.clone(),
        team: exchange.caller.team.clone(),
        provider: provider.name.clone(),
        resource: resource_of(attachment.server()),
        server: Some(exchange.server.clone()),
        client_name: Some(exchange.caller.client_name.clone()),
        scopes,
    };
    let errand = held::Errand {
        user: request.user.clone(),
        team: request.team.clone(),
        client: exchange.caller.client.clone(),
        server: exchange.server.clone(),
        scopes: request.scopes.join(" "),
    };
    if let Some(known) = app.held.link(&errand)
        && stands(app, &known, &request).await?
    {
        return Ok(Some(known.into()));
    }
    let url = app.oauth.make_link(request).await?;
    app.held.gave(errand, url.clone());
    Ok(Some(url.into()))
}

/// Whether a link that was given out before is unused, leads where a new one
/// would, and leaves its user time.
async fn stands(app: &App, link: &Url, request: &LinkRequest) -> Result<bool, StoreError> {
    let Some((_, id)) = link.query_pairs().find(|(name, _)| name == "link") else {
        return Ok(false);
    };
    match app.oauth.peek_link(&id, &request.user).await {
        Ok(link) => Ok(link.provider == request.provider
            && link.resource == request.resource
            && link.expires_at.since(app.world.clock.now()) > LINK_LIFETIME / 2),
        Err(LinkError::Store(error)) => Err(error),
        Err(LinkError::Unknown | LinkError::OtherUser) => Ok(false),
    }
}

/// The whole answer for a request that could not go through.
pub(crate) async fn answer(
    app: &Arc<App>,
    exchange: &Exchange,
    request: &Request<'_>,
    body: &Bytes,
    error: CallError,
    rounds: u8,
) -> Response<AnswerBody> {
    if let Some(response) = stand_in(app, exchange, request, &error) {
        return response;
    }
    let case = Case::new(app, exchange, error).await;
    let client = Client {
        revision: exchange.revision,
        url_elicitation: takes_urls(exchange, request),
        rounds,
    };
    let trouble = case.trouble(exchange, request.id.raw());
    match client.carrier(&case.error, case.facts.authorize_url.is_some(), request) {
        Carrier::InputRequired => {
            let now = app.world.clock.now();
            let random = &*app.world.random;
            let state = app
                .states
                .seal(request, rounds, &exchange.binding(), now, random);
            trouble.input_required(&state).map(AnswerBody::from)
        }
        Carrier::Held => held::hold(app, exchange, request, body, case),
        Carrier::UrlRequired => {
            let elicitation = Elicitation::new(&*app.world.random);
            let answer = trouble.url_required(&elicitation);
            held::tell_when_done(app, exchange, case, elicitation);
            json(answer)
        }
        Carrier::ToolResult | Carrier::RpcError => trouble.plain(request).map(AnswerBody::from),
    }
}

/// Whether the client opens URLs for its user.
pub(crate) fn takes_urls(exchange: &Exchange, request: &Request<'_>) -> bool {
    match (exchange.revision.era(), &exchange.session) {
        (Era::PerRequest, _) => declares_url_elicitation(request.params.meta.client_capabilities),
        (Era::Sessions, Some(session)) => session.capsule.url_elicitation(),
        (Era::Sessions, None) => false,
    }
}

/// What Countersign answers in the place of a server that cannot be asked
/// without a connection: enough for an agent to offer its user the way.
fn stand_in(
    app: &App,
    exchange: &Exchange,
    request: &Request<'_>,
    error: &CallError,
) -> Option<Response<AnswerBody>> {
    if !error.wants_user() || matches!(error, CallError::ApprovalRequired { .. }) {
        return None;
    }
    let attachment = look_up(app, &exchange.server).ok()?;
    let name = counterpart(&attachment)?;
    let unconnected = Unconnected {
        server: &exchange.server,
        display_name: &attachment.server().display_name,
        provider: &name,
        provider_display_name: &attachment.counterpart_label(),
    };
    let response = match &*request.method {
        "initialize" => {
            let session = new_session(app, request, exchange.revision);
            let mut response = unconnected.initialize(request, exchange.revision);
            let id = seal(app, exchange, &session);
            response
                .headers_mut()
                .insert(countersign_mcp::headers::SESSION_ID.clone(), id);
            response
        }
        "server/discover" => unconnected.discover(request),
        "tools/list" => unconnected.tools_list(request, exchange.revision),
        "ping" => countersign_mcp::refusal::json_response(
            StatusCode::OK,
            countersign_mcp::refusal::result_body(request.id.raw(), "{}"),
        ),
        _ => return None,
    };
    Some(response.map(AnswerBody::from))
}

/// Where an account is missing: the provider, else the server that takes a key
/// of each user's own.
fn counterpart(attachment: &Attachment) -> Option<ProviderName> {
    match attachment.provider() {
        Some(provider) => Some(provider.name.clone()),
        // Both are named by the same rule.
        None if takes_keys(attachment.server()) => {
            ProviderName::parse(attachment.server().name.as_str()).ok()
        }
        None => None,
    }
}

/// Whether it may be the stand-in's own tool that is called.
pub(crate) fn is_connect_tool(request: &Request<'_>) -> bool {
    let named = |name: &str| name.starts_with("connect_");
    request.method == "tools/call" && request.name().is_some_and(named)
}

/// The stand-in's own tool: `connect_{provider}`. None if it is not called.
/// Once the account is connected it says so, else it is a call that needs one.
pub(crate) async fn connect_tool(
    app: &App,
    exchange: &Exchange,
    request: &Request<'_>,
) -> Option<Result<Response<AnswerBody>, CallError>> {
    let name = request.name()?.strip_prefix("connect_")?;
    let attachment = look_up(app, &exchange.server).ok()?;
    let provider = counterpart(&attachment).filter(|p| p.as_str() == name)?;
    let keyed = takes_keys(attachment.server());
    let own_key = match own_key(app, &attachment, &exchange.caller).await {
        Ok(own) => own,
        Err(error) => return Some(Err(error)),
    };
    let connection = match connection_key(&attachment, &exchange.caller) {
        Some(key) => match app.oauth.load(&key).await {
            Ok(held) => held.map(|h| h.connection),
            Err(error) => return Some(Err(store_error(&error))),
        },
        None if keyed => None,
        None => return None,
    };
    let call = countersign_core::preset::Call {
        method: "tools/list",
        name: None,
        arguments: None,
        host: attachment.host(),
    };
    let admitted = match attachment.admit(&exchange.caller, call) {
        Ok(admitted) => admitted,
        Err(error) => return Some(Err(error)),
    };
    let ready = match keyed {
        true => admitted.keyed(own_key.as_ref().map(|found| &found.key)),
        false => admitted.connected(connection.as_deref(), app.world.clock.now()),
    };
    if let Err(error) = ready {
        return Some(Err(error));
    }
    let unconnected = Unconnected {
        server: &exchange.server,
        display_name: &attachment.server().display_name,
        provider: &provider,
        provider_display_name: &attachment.counterpart_label(),
    };
    Some(Ok(unconnected
        .connected(request, exchange.revision)
        .map(AnswerBody::from)))
}

pub(crate) fn json(body: Bytes) -> Response<AnswerBody> {
    countersign_mcp::refusal::json_response(StatusCode::OK, body).map(AnswerBody::from)
}

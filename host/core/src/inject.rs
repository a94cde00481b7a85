//! From a permit to a request that carries the credential.
//!
//! [`Plan::new`] demands a [`Permit`]; [`Plan::fill`] is the only place where
//! a connection's access token is opened; [`Filled`] is consumed by whoever
//! sends. Nothing here has a `Debug` that could show a token.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use url::Url;

use crate::connection::Connection;
use crate::decide::{Attachment, Permit};
use crate::hosts::HostPattern;
use crate::names::ConnectionId;
use crate::preset::{PresetFault, Rule, Slot};
use crate::secret::{Sealed, Secret};
use crate::signing::sigv4::{AwsKeys, OWN_HEADERS, Target};
use crate::signing::{Recipe, SignError, Unsigned};
use crate::template::{
    Encoding, Piece, Rendered, Slots, TemplateError, Variables, fill_rendered, render, render_text,
    slot_name,
};
use crate::time::Timestamp;
use crate::tokens::TokenSet;

/// Headers that no rule may set: those of the connection, of MCP, of the
/// browser, and those that say who is calling.
#[must_use]
pub fn is_forbidden_header(name: &str) -> bool {
    const NAMES: [&str; 24] = [
        "accept",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "last-event-id",
        "origin",
        "referer",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-real-ip",
        "x-http-method-override",
        "traceparent",
        "tracestate",
    ];
    const PREFIXES: [&str; 4] = ["mcp-", "proxy-", "sec-", "x-forwarded-"];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Whether the value can stand in a header: visible ASCII, space and tab, no
/// line break, at most 8 KiB.
pub(crate) fn is_header_text(text: &[u8]) -> bool {
    text.len() <= 8192 && text.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

/// Why a request could not be planned or filled. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The preset asked for something that is not allowed.
    #[error("{0}")]
    Preset(PresetFault),
    /// The destination is outside the approved audience.
    #[error(
        "the server's address {0} is not in the provider's audience hosts; an administrator can add it with `provider update --audience-hosts`"
    )]
    OffAudience(String),
    /// The connection's secrets cannot be opened.
    #[error("the stored credential cannot be opened; the account must be connected again")]
    Unreadable,
    /// A slot has nothing to fill it.
    #[error("the credential {0} is not stored")]
    Missing(&'static str),
    /// The credential is not what AWS signatures are made with.
    #[error(
        "the stored credential is not an AWS key: set it to what `aws configure export-credentials` prints, or to ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]"
    )]
    NotAwsKeys,
}

/// Rules whose names are parsed and whose variables are filled in; the slots
/// are still open.
#[derive(Default)]
pub(crate) struct Compiled {
    headers: Vec<(HeaderName, Rendered)>,
    query: Vec<(String, String)>,
    carries_secret: bool,
}

impl Compiled {
    /// Checks rules of a preset.
    ///
    /// # Errors
    /// [`InjectError::Preset`] names the rule.
    pub(crate) fn new(rules: &[Rule], variables: Variables<'_>) -> Result<Self, InjectError> {
        let mut this = Self::default();
        for rule in rules {
            match rule {
                Rule::SetHeader(header) => {
                    let planned = compile_header(&header.name, &header.value, variables)?;
                    this.carries_secret |= planned.1.slots().next().is_some();
                    this.headers.push(planned);
                }
                Rule::SetQuery(parameter) => {
                    let value = render_text(&parameter.value, variables)
                        .map_err(|e| bad(format!("query {:?}: {e}", parameter.name)))?;
                    if parameter.name.is_empty() || value.chars().any(char::is_control) {
                        return Err(bad(format!("query {:?} is not allowed", parameter.name)));
                    }
                    this.query.push((parameter.name.clone(), value));
                }
            }
        }
        Ok(this)
    }
}

/// A checked request for a credential, with its slots still open.
pub struct Plan {
    attachment: Arc<Attachment>,
    rules: Arc<Compiled>,
    credential: Option<String>,
    connection: Option<ConnectionId>,
    signing: Option<Signing>,
}

/// Who signs the request.
enum Signing {
    /// The preset's hook says how.
    Hook,
    /// The host, as AWS wants it.
    SigV4(Target),
}

/// A request as it was judged, before the credential is put into it.
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// All but the credential's.
    pub headers: HeaderMap,
    /// The judged body, byte for byte.
    pub body: Bytes,
}

/// The sealed secrets a plan may draw from.
#[derive(Default)]
pub struct Vaulted<'a> {
    /// The connection's tokens.
    pub tokens: Option<&'a Sealed>,
    /// A static key.
    pub api_key: Option<&'a Sealed>,
}

impl Plan {
    /// Checks what the permit allows against the approved audience and the
    /// rules for headers.
    ///
    /// # Errors
    /// [`InjectError`]; nothing may be sent.
    pub fn new(permit: Permit, connection: Option<&Connection>) -> Result<Self, InjectError> {
        let (attachment, grant) = permit.into_parts();
        let rules = grant.rules.compiled(&attachment, connection)?;
        let hook = attachment
            .preset()
            .is_some_and(|p| p.description().hooks.sign);
        let signing = match &grant.sigv4 {
            Some(sigv4) => {
                let values = attachment.variables_of(connection)?;
                let text = |template| {
                    render_text(template, values.variables())
                        .map_err(|e| bad(format!("sigv4: {e}")))
                };
                let (service, region) = (text(&sigv4.service)?, text(&sigv4.region)?);
                let target = Target::new(service, region).ok_or_else(|| {
                    bad("sigv4: service and region are lower-case names of AWS".into())
                })?;
                if rules.carries_secret {
                    return Err(bad(
                        "it would send the key that requests are signed with".into()
                    ));
                }
                Some(Signing::SigV4(target))
            }
            None => hook.then_some(Signing::Hook),
        };
        if rules.carries_secret || signing.is_some() {
            check_audience(&attachment, grant.hosts.as_deref(), connection)?;
        }
        Ok(Self {
            attachment,
            rules,
            credential: grant.credential,
            connection: connection.map(|c| c.id.clone()),
            signing,
        })
    }

    /// Puts the credential into the request and signs what comes out. Each
    /// attempt to send is filled anew, so that its signature is of its own time.
    ///
    /// The preset's hook `sign` is asked first, while every secret is still
    /// sealed; then the secrets are opened, filled in and dropped.
    ///
    /// # Errors
    /// [`InjectError`]; nothing may be sent.
    pub fn fill(
        &self,
        vaulted: &Vaulted<'_>,
        request: Request,
        now: Timestamp,
    ) -> Result<Filled, InjectError> {
        let Request {
            method,
            mut headers,
            body,
        } = request;
        let url = self.destination();
        for (name, rendered) in &self.rules.headers {
            if let Some(text) = public_text(rendered) {
                if text.is_empty() && matches!(self.signing, Some(Signing::Hook)) {
                    continue;
                }
                let value = HeaderValue::from_str(&text)
                    .map_err(|_| bad(format!("the header {name} cannot be written")))?;
                headers.insert(name.clone(), value);
            }
        }
        let recipe = match self.signing {
            Some(Signing::Hook) => {
                let shown = Unsigned::of(&method, &url, &headers, &body, now);
                Some(self.recipe(&shown)?)
            }
            _ => None,
        };
        let opened = if self.rules.carries_secret || self.signing.is_some() {
            Opened::new(vaulted)?
        } else {
            Opened::default()
        };
        let slots = Chosen {
            opened: &opened,
            credential: self.credential.as_deref(),
        };
        for (name, rendered) in &self.rules.headers {
            if rendered.slots().next().is_some() {
                headers.insert(name.clone(), fill_header(rendered, &slots)?);
            }
        }
        if let Some(recipe) = recipe {
            let signed = recipe.fill(slots.key()?, &slots).map_err(|e| match e {
                SignError::Recipe(why) => bad(why),
                SignError::Missing(what) => InjectError::Missing(what),
                SignError::Unusable => InjectError::Unreadable,
            })?;
            for (name, value) in signed {
                headers.insert(name, value);
            }
        }
        if let Some(Signing::SigV4(target)) = &self.signing {
            let keys = AwsKeys::read(slots.key()?).ok_or(InjectError::NotAwsKeys)?;
            for name in OWN_HEADERS {
                headers.remove(name);
            }
            target
                .sign(&keys, &method, &url, &mut headers, &body, now)
                .ok_or_else(|| bad("a header cannot be signed".into()))?;
        }
        let destination = match &url {
            Cow::Borrowed(_) => self.attachment.uri().clone(),
            Cow::Owned(url) => uri_of(url)
                .ok_or_else(|| bad("its query parameters make no valid address".into()))?,
        };
        Ok(Filled {
            method,
            destination,
            headers,
            body,
        })
    }

    /// The server's address with the rules' query.
    fn destination(&self) -> Cow<'_, Url> {
        let own = self.attachment.url();
        if self.rules.query.is_empty() {
            return Cow::Borrowed(own);
        }
        let mut destination = own.clone();
        destination.set_query(None);
        destination
            .query_pairs_mut()
            .extend_pairs(&self.rules.query);
        // A form's `+` is a space to some and a plus to others, and to
        // signatures it is a plus.
        let added = destination.query().unwrap_or_default().replace('+', "%20");
        let query = match own.query().unwrap_or_default() {
            "" => added,
            own => format!("{own}&{added}"),
        };
        destination.set_query(Some(&query));
        Cow::Owned(destination)
    }

    fn recipe(&self, request: &Unsigned) -> Result<Recipe, InjectError> {
        let preset = self.attachment.preset();
        preset
            .map(|p| p.sign(request))
            .transpose()
            .map_err(InjectError::Preset)?
            .flatten()
            .ok_or_else(|| bad("it names the hook sign and does not answer it".into()))
    }

    /// The connection it was planned for.
    #[must_use]
    pub fn connection(&self) -> Option<&ConnectionId> {
        self.connection.as_ref()
    }
}

#[derive(Default)]
struct Opened {
    tokens: Option<TokenSet>,
    api_key: Option<Secret>,
}

impl Opened {
    fn new(vaulted: &Vaulted<'_>) -> Result<Self, InjectError> {
        Ok(Self {
            tokens: vaulted
                .tokens
                .map(TokenSet::open)
                .transpose()
                .map_err(|_| InjectError::Unreadable)?,
            api_key: vaulted
                .api_key
                .map(Sealed::open)
                .transpose()
                .map_err(|_| InjectError::Unreadable)?,
        })
    }
}

/// An MCP server may get an access token or a key, and nothing else.
struct Chosen<'a> {
    opened: &'a Opened,
    credential: Option<&'a str>,
}

impl Chosen<'_> {
    /// What requests are signed with: the connection's token, or the server's
    /// key.
    fn key(&self) -> Result<&[u8], InjectError> {
        self.bytes(&Slot::AccessToken)
            .or_else(|| self.bytes(&Slot::ApiKey))
            .ok_or(InjectError::Missing("to sign with"))
    }
}

impl Slots for Chosen<'_> {
    fn bytes(&self, slot: &Slot) -> Option<&[u8]> {
        match slot {
            Slot::AccessToken => {
                let tokens = self.opened.tokens.as_ref()?.credential(self.credential)?;
                Some(tokens.access_token.expose())
            }
            Slot::ApiKey => self.opened.api_key.as_ref().map(Secret::expose),
            _ => None,
        }
    }
}

/// The URL as HTTP clients take it: without a fragment.
pub(crate) fn uri_of(url: &Url) -> Option<Uri> {
    let (url, _fragment) = url.as_str().split_once('#').unwrap_or((url.as_str(), ""));
    Uri::try_from(url).ok()
}

/// A request with its credential, ready to be sent, once, to one place.
pub struct Filled {
    method: Method,
    destination: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// A [`Filled`] taken apart, for the sender and for nobody else. What was
/// signed is all of it: nothing may be changed or added any more.
pub struct FilledParts {
    /// The HTTP method.
    pub method: Method,
    /// The only address it may go to.
    pub uri: Uri,
    /// With the credential.
    pub headers: HeaderMap,
    /// The judged body.
    pub body: Bytes,
}

impl Filled {
    /// Takes it apart, to send it.
    #[must_use]
    pub fn into_parts(self) -> FilledParts {
        FilledParts {
            method: self.method,
            uri: self.destination,
            headers: self.headers,
            body: self.body,
        }
    }
}

/// The text of a template without slots.
fn public_text(rendered: &Rendered) -> Option<String> {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => Some(text.clone()),
        Piece::Slot(_) | Piece::Basic(_) => None,
    };
    rendered.0.iter().map(text).collect()
}

fn bad(what: String) -> InjectError {
    InjectError::Preset(PresetFault::BadOutput(what))
}

fn compile_header(
    name: &str,
    value: &[crate::preset::Part],
    variables: Variables<'_>,
) -> Result<(HeaderName, Rendered), InjectError> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| bad(format!("{name:?} is not a header name")))?;
    if is_forbidden_header(parsed.as_str()) {
        return Err(bad(format!("the header {parsed} may not be set")));
    }
    let rendered = render(value, variables).map_err(|e| bad(format!("header {parsed}: {e}")))?;
    for piece in &rendered.0 {
        if let Piece::Text(text) = piece
            && !is_header_text(text.as_bytes())
        {
            return Err(bad(format!(
                "the header {parsed} holds a character that is not allowed"
            )));
        }
    }
    if let Some(slot) = rendered
        .slots()
        .find(|s| !matches!(s, Slot::AccessToken | Slot::ApiKey))
    {
        let slot = slot_name(slot);
        return Err(bad(format!(
            "header {parsed}: the {slot} may not go to an MCP server"
        )));
    }
    Ok((parsed, rendered))
}

fn check_audience(
    attachment: &Attachment,
    hosts: Option<&[HostPattern]>,
    connection: Option<&Connection>,
) -> Result<(), InjectError> {
    let url = attachment.url();
    let covers = |list: &[HostPattern]| list.iter().any(|p| p.matches(url));
    let Some(audience) = attachment.audience() else {
        // A static key is bound to its server, not to a provider.
        return Ok(());
    };
    let sealed_in = connection.is_none_or(|c| covers(&c.origins.audience));
    if covers(audience) && hosts.is_none_or(covers) && sealed_in {
        Ok(())
    } else {
        Err(InjectError::OffAudience(
            url.host_str().unwrap_or_default().to_owned(),
        ))
    }
}

fn fill_header(rendered: &Rendered, slots: &dyn Slots) -> Result<HeaderValue, InjectError> {
    let filled = fill_rendered(rendered, slots, Encoding::Plain).map_err(|e| match e {
        TemplateError::NoSecret(what) => InjectError::Missing(what),
        other => bad(other.to_string()),
    })?;
    if !is_header_text(filled.expose()) {
        return Err(InjectError::Unreadable);
    }
    let mut value =
        HeaderValue::from_bytes(filled.expose()).map_err(|_| InjectError::Unreadable)?;
    value.set_sensitive(true);
    Ok(value)
}

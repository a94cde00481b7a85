//! Whether a call may go through. Pure: the only maker of a [`Permit`].
//!
//! Four steps, each demanding what the one before returned:
//! [`Attachment::admit`] (operator's rules and policies),
//! [`Admitted::connected`] (the user's connection), [`Ready::judge`] (the
//! preset's verdict and scopes), [`Judged::agreed`] (the user's word, where a
//! policy wants it).

use std::sync::Arc;

use http::Uri;
use url::Url;

use crate::approval::{ApprovalId, Asking, LONGEST_ARGUMENTS, Question, Word};
use crate::caller::Caller;
use crate::connection::{Connection, ReauthReason, Status};
use crate::error::CallError;
use crate::hosts::HostPattern;
use crate::inject::{Compiled, InjectError, uri_of};
use crate::needs::{Tools, implications_of, scopes};
use crate::origins::Course;
use crate::policy::arguments::Tree;
use crate::policy::{Asked, METHODS_THAT_WAIT, Reason, Rules as Policies, Ruling, Subject};
use crate::preset::{
    Call, Credential, Description, GrantFacts, Header, Part, Preset, PresetFault, Rule, SigV4,
    Slot, Verdict,
};
use crate::provider::Provider;
use crate::request::Asking as AskingProvider;
use crate::scope::{Implications, ScopeSet};
use crate::server::{AuthMode, Server, Target};
use crate::template::{Values, Variables, render_text};
use crate::time::Timestamp;
use crate::user_key::UserKey;

/// Why an attachment cannot be used, whoever calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The provider record is gone.
    #[error("the server's provider {0} does not exist")]
    NoProvider(String),
    /// No preset version is loaded for the provider.
    #[error("{0}")]
    NoPreset(String),
    /// A host template cannot be filled from the settings.
    #[error("the preset's host list cannot be resolved: {0}")]
    Hosts(String),
    /// The provider's settings do not fit the preset.
    #[error("the provider's settings do not fit its preset: {0}")]
    Settings(String),
    /// What a URL allows and HTTP does not.
    #[error(
        "the server's address is not one that HTTP can name; set another with `server update --endpoint`"
    )]
    Address,
    /// The server replaces a header that a signature is in.
    #[error(
        "the server has an injection of its own, but its preset signs requests and there is no token header to replace: remove auth.injection"
    )]
    Injection,
    /// Local servers are not proxied over HTTP.
    #[error("the server is a local command; only HTTP servers are served in this version")]
    NotHttp,
}

/// A server with its provider, the preset version and the policies in force,
/// and what follows from them: made once for each combination, shared by calls.
pub struct Attachment {
    server: Arc<Server>,
    policies: Policies,
    provider: Option<Arc<Provider>>,
    preset: Option<Arc<dyn Preset>>,
    url: Url,
    uri: Uri,
    host: String,
    audience: Option<Vec<HostPattern>>,
    variables: Values,
    implications: Implications,
    /// None if connections decide a part of it, or there is no provider.
    course: Option<Course>,
    tools: Tools,
    rules: Vec<DescribedCredential>,
}

struct DescribedCredential {
    name: String,
    /// None: every host of the audience. Empty: none at all.
    hosts: Option<Arc<[HostPattern]>>,
    rules: Arc<Rules>,
    sigv4: Option<SigV4>,
}

/// Rules of a permit. Those that no connection changes are compiled once.
pub(crate) struct Rules {
    rules: Vec<Rule>,
    compiled: Option<Arc<Compiled>>,
}

impl Rules {
    fn new(rules: Vec<Rule>, variables: Variables<'_>) -> Self {
        // What fails here fails again, with its reason, in the call.
        let compiled = Compiled::new(&rules, variables).ok().map(Arc::new);
        Self { rules, compiled }
    }

    /// The rules with the connection's variables filled in.
    pub(crate) fn compiled(
        &self,
        attachment: &Attachment,
        connection: Option<&Connection>,
    ) -> Result<Arc<Compiled>, InjectError> {
        if let Some(compiled) = &self.compiled {
            return Ok(Arc::clone(compiled));
        }
        let variables = attachment.variables_of(connection)?;
        Compiled::new(&self.rules, variables.variables()).map(Arc::new)
    }
}

impl Attachment {
    /// Resolves them against each other; of all the policies, those that can
    /// be about the server are kept.
    ///
    /// # Errors
    /// [`Unusable`] says what to mend.
    pub fn new(
        server: Arc<Server>,
        provider: Option<Arc<Provider>>,
        preset: Option<Arc<dyn Preset>>,
        policies: &Policies,
    ) -> Result<Self, Unusable> {
        let Target::Url(url) = &server.target else {
            return Err(Unusable::NotHttp);
        };
        let url = url.clone();
        let uri = uri_of(&url).ok_or(Unusable::Address)?;
        let mut this = Self {
            host: url.host_str().unwrap_or_default().to_owned(),
            url,
            uri,
            audience: None,
            variables: Values::default(),
            implications: Implications::default(),
            course: None,
            tools: Tools::default(),
            rules: Vec::new(),
            policies: policies.of_server(&server.name),
            server,
            provider: None,
            preset: None,
        };
        match this.server.auth.mode {
            AuthMode::None => {}
            AuthMode::Static if this.server.auth.provider.is_none() => {
                this.rules.push(this.static_key());
            }
            AuthMode::Static
            | AuthMode::ServiceAccount
            | AuthMode::UserDelegated
            | AuthMode::TokenExchange => {
                let name = this
                    .server
                    .auth
                    .provider
                    .as_ref()
                    .map_or("?", |p| p.as_str())
                    .to_owned();
                let provider = provider.ok_or(Unusable::NoProvider(name))?;
                let preset = preset.ok_or_else(|| {
                    Unusable::NoPreset(format!("the preset {} is not loaded", provider.preset))
                })?;
                if this.server.auth.injection.is_some() && preset.description().signs() {
                    return Err(Unusable::Injection);
                }
                this.variables = Values::resolve(preset.description(), &provider.settings, &[])
                    .map_err(|e| Unusable::Settings(e.to_string()))?;
                this.describe(preset.description(), &provider)?;
                this.course = Course::of_all(&provider, preset.description(), &this.variables);
                this.provider = Some(provider);
                this.preset = Some(preset);
            }
        }
        Ok(this)
    }

    fn static_key(&self) -> DescribedCredential {
        let (name, prefix) = match &self.server.auth.injection {
            Some(i) => (i.header_name.clone(), i.header_prefix.clone()),
            None => ("Authorization".to_owned(), "Bearer ".to_owned()),
        };
        let rule = Rule::SetHeader(Header {
            name,
            value: vec![Part::Literal(prefix), Part::Slot(Slot::ApiKey)],
        });
        DescribedCredential {
            name: "api-key".into(),
            hosts: None,
            rules: Arc::new(Rules::new(vec![rule], self.variables.variables())),
            sigv4: None,
        }
    }

    fn describe(&mut self, description: &Description, provider: &Provider) -> Result<(), Unusable> {
        self.implications = implications_of(description);
        self.tools = Tools::of(description);
        self.audience = Some(if provider.audience_hosts.is_empty() {
            self.patterns(&description.audience_hosts)?
        } else {
            provider.audience_hosts.clone()
        });
        for credential in &description.credentials {
            let described = DescribedCredential {
                name: credential.name.clone(),
                hosts: match credential.hosts.as_slice() {
                    [] => None,
                    // What cannot be resolved covers nothing.
                    hosts => Some(self.patterns(hosts)?.into()),
                },
                rules: Arc::new(Rules::new(
                    self.described_rules(credential, description),
                    self.variables.variables(),
                )),
                sigv4: credential.sigv4.clone(),
            };
            self.rules.push(described);
        }
        Ok(())
    }

    /// The credential's rules, with the server's injection in place of the one
    /// that carries the access token, and the constant headers.
    fn described_rules(&self, credential: &Credential, description: &Description) -> Vec<Rule> {
        let mut rules: Vec<Rule> = description
            .constant_headers
            .iter()
            .filter(|h| !crate::inject::is_forbidden_header(&h.name))
            .map(|h| Rule::SetHeader(h.clone()))
            .collect();
        rules.extend(self.with_injection(credential.rules.clone()));
        rules
    }

    fn with_injection(&self, rules: Vec<Rule>) -> Vec<Rule> {
        let Some(injection) = &self.server.auth.injection else {
            return rules;
        };
        let slot = match self.server.auth.mode {
            AuthMode::Static => Slot::ApiKey,
            _ => Slot::AccessToken,
        };
        let carries_token = |rule: &Rule| match rule {
            Rule::SetHeader(h) => h.value.contains(&Part::Slot(slot.clone())),
            Rule::SetQuery(_) => false,
        };
        let own = Rule::SetHeader(Header {
            name: injection.header_name.clone(),
            value: vec![
                Part::Literal(injection.header_prefix.clone()),
                Part::Slot(slot.clone()),
            ],
        });
        rules
            .into_iter()
            .filter(|r| !carries_token(r))
            .chain([own])
            .collect()
    }

    fn patterns(
        &self,
        templates: &[crate::preset::Template],
    ) -> Result<Vec<HostPattern>, Unusable> {
        let variables = self.variables.variables();
        templates
            .iter()
            // A host that only a connection knows is checked against the
            // connection's own origins.
            .filter_map(|t| render_text(t, variables).ok())
            .map(|text| HostPattern::parse(&text).map_err(|e| Unusable::Hosts(e.to_string())))
            .collect()
    }

    /// The server record.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The policies that can be about calls of this server.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The provider record, for the OAuth modes.
    #[must_use]
    pub fn provider(&self) -> Option<&Arc<Provider>> {
        self.provider.as_ref()
    }

    /// The preset version pinned with this attachment.
    #[must_use]
    pub fn preset(&self) -> Option<&Arc<dyn Preset>> {
        self.preset.as_ref()
    }

    /// Where calls go.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// [`Self::url`], as HTTP clients take it.
    #[must_use]
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The host calls go to, as presets see it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Hosts the provider's tokens may go to; none for servers without one.
    #[must_use]
    pub fn audience(&self) -> Option<&[HostPattern]> {
        self.audience.as_deref()
    }

    /// What includes what.
    #[must_use]
    pub fn implications(&self) -> &Implications {
        &self.implications
    }

    /// [`Connection::status`], and whether provider and server still are where
    /// the user consented to send tokens.
    #[must_use]
    pub fn standing(
        &self,
        connection: &Connection,
        required: &ScopeSet,
        now: Timestamp,
    ) -> (Status, Option<ReauthReason>) {
        match connection.status(now, required, &self.implications) {
            (Status::Connected | Status::NeedsScopes, _)
                if !self.leads_as_consented(connection) =>
            {
                (Status::NeedsReauth, Some(ReauthReason::ProviderChanged))
            }
            other => other,
        }
    }

    fn leads_as_consented(&self, connection: &Connection) -> bool {
        let Some(provider) = &self.provider else {
            return false;
        };
        let same_course = match (&self.course, &self.preset) {
            (Some(course), _) => course.is_that_of(connection),
            (None, Some(preset)) => self.variables_of(Some(connection)).is_ok_and(|values| {
                let asking = AskingProvider {
                    provider,
                    description: preset.description(),
                    values: &values,
                    client_secret: None,
                    client_key: None,
                };
                Course::of(&asking).is_that_of(connection)
            }),
            (None, None) => false,
        };
        same_course && self.server.is_consented(provider, connection)
    }

    pub(crate) fn variables_of(
        &self,
        connection: Option<&Connection>,
    ) -> Result<Values, InjectError> {
        match (&self.preset, &self.provider, connection) {
            (Some(preset), Some(provider), Some(connection)) => {
                Values::resolve(preset.description(), &provider.settings, &connection.facts)
                    .map_err(|e| InjectError::Preset(PresetFault::BadOutput(e.to_string())))
            }
            _ => Ok(self.variables.clone()),
        }
    }

    /// The provider's name for people.
    #[must_use]
    pub fn provider_label(&self) -> String {
        self.provider
            .as_ref()
            .map_or_else(String::new, |p| p.display_name.clone())
    }

    /// Where the user has an account, for people: the provider, else the server
    /// itself.
    #[must_use]
    pub fn counterpart_label(&self) -> String {
        match &self.provider {
            Some(provider) => provider.display_name.clone(),
            None => self.server.display_name.clone(),
        }
    }

    /// The scopes that the preset's table says a tool needs and `granted`
    /// lacks: of alternatives, one that was not refused.
    fn missing_for_tool(&self, tool: &str, connection: &Connection) -> ScopeSet {
        let granted = connection.scopes();
        self.tools
            .missing(tool, &granted, &connection.withheld, &self.implications)
    }

    /// The error for a connection that lacks these scopes: the user is asked
    /// for them, unless he was and they were not granted.
    #[must_use]
    pub fn short_of(&self, connection: Option<&Connection>, missing: ScopeSet) -> CallError {
        let provider = self.provider_label();
        let Some(connection) = connection else {
            return CallError::NeedsScopes { provider, missing };
        };
        let refused: ScopeSet = missing
            .iter()
            .filter(|s| connection.withheld.contains(s))
            .cloned()
            .collect();
        if refused.is_empty() {
            return CallError::NeedsScopes { provider, missing };
        }
        CallError::Denied {
            code: "scopes_not_granted".into(),
            message: format!(
                "{provider} was asked for {} and did not grant it, so it is not asked for again. To allow it \
                 after all, the user can press Reconnect for {provider} on the Connections page of Countersign. \
                 What {provider} granted: {}.",
                refused.join(", "),
                connection.scopes().join(", ")
            ),
        }
    }

    /// Step one: may this caller use this tool of this server at all?
    ///
    /// # Errors
    /// [`CallError::Denied`] with the rule's code, [`CallError::PolicyDenied`]
    /// with the policy.
    pub fn admit<'a>(
        self: &'a Arc<Self>,
        caller: &'a Caller,
        call: Call<'a>,
    ) -> Result<Admitted<'a>, CallError> {
        let denied = |code: &str, message: String| {
            Err(CallError::Denied {
                code: code.to_owned(),
                message,
            })
        };
        let name = &self.server.name;
        if !self.server.enabled {
            return denied(
                "server_disabled",
                format!("The server {name} is switched off. Ask an administrator to enable it."),
            );
        }
        if self.provider.as_ref().is_some_and(|p| !p.enabled) {
            return denied(
                "provider_disabled",
                format!(
                    "{} is switched off. Ask an administrator to enable the provider.",
                    self.provider_label()
                ),
            );
        }
        if !self.server.teams.is_empty() && !self.server.teams.contains(&caller.team) {
            return denied(
                "team_not_allowed",
                format!(
                    "The server {name} is not open to your team {}.",
                    caller.team
                ),
            );
        }
        if caller
            .servers
            .as_ref()
            .is_some_and(|s| !s.contains(name.as_str()))
        {
            return denied(
                "server_not_in_token",
                format!("Your token is not made out for the server {name}."),
            );
        }
        if call.method == "tools/call"
            && let Some(tool) = call.name
            && !self.server.tools.allows(tool)
        {
            return denied(
                "tool_not_allowed",
                format!(
                    "The tool {tool} is not allowed on {name}. Ask an administrator if you need it."
                ),
            );
        }
        let reasons = self.consult(caller, &call)?;
        Ok(Admitted {
            attachment: self,
            caller,
            call,
            reasons,
        })
    }

    /// What the policies say: nothing, no, or why to ask the user.
    fn consult(&self, caller: &Caller, call: &Call<'_>) -> Result<Vec<Reason>, CallError> {
        if self.policies.is_empty() {
            return Ok(Vec::new());
        }
        let asked = Asked {
            caller,
            server: &self.server.name,
            call,
        };
        match self.policies.look_at(&asked) {
            Ruling::Pass => Ok(Vec::new()),
            Ruling::Deny {
                policy,
                code,
                message,
            } => Err(CallError::PolicyDenied {
                policy: policy.clone(),
                code: code.to_owned(),
                message: message.to_owned(),
            }),
            Ruling::Ask(reasons) => Ok(reasons),
        }
    }

    /// What the user is asked for these reasons.
    fn question(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        reasons: Vec<Reason>,
    ) -> Result<Option<Box<Question>>, CallError> {
        let Some(policy) = reasons.first().map(|r| r.policy.clone()) else {
            return Ok(None);
        };
        let refuse = |code: &str, message: String| CallError::PolicyDenied {
            policy: policy.clone(),
            code: code.to_owned(),
            message,
        };
        if !METHODS_THAT_WAIT.contains(&call.method) {
            return Err(refuse(
                "approval_not_possible",
                format!(
                    "A policy wants the user's approval, and {} cannot wait for one.",
                    call.method
                ),
            ));
        }
        let arguments = match call.arguments {
            Some(text) if text.len() > LONGEST_ARGUMENTS => {
                return Err(refuse(
                    "approval_too_large",
                    format!(
                        "A policy wants the user's approval, and nobody can be asked about {} bytes of \
                         arguments; {LONGEST_ARGUMENTS} are the limit.",
                        text.len()
                    ),
                ));
            }
            Some(text) => Some(Tree::parse(text).ok_or_else(|| {
                refuse(
                    "approval_not_possible",
                    "A policy wants the user's approval, and the arguments cannot be shown to a person."
                        .into(),
                )
            })?),
            None => None,
        };
        Ok(Some(Box::new(Question::new(Asking {
            caller,
            server: &self.server,
            address: self.url.as_str(),
            method: call.method,
            name: call.name,
            arguments: arguments.as_ref(),
            policy,
            reasons,
        }))))
    }
}

/// The operator's rules let it through, and no policy refuses it.
pub struct Admitted<'a> {
    attachment: &'a Arc<Attachment>,
    caller: &'a Caller,
    call: Call<'a>,
    /// Why the user has to be asked; empty in most calls.
    reasons: Vec<Reason>,
}

impl<'a> Admitted<'a> {
    /// Step two: does the connection stand? Of servers whose credential
    /// Countersign obtains by itself: is there one, and does it reach?
    ///
    /// # Errors
    /// What the user has to do, or an administrator.
    pub fn connected<'c>(
        self,
        connection: Option<&'c Connection>,
        now: Timestamp,
    ) -> Result<Ready<'a, 'c>, CallError> {
        match self.attachment.server.auth.mode {
            AuthMode::Static if self.attachment.server.auth.per_user => self.keyed(None),
            AuthMode::None | AuthMode::Static => Ok(Ready {
                admitted: self,
                connection: None,
            }),
            AuthMode::UserDelegated => self.consented(connection, now),
            AuthMode::ServiceAccount | AuthMode::TokenExchange => self.obtained(connection),
        }
    }

    /// Step two for a server that takes a key of each user's own: is there one,
    /// for where the server is now?
    ///
    /// # Errors
    /// What the user has to do.
    pub fn keyed(self, key: Option<&UserKey>) -> Result<Ready<'a, 'static>, CallError> {
        let server = &self.attachment.server;
        let provider = self.attachment.counterpart_label();
        match key {
            _ if !server.auth.per_user => self.connected(None, Timestamp::from_secs(0)),
            None => Err(CallError::NeedsConnection { provider }),
            Some(key) if key.user != self.caller.user || key.team != self.caller.team => {
                Err(CallError::NeedsConnection { provider })
            }
            Some(key) if !key.is_for(server) => Err(CallError::NeedsReauth {
                provider,
                reason: ReauthReason::ProviderChanged,
            }),
            Some(_) => Ok(Ready {
                admitted: self,
                connection: None,
            }),
        }
    }

    fn obtained<'c>(self, connection: Option<&'c Connection>) -> Result<Ready<'a, 'c>, CallError> {
        let attachment = self.attachment;
        let refused = |detail: &str| {
            Err(CallError::ProviderRefused {
                provider: attachment.provider_label(),
                detail: detail.to_owned(),
            })
        };
        let Some(connection) = connection else {
            return refused("no token was obtained");
        };
        if !self.same_origins(connection) {
            return refused("the token is not for this server");
        }
        let required = &attachment.server.auth.required_scopes;
        let missing = attachment
            .implications
            .missing(&connection.scopes(), required);
        if !missing.is_empty() {
            return Err(attachment.out_of_reach(&missing));
        }
        Ok(Ready {
            admitted: self,
            connection: Some(connection),
        })
    }

    /// Whether a token that was obtained for this server still is.
    fn same_origins(&self, connection: &Connection) -> bool {
        let url = &self.attachment.url;
        let provider = self.attachment.provider.as_ref();
        provider.is_some_and(|p| p.client_id == connection.client_id)
            && connection.origins.audience.iter().any(|p| p.matches(url))
    }

    fn consented<'c>(
        self,
        connection: Option<&'c Connection>,
        now: Timestamp,
    ) -> Result<Ready<'a, 'c>, CallError> {
        let provider = self.attachment.provider_label();
        let Some(connection) = connection else {
            return Err(CallError::NeedsConnection { provider });
        };
        let required = &self.attachment.server.auth.required_scopes;
        match self.attachment.standing(connection, required, now) {
            (Status::NotConnected, _) => Err(CallError::NeedsConnection { provider }),
            (Status::NeedsReauth | Status::Suspended, reason) => Err(CallError::NeedsReauth {
                provider,
                reason: reason.unwrap_or(ReauthReason::Expired),
            }),
            (Status::NeedsScopes, _) => {
                let missing = self
                    .attachment
                    .implications
                    .missing(&connection.scopes(), required);
                Err(self.attachment.short_of(Some(connection), missing))
            }
            (Status::Connected, _)
                if self
                    .attachment
                    .server
                    .auth
                    .asks_again(connection.consented_at()) =>
            {
                Err(CallError::NeedsReauth {
                    provider,
                    reason: ReauthReason::ProviderChanged,
                })
            }
            (Status::Connected, _) => Ok(Ready {
                admitted: self,
                connection: Some(connection),
            }),
        }
    }
}

/// The connection stands; the preset may be asked.
pub struct Ready<'a, 'c> {
    admitted: Admitted<'a>,
    connection: Option<&'c Connection>,
}

impl Ready<'_, '_> {
    /// Step three: asks the preset, in a fresh sandbox, and joins its verdict
    /// with the scopes that its tool table demands.
    ///
    /// # Errors
    /// [`CallError::Preset`], [`CallError::Denied`] or
    /// [`CallError::NeedsScopes`].
    pub fn judge(self) -> Result<Judged, CallError> {
        let attachment = Arc::clone(self.admitted.attachment);
        let more = self.ask_policies(&attachment)?;
        let permit = self.ask_preset(&attachment).map_err(|e| match e {
            // Nobody but an administrator can give these more.
            CallError::NeedsScopes { missing, .. } if attachment.server.auth.is_obtained() => {
                attachment.out_of_reach(&missing)
            }
            other => other,
        })?;
        let Admitted {
            caller,
            call,
            mut reasons,
            ..
        } = self.admitted;
        reasons.extend(more);
        let question = attachment.question(caller, &call, reasons)?;
        Ok(Judged { permit, question })
    }

    fn grant_facts<'s>(&'s self, granted: &'s ScopeSet) -> GrantFacts<'s> {
        GrantFacts {
            scopes: granted,
            account: self
                .connection
                .and_then(|c| c.account.as_ref())
                .map(|a| a.id.as_str()),
            facts: self.connection.map_or(&[], |c| c.facts.as_slice()),
        }
    }

    /// Asks the policies that are components.
    fn ask_policies(&self, attachment: &Attachment) -> Result<Vec<Reason>, CallError> {
        if attachment.policies.is_empty() {
            return Ok(Vec::new());
        }
        let granted = self.connection.map(Connection::scopes).unwrap_or_default();
        let subject = Subject {
            asked: Asked {
                caller: self.admitted.caller,
                server: &attachment.server.name,
                call: &self.admitted.call,
            },
            grant: self.grant_facts(&granted),
        };
        Ok(attachment.policies.ask_components(&subject)?)
    }

    fn ask_preset(&self, attachment: &Arc<Attachment>) -> Result<Permit, CallError> {
        let attachment = Arc::clone(attachment);
        let Some(preset) = attachment.preset.clone() else {
            return permit_described(attachment, None, "server");
        };
        let granted = self.connection.map(Connection::scopes).unwrap_or_default();
        if let (Some(tool), Some(connection)) = (self.admitted.call.name, self.connection)
            && self.admitted.call.method == "tools/call"
        {
            let missing = attachment.missing_for_tool(tool, connection);
            if !missing.is_empty() {
                return Err(attachment.short_of(Some(connection), missing));
            }
        }
        let verdict = preset
            .evaluate(&self.admitted.call, &self.grant_facts(&granted))
            .map_err(CallError::Preset)?;
        join(attachment, verdict, self.connection, &granted)
    }
}

/// Turns a preset's verdict into a permit. It can only narrow.
fn join(
    attachment: Arc<Attachment>,
    verdict: Verdict,
    connection: Option<&Connection>,
    granted: &ScopeSet,
) -> Result<Permit, CallError> {
    match verdict {
        Verdict::Deny { code, message } => Err(CallError::Denied { code, message }),
        Verdict::NeedScopes(names) if attachment.server.auth.mode == AuthMode::Static => {
            Err(CallError::Denied {
                code: "scopes_missing".into(),
                message: format!(
                    "The key of the server {} does not reach that far: {} is needed. Ask an administrator.",
                    attachment.server.name,
                    names.join(", ")
                ),
            })
        }
        Verdict::NeedScopes(names) => {
            let wanted = scopes(&names);
            let missing = attachment.implications.missing(granted, &wanted);
            let missing = if missing.is_empty() { wanted } else { missing };
            if missing.is_empty() {
                return Err(CallError::Preset(PresetFault::BadOutput(
                    "it asked for scopes and named none".into(),
                )));
            }
            Err(attachment.short_of(connection, missing))
        }
        Verdict::Allow { credential, rules } if rules.is_empty() => {
            permit_described(attachment, credential, "preset")
        }
        Verdict::Allow { credential, rules } => {
            let described = attachment.described(credential.as_deref())?;
            let (hosts, sigv4) = (described.hosts.clone(), described.sigv4.clone());
            let rules = Arc::new(Rules {
                rules: attachment.with_injection(rules),
                compiled: None,
            });
            let credential =
                credential.or_else(|| attachment.rules.first().map(|r| r.name.clone()));
            Ok(Permit {
                attachment,
                grant: Grant {
                    credential,
                    hosts,
                    rules,
                    sigv4,
                },
                decided_by: "preset",
            })
        }
    }
}

fn permit_described(
    attachment: Arc<Attachment>,
    credential: Option<String>,
    decided_by: &'static str,
) -> Result<Permit, CallError> {
    if attachment.rules.is_empty() && credential.is_none() {
        let grant = Grant {
            credential: None,
            hosts: None,
            rules: Arc::new(Rules::new(Vec::new(), attachment.variables.variables())),
            sigv4: None,
        };
        return Ok(Permit {
            attachment,
            grant,
            decided_by,
        });
    }
    let described = attachment.described(credential.as_deref())?;
    let grant = Grant {
        credential: Some(described.name.clone()),
        hosts: described.hosts.clone(),
        rules: Arc::clone(&described.rules),
        sigv4: described.sigv4.clone(),
    };
    Ok(Permit {
        attachment,
        grant,
        decided_by,
    })
}

impl Attachment {
    /// A call that needs more than the server's own credential reaches.
    #[must_use]
    pub fn out_of_reach(&self, missing: &ScopeSet) -> CallError {
        CallError::Denied {
            code: "scopes_missing".into(),
            message: format!(
                "The access that the server {} has at {} does not reach that far: {} is needed. Ask an \
                 administrator to add it to the server's scopes.",
                self.server.name,
                self.provider_label(),
                missing.join(", ")
            ),
        }
    }

    fn described(&self, credential: Option<&str>) -> Result<&DescribedCredential, CallError> {
        let found = match credential {
            Some(name) => self.rules.iter().find(|r| r.name == name),
            None => self.rules.first(),
        };
        found.ok_or_else(|| {
            CallError::Preset(PresetFault::BadOutput(format!(
                "it chose the credential {credential:?}, which it does not describe"
            )))
        })
    }
}

/// What a permit allows to be sent.
pub(crate) struct Grant {
    pub(crate) credential: Option<String>,
    pub(crate) hosts: Option<Arc<[HostPattern]>>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) sigv4: Option<SigV4>,
}

/// The preset lets it through too. Where a policy wants the user's word, that
/// is all that is missing.
pub struct Judged {
    permit: Permit,
    question: Option<Box<Question>>,
}

impl Judged {
    /// What the user has to be asked first.
    #[must_use]
    pub fn question(&self) -> Option<&Question> {
        self.question.as_deref()
    }

    /// Which rule let it through, for the audit log.
    #[must_use]
    pub fn decided_by(&self) -> &'static str {
        match self.question {
            Some(_) => "approval",
            None => self.permit.decided_by,
        }
    }

    /// The credential it will use, by name.
    #[must_use]
    pub fn credential(&self) -> Option<&str> {
        self.permit.grant.credential.as_deref()
    }

    /// Step four, and the last: with the user's word, if it needs one.
    ///
    /// # Errors
    /// [`CallError::ApprovalRequired`] without a word for this very question.
    pub fn agreed(self, word: Option<Word>) -> Result<Permit, CallError> {
        match &self.question {
            Some(question) if !word.is_some_and(|w| w.is_for(question)) => {
                Err(approval_required(question, None))
            }
            _ => Ok(self.permit),
        }
    }
}

/// The error for a question that waits for its user at this page.
#[must_use]
pub fn approval_required(question: &Question, page: Option<ApprovalId>) -> CallError {
    CallError::ApprovalRequired {
        policy: question.policy.clone(),
        message: question.message(),
        page,
    }
}

/// The call may go to this server with this credential. Only [`Judged::agreed`]
/// hands one out; [`crate::inject::Plan::new`] consumes it.
pub struct Permit {
    attachment: Arc<Attachment>,
    grant: Grant,
    decided_by: &'static str,
}

impl Permit {
    pub(crate) fn into_parts(self) -> (Arc<Attachment>, Grant) {
        (self.attachment, self.grant)
    }
}

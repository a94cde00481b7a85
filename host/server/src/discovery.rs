//! Providers and servers by their address alone: what is found out becomes a
//! record, and Countersign becomes a client of the authorization server.
//!
//! The order is always the same: permissions, the address, what is there, what
//! is registered already that serves as well, whether the record could be
//! written; only then is anything registered elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use countersign_core::caller::Caller;
use countersign_core::hosts::HostPattern;
use countersign_core::names::{ProviderName, SecretName};
use countersign_core::ports::World;
use countersign_core::provider::{ClientKind, Provider, Registration, TokenAuthMethod};
use countersign_core::registration::{ClientMetadata, Registered};
use countersign_core::server::{AuthMode, Server};
use countersign_core::time::Timestamp;
use countersign_oauth::Oauth;
use countersign_oauth::discovery::{
    ClientPlan, ClientWish, Discovered, Discovery, DiscoveryError, Found,
};
use countersign_oauth::http::Guard;
use url::Url;

use crate::registry::{GivenSecret, ProviderInput, Refusal, Registry, ServerInput};

mod clients;
mod matches;
mod proposal;
mod report;

pub use clients::{ClientState, Looked};
pub use report::Report;

use matches::Reusable;

/// Finds out, registers, and looks after what it registered.
pub struct Discoveries {
    registry: Arc<Registry>,
    oauth: Arc<Oauth>,
    guard: Guard,
    public_url: Url,
    world: World,
    /// When a provider's registration was last looked at.
    looked: Mutex<HashMap<ProviderName, Timestamp>>,
}

/// How far it goes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Also where something that is there already serves the purpose.
    pub force: bool,
    /// Only find out and say what would be created.
    pub dry_run: bool,
    /// The issuer, of several.
    pub issuer: Option<String>,
}

/// What came of it.
pub struct Made<T> {
    /// The record; none if nothing was to be created.
    pub record: Option<Arc<T>>,
    /// What was found out.
    pub report: Report,
}

impl Discoveries {
    /// Puts it together.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        oauth: Arc<Oauth>,
        guard: Guard,
        public_url: Url,
        world: World,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            registry,
            oauth,
            guard,
            public_url,
            world,
            looked: Mutex::default(),
        });
        this.oauth
            .keep_clients(Arc::new(clients::Keeper(Arc::downgrade(&this))));
        this
    }

    /// Registers a provider from an MCP server's or an issuer's address.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_provider(
        &self,
        caller: &Caller,
        mut input: ProviderInput,
        options: &Options,
    ) -> Result<Made<Provider>, Refusal> {
        const FIELD: &str = "discover";
        caller
            .permissions
            .demand("provider_create", Some(&input.name))?;
        let text = input.discover.take().unwrap_or_default();
        let typed = self.registry.addresses().check(FIELD, &text)?;
        let mut discovery = Discovery::new(&self.guard, typed.clone(), options.issuer.clone());
        let found = match discovery.either().await {
            Ok(found) => found,
            Err(error) => return Err(self.failed(FIELD, &error, &input.name)),
        };
        let Found::Protected(found) = found else {
            return Err(Refusal::Undiscovered {
                field: FIELD,
                problem: format!(
                    "{typed} wants no credentials: it listed its tools without any. Attach it with \
                     `countersign server create --name {} --endpoint {typed} --auth none`",
                    input.name
                ),
            });
        };
        if !options.force && !options.dry_run {
            let reusable = Reusable::find(&self.registry, &found, &typed);
            // A preset that was chosen is not offered again.
            if let Some(offer) = reusable.offer_provider(&input) {
                return Err(Refusal::Reusable(offer));
            }
        }
        let made = self
            .provider_of(caller, input, &found, &mut discovery, &typed, options)
            .await?;
        Ok(Made {
            report: self.report(discovery, Some((&found, &made.1)), &typed),
            record: made.0,
        })
    }

    /// Attaches a server by its address alone.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_server(
        &self,
        caller: &Caller,
        mut input: ServerInput,
        options: &Options,
    ) -> Result<Made<Server>, Refusal> {
        const FIELD: &str = "url";
        caller
            .permissions
            .demand("server_create", Some(&input.name))?;
        let text = input.url.clone().unwrap_or_default();
        let typed = self.registry.addresses().check(FIELD, &text)?;
        self.registry.name_is_free(&input.name)?;
        let mut discovery = Discovery::new(&self.guard, typed.clone(), options.issuer.clone());
        let found = match discovery.server().await {
            Ok(found) => found,
            Err(error) => return Err(self.failed(FIELD, &error, &input.name)),
        };
        let Found::Protected(found) = found else {
            input.auth.get_or_insert_default().mode = Some(AuthMode::None);
            let record = match options.dry_run {
                true => None,
                false => Some(self.registry.create_server(caller, input).await?),
            };
            return Ok(Made {
                record,
                report: self.report(discovery, None, &typed),
            });
        };
        let reusable = Reusable::find(&self.registry, &found, &typed);
        let may_attach = |p: &Arc<Provider>| {
            let permissions = &caller.permissions;
            permissions.allow("provider_attach", Some(p.name.as_str()))
        };
        let own = reusable
            .made_for(&found, &typed)
            .filter(|provider| !options.force && may_attach(provider));
        let mut new = None;
        let provider = match own {
            // Whoever made it for this very server has decided.
            Some(provider) => provider,
            None => {
                if !options.force
                    && !options.dry_run
                    && let Some(offer) = reusable.offer_server(&input.name, &found, &typed)
                {
                    return Err(Refusal::Reusable(offer));
                }
                let name = reusable.free_name(&input.name);
                caller.permissions.demand("provider_attach", Some(&name))?;
                let wish = ProviderInput {
                    name,
                    // What the challenge says is needed by this server alone.
                    scopes: (!found.challenged.is_empty()).then(Vec::new),
                    ..ProviderInput::default()
                };
                let made = self
                    .provider_of(caller, wish, &found, &mut discovery, &typed, options)
                    .await?;
                let plan = made.1;
                let Some(provider) = made.0 else {
                    return Ok(Made {
                        record: None,
                        report: self.report(discovery, Some((&found, &plan)), &typed),
                    });
                };
                new = Some(plan);
                provider
            }
        };
        let auth = input.auth.get_or_insert_default();
        if let Some(resource) = auth.resource.take() {
            input.resource.get_or_insert(resource);
        }
        auth.mode = Some(AuthMode::UserDelegated);
        auth.provider = Some(provider.name.to_string());
        let challenged = found.challenged.iter().map(ToString::to_string);
        auth.required_scopes
            .get_or_insert_with(|| challenged.collect());
        let record = match options.dry_run {
            true => None,
            false => match self.registry.create_server(caller, input).await {
                Ok(server) => Some(server),
                Err(refusal) => {
                    if new.is_some() {
                        self.undo(caller, &provider).await;
                    }
                    return Err(refusal);
                }
            },
        };
        let plan = new.unwrap_or_else(|| proposal::Proposal::reusing(&provider));
        Ok(Made {
            record,
            report: self.report(discovery, Some((&found, &plan)), &typed),
        })
    }

    /// The provider for what was found, and what it was made of. None in a dry
    /// run.
    async fn provider_of(
        &self,
        caller: &Caller,
        input: ProviderInput,
        found: &Discovered,
        discovery: &mut Discovery<'_>,
        typed: &Url,
        options: &Options,
    ) -> Result<(Option<Arc<Provider>>, proposal::Proposal), Refusal> {
        let wish = ClientWish {
            public_url: &self.public_url,
            is_given: !input.client_id.is_empty(),
        };
        let plan = ClientPlan::choose(&found.server, &wish);
        let mut proposal = proposal::Proposal::new(input, found, typed, plan);
        if options.dry_run {
            return Ok((None, proposal));
        }
        let name =
            ProviderName::parse(&proposal.input.name).map_err(|e| Refusal::name("name", &e))?;
        let now = self.world.clock.now();
        let mut registration = Registration {
            issuer: found.server.issuer.clone(),
            discovered_from: typed.clone(),
            client: ClientKind::Manual,
            endpoint: None,
            configuration: None,
            access_token_ref: None,
            client_secret_expires_at: None,
            registered_at: now,
        };
        match &proposal.plan {
            ClientPlan::Given => {}
            ClientPlan::Document(document) => {
                registration.client = ClientKind::MetadataDocument;
                proposal.input.client_id = document.to_string();
                proposal.input.token_endpoint_auth_method = Some(TokenAuthMethod::None);
            }
            ClientPlan::ByHand(why) => {
                return Err(Refusal::invalid(
                    "client_id",
                    format!(
                        "is required: {} cannot be registered with ({why}). Register Countersign there by hand, \
                         with the redirect URI {}, and repeat this with --client-id (and --client-secret-ref)",
                        found.server.issuer,
                        self.callback(&name),
                    ),
                ));
            }
            ClientPlan::Register { endpoint, method } => {
                proposal.refuse_given_secrets()?;
                // Whatever else is wrong with the record is said before.
                let mut unmade = self
                    .registry
                    .would_create_provider(caller, proposal.rehearsal())?;
                let metadata = self.metadata(&name, &found.server.grant_types(), *method);
                let registered = discovery
                    .register(endpoint, &metadata)
                    .await
                    .map_err(|e| self.failed("discover", &e, name.as_str()))?;
                registration.endpoint = Some(endpoint.clone());
                registration.client = ClientKind::Dynamic;
                let given =
                    self.take(&name, registered, *method, &mut registration, &mut proposal)?;
                let secret = proposal.input.client_secret_ref.as_deref();
                unmade.client_secret_ref = secret.and_then(|s| SecretName::parse(s).ok());
                unmade.client_id.clone_from(&proposal.input.client_id);
                unmade.registration = Some(registration.clone());
                self.registry.keep_given(given).await?;
                let made = self
                    .registry
                    .create_provider_with(caller, proposal.input.clone(), Some(registration))
                    .await;
                if made.is_err() {
                    // Nobody uses it: the client goes, and what was kept for it.
                    self.ended(&Arc::new(unmade)).await;
                }
                return Ok((Some(made?), proposal));
            }
        }
        let made = self
            .registry
            .create_provider_with(caller, proposal.input.clone(), Some(registration))
            .await?;
        Ok((Some(made), proposal))
    }

    /// Puts what was given out where it belongs; the secrets are still to be
    /// kept.
    fn take(
        &self,
        name: &ProviderName,
        registered: Registered,
        method: TokenAuthMethod,
        registration: &mut Registration,
        proposal: &mut proposal::Proposal,
    ) -> Result<Vec<GivenSecret>, Refusal> {
        let mut given = Vec::new();
        let method = registered.token_endpoint_auth_method.unwrap_or(method);
        proposal.input.client_id = registered.client_id;
        proposal.input.token_endpoint_auth_method = Some(method);
        if let (Some(value), true) = (registered.client_secret, method != TokenAuthMethod::None) {
            let secret = self.registry.free_secret_name(name, "CLIENT_SECRET")?;
            proposal.input.client_secret_ref = Some(secret.to_string());
            given.push(GivenSecret {
                name: secret,
                value,
                hosts: proposal.secret_hosts(),
            });
        }
        registration.client_secret_expires_at = registered.client_secret_expires_at;
        if let (Some(value), Some(configuration)) =
            (registered.access_token, registered.configuration)
        {
            let secret = self.registry.free_secret_name(name, "REGISTRATION_TOKEN")?;
            registration.access_token_ref = Some(secret.clone());
            given.push(GivenSecret {
                name: secret,
                value,
                hosts: host_of(&configuration).into_iter().collect(),
            });
            registration.configuration = Some(configuration);
        }
        Ok(given)
    }

    /// What Countersign says of itself when it registers for a provider.
    fn metadata(
        &self,
        provider: &ProviderName,
        grants: &[countersign_core::provider::GrantType],
        method: TokenAuthMethod,
    ) -> ClientMetadata {
        let host = self.public_url.host_str().unwrap_or_default();
        ClientMetadata {
            client_name: format!("Countersign at {host}"),
            client_uri: self.public_url.clone(),
            redirect_uris: vec![self.callback(provider)],
            grant_types: grants.to_vec(),
            token_endpoint_auth_method: method,
        }
    }

    fn callback(&self, provider: &ProviderName) -> String {
        self.oauth.callback_url(Some(provider.as_str()))
    }

    fn report(
        &self,
        discovery: Discovery<'_>,
        found: Option<(&Discovered, &proposal::Proposal)>,
        typed: &Url,
    ) -> Report {
        let callback = found.and_then(|(_, proposal)| {
            let name = ProviderName::parse(&proposal.input.name).ok()?;
            Some(self.callback(&name))
        });
        Report::new(discovery.into_steps(), found, typed, callback)
    }

    /// What could not be found out, and what an administrator can do himself.
    fn failed(&self, field: &'static str, error: &DiscoveryError, name: &str) -> Refusal {
        let mut problem = error.to_string();
        if let (
            DiscoveryError::NoMetadata { .. }
            | DiscoveryError::NoIssuer { .. }
            | DiscoveryError::BadDocument { .. },
            Ok(name),
        ) = (error, ProviderName::parse(name))
        {
            let callback = self.callback(&name);
            problem.push_str(&format!(". The redirect URI to register is {callback}"));
        }
        Refusal::Undiscovered { field, problem }
    }

    /// Takes a provider back that was made for a server that could not be.
    async fn undo(&self, caller: &Caller, provider: &Arc<Provider>) {
        let name = provider.name.as_str();
        match self.registry.delete_provider(caller, name, false).await {
            Ok(()) => self.ended(provider).await,
            Err(error) => tracing::warn!(%name, %error, "a provider that nobody needs was left"),
        }
    }
}

/// The host that an address is at, and its port if it is not the scheme's own.
fn host_of(url: &Url) -> Option<HostPattern> {
    let host = url.host_str()?;
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HostPattern::parse(&text).ok()
}

//! A host with a vendor beside it.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Person;
use crate::host::{Host, HostOptions};
use crate::mcp::{Agent, Era};
use crate::sides::{Provider, Upstream};

/// The name of provider and server in every test: what is behind `/mcp/notes`.
pub const NOTES: &str = "notes";

/// What is different in this test.
#[derive(Clone, Default)]
pub struct Setup<'a> {
    /// Flags of the authorization server.
    pub provider: &'a [&'a str],
    /// Flags of the MCP server; `open` for one without protection.
    pub upstream: &'a [&'a str],
    /// The MCP server wants each request signed so (see `Upstream::signed`).
    pub signatures: Option<Value>,
    /// The MCP server is `examples/notes`.
    pub example: bool,
    /// Merged into the provider's record.
    pub provider_record: Value,
    /// Merged into the server's record.
    pub server_record: Value,
    /// The host itself.
    pub host: HostOptions,
}

/// A host, and a vendor whose MCP server is attached as [`NOTES`].
pub struct World {
    /// Countersign.
    pub host: Host,
    /// The vendor's authorization server.
    pub provider: Provider,
    /// The vendor's MCP server.
    pub upstream: Upstream,
}

impl World {
    /// With everything as usual.
    ///
    /// # Errors
    /// With what did not start.
    pub async fn start() -> Result<Self> {
        Self::with(Setup::default()).await
    }

    /// With something different.
    ///
    /// # Errors
    /// With what did not start.
    pub async fn with(setup: Setup<'_>) -> Result<Self> {
        let host = Host::start(&setup.host).await?;
        Self::around(host, setup).await
    }

    /// Around a host that runs already.
    ///
    /// # Errors
    /// With what did not start.
    pub async fn around(host: Host, setup: Setup<'_>) -> Result<Self> {
        let callback = host.at(&format!("/oauth/callback/{NOTES}"));
        let provider = Provider::start(&[callback], setup.provider).await?;
        let upstream = if setup.example {
            Upstream::example(&provider).await?
        } else {
            Upstream::signed(&provider, setup.upstream, setup.signatures.as_ref()).await?
        };
        let world = Self {
            host,
            provider,
            upstream,
        };
        world.register(&setup).await?;
        Ok(world)
    }

    /// The secret, the provider and the server, by REST.
    async fn register(&self, setup: &Setup<'_>) -> Result<()> {
        let secret = json!({ "value": self.provider.0.fact("client_secret") });
        self.host
            .must(Method::PUT, "/secrets/NOTES_SECRET", Some(secret))
            .await?;
        for preset in &setup.host.presets {
            let path = format!("/presets/{preset}");
            let enabled = json!({ "enabled": true });
            self.host.must(Method::PATCH, &path, Some(enabled)).await?;
        }
        let mut provider = self.provider_record();
        merge(&mut provider, &setup.provider_record);
        self.host
            .must(Method::POST, "/providers", Some(provider))
            .await?;
        let mut server = self.server_record();
        merge(&mut server, &setup.server_record);
        self.host
            .must(Method::POST, "/servers", Some(server))
            .await?;
        Ok(())
    }

    /// The provider as it is usually registered.
    pub fn provider_record(&self) -> Value {
        let fact = |name: &str| self.provider.0.fact(name);
        json!({
            "name": NOTES,
            "display_name": "Notes",
            "preset": "generic",
            "authorization_endpoint": fact("authorization_endpoint"),
            "token_endpoint": fact("token_endpoint"),
            "revocation_endpoint": fact("revocation_endpoint"),
            "client_id": fact("client_id"),
            "client_secret_ref": "NOTES_SECRET",
            "token_endpoint_auth_method": "client_secret_basic",
            "scopes": ["notes:read", "notes:write"],
            "audience_hosts": ["127.0.0.1"],
            "resource": self.upstream.url(),
        })
    }

    /// The server as it is usually registered.
    pub fn server_record(&self) -> Value {
        json!({
            "name": NOTES,
            "display_name": "Notes",
            "url": self.upstream.url(),
            "auth": {
                "mode": "user-delegated",
                "provider": NOTES,
                "required_scopes": ["notes:read"],
            },
        })
    }

    /// Where a person connects without having been sent.
    pub fn connect_page(&self) -> String {
        self.host.at(&format!("/connect/{NOTES}"))
    }

    /// A new user with an agent that has no account connected yet.
    ///
    /// # Errors
    /// If any page is not as it should be.
    pub async fn person(&self, name: &str, era: Era) -> Result<(Person, Agent)> {
        let mut person = self.host.person(name).await?;
        let agent = Agent::sign_in(&self.host, &mut person, "/mcp/notes", era).await?;
        Ok((person, agent))
    }

    /// A new user with an account connected, and an agent that can call.
    ///
    /// # Errors
    /// If any page is not as it should be.
    pub async fn connected(&self, name: &str, era: Era) -> Result<(Person, Agent)> {
        let (mut person, agent) = self.person(name, era).await?;
        person.connect(&self.connect_page()).await?;
        Ok((person, agent.ready().await?))
    }

    /// A person's connection at the provider, as REST shows it to them.
    ///
    /// # Errors
    /// If the list is refused.
    pub async fn connection(&self, person: &Person) -> Result<Value> {
        let url = self.host.at("/api/v1/connections");
        let cookies = person.browser.cookie_header(&url::Url::parse(&url)?);
        let web = crate::web::Web::new()?;
        let request = web.request(Method::GET, &url).header("cookie", cookies);
        let answer = crate::web::Web::send(request).await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
        Ok(answer.json()["items"][0].clone())
    }
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        return;
    };
    for (name, value) in patch {
        if value.is_object() && into[name].is_object() {
            merge(&mut into[name], value);
        } else {
            into[name] = value.clone();
        }
    }
}

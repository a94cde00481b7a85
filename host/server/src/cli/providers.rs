//! `provider …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::discovery::{Discover, Registration, created};
use super::output::Printer;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Register a provider; with --discover from an address alone
    Create(Box<Create>),
    /// List providers
    List(Filter),
    /// Show a provider, with the callback URL to register there
    Get(Named),
    /// Change a provider; an empty text ("") goes back to the default
    Update(Box<Write>),
    /// Delete a provider
    Delete(Delete),
    /// Show whether the provider still knows a client that registered itself
    Registration(Registration),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    write: Write,
    /// An MCP server's or an issuer's address: what is not given is found out
    /// there, and Countersign registers itself as a client
    #[arg(long, value_name = "URL")]
    discover: Option<String>,
    #[command(flatten)]
    how: Discover,
}

/// A name, as an argument or as `--name`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Named {
    /// Its name
    #[arg(value_name = "NAME")]
    positional: Option<String>,
    /// Its name, as an option
    #[arg(long = "name", value_name = "NAME")]
    flag: Option<String>,
}

impl Named {
    pub(super) fn get(&self) -> &str {
        self.positional
            .as_deref()
            .or(self.flag.as_deref())
            .unwrap_or_default()
    }
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// For example: enabled = true AND name : "git"
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// For example: updated_at desc
    #[arg(long, value_name = "FIELDS")]
    order_by: Option<String>,
}

impl Filter {
    pub(super) fn query(self) -> Vec<(&'static str, String)> {
        let parts = [("filter", self.filter), ("order_by", self.order_by)];
        parts
            .into_iter()
            .filter_map(|(name, value)| value.map(|v| (name, v)))
            .collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) name: Named,
    /// Delete although something depends on it
    #[arg(long)]
    pub(super) force: bool,
}

impl Delete {
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        if self.force {
            vec![("force", "true".into())]
        } else {
            Vec::new()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Write {
    #[command(flatten)]
    name: Named,
    /// For people
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// The preset that knows the provider; `generic` for any OAuth 2 provider
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,
    /// Authorization endpoint, instead of the preset's
    #[arg(long, value_name = "URL")]
    auth_endpoint: Option<String>,
    /// Token endpoint, instead of the preset's
    #[arg(long, value_name = "URL")]
    token_endpoint: Option<String>,
    /// Revocation endpoint (RFC 7009), instead of the preset's way
    #[arg(long, value_name = "URL")]
    revocation_endpoint: Option<String>,
    /// Device authorization endpoint (RFC 8628)
    #[arg(long, value_name = "URL")]
    device_endpoint: Option<String>,
    /// The client id that the provider's console shows
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Name of the secret with the client secret (`secret set NAME`)
    #[arg(long, value_name = "NAME")]
    client_secret_ref: Option<String>,
    /// Name of the secret with the private key of private_key_jwt
    #[arg(long, value_name = "NAME")]
    private_key_ref: Option<String>,
    /// By which the provider knows that key (the kid of what it signs)
    #[arg(long, value_name = "ID")]
    private_key_id: Option<String>,
    /// What it signs with [default: what its kind of key does; RS256 for RSA]
    #[arg(long, value_name = "ALG", value_parser = ["RS256", "PS256", "ES256", "ES384", "EdDSA"])]
    token_auth_signing_alg: Option<String>,
    /// Scopes that connections ask for at least
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Option<Vec<String>>,
    /// What the provider is used with [default: authorization_code,refresh_token]
    #[arg(long, value_name = "GRANTS", value_delimiter = ',')]
    grant_types: Option<Vec<String>>,
    /// How the client proves who it is to the token endpoint
    #[arg(long, value_name = "METHOD", value_parser = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"])]
    token_auth_method: Option<String>,
    /// Refuse to go on without PKCE
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pkce: Option<bool>,
    /// Hosts tokens may go to, instead of the preset's
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    audience_hosts: Option<Vec<String>>,
    /// RFC 8707 resource parameter
    #[arg(long, value_name = "URI")]
    resource: Option<String>,
    /// A vendor's audience parameter
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,
    /// The preset's settings, a JSON object
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
    /// Longest time for a request to the provider [default: 30s]
    #[arg(long, value_name = "TIME")]
    request_timeout: Option<String>,
    /// How often a request that may be repeated is [default: 3]
    #[arg(long, value_name = "N")]
    max_retries: Option<u8>,
    /// Swap by itself to a preset version that asks for no more
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    auto_update: Option<bool>,
    /// A disabled provider starts no consent and sends nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    enabled: Option<bool>,
}

/// Puts a text into the body; an empty one takes the value away.
pub(super) fn put_text(body: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value {
        let value = if value.is_empty() {
            Value::Null
        } else {
            Value::String(value)
        };
        body.insert(name.to_owned(), value);
    }
}

/// Puts a list into the body; empty entries (of `--scopes ""`) are dropped.
pub(super) fn put_list(body: &mut Map<String, Value>, name: &str, value: Option<Vec<String>>) {
    if let Some(value) = value {
        let value = value
            .into_iter()
            .map(|v| v.trim().to_owned())
            .filter(|v| !v.is_empty());
        body.insert(name.to_owned(), value.collect());
    }
}

impl Write {
    fn body(self) -> Result<Map<String, Value>, CliError> {
        let mut body = Map::new();
        put_text(&mut body, "display_name", self.display_name);
        put_text(&mut body, "preset", self.preset);
        put_text(&mut body, "authorization_endpoint", self.auth_endpoint);
        put_text(&mut body, "token_endpoint", self.token_endpoint);
        put_text(&mut body, "revocation_endpoint", self.revocation_endpoint);
        put_text(
            &mut body,
            "device_authorization_endpoint",
            self.device_endpoint,
        );
        put_text(&mut body, "client_id", self.client_id);
        put_text(&mut body, "client_secret_ref", self.client_secret_ref);
        put_text(&mut body, "private_key_ref", self.private_key_ref);
        put_text(&mut body, "private_key_id", self.private_key_id);
        put_text(
            &mut body,
            "token_endpoint_auth_signing_alg",
            self.token_auth_signing_alg,
        );
        put_text(
            &mut body,
            "token_endpoint_auth_method",
            self.token_auth_method,
        );
        put_text(&mut body, "resource", self.resource);
        put_text(&mut body, "audience", self.audience);
        put_text(&mut body, "request_timeout", self.request_timeout);
        put_list(&mut body, "scopes", self.scopes);
        put_list(&mut body, "grant_types", self.grant_types);
        put_list(&mut body, "audience_hosts", self.audience_hosts);
        let switches = [
            ("require_pkce", self.pkce),
            ("auto_update", self.auto_update),
            ("enabled", self.enabled),
        ];
        for (name, value) in switches {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.into());
            }
        }
        if let Some(retries) = self.max_retries {
            body.insert("max_retries".to_owned(), retries.into());
        }
        if let Some(settings) = self.settings {
            let settings = crate::registry::strict_json(settings.as_bytes())
                .map_err(|e| CliError(format!("--settings: {e}")))?;
            body.insert("settings".to_owned(), Value::Object(settings));
        }
        Ok(body)
    }
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Create(create) => {
                let name = create.write.name.get().to_owned();
                let mut body = create.write.body()?;
                body.insert("name".to_owned(), name.into());
                put_text(&mut body, "discover", create.discover);
                let query = create.how.query();
                let made = client.post_with(&["providers"], &query, body).await?;
                advise(&made);
                created(printer, &made)
            }
            Self::Registration(registration) => registration.run(client, printer).await,
            Self::Update(write) => {
                let name = write.name.get().to_owned();
                let body = write.body()?;
                if body.is_empty() {
                    return Err(CliError(
                        "nothing to change; see `countersign provider update --help`".into(),
                    ));
                }
                let changed = client.patch(&["providers", &name], body).await?;
                advise(&changed);
                printer.fields(&changed)
            }
            Self::Get(name) => printer.fields(&client.get(&["providers", name.get()]).await?),
            Self::List(filter) => {
                let list = client.list(&["providers"], &filter.query()).await?;
                let columns = [
                    ("NAME", "name"),
                    ("TITLE", "display_name"),
                    ("PRESET", "preset"),
                    ("ENABLED", "enabled"),
                    ("CONNECTIONS", "connections"),
                    ("SCOPES", "scopes"),
                ];
                printer.list(
                    &list,
                    &columns,
                    "No providers yet. Register one with `countersign provider create`.",
                )
            }
            Self::Delete(delete) => {
                let name = delete.name.get();
                let deleted = client.delete(&["providers", name], &delete.query()).await?;
                printer.value(&deleted, || in_words(name, &deleted))
            }
        }
    }
}

/// What went with a provider.
fn in_words(name: &str, deleted: &Value) -> String {
    let count = |field: &str| deleted.get(field).and_then(Value::as_u64).unwrap_or(0);
    let mut words = format!("Provider {name} deleted.");
    let servers: Vec<&str> = deleted
        .get("servers_without_provider")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !servers.is_empty() {
        words.push_str(&format!(
            "\nThese servers fail until they get another provider: {}.",
            servers.join(", ")
        ));
    }
    let erased = count("connections_erased");
    if erased > 0 {
        words.push_str(&format!(
            "\n{erased} connections erased; the provider confirmed the revocation of {}.",
            count("connections_revoked")
        ));
    }
    words
}

/// What is left to do, beside the result: on standard error.
fn advise(provider: &Value) {
    let field = |name: &str| {
        provider
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if provider.get("approval_pending") == Some(&Value::Bool(true)) {
        eprintln!(
            "Its preset waits for an approval: countersign preset approve {} --provider {}",
            field("preset"),
            field("name")
        );
    }
}

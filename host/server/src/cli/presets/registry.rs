//! What `publish` and `pull` have in common: where, and who asks.

use std::path::Path;

use clap::Args;
use countersign_oci::{Credentials, Options, Reference, Registry};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use crate::cli::CliError;
use crate::cli::input;

/// The annotation of an artifact's manifest that holds the signature file.
pub(super) const SIGNATURE: &str = "countersign.preset.signature";

/// From this size on, in bytes, it is shown how far a component is.
const BIG: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// Ask the registry by plain http; only one on this machine
    #[arg(long)]
    plain_http: bool,
    /// A user of the registry, with --password-stdin [default: what `docker login` kept]
    #[arg(long, value_name = "USER", requires = "password_stdin")]
    user: Option<String>,
    /// Read that user's password from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Read a token that the registry takes from standard input
    #[arg(long, conflicts_with = "user")]
    token_stdin: bool,
}

impl RegistryArgs {
    pub(super) fn open(&self, reference: Reference) -> Result<Registry, CliError> {
        let credentials = self.credentials(reference.registry())?;
        let options = Options {
            plain_http: self.plain_http,
        };
        Registry::new(reference, credentials, options).map_err(CliError::new)
    }

    fn credentials(&self, registry: &str) -> Result<Credentials, CliError> {
        if let Some(user) = &self.user {
            return Ok(Credentials::Basic {
                user: user.clone(),
                password: input::secret("password", None)?,
            });
        }
        if self.token_stdin {
            return Ok(Credentials::Bearer(input::secret("token", None)?));
        }
        match docker_credential::get_credential(registry) {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Credentials::Basic {
                user,
                password: Zeroizing::new(password),
            }),
            Ok(DockerCredential::IdentityToken(token)) => {
                Ok(Credentials::Identity(Zeroizing::new(token)))
            }
            // Nobody signed in there: many registries answer everybody.
            Err(
                CredentialRetrievalError::ConfigNotFound
                | CredentialRetrievalError::ConfigReadError
                | CredentialRetrievalError::NoCredentialConfigured,
            ) => Ok(Credentials::Anonymous),
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(CliError(format!(
                "docker's credential helper {helper} failed for {registry}; run `docker login {registry}` again, or \
                 give --user and --password-stdin"
            ))),
            Err(_) => Err(CliError(format!(
                "docker's config.json cannot be read for {registry}; mend it, or give --user and --password-stdin"
            ))),
        }
    }
}

/// Whether a folder or file here is meant, and not a registry.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.']) || Path::new(text).exists()
}

/// On a terminal, for what takes a while.
pub(super) fn progress_bar(size: u64) -> ProgressBar {
    if size < BIG {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size);
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

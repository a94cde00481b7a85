//! `preset …`: each verb in a file of its own.

use clap::Subcommand;

use super::client::Client;
use super::output::Printer;
use super::providers::Filter;
use super::{CliError, Global};

mod approve;
mod bench;
mod build;
mod carried;
mod described;
mod diff;
mod enable;
mod files;
mod inspect;
mod keygen;
mod list;
mod new;
mod publish;
mod pull;
mod registry;
mod replay;
mod sign;
mod test;
mod trust;
mod versions;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the host's catalog
    List(Filter),
    /// Show what a preset says of itself and asks for; takes a file, too
    Inspect(inspect::InspectArgs),
    /// Let providers use a preset
    Enable(enable::Name),
    /// Take a preset away from its providers
    Disable(enable::Name),
    /// Show what a version may do that another may not; takes files, too. Ends with 3 if they differ
    Diff(diff::DiffArgs),
    /// Recorded decisions, to try versions on
    #[command(subcommand)]
    Replay(replay::Verb),
    /// Approve what a preset asks for
    Approve(approve::ApproveArgs),
    /// Go back to the version before and stay there
    Rollback(versions::RollbackArgs),
    /// Choose the version that serves
    Pin(versions::PinArgs),
    /// Follow the newest approved version again, also one that was gone back from
    Unpin(versions::UnpinArgs),
    /// Let no version older than this serve anybody
    Floor(versions::FloorArgs),
    /// Never let a content serve again, whoever approved it
    Revoke(versions::RevokeArgs),
    /// Begin a new preset: a crate that builds as it is
    New(new::NewArgs),
    /// Build the preset in this folder into a component
    Build(build::BuildArgs),
    /// Run a component against a provider in a box, and your table of scopes
    Test(test::TestArgs),
    /// Measure what one call of a component costs
    Bench(bench::BenchArgs),
    /// Make a key pair to sign presets with
    Keygen(keygen::KeygenArgs),
    /// Sign components: who made them, and what they ask for
    Sign(sign::SignArgs),
    /// Put a signed component into an OCI registry or a folder
    Publish(publish::PublishArgs),
    /// Get a component and its signature from an OCI registry or a folder
    Pull(pull::PullArgs),
    /// Trust a publisher's key: writes it into the host's configuration
    Trust(trust::TrustArgs),
}

impl Verb {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        match self {
            // These work without a host.
            Self::Inspect(args) if args.is_file() => {
                inspect::file(&args, &global.config, printer).await
            }
            Self::New(args) => new::run(&args, printer),
            Self::Build(args) => build::run(&args, printer),
            Self::Test(args) => test::run(args, printer).await,
            Self::Bench(args) => bench::run(args, printer),
            Self::Keygen(args) => keygen::run(&args, printer),
            Self::Sign(args) => sign::run(args, printer).await,
            Self::Publish(args) => publish::run(args, printer).await,
            Self::Pull(args) => pull::run(args, &global.config, printer).await,
            Self::Trust(args) => trust::run(args, &global.config, printer),
            Self::Diff(args) if args.is_local() => diff::local(&args, printer).await,
            verb => verb.over_rest(&Client::of(global).await?, printer).await,
        }
    }

    async fn over_rest(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::List(filter) => list::run(filter, client, printer).await,
            Self::Inspect(args) => inspect::of_the_host(&args, client, printer).await,
            Self::Enable(name) => enable::run(&name, true, client, printer).await,
            Self::Disable(name) => enable::run(&name, false, client, printer).await,
            Self::Diff(args) => diff::run(&args, client, printer).await,
            Self::Replay(verb) => verb.run(client, printer).await,
            Self::Approve(args) => approve::run(args, client, printer).await,
            Self::Rollback(args) => versions::rollback(args, client, printer).await,
            Self::Pin(args) => versions::pin(args, client, printer).await,
            Self::Unpin(args) => versions::unpin(args, client, printer).await,
            Self::Floor(args) => versions::floor(&args, client, printer).await,
            Self::Revoke(args) => versions::revoke(&args, client, printer).await,
            // Handled before a client was made.
            Self::New(_)
            | Self::Build(_)
            | Self::Test(_)
            | Self::Bench(_)
            | Self::Keygen(_)
            | Self::Sign(_)
            | Self::Publish(_)
            | Self::Pull(_)
            | Self::Trust(_) => Ok(()),
        }
    }
}

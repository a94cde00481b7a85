//! `preset …`: each verb in a file of its own.

use clap::Subcommand;

use super::client::Client;
use super::output::Printer;
use super::providers::Filter;
use super::{CliError, Global};

mod approve;
mod enable;
mod inspect;
mod list;

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
    /// Approve what a preset asks for, as it is now
    Approve(approve::ApproveArgs),
}

impl Verb {
    pub(super) async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        match self {
            // These work without a host.
            Self::Inspect(args) if args.is_file() => inspect::file(&args, printer).await,
            verb => verb.over_rest(&Client::of(global).await?, printer).await,
        }
    }

    async fn over_rest(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::List(filter) => list::run(filter, client, printer).await,
            Self::Inspect(args) => inspect::of_the_host(&args, client, printer).await,
            Self::Enable(name) => enable::run(&name, true, client, printer).await,
            Self::Disable(name) => enable::run(&name, false, client, printer).await,
            Self::Approve(args) => approve::run(args, client, printer).await,
        }
    }
}

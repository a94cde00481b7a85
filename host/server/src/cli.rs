//! The command line.
//!
//! `init`, `serve` and `check` work on the configuration; all other verbs talk
//! to a running host by its REST API. Secrets and passwords come from standard
//! input or a file, never from an argument.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

mod audit;
mod backup;
mod check;
mod client;
mod connect_device;
mod connections;
mod discovery;
mod doctor;
mod input;
mod keys;
mod login;
mod output;
mod policies;
mod presets;
mod providers;
mod roles;
mod secrets;
mod servers;
mod session;
mod teams;
mod tokens;
mod users;

use client::Client;
use output::Printer;

/// A gateway between AI agents and OAuth-protected MCP servers.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 differences found.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The host's configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "countersign.toml",
        env = "COUNTERSIGN_CONFIG"
    )]
    config: PathBuf,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
    /// The running host; the configuration's public_url, or where you signed in, if absent
    #[arg(long, global = true, value_name = "URL", env = "COUNTERSIGN_URL")]
    url: Option<String>,
    /// An API token (cs_api_…); what `login` kept, if absent
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "COUNTERSIGN_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a configuration, a key and an administrator's account
    Init(InitArgs),
    /// Run the host
    Serve,
    /// Check configuration, key, store and presets without serving
    Check,
    /// OAuth providers that users connect accounts of
    #[command(subcommand)]
    Provider(providers::Verb),
    /// MCP servers that agents reach through this host
    #[command(subcommand)]
    Server(servers::Verb),
    /// Client secrets and keys, by name
    #[command(subcommand)]
    Secret(secrets::Verb),
    /// Presets: what the host knows of each provider
    #[command(subcommand)]
    Preset(presets::Verb),
    /// What is forbidden, or needs the user's word, beyond what servers say
    #[command(subcommand)]
    Policy(policies::Verb),
    /// Sign in through the browser and keep the session for later commands
    Login(login::LoginArgs),
    /// End the session that `login` began
    Logout,
    /// Show who you are to the host
    Whoami,
    /// People and service accounts
    #[command(subcommand)]
    User(users::Verb),
    /// Teams, and who is in them
    #[command(subcommand)]
    Team(teams::Verb),
    /// Roles: what users may do
    #[command(subcommand)]
    Role(roles::Verb),
    /// API tokens
    #[command(subcommand)]
    Token(tokens::Verb),
    /// Connect one of your accounts: prints the URL to open, and waits
    Connect(connections::ConnectArgs),
    /// Your connections to providers
    #[command(subcommand)]
    Connection(connections::Verb),
    /// What was done, by whom
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Say what is wrong, and what to do about it
    ///
    /// Looks at configuration, key, store, presets, addresses, clock, providers and servers;
    /// beside a running host it asks that one (permission doctor_run). Ends with 1 if there is
    /// a problem.
    Doctor,
    /// Write everything in the store into one sealed file, while the host runs
    Backup(backup::Backup),
    /// Make a store from a backup, while the host is stopped
    Restore(backup::Restore),
    /// The keys that everything is sealed with
    #[command(subcommand)]
    Key(keys::Verb),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// What agents and browsers will call the host; https unless loopback
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Address to listen on [default: 127.0.0.1:8700]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where records are kept: sled:FOLDER, or postgres://USER@HOST:5432/DATABASE for several
    /// hosts [default: sled:data/vault]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// A file that holds the database's password and nothing else
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<PathBuf>,
}

/// Why a command failed; shown as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CliError(String);

impl CliError {
    fn new(text: impl ToString) -> Self {
        Self(text.to_string())
    }
}

/// Parses the arguments, does what they say, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("countersign: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("countersign: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { global, verb } = cli;
    let printer = Printer::new(global.output);
    verb.run(&global, &printer).await?;
    Ok(printer.exit_code())
}

impl Verb {
    async fn run(self, global: &Global, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Init(args) => init(args, printer).await,
            Self::Serve => serve(global).await,
            Self::Check => check::run(&global.config, printer).await,
            Self::Login(args) => args.run(global, printer).await,
            Self::Logout => login::logout(global, printer).await,
            Self::Preset(verb) => verb.run(global, printer).await,
            Self::Key(verb) => verb.run(global, printer).await,
            Self::Doctor => doctor::run(global, printer).await,
            Self::Backup(args) => args.run(global, printer).await,
            Self::Restore(args) => args.run(global, printer).await,
            verb => verb.over_rest(&Client::of(global).await?, printer).await,
        }
    }

    async fn over_rest(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        match self {
            Self::Provider(verb) => verb.run(client, printer).await,
            Self::Server(verb) => verb.run(client, printer).await,
            Self::Secret(verb) => verb.run(client, printer).await,
            Self::Policy(verb) => verb.run(client, printer).await,
            Self::User(verb) => verb.run(client, printer).await,
            Self::Team(verb) => verb.run(client, printer).await,
            Self::Role(verb) => verb.run(client, printer).await,
            Self::Token(verb) => verb.run(client, printer).await,
            Self::Connect(args) => args.run(client, printer).await,
            Self::Connection(verb) => verb.run(client, printer).await,
            Self::Audit(verb) => verb.run(client, printer).await,
            Self::Whoami => users::whoami(client, printer).await,
            // Handled before a client was made.
            Self::Init(_)
            | Self::Serve
            | Self::Check
            | Self::Login(_)
            | Self::Logout
            | Self::Preset(_)
            | Self::Key(_)
            | Self::Doctor
            | Self::Backup(_)
            | Self::Restore(_) => Ok(()),
        }
    }
}

async fn init(args: InitArgs, printer: &Printer) -> Result<(), CliError> {
    let options = crate::init::InitOptions {
        dir: args.dir,
        listen: args.listen,
        public_url: args.public_url,
        store: args.store,
        store_password_file: args.store_password_file,
    };
    let made = crate::init::init(&options).await.map_err(CliError::new)?;
    printer.value(&made, || {
        format!(
            "Wrote {config}.\n\n\
             Administrator  {user}\n\
             Password       {password}\n\
             API token      {token}\n\n\
             These are not shown again. Next: countersign serve --config {config}",
            config = made.config,
            user = made.admin_user,
            password = made.admin_password,
            token = made.admin_token,
        )
    })
}

async fn serve(global: &Global) -> Result<(), CliError> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COUNTERSIGN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // sled clears up while its threads end, when there is nothing left to log
    // with: a line of it then would abort the process.
    let filter = match "sled=info".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let config = crate::config::Config::load(&global.config).map_err(CliError::new)?;
    crate::serve::run(config).await.map_err(CliError::new)
}

#[cfg(test)]
mod tests;

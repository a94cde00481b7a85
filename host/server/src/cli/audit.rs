//! `audit …`

use clap::{Args, Subcommand};

use super::CliError;
use super::client::Client;
use super::output::Printer;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List what was done, newest first
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// How many, at most 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only this user's
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only this action, or what begins with it (`provider`, `call`)
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only on this resource (`provider:github`)
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Only what ended so
    #[arg(long, value_name = "OUTCOME", value_parser = ["allowed", "denied", "pending", "failed"])]
    outcome: Option<String>,
    /// Only since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// A filter as REST takes it
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
}

impl List {
    fn filter(self) -> String {
        let equal = [
            ("user", self.user),
            ("action", self.action),
            ("resource", self.resource),
            ("outcome", self.outcome),
        ];
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut terms: Vec<String> = equal
            .into_iter()
            .filter_map(|(name, value)| value.map(|v| format!("{name} = \"{}\"", quote(&v))))
            .collect();
        terms.extend(self.since.map(|t| format!("time >= \"{}\"", quote(&t))));
        terms.extend(self.filter);
        terms.join(" AND ")
    }
}

impl Verb {
    pub(super) async fn run(self, client: &Client, printer: &Printer) -> Result<(), CliError> {
        let Self::List(list) = self;
        let mut query = vec![("page_size", list.limit.to_string())];
        query.push(("filter", list.filter()));
        let page = client.page(&["audit"], &query).await?;
        let columns = [
            ("TIME", "time"),
            ("USER", "user"),
            ("CLIENT", "client"),
            ("ACTION", "action"),
            ("RESOURCE", "resource"),
            ("TOOL", "call.name"),
            ("OUTCOME", "outcome"),
            ("ERROR", "call.error"),
            ("DETAIL", "detail"),
        ];
        printer.list(&page, &columns, "No audit events match.")
    }
}

//! `preset list`

use crate::cli::CliError;
use crate::cli::client::Client;
use crate::cli::output::Printer;
use crate::cli::providers::Filter;

pub(super) async fn run(
    filter: Filter,
    client: &Client,
    printer: &Printer,
) -> Result<(), CliError> {
    let list = client.list(&["presets"], &filter.query()).await?;
    let columns = [
        ("NAME", "name"),
        ("VERSION", "version"),
        ("STATE", "state"),
        ("ENABLED", "enabled"),
        ("USED BY", "providers"),
        ("WAITING", "waiting"),
        ("REASON", "reason"),
    ];
    let empty = "The catalog is empty. Put NAME-VERSION.wasm files into the host's catalog folder \
                 (`cargo xtask presets` builds them).";
    printer.list(&list, &columns, empty)
}

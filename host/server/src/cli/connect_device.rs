//! `connect`, where the provider has the device flow switched on: the code is
//! shown here and typed there.

use std::io::BufRead as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::CliError;
use super::client::Client;
use super::output::Printer;

/// Looks until the provider has an answer, and asks whether the account is the
/// right one.
pub(super) async fn run(
    client: &Client,
    printer: &Printer,
    body: Map<String, Value>,
) -> Result<(), CliError> {
    let begun = client.post(&["connections", "device"], body).await?;
    let field = |view: &Value, name: &str| {
        let text = view.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let id = field(&begun, "id");
    eprintln!(
        "Open {} in any browser, sign in, and type the code {}",
        field(&begun, "verification_uri"),
        field(&begun, "user_code")
    );
    let complete = field(&begun, "verification_uri_complete");
    if !complete.is_empty() {
        eprintln!("(or open {complete}, which has it typed already).");
    }
    eprintln!("Waiting until you have done so …");
    let mut standing = begun;
    while field(&standing, "status") == "waiting" {
        let interval = standing.get("interval").and_then(Value::as_u64);
        tokio::time::sleep(Duration::from_secs(interval.unwrap_or(5).clamp(1, 60))).await;
        standing = client.get(&["connections", "device", &id]).await?;
    }
    if field(&standing, "status") == "found" {
        let account = standing.get("account").filter(|a| a.is_object());
        let label = account.map(|a| field(a, "label")).unwrap_or_default();
        let known = account.map(|a| field(a, "id")).unwrap_or_default();
        if label.is_empty() {
            eprintln!("Somebody allowed the access; the provider does not say for which account.");
        } else {
            eprintln!("The account found there is {label} ({known}).");
        }
        eprintln!(
            "Connect it only if it is yours. Type yes to connect it, anything else to give it back:"
        );
        let mut answer = Map::new();
        answer.insert("is_mine".to_owned(), says_yes()?.into());
        standing = client.post(&["connections", "device", &id], answer).await?;
    }
    if field(&standing, "status") != "connected" {
        return Err(CliError(field(&standing, "advice")));
    }
    printer.value(&standing, || "Connected.".to_owned())
}

fn says_yes() -> Result<bool, CliError> {
    let mut line = String::new();
    let stdin = std::io::stdin();
    stdin
        .lock()
        .read_line(&mut line)
        .map_err(|e| CliError(format!("the answer cannot be read: {e}")))?;
    Ok(line.trim().eq_ignore_ascii_case("yes"))
}

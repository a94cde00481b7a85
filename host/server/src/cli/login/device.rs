//! Signing in with a browser on another machine (RFC 8628).

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::CliError;
use super::{CLIENT_ID, Metadata, TokenAnswer, ask};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// What `slow_down` adds to the interval (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// RFC 8628 §3.2.
#[derive(Deserialize)]
struct Begun {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    #[serde(default = "usual_interval")]
    interval: u64,
}

fn usual_interval() -> u64 {
    5
}

/// Shows the code, and asks until the user has answered.
pub(super) async fn tokens(
    http: &reqwest::Client,
    metadata: &Metadata,
) -> Result<TokenAnswer, CliError> {
    let endpoint = metadata.device_authorization_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| {
        CliError(
            "this host knows no sign-in by code; run `countersign login` without --device".into(),
        )
    })?;
    let resource = metadata.resource();
    let form = [
        ("client_id", CLIENT_ID),
        ("scope", "api"),
        ("resource", &resource),
    ];
    let begun: Begun = ask(http, endpoint, &form).await??;
    let printable = |text: &str| {
        text.chars()
            .filter(char::is_ascii_graphic)
            .collect::<String>()
    };
    eprintln!(
        "Open {} in a browser on any machine, sign in, and type this code:\n\n  {}\n",
        printable(&begun.verification_uri),
        printable(&begun.user_code),
    );
    let form = [
        ("grant_type", GRANT_TYPE),
        ("device_code", begun.device_code.as_str()),
        ("client_id", CLIENT_ID),
    ];
    let patience = Duration::from_secs(begun.expires_in.min(3600));
    let answered = async {
        let mut interval = Duration::from_secs(begun.interval.clamp(1, 60));
        loop {
            tokio::time::sleep(interval).await;
            match ask::<TokenAnswer>(http, &metadata.token_endpoint, &form).await? {
                Ok(answer) => return Ok(answer),
                Err(refusal) => match refusal.error.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => interval += SLOWER,
                    _ => return Err(CliError::from(refusal)),
                },
            }
        }
    };
    tokio::time::timeout(patience, answered)
        .await
        .map_err(|_| {
            CliError("nobody typed the code in time; run `countersign login --device` again".into())
        })?
}

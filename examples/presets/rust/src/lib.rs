//! The preset `acme-rust`: Acme keeps documents; reading and writing them needs
//! different scopes.

use countersign_guest_sdk::prelude::*;

struct Acme;

const READ: &str = "documents:read";
const WRITE: &str = "documents:write";

impl Provider for Acme {
    fn describe(_: &mut Settings) -> Result<Description, String> {
        Ok(Description::oauth2("acme-rust", "Acme")
            .authorize("https://login.acme.example/authorize")
            .token("https://login.acme.example/token")
            .audience(["api.acme.example"])
            .scopes([
                Scope::new(READ, "Read documents"),
                Scope::new(WRITE, "Write documents").implies([READ]),
            ])
            .default_scopes([READ]))
    }

    fn evaluate(call: &Call, grant: &Grant) -> Result<Verdict, String> {
        let Some(tool) = call.tool() else {
            return Ok(Verdict::allow());
        };
        if tool == "erase" {
            let message = "Only a person may erase: do it on acme.example.";
            return Ok(Verdict::deny("not_for_agents", message));
        }
        let reads = tool.starts_with("read_") || tool.starts_with("list_");
        Ok(
            if is_granted(grant, &[WRITE]) || (reads && is_granted(grant, &[READ])) {
                Verdict::allow()
            } else {
                Verdict::need([if reads { READ } else { WRITE }])
            },
        )
    }
}

export_preset!(Acme);

//! Results on their way back, past a preset that takes things out of them.

use std::sync::Arc;

use countersign_core::decide::Attachment;
use countersign_core::preset::{Call, PresetFault, Redaction};
use countersign_mcp::envelope::{Message, Request};
use countersign_mcp::redact::{is_redacted, redact_filter};
use countersign_mcp::rewrite::Filter;

use crate::call::{Secrets, name_of};

/// Whether a server's results are redacted.
pub(crate) fn guards(attachment: &Attachment) -> bool {
    attachment
        .preset()
        .is_some_and(|p| p.description().hooks.redact)
}

/// Whether the result of this request is.
pub(crate) fn is_for(attachment: &Attachment, request: &Request<'_>) -> bool {
    guards(attachment) && is_redacted(&request.method)
}

/// The filter for the answer to such a request.
pub(crate) fn filter(
    attachment: &Arc<Attachment>,
    request: &Request<'_>,
    secrets: Secrets,
) -> Filter {
    let asked = Asked {
        attachment: Arc::clone(attachment),
        method: request.method.to_string(),
        name: name_of(&Message::Request(request.clone())).map(str::to_owned),
        arguments: request.params.arguments.map(str::to_owned),
        secrets,
    };
    redact_filter(move |result| {
        let redactions = asked.redact(result);
        if let Err(fault) = &redactions {
            tracing::warn!(server = %asked.attachment.server().name, %fault, "a result is withheld");
        }
        redactions
    })
}

/// What was asked, for as long as the answer takes.
struct Asked {
    attachment: Arc<Attachment>,
    method: String,
    name: Option<String>,
    arguments: Option<String>,
    secrets: Secrets,
}

impl Asked {
    /// Asks the preset, which sees the result without the call's credential.
    fn redact(&self, result: &str) -> Result<Vec<Redaction>, PresetFault> {
        let unanswered = || PresetFault::Unavailable("it is not loaded any more".into());
        let preset = self.attachment.preset().ok_or_else(unanswered)?;
        let covered = self
            .secrets
            .veil()?
            .cover_json(result)
            .map_err(|e| PresetFault::Unavailable(e.to_string()))?
            .into_owned();
        let call = Call {
            method: &self.method,
            name: self.name.as_deref(),
            arguments: self.arguments.as_deref(),
            host: self.attachment.host(),
        };
        preset.redact(&call, &covered)?.ok_or_else(unanswered)
    }
}

//! Lists on their way back: what a user may not call is not shown to him.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::preset::{GrantFacts, PresetFault};
use countersign_mcp::revision::Revision;
use countersign_mcp::rewrite::{Filter, private_filter, tools_filter};
use countersign_mcp::upstream::UpstreamFault;

use crate::call::Secrets;

/// A list that was asked for.
pub(crate) struct Listed<'a> {
    pub(crate) attachment: &'a Arc<Attachment>,
    pub(crate) caller: &'a Arc<Caller>,
    pub(crate) revision: Revision,
    pub(crate) method: &'a str,
}

impl Listed<'_> {
    /// The filter for the answer, if it needs one.
    pub(crate) fn filter(
        &self,
        connection: Option<Arc<Connection>>,
        secrets: Secrets,
    ) -> Option<Filter> {
        let attachment = self.attachment;
        let depends_on_user = attachment.server().auth.is_personal();
        if self.method != "tools/list" {
            return if depends_on_user {
                private_filter(self.revision, self.method)
            } else {
                None
            };
        }
        let hook = attachment
            .preset()
            .is_some_and(|p| p.description().hooks.filter_tools);
        let policies = attachment.policies().may_hide_tools();
        if !depends_on_user && !hook && !policies && attachment.server().tools.is_open() {
            return None;
        }
        let (attachment, caller) = (Arc::clone(attachment), Arc::clone(self.caller));
        Some(tools_filter(self.revision, move |names| {
            let wanted = if hook {
                // A filter that fails withholds the list.
                let wanted = wanted(&attachment, connection.as_deref(), &secrets, names);
                Some(wanted.map_err(|fault| {
                    tracing::warn!(%fault, "a preset could not filter a list of tools");
                    UpstreamFault::Withheld(fault)
                })?)
            } else {
                None
            };
            let server = attachment.server();
            let kept = |name: &String| {
                server.tools.allows(name)
                    && wanted.as_ref().is_none_or(|w| w.contains(name))
                    && !attachment
                        .policies()
                        .always_deny(&caller, &server.name, name)
            };
            Ok(names.iter().map(kept).collect())
        }))
    }
}

/// The names that the preset keeps.
fn wanted(
    attachment: &Attachment,
    connection: Option<&Connection>,
    secrets: &Secrets,
    names: &[String],
) -> Result<Vec<String>, PresetFault> {
    // A name that repeats the credential is shown to nobody.
    let veil = secrets.veil()?;
    let clean = |name: &&String| !veil.touches(name);
    let shown: Vec<String> = names.iter().filter(clean).cloned().collect();
    let scopes = connection.map(Connection::scopes).unwrap_or_default();
    let grant = GrantFacts {
        scopes: &scopes,
        account: connection
            .and_then(|c| c.account.as_ref())
            .map(|a| a.id.as_str()),
        facts: connection.map_or(&[], |c| c.facts.as_slice()),
    };
    let unanswered = || PresetFault::Unavailable("it is not loaded any more".into());
    let preset = attachment.preset().ok_or_else(unanswered)?;
    preset.filter_tools(&shown, &grant)?.ok_or_else(unanswered)
}

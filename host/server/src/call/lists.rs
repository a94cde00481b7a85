//! Lists on their way back: what a user may not call is not shown to him.

use std::sync::Arc;

use countersign_core::caller::Caller;
use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::preset::GrantFacts;
use countersign_core::server::AuthMode;
use countersign_mcp::revision::Revision;
use countersign_mcp::rewrite::{Filter, private_filter, tools_filter};
use countersign_mcp::upstream::UpstreamFault;

/// The filter for the answer to `method`, if it needs one.
pub(crate) fn filter(
    attachment: &Arc<Attachment>,
    caller: &Arc<Caller>,
    connection: Option<Arc<Connection>>,
    revision: Revision,
    method: &str,
) -> Option<Filter> {
    let depends_on_user = attachment.server().auth.mode == AuthMode::UserDelegated;
    if method != "tools/list" {
        return if depends_on_user {
            private_filter(revision, method)
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
    let (attachment, caller) = (Arc::clone(attachment), Arc::clone(caller));
    Some(tools_filter(revision, move |names| {
        keep(&attachment, &caller, connection.as_deref(), names)
    }))
}

fn keep(
    attachment: &Attachment,
    caller: &Caller,
    connection: Option<&Connection>,
    names: &[String],
) -> Result<Vec<bool>, UpstreamFault> {
    let wanted = match attachment.preset() {
        Some(preset) => {
            let scopes = connection.map(Connection::scopes).unwrap_or_default();
            let grant = GrantFacts {
                scopes: &scopes,
                account: connection
                    .and_then(|c| c.account.as_ref())
                    .map(|a| a.id.as_str()),
                facts: connection.map_or(&[], |c| c.facts.as_slice()),
            };
            // A filter that fails withholds the list.
            preset.filter_tools(names, &grant).map_err(|fault| {
                tracing::warn!(%fault, "a preset could not filter a list of tools");
                UpstreamFault::NotMcp("its list of tools could not be filtered by the preset")
            })?
        }
        None => None,
    };
    let server = &attachment.server().name;
    let kept = |name: &String| {
        attachment.server().tools.allows(name)
            && wanted.as_ref().is_none_or(|w| w.contains(name))
            && !attachment.policies().always_deny(caller, server, name)
    };
    Ok(names.iter().map(kept).collect())
}

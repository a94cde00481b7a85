//! The tools.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::request::Parts;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, tool, tool_router};
use serde::Deserialize;
use serde_json::json;

use crate::protect::Subject;

/// Every user's notes.
pub(crate) type Shelf = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// One session's server.
pub(crate) struct Notes {
    shelf: Shelf,
}

/// What `add_note` takes.
#[derive(Deserialize, JsonSchema)]
struct NewNote {
    /// What to remember.
    text: String,
}

#[tool_router(server_handler)]
impl Notes {
    /// Over the notes of everybody; a call sees its caller's.
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self { shelf }
    }

    #[tool(description = "Who this server thinks you are")]
    async fn whoami(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let subject = caller(&context, "whoami")?;
        let mut result = CallToolResult::success(vec![ContentBlock::text(subject.name.clone())]);
        result.structured_content = Some(json!({
            "subject": subject.name,
            "client_id": subject.client,
            "scopes": subject.scopes,
        }));
        Ok(result)
    }

    #[tool(description = "Your notes, oldest first")]
    async fn list_notes(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let subject = caller(&context, "list_notes")?;
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = shelf.get(&subject.name).cloned().unwrap_or_default();
        Ok(CallToolResult::success(vec![ContentBlock::text(
            json!(notes).to_string(),
        )]))
    }

    #[tool(description = "Writes a note")]
    async fn add_note(
        &self,
        context: RequestContext<RoleServer>,
        Parameters(NewNote { text }): Parameters<NewNote>,
    ) -> Result<CallToolResult, ErrorData> {
        let subject = caller(&context, "add_note")?;
        if !subject.scopes.iter().any(|scope| scope == "notes:write") {
            return Ok(CallToolResult::error(vec![ContentBlock::text(
                "writing needs the scope notes:write",
            )]));
        }
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = shelf.entry(subject.name.clone()).or_default();
        notes.push(text);
        Ok(CallToolResult::success(vec![ContentBlock::text(format!(
            "{} has {} note(s)",
            subject.name,
            notes.len()
        ))]))
    }
}

/// Whom the gate let in with this call; says so on stdout, a JSON line each.
fn caller(context: &RequestContext<RoleServer>, tool: &str) -> Result<Subject, ErrorData> {
    let subject = context
        .extensions
        .get::<Parts>()
        .and_then(|parts| parts.extensions.get::<Subject>())
        .cloned()
        .ok_or_else(|| ErrorData::internal_error("a call that nobody vouched for", None))?;
    println!("{}", json!({ "tool": tool, "subject": subject.name }));
    Ok(subject)
}

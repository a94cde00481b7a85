//! Step 10: one audit event for each call.

use countersign_core::audit::{AuditEvent, CallRecord, Outcome};
use countersign_core::connection::Connection;
use countersign_core::decide::Attachment;
use countersign_core::error::CallError;
use countersign_core::names::Digest;
use countersign_mcp::envelope::Message;
use countersign_mcp::upstream;

use crate::call::{Exchange, name_of};
use crate::wiring::App;

/// What is learnt of a call on its way.
#[derive(Default)]
pub(crate) struct Trace {
    decided_by: Option<&'static str>,
    preset: Option<Digest>,
    connection: Option<String>,
    upstream_status: Option<u16>,
}

impl Trace {
    pub(crate) fn attached(&mut self, attachment: &Attachment) {
        self.preset = attachment.preset().map(|p| p.digest());
    }

    pub(crate) fn decided_by(&mut self, rule: &'static str) {
        self.decided_by = Some(rule);
    }

    pub(crate) fn connected(&mut self, connection: Option<&Connection>) {
        self.connection = connection.map(|c| c.id.to_string());
    }

    pub(crate) fn upstream_status(&mut self, outcome: &upstream::Outcome) {
        self.upstream_status = Some(match outcome {
            upstream::Outcome::Answer(answer) => answer.status.as_u16(),
            upstream::Outcome::Unauthorized(_) => 401,
            upstream::Outcome::Forbidden(_) => 403,
            upstream::Outcome::Status(status) => status.as_u16(),
        });
    }

    /// Writes the event; the log batches it.
    pub(crate) fn write(
        self,
        app: &App,
        exchange: &Exchange,
        method: &str,
        message: Option<&Message<'_>>,
        error: Option<&CallError>,
    ) {
        let arguments = message.and_then(Message::params).and_then(|p| p.arguments);
        let latency_us = app
            .world
            .clock
            .monotonic_micros()
            .saturating_sub(exchange.arrived);
        let word = error.map_or("ok", CallError::word);
        app.metrics.call(exchange.server.as_str(), word, latency_us);
        let outcome = match error {
            None => Outcome::Allowed,
            Some(CallError::Denied { .. }) => Outcome::Denied,
            Some(error) if error.wants_user() => Outcome::Pending,
            Some(_) => Outcome::Failed,
        };
        let decided_by = match (error, self.decided_by) {
            (Some(CallError::Denied { code, .. }), _) => code.clone(),
            (Some(error), None) => error.word().to_owned(),
            (_, Some(rule)) => rule.to_owned(),
            (None, None) => "server".to_owned(),
        };
        let caller = &exchange.caller;
        app.world.audit.enqueue(AuditEvent {
            sequence: 0,
            time: app.world.clock.now(),
            action: "call".to_owned(),
            outcome,
            user: Some(caller.user.to_string()),
            team: Some(caller.team.to_string()),
            client: Some(caller.client.to_string()),
            resource: Some(format!("server:{}", exchange.server)),
            call: Some(CallRecord {
                call_id: exchange.id.to_string(),
                method: method.to_owned(),
                name: message.and_then(name_of).map(str::to_owned),
                arguments_hash: arguments.map(|a| hash(app, a)),
                decided_by,
                error: error.map(|e| e.word().to_owned()),
                preset: self.preset,
                connection: self.connection,
                upstream_status: self.upstream_status,
                latency_us,
            }),
            detail: error.map(ToString::to_string),
        });
    }
}

fn hash(app: &App, arguments: &str) -> String {
    let mac = app.arguments_key.mac(&[arguments.as_bytes()]);
    countersign_core::names::hex(&mac[..12])
}

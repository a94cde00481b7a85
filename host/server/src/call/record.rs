//! Step 10: one audit event for each call, written when the call has ended:
//! whatever way that is.

use std::sync::Arc;

use countersign_core::audit::{AuditEvent, CallRecord, Outcome};
use countersign_core::caller::Caller;
use countersign_core::decide::Attachment;
use countersign_core::error::CallError;
use countersign_core::names::{ConnectionId, ProviderName, ServerName, UserName};
use countersign_core::preset::PresetFault;
use countersign_mcp::envelope::Message;
use countersign_mcp::relay::StreamEnd;
use countersign_mcp::upstream;
use countersign_presets::FaultReport;

use crate::call::{Exchange, name_of};
use crate::in_flight::OnVersion;
use crate::wiring::App;

/// What is learnt of a call on its way. One that is dropped before its end was
/// told writes that the client has hung up: a call that went out is on record
/// even if nobody waited for its answer.
pub(crate) struct Trace {
    app: Arc<App>,
    server: ServerName,
    user: UserName,
    /// Whose preset judges.
    provider: Option<ProviderName>,
    arrived: u64,
    decided_by: Option<&'static str>,
    /// Counts for the version that judges.
    in_flight: Option<OnVersion>,
    /// Taken when it is written.
    open: Option<(AuditEvent, CallRecord)>,
}

impl Trace {
    pub(crate) fn begin(
        app: &Arc<App>,
        exchange: &Exchange,
        method: &str,
        message: Option<&Message<'_>>,
    ) -> Self {
        let arguments = message.and_then(Message::params).and_then(|p| p.arguments);
        let caller = &exchange.caller;
        let event = AuditEvent {
            team: Some(caller.team.to_string()),
            client: Some(caller.client.to_string()),
            ..AuditEvent::new(app.world.clock.now(), "call", Outcome::Failed)
                .by(&caller.user)
                .on(format!("server:{}", exchange.server))
        };
        let call = CallRecord {
            call_id: exchange.id.to_string(),
            method: method.to_owned(),
            name: message.and_then(name_of).map(str::to_owned),
            arguments_hash: arguments.map(|a| hash(app, a)),
            decided_by: String::new(),
            error: None,
            preset: None,
            connection: None,
            upstream_status: None,
            latency_us: 0,
        };
        Self {
            app: Arc::clone(app),
            server: exchange.server.clone(),
            user: exchange.caller.user.clone(),
            provider: None,
            arrived: exchange.arrived,
            decided_by: None,
            in_flight: None,
            open: Some((event, call)),
        }
    }

    fn call(&mut self) -> Option<&mut CallRecord> {
        self.open.as_mut().map(|(_, call)| call)
    }

    pub(crate) fn attached(&mut self, attachment: &Attachment) {
        let preset = attachment.preset().map(|p| p.digest());
        self.provider = attachment.provider().map(|p| p.name.clone());
        self.in_flight = preset.map(|digest| self.app.registry.in_flight.begin(digest));
        if let Some(call) = self.call() {
            call.preset = preset;
        }
    }

    pub(crate) fn decided_by(&mut self, rule: &'static str) {
        self.decided_by = Some(rule);
    }

    pub(crate) fn connected(&mut self, connection: Option<&ConnectionId>) {
        let id = connection.map(ToString::to_string);
        if let Some(call) = self.call() {
            call.connection = id;
        }
    }

    pub(crate) fn upstream_status(&mut self, outcome: &upstream::Outcome) {
        let status = match outcome {
            upstream::Outcome::Answer(answer) => answer.status.as_u16(),
            upstream::Outcome::Unauthorized(_) => 401,
            upstream::Outcome::Forbidden(_) => 403,
            upstream::Outcome::Status(status) => status.as_u16(),
        };
        if let Some(call) = self.call() {
            call.upstream_status = Some(status);
        }
    }

    /// Tells the catalog that a version failed.
    fn report_fault(&self, fault: &PresetFault) {
        let call = self.open.as_ref().map(|(_, call)| call);
        if let (Some(provider), Some(call)) = (&self.provider, call)
            && let Some(digest) = call.preset
        {
            let is_tool = call.method == "tools/call";
            self.app.faults.report(FaultReport {
                provider: provider.clone(),
                digest,
                user: self.user.clone(),
                tool: call.name.clone().filter(|_| is_tool),
                hook: None,
                fault: fault.clone(),
            });
        }
    }

    /// The call has been answered, or this stood in the way.
    pub(crate) fn end(mut self, error: Option<&CallError>) {
        let outcome = match error {
            None => Outcome::Allowed,
            Some(error) if error.denial().is_some() => Outcome::Denied,
            Some(error) if error.wants_user() => Outcome::Pending,
            Some(_) => Outcome::Failed,
        };
        let decided_by = match (error, self.decided_by) {
            (Some(CallError::Denied { code, .. }), _) => Some(code.clone()),
            (
                Some(
                    CallError::PolicyDenied { policy, .. }
                    | CallError::PolicyFailed { policy, .. }
                    | CallError::ApprovalRequired { policy, .. },
                ),
                _,
            ) => Some(format!("policy:{policy}")),
            (Some(error), None) => Some(error.word().to_owned()),
            _ => None,
        };
        if let Some(call) = self.call() {
            call.error = error.map(|e| e.word().to_owned());
            call.decided_by = decided_by.unwrap_or_default();
        }
        if let Some(CallError::Preset(fault)) = error {
            self.report_fault(fault);
        }
        let word = error.map_or("ok", CallError::word);
        self.write(outcome, word, error.map(ToString::to_string));
    }

    /// The stream with the call's answer has ended.
    pub(crate) fn end_stream(mut self, end: StreamEnd) {
        match end {
            StreamEnd::Answered => self.end(None),
            StreamEnd::Broken(fault) => self.end(Some(&fault.into())),
            StreamEnd::HandedOver => {
                let detail = "the server closed the stream before its response; \
                              the client may fetch it from a stream of its own";
                self.write(Outcome::Allowed, "ok", Some(detail.to_owned()));
            }
            StreamEnd::ClientGone => drop(self),
        }
    }

    /// Writes the event; the log batches it.
    fn write(&mut self, outcome: Outcome, word: &'static str, detail: Option<String>) {
        let Some((mut event, mut call)) = self.open.take() else {
            return;
        };
        let clock = &self.app.world.clock;
        call.latency_us = clock.monotonic_micros().saturating_sub(self.arrived);
        if call.decided_by.is_empty() {
            call.decided_by = self.decided_by.unwrap_or("server").to_owned();
        }
        self.app
            .metrics
            .call(self.server.as_str(), word, call.latency_us);
        event.time = clock.now();
        event.outcome = outcome;
        event.call = Some(call);
        event.detail = detail;
        self.app.world.audit.enqueue(event);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let detail = "the client hung up before the answer";
        self.write(Outcome::Failed, "client_gone", Some(detail.to_owned()));
    }
}

/// Whose request is refused before it is a call.
pub(crate) struct Known {
    pub(crate) caller: Arc<Caller>,
    pub(crate) server: ServerName,
    /// In microseconds of the monotonic clock.
    pub(crate) arrived: u64,
}

impl Known {
    /// What came could not be taken: an event and a log line. `why` holds
    /// nothing of what was sent.
    pub(crate) fn refused(&self, app: &App, why: &str) {
        let (caller, clock) = (&self.caller, &app.world.clock);
        tracing::warn!(
            server = %self.server, user = %caller.user, client = %caller.client, why,
            "a request was refused"
        );
        let latency = clock.monotonic_micros().saturating_sub(self.arrived);
        app.metrics.call(self.server.as_str(), "refused", latency);
        let mut event = AuditEvent::new(clock.now(), "call.refused", Outcome::Denied)
            .by(&caller.user)
            .on(format!("server:{}", self.server))
            .detail(why);
        event.team = Some(caller.team.to_string());
        event.client = Some(caller.client.to_string());
        app.world.audit.enqueue(event);
    }
}

fn hash(app: &App, arguments: &str) -> String {
    let mac = app.arguments_key.mac(&[arguments.as_bytes()]);
    countersign_core::names::hex(&mac[..12])
}

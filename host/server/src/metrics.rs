//! `/metrics`: counts for Prometheus. Labels are names of servers and
//! CONTRACT's words; nobody's name, and nothing of a call's content.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use countersign_core::names::ProviderName;
use countersign_oauth::observe::{Observer, Occasion};

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    server: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    provider: String,
    occasion: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevocationLabels {
    provider: String,
    outcome: &'static str,
}

/// What is counted.
pub struct Metrics {
    registry: Mutex<Registry>,
    renewals: Family<RenewalLabels, Counter>,
    renewal_seconds: Histogram,
    revocations: Family<RevocationLabels, Counter>,
    warnings: Family<ProviderLabels, Counter>,
    due: Gauge,
    resting: Gauge,
    swept: Counter,
    calls: Family<CallLabels, Counter>,
    seconds: Histogram,
    ready: Gauge,
    audit_dropped: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        let calls = Family::default();
        // From 100 µs to about 26 s, each bound four times the one before.
        let bounds = (0..10).scan(0.0001, |bound, _| {
            let this = *bound;
            *bound *= 4.0;
            Some(this)
        });
        let seconds = Histogram::new(bounds);
        let (ready, audit_dropped) = (Gauge::default(), Gauge::default());
        registry.register(
            "calls",
            "Requests to MCP endpoints, by outcome",
            calls.clone(),
        );
        registry.register(
            "call_seconds",
            "Time until a call was answered",
            seconds.clone(),
        );
        registry.register("ready", "Whether calls can be answered", ready.clone());
        registry.register(
            "audit_dropped",
            "Audit events that a full queue refused since start",
            audit_dropped.clone(),
        );
        let (renewals, revocations, warnings) =
            (Family::default(), Family::default(), Family::default());
        let renewal_seconds = Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let (due, resting, swept) = (Gauge::default(), Gauge::default(), Counter::default());
        registry.register(
            "token_renewals",
            "Renewals of tokens, by provider, occasion (call, refused, background) and outcome",
            Family::clone(&renewals),
        );
        registry.register(
            "token_renewal_seconds",
            "Time that renewals took",
            renewal_seconds.clone(),
        );
        registry.register(
            "revocations",
            "Revocations at providers, by outcome (done, later, failed, given_up, not_possible)",
            Family::clone(&revocations),
        );
        registry.register(
            "connections_ending",
            "Users warned that a connection ends and cannot be prolonged",
            Family::clone(&warnings),
        );
        registry.register(
            "upkeep_due",
            "Connections and revocations that were due in the last round",
            due.clone(),
        );
        registry.register(
            "providers_resting",
            "Providers that are left alone because they fail",
            resting.clone(),
        );
        registry.register(
            "swept",
            "Expired records removed: consents, links, codes, tokens, sessions, leases",
            swept.clone(),
        );
        Self {
            renewals,
            renewal_seconds,
            revocations,
            warnings,
            due,
            resting,
            swept,
            registry: Mutex::new(registry),
            calls,
            seconds,
            ready,
            audit_dropped,
        }
    }
}

impl Metrics {
    /// Counts one call. `outcome` is `ok`, CONTRACT's error word, `client_gone`
    /// or `refused` (not a message that could be taken).
    pub(crate) fn call(&self, server: &str, outcome: &'static str, micros: u64) {
        let labels = CallLabels {
            server: server.to_owned(),
            outcome,
        };
        self.calls.get_or_create(&labels).inc();
        #[expect(clippy::cast_precision_loss, reason = "a latency needs no 53 bits")]
        self.seconds.observe(micros as f64 / 1e6);
    }

    /// Counts expired records that were removed.
    pub(crate) fn swept(&self, records: usize) {
        self.swept.inc_by(records as u64);
    }

    /// The exposition text.
    #[must_use]
    pub fn text(&self, ready: bool, audit_dropped: u64) -> String {
        self.ready.set(i64::from(ready));
        self.audit_dropped
            .set(i64::try_from(audit_dropped).unwrap_or(i64::MAX));
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string does not fail.
        let _ = encode(&mut out, &registry);
        out
    }
}

fn gauge(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

impl Observer for Metrics {
    fn renewal(
        &self,
        provider: &ProviderName,
        occasion: Occasion,
        outcome: &'static str,
        took: Duration,
    ) {
        let labels = RenewalLabels {
            provider: provider.to_string(),
            occasion: occasion.word(),
            outcome,
        };
        self.renewals.get_or_create(&labels).inc();
        self.renewal_seconds.observe(took.as_secs_f64());
    }

    fn revocation(&self, provider: &ProviderName, outcome: &'static str) {
        let provider = provider.to_string();
        let labels = RevocationLabels { provider, outcome };
        self.revocations.get_or_create(&labels).inc();
    }

    fn warned(&self, provider: &ProviderName) {
        let provider = provider.to_string();
        self.warnings
            .get_or_create(&ProviderLabels { provider })
            .inc();
    }

    fn round(&self, due: usize, resting: usize) {
        self.due.set(gauge(due));
        self.resting.set(gauge(resting));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_server_and_outcome() {
        let metrics = Metrics::default();
        metrics.call("notes", "ok", 250);
        metrics.call("notes", "ok", 250);
        metrics.call("notes", "denied", 90);
        let text = metrics.text(true, 0);
        assert!(
            text.contains(r#"countersign_calls_total{server="notes",outcome="ok"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"countersign_calls_total{server="notes",outcome="denied"} 1"#),
            "{text}"
        );
        assert!(text.contains("countersign_call_seconds_count 3"), "{text}");
        assert!(text.contains("countersign_ready 1"), "{text}");
    }
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use countersign_core::connection::{Connection, ReauthReason, State, Status};
use countersign_core::error::CallError;
use countersign_core::ports::fakes::MemoryRecords;
use countersign_core::ports::{
    BoxFuture, Kind, Record, RecordKey, Records, Revision, SecretChange, StoreError, World, Write,
};
use countersign_core::request::{Outgoing, SendError, Sender};
use countersign_core::scope::{Implications, ScopeSet};
use countersign_core::time::Timestamp;
use countersign_core::token_answer::Answer;
use countersign_oauth::Oauth;
use countersign_oauth::http::Guard;
use countersign_oauth::refresh::FreshError;
use serde_json::json;
use url::Url;

use crate::support::{NOW, Scripted, Stage, stage, tokens};

const HOUR: u64 = 3600;

async fn connected() -> Stage {
    let stage = stage().await;
    stage
        .connected(
            "ana",
            tokens("access-token-1", Some("refresh-token-1"), Some(HOUR)),
        )
        .await;
    stage
}

fn lapse(stage: &Stage) {
    stage.clock.advance(Duration::from_secs(HOUR + 1));
}

async fn fresh(stage: &Stage) -> Result<countersign_oauth::Held, FreshError> {
    stage
        .oauth
        .fresh(stage.held("ana").await, &stage.party(), None)
        .await
}

pub(crate) fn reason(result: Result<countersign_oauth::Held, FreshError>) -> String {
    match result {
        Ok(_) => "fresh".into(),
        Err(FreshError::Call(error)) => match &error {
            CallError::NeedsReauth { reason, .. } => reason.word().into(),
            other => other.word().into(),
        },
        Err(FreshError::Store(error)) => error.to_string(),
    }
}

fn expected_end(stage: &Stage) -> Timestamp {
    stage.world.clock.now().plus(Duration::from_secs(HOUR))
}

#[tokio::test]
async fn nothing_is_asked_while_nothing_is_due() {
    let stage = connected().await;
    assert!(fresh(&stage).await.is_ok());
    assert_eq!(stage.token_requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_callers_make_one_token_request() {
    let stage = Arc::new(connected().await);
    lapse(&stage);
    let gate = stage.script.hold();
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let stage = stage.clone();
            tokio::spawn(async move { fresh(&stage).await.map(|held| held.connection) })
        })
        .collect();
    while stage.token_requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(100);
    for caller in callers {
        let connection = caller.await.unwrap().unwrap();
        assert_eq!(
            connection.credentials[0].expires_at,
            Some(expected_end(&stage))
        );
    }
    assert_eq!(stage.token_requests().len(), 2);
    let request = &stage.token_requests()[1];
    assert_eq!(
        request.field("grant_type").as_deref(),
        Some("refresh_token")
    );
    assert_eq!(
        request.field("refresh_token").as_deref(),
        Some("refresh-token-1")
    );
}

#[tokio::test]
async fn a_refresh_goes_on_when_its_caller_is_gone() {
    let stage = connected().await;
    lapse(&stage);
    let gate = stage.script.hold();
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let (oauth, held, party) = (stage.oauth.clone(), stage.held("ana").await, stage.party());
    let caller = tokio::spawn(async move { oauth.fresh(held, &party, None).await.map(drop) });
    while stage.token_requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.add_permits(1);
    let renewed = stage
        .oauth
        .wait_until(&stage.key("ana"), Duration::from_secs(60), |c| {
            c.credentials[0].expires_at == Some(expected_end(&stage))
        })
        .await
        .unwrap();
    assert!(renewed.is_some());
    assert_eq!(stage.token_requests().len(), 2);
}

#[tokio::test]
async fn the_rotated_refresh_token_is_used_next_and_an_omitted_one_is_kept() {
    let stage = connected().await;
    for (answer, used) in [
        (
            tokens("access-token-2", Some("refresh-token-2"), Some(HOUR)),
            "refresh-token-1",
        ),
        (
            tokens("access-token-3", None, Some(HOUR)),
            "refresh-token-2",
        ),
        (
            tokens("access-token-4", None, Some(HOUR)),
            "refresh-token-2",
        ),
    ] {
        lapse(&stage);
        stage.script.token(answer);
        let held = fresh(&stage).await.unwrap();
        assert!(held.connection.credentials[0].refresh_token_present);
        let request = stage.token_requests().pop().unwrap();
        assert_eq!(request.field("refresh_token").as_deref(), Some(used));
    }
}

/// A store that fails the next writes of connections.
struct Failing {
    inner: Arc<MemoryRecords>,
    failures: AtomicUsize,
}

impl Records for Failing {
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        self.inner.get(key)
    }
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>> {
        let sets_tokens = writes.iter().any(|w| {
            w.key.kind == Kind::Connection
                && w.change
                    .as_ref()
                    .is_some_and(|c| matches!(c.secret, SecretChange::Set(_)))
        });
        if sets_tokens
            && self
                .failures
                .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
                .is_ok()
        {
            return Box::pin(async { Err(StoreError::Failed("disk full".into())) });
        }
        self.inner.write(writes)
    }
    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>> {
        self.inner.list(kind, partition)
    }
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>> {
        self.inner.due(now, limit)
    }
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.inner.sweep(now)
    }
    fn is_ready(&self) -> bool {
        true
    }
}

async fn over_failing_store(stage: &Stage, failures: usize) -> Arc<Oauth> {
    let records = Arc::new(Failing {
        inner: stage.records.clone(),
        failures: failures.into(),
    });
    let world = World {
        records,
        ..stage.world.clone()
    };
    let url = Url::parse("https://cs.example.com").unwrap();
    Oauth::new(world, Arc::new(stage.guard.clone()), url)
}

#[tokio::test]
async fn a_rotated_refresh_token_is_stored_before_it_is_used() {
    let stage = connected().await;
    lapse(&stage);
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let oauth = over_failing_store(&stage, usize::MAX).await;
    let result = oauth
        .fresh(stage.held("ana").await, &stage.party(), None)
        .await;
    assert_eq!(
        result.err(),
        Some(FreshError::Store(StoreError::Failed("disk full".into())))
    );
}

#[tokio::test]
async fn a_store_that_stumbles_does_not_lose_a_rotated_token() {
    let stage = connected().await;
    lapse(&stage);
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let oauth = over_failing_store(&stage, 2).await;
    assert!(
        oauth
            .fresh(stage.held("ana").await, &stage.party(), None)
            .await
            .is_ok()
    );
    lapse(&stage);
    stage
        .script
        .token(tokens("access-token-3", None, Some(HOUR)));
    fresh(&stage).await.unwrap();
    let last = stage.token_requests().pop().unwrap();
    assert_eq!(
        last.field("refresh_token").as_deref(),
        Some("refresh-token-2")
    );
}

#[tokio::test]
async fn tokens_are_deleted_on_invalid_grant_only() {
    let html = Scripted::Raw(200, "text/html", b"<html>Sign in</html>".to_vec());
    let big = Scripted::Raw(200, "application/json", vec![b' '; 2 * 1024 * 1024]);
    let oauth_error = |status, code: &str| Scripted::Json(status, json!({"error": code}));
    let cases = [
        (oauth_error(401, "invalid_client"), "client_rejected"),
        (oauth_error(400, "invalid_request"), "provider_error"),
        (oauth_error(500, "server_error"), "provider_unavailable"),
        (
            Scripted::Raw(503, "text/plain", b"busy".to_vec()),
            "provider_unavailable",
        ),
        (html, "provider_unavailable"),
        (big, "provider_unavailable"),
        (Scripted::Broken, "provider_unavailable"),
        (Scripted::Json(302, json!({})), "provider_unavailable"),
    ];
    for (answer, expected) in cases {
        let stage = connected().await;
        lapse(&stage);
        stage.script.then("/token", answer);
        assert_eq!(reason(fresh(&stage).await), expected);
        let held = stage.held("ana").await;
        assert!(held.sealed.is_some(), "{expected}");
        assert_eq!(held.connection.state, State::Connected, "{expected}");
        // And the next call works.
        stage
            .script
            .token(tokens("access-token-2", None, Some(HOUR)));
        assert_eq!(reason(fresh(&stage).await), "fresh", "after {expected}");
    }
    for answer in [
        oauth_error(400, "invalid_grant"),
        oauth_error(200, "invalid_grant"),
    ] {
        let stage = connected().await;
        lapse(&stage);
        stage.script.then("/token", answer);
        assert_eq!(reason(fresh(&stage).await), "revoked");
        let held = stage.held("ana").await;
        assert!(held.sealed.is_none());
        assert_eq!(
            held.connection.state,
            State::NeedsReauth {
                reason: ReauthReason::Revoked
            }
        );
        let requests = stage.token_requests().len();
        assert_eq!(reason(fresh(&stage).await), "revoked");
        assert_eq!(
            stage.token_requests().len(),
            requests,
            "a dead grant is not asked for again"
        );
        assert!(stage.audited().contains("connection.refresh_failed"));
        assert!(!stage.audited().contains("token-1"));
    }
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up_after_its_timeout() {
    let mut stage = connected().await;
    stage.provider.request_timeout = Duration::from_millis(50);
    lapse(&stage);
    stage.script.then("/token", Scripted::Hang);
    assert_eq!(reason(fresh(&stage).await), "provider_unavailable");
    assert!(stage.held("ana").await.sealed.is_some());
}

/// Cannot connect at first.
struct Stumbling {
    guard: Guard,
    error: SendError,
    failures: AtomicUsize,
}

impl Sender for Stumbling {
    fn send(
        &self,
        request: Outgoing,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Answer, SendError>> {
        if self
            .failures
            .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
            .is_ok()
        {
            let error = self.error.clone();
            return Box::pin(async move { Err(error) });
        }
        self.guard.send(request, timeout)
    }
}

#[tokio::test]
async fn only_a_request_that_never_arrived_is_sent_again() {
    for (error, repeatable, expected) in [
        (SendError::Unreachable, false, "fresh"),
        (SendError::Timeout, false, "provider_unavailable"),
        (SendError::Dropped, false, "provider_unavailable"),
        (SendError::Dropped, true, "fresh"),
        (
            SendError::Refused("private".into()),
            true,
            "provider_unavailable",
        ),
    ] {
        let mut stage = connected().await;
        lapse(&stage);
        stage.provider.max_retries = 1;
        stage.description.refresh.retry_after_lost_answer = repeatable;
        stage
            .script
            .token(tokens("access-token-2", None, Some(HOUR)));
        let sender = Stumbling {
            guard: stage.guard.clone(),
            error: error.clone(),
            failures: 1.into(),
        };
        let url = Url::parse("https://cs.example.com").unwrap();
        let oauth = Oauth::new(stage.world.clone(), Arc::new(sender), url);
        let result = oauth
            .fresh(stage.held("ana").await, &stage.party(), None)
            .await;
        assert_eq!(reason(result), expected, "{error:?} {repeatable}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_another_origin_than_the_one_consented_to() {
    let mut stage = connected().await;
    lapse(&stage);
    let elsewhere = stage.base.replace("127.0.0.1", "localhost");
    stage.provider.token_endpoint = Some(Url::parse(&format!("{elsewhere}/token")).unwrap());
    assert_eq!(reason(fresh(&stage).await), "provider_changed");
    assert_eq!(stage.token_requests().len(), 1);
}

#[tokio::test]
async fn another_client_id_ends_the_connection_without_a_request() {
    let mut stage = connected().await;
    lapse(&stage);
    stage.provider.client_id = "client-2".into();
    assert_eq!(reason(fresh(&stage).await), "provider_changed");
    assert_eq!(stage.token_requests().len(), 1);
    let (status, why) = stage.held("ana").await.connection.status(
        stage.world.clock.now(),
        &ScopeSet::default(),
        &Implications::default(),
    );
    assert_eq!(
        (status, why),
        (Status::NeedsReauth, Some(ReauthReason::ProviderChanged))
    );
}

#[tokio::test]
async fn a_token_that_is_good_yet_is_used_on_when_the_refresh_fails() {
    let stage = connected().await;
    stage.clock.advance(Duration::from_secs(HOUR - 60));
    stage
        .script
        .then("/token", Scripted::Raw(503, "text/plain", vec![]));
    assert_eq!(reason(fresh(&stage).await), "fresh");
    assert_eq!(stage.token_requests().len(), 2);
    // It is left alone for a while, then asked again.
    assert_eq!(reason(fresh(&stage).await), "fresh");
    assert_eq!(stage.token_requests().len(), 2);
    stage.clock.advance(Duration::from_secs(11));
    stage
        .script
        .token(tokens("access-token-2", None, Some(HOUR)));
    let held = fresh(&stage).await.unwrap();
    assert_eq!(
        held.connection.credentials[0].expires_at,
        Some(expected_end(&stage))
    );
}

#[tokio::test]
async fn a_refused_client_does_not_stop_a_token_that_is_good_yet() {
    let stage = connected().await;
    stage.clock.advance(Duration::from_secs(HOUR - 60));
    stage.script.then(
        "/token",
        Scripted::Json(401, json!({"error": "invalid_client"})),
    );
    assert_eq!(reason(fresh(&stage).await), "fresh");
}

#[tokio::test]
async fn a_token_without_refresh_token_expires() {
    let stage = stage().await;
    stage
        .connected("ana", tokens("access-token-1", None, Some(HOUR)))
        .await;
    assert_eq!(reason(fresh(&stage).await), "fresh");
    lapse(&stage);
    assert_eq!(reason(fresh(&stage).await), "expired");
    assert_eq!(stage.token_requests().len(), 1);
}

#[tokio::test]
async fn an_upstream_401_forces_one_refresh_in_a_minute() {
    let stage = connected().await;
    let force = async |held| stage.oauth.force_once(held, &stage.party(), None).await;
    stage.clock.advance(Duration::from_secs(5));
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let old = stage.held("ana").await;
    let new = force(stage.held("ana").await).await.unwrap();
    assert_eq!(
        new.connection.credentials[0].expires_at,
        Some(expected_end(&stage))
    );
    assert_eq!(stage.token_requests().len(), 2);
    // A call that still had the old token joins what was done.
    assert_eq!(reason(force(old).await), "fresh");
    assert_eq!(stage.token_requests().len(), 2);
    // The new one refused as well: not again within the minute.
    assert_eq!(reason(force(new).await), "upstream_unauthorized");
    assert_eq!(stage.token_requests().len(), 2);
    stage.clock.advance(Duration::from_secs(61));
    stage
        .script
        .token(tokens("access-token-3", None, Some(HOUR)));
    assert_eq!(reason(force(stage.held("ana").await).await), "fresh");
    assert_eq!(stage.token_requests().len(), 3);
}

#[tokio::test]
async fn a_token_that_ended_on_its_way_is_renewed_and_nothing_else() {
    let stage = connected().await;
    for access in ["access-token-2", "access-token-3"] {
        let held = stage.held("ana").await;
        let generation = held.connection.generation;
        lapse(&stage);
        // The host was paused: an upstream has to refuse what it sends now.
        let why = ReauthReason::UpstreamUnauthorized;
        let key = stage.key("ana");
        stage.oauth.reject(&key, generation, why).await.unwrap();
        assert_eq!(stage.held("ana").await.connection.state, State::Connected);
        stage.script.token(tokens(access, None, Some(HOUR)));
        let renewed = stage.oauth.force_once(held, &stage.party(), None).await;
        assert_eq!(reason(renewed), "fresh");
    }
    assert_eq!(stage.token_requests().len(), 3);
}

#[tokio::test]
async fn an_upstream_401_without_refresh_token_needs_the_user() {
    let stage = stage().await;
    let connection = stage
        .connected("ana", tokens("access-token-1", None, None))
        .await;
    let result = stage
        .oauth
        .force_once(stage.held("ana").await, &stage.party(), None)
        .await;
    assert_eq!(reason(result), "upstream_unauthorized");
    let why = ReauthReason::UpstreamUnauthorized;
    stage
        .oauth
        .reject(&stage.key("ana"), connection.generation + 1, why)
        .await
        .unwrap();
    assert_eq!(
        stage.held("ana").await.connection.state,
        State::Connected,
        "a newer consent is left alone"
    );
    stage
        .oauth
        .reject(&stage.key("ana"), connection.generation, why)
        .await
        .unwrap();
    assert_eq!(reason(fresh(&stage).await), "upstream_unauthorized");
}

#[tokio::test]
async fn two_replicas_make_one_token_request() {
    let stage = connected().await;
    lapse(&stage);
    let url = Url::parse("https://cs.example.com").unwrap();
    let other = Oauth::new(stage.world.clone(), Arc::new(stage.guard.clone()), url);
    let gate = stage.script.hold();
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let party = stage.party();
    let (first, second) = (stage.held("ana").await, stage.held("ana").await);
    let open = async {
        while stage.token_requests().len() < 2 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(10);
    };
    let (a, b, ()) = tokio::join!(
        stage.oauth.fresh(first, &party, None),
        other.fresh(second, &party, None),
        open
    );
    assert_eq!((reason(a), reason(b)), ("fresh".into(), "fresh".into()));
    assert_eq!(stage.token_requests().len(), 2);
}

#[tokio::test]
async fn a_consent_during_a_refresh_wins() {
    let stage = connected().await;
    lapse(&stage);
    let gate = stage.script.hold();
    stage.script.token(tokens(
        "access-token-2",
        Some("refresh-token-2"),
        Some(HOUR),
    ));
    let (oauth, held, party) = (stage.oauth.clone(), stage.held("ana").await, stage.party());
    let refresh =
        tokio::spawn(async move { oauth.fresh(held, &party, None).await.map(|h| h.connection) });
    while stage.token_requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    // As another replica's consent would.
    let now = stage.held("ana").await;
    let mut changed = Connection::clone(&now.connection);
    changed.generation += 1;
    changed.credentials[0].issued_at = stage.world.clock.now();
    changed.credentials[0].expires_at = Some(NOW.plus(Duration::from_secs(100 * HOUR)));
    let key = RecordKey::within(Kind::Connection, "ana", stage.key("ana").record_name());
    let write = countersign_core::ports::put(
        key,
        countersign_core::ports::Expect::At(now.revision),
        &changed,
    );
    stage.records.write(vec![write.unwrap()]).await.unwrap();
    gate.add_permits(10);
    let after = refresh.await.unwrap().unwrap();
    assert_eq!(*after, changed);
}

//! The user's word for calls that a policy wants it for: asked by calls,
//! answered on a page, waited for by calls that are held.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_core::approval::{
    self, Answer, Approval, ApprovalId, NotAsked, Question, Standing, Word,
};
use countersign_core::audit::{AuditEvent, Outcome};
use countersign_core::decide::approval_required;
use countersign_core::error::CallError;
use countersign_core::names::UserName;
use countersign_core::ports::World;
use countersign_core::secret::SealKey;
use tokio::sync::watch;
use url::Url;

use crate::call::Exchange;
use crate::wiring::store_error;

/// How often an answer that another replica may have taken is looked for.
const POLL: Duration = Duration::from_secs(1);

/// Questions and answers; what has to outlive the process is in the store.
pub struct Approvals {
    world: World,
    key: SealKey,
    public_url: Url,
    waiting: Mutex<HashMap<ApprovalId, watch::Sender<()>>>,
}

impl Approvals {
    /// With the key that makes addresses of questions.
    #[must_use]
    pub fn new(world: World, key: SealKey, public_url: Url) -> Self {
        Self {
            world,
            key,
            public_url,
            waiting: Mutex::default(),
        }
    }

    /// Uses up the user's word for this very call.
    ///
    /// # Errors
    /// [`CallError::ApprovalRequired`] if he has yet to give it,
    /// [`CallError::PolicyDenied`] if he said no a little while ago.
    pub(crate) async fn word(
        &self,
        exchange: &Exchange,
        question: &Question,
    ) -> Result<Word, CallError> {
        if !exchange.caller.has_browser_identity {
            return Err(approval_required(question, None));
        }
        let id = question.id(&self.key);
        let records = &*self.world.records;
        let before = approval::answer(records, &question.user, &id, self.world.clock.now()).await;
        let standing = approval::spend(records, question, &id, self.world.clock.now()).await;
        match (standing.map_err(|e| store_error(&e))?, before) {
            (Standing::Allowed(word), _) => {
                self.note(question, "approval.used", Outcome::Allowed, exchange);
                Ok(word)
            }
            (Standing::Denied, _) => Err(CallError::PolicyDenied {
                policy: question.policy.clone(),
                code: "approval_denied".into(),
                message:
                    "The user was asked about this very call and said no. Do not try it again \
                          unless the user asks for it."
                        .into(),
            }),
            (Standing::TooMany, _) => Err(CallError::RateLimited {
                retry_after: Duration::from_secs(60),
            }),
            (Standing::Open, before) => {
                if !matches!(before, Ok(Some(Answer::Open))) {
                    self.note(question, "approval.asked", Outcome::Pending, exchange);
                }
                Err(approval_required(question, Some(id)))
            }
        }
    }

    /// Where the user answers: CONTRACT's `authorize_url`.
    pub(crate) fn address(&self, id: &ApprovalId) -> String {
        let mut url = self.public_url.clone();
        url.set_path(&format!("/approve/{}", id.as_str()));
        url.into()
    }

    /// Waits for the user's answer; false if none comes in time.
    pub(crate) async fn answered(&self, user: &UserName, id: &ApprovalId, limit: Duration) -> bool {
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        // Subscribed before the first look, so that nothing falls between.
        let mut changes = self.subscribe(id);
        loop {
            let now = self.world.clock.now();
            match approval::answer(&*self.world.records, user, id, now).await {
                Ok(Some(Answer::Open)) => {}
                Ok(Some(Answer::Allowed | Answer::Denied)) => return true,
                // It has ended, or another call has used it up.
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(%error, "waiting for an approval failed");
                    return false;
                }
            }
            tokio::select! {
                () = &mut deadline => return false,
                _ = changes.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// What this user is asked.
    ///
    /// # Errors
    /// [`NotAsked`].
    pub(crate) async fn show(
        &self,
        user: &UserName,
        id: &ApprovalId,
    ) -> Result<Approval, NotAsked> {
        approval::show(&*self.world.records, user, id, self.world.clock.now()).await
    }

    /// The user's answer. It is in the audit log before a call can use it: a
    /// yes that cannot be recorded is none.
    ///
    /// # Errors
    /// [`NotAsked`].
    pub(crate) async fn decide(
        &self,
        user: &UserName,
        id: &ApprovalId,
        allow: bool,
    ) -> Result<Approval, NotAsked> {
        let now = self.world.clock.now();
        let records = &*self.world.records;
        let shown = approval::show(records, user, id, now).await?;
        if shown.answer != Answer::Open {
            return Err(NotAsked::Answered(shown.answer));
        }
        let (action, outcome) = if allow {
            ("approval.allowed", Outcome::Allowed)
        } else {
            ("approval.denied", Outcome::Denied)
        };
        let event = event(&self.world, &shown.question, action, outcome);
        self.world.audit.record(event).await?;
        let approval = approval::decide(records, user, id, allow, now).await?;
        if let Some(waiting) = self.waiting().get(id) {
            waiting.send_replace(());
        }
        Ok(approval)
    }

    /// Some were answered by another host: whoever waits looks again.
    pub(crate) fn changed(&self) {
        for waiting in self.waiting().values() {
            waiting.send_replace(());
        }
    }

    fn note(&self, question: &Question, action: &str, outcome: Outcome, exchange: &Exchange) {
        let mut event = event(&self.world, question, action, outcome);
        let call = format!("; call {}", exchange.id);
        event.detail.get_or_insert_default().push_str(&call);
        self.world.audit.enqueue(event);
    }

    fn subscribe(&self, id: &ApprovalId) -> watch::Receiver<()> {
        let mut waiting = self.waiting();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting
            .entry(id.clone())
            .or_insert_with(|| watch::channel(()).0)
            .subscribe()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ApprovalId, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who, in which call, for which policies. Never the arguments.
fn event(world: &World, question: &Question, action: &str, outcome: Outcome) -> AuditEvent {
    let policies: Vec<_> = question.reasons.iter().map(|r| r.policy.as_str()).collect();
    let detail = format!(
        "{} {}, for policy {}",
        question.method,
        question.name.as_deref().unwrap_or_default(),
        policies.join(", ")
    );
    let mut event = AuditEvent::new(world.clock.now(), action, outcome)
        .by(&question.user)
        .on(format!("server:{}", question.server))
        .detail(detail);
    event.team = Some(question.team.to_string());
    event.client = Some(question.client.to_string());
    event
}

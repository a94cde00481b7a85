//! The user's word for one call.
//!
//! A policy that wants it makes a [`Question`]; the answer is kept in the store
//! under an id that only this installation can compute from the question, so
//! that an agent which calls again finds the same page. An answer is spent by a
//! compare-and-set: of two replicas only one gets the [`Word`], and only with a
//! [`Word`] does [`crate::decide`] make a permit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ClientId, Digest, PolicyName, ServerName, TeamName, UserName};
use crate::policy::Reason;
use crate::ports::{Expect, Kind, RecordKey, Records, StoreError, delete, load, put_until};
use crate::secret::SealKey;
use crate::time::Timestamp;

/// How long a question stands.
pub const ASKED_FOR: Duration = Duration::from_secs(30 * 60);
/// How long a yes can be used.
pub const ALLOWED_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a no is remembered.
pub const DENIED_FOR: Duration = Duration::from_secs(5 * 60);
/// Longest arguments that a person is asked about, in bytes.
pub const LONGEST_ARGUMENTS: usize = 64 * 1024;
/// Questions that one user may have open at a time.
pub const MOST_OPEN: usize = 32;
/// Of one piece of the arguments' text, in bytes: it fits into a record even if
/// every byte needs an escape.
const PIECE: usize = 3 * 1024;

/// What a user is asked: one call, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who is asked.
    pub user: UserName,
    /// In which team he acts.
    pub team: TeamName,
    /// The agent that wants to call.
    pub client: ClientId,
    /// Its name, for people.
    pub client_name: String,
    /// The server.
    pub server: ServerName,
    /// Its name, for people.
    pub server_title: String,
    /// Its address.
    pub address: String,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or resource.
    pub name: Option<String>,
    /// The first policy that wants his word.
    pub policy: PolicyName,
    /// Why he is asked.
    pub reasons: Vec<Reason>,
    /// The arguments, as people read them; kept in pieces beside this.
    #[serde(skip)]
    pub arguments: String,
    /// Binds to everything above.
    pub digest: Digest,
}

/// The parts of a [`Question`].
#[derive(Debug, Clone)]
pub(crate) struct Asking<'a> {
    pub(crate) caller: &'a crate::caller::Caller,
    pub(crate) server: &'a crate::server::Server,
    pub(crate) address: &'a str,
    pub(crate) method: &'a str,
    pub(crate) name: Option<&'a str>,
    pub(crate) arguments: Option<&'a crate::policy::arguments::Tree>,
    pub(crate) policy: PolicyName,
    pub(crate) reasons: Vec<Reason>,
}

impl Question {
    pub(crate) fn new(asking: Asking<'_>) -> Self {
        let Asking {
            caller,
            server,
            address,
            method,
            name,
            arguments,
            policy,
            reasons,
        } = asking;
        let canonical = arguments.map(crate::policy::arguments::Tree::canonical);
        let mut fields = vec![
            caller.user.as_str(),
            caller.team.as_str(),
            caller.client.as_str(),
            server.name.as_str(),
            address,
            method,
            // A name that is missing is not one that is empty.
            if name.is_some() { "named" } else { "" },
            name.unwrap_or_default(),
            canonical.as_deref().unwrap_or_default(),
        ];
        for reason in &reasons {
            fields.extend([reason.policy.as_str(), &reason.message]);
        }
        let mut bytes = Vec::new();
        for field in fields {
            bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
            bytes.extend_from_slice(field.as_bytes());
        }
        let digest = Digest::of(&bytes);
        Self {
            user: caller.user.clone(),
            team: caller.team.clone(),
            client: caller.client.clone(),
            client_name: caller.client_name.clone(),
            server: server.name.clone(),
            server_title: server.display_name.clone(),
            address: address.to_owned(),
            method: method.to_owned(),
            name: name.map(str::to_owned),
            arguments: arguments.map(|a| a.pretty()).unwrap_or_default(),
            policy,
            reasons,
            digest,
        }
    }

    /// Under which the answer is kept.
    #[must_use]
    pub fn id(&self, key: &SealKey) -> ApprovalId {
        use base64::Engine as _;
        let mac = key.mac(&[b"approval", self.digest.as_bytes()]);
        ApprovalId(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac))
    }

    /// What the user is told first: why he is asked.
    #[must_use]
    pub fn message(&self) -> String {
        let messages: Vec<_> = self.reasons.iter().map(|r| r.message.as_str()).collect();
        messages.join(" ")
    }
}

/// A question's address within its user's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApprovalId(String);

impl ApprovalId {
    /// As it stands in an address; none if it cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 43
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        fits.then(|| Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn key(&self, user: &UserName) -> RecordKey {
        let user = user.as_str().to_ascii_lowercase();
        RecordKey::within(Kind::Approval, user, self.0.as_str())
    }

    fn piece(&self, user: &UserName, index: usize) -> RecordKey {
        let key = self.key(user);
        RecordKey {
            name: format!("{}.{index}", key.name),
            ..key
        }
    }
}

/// How a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nobody has answered.
    Open,
    /// Once.
    Allowed,
    /// No.
    Denied,
}

/// A question and its answer, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What was asked.
    pub question: Question,
    /// How many pieces the arguments' text is in.
    pieces: usize,
    /// What was answered.
    pub answer: Answer,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When question or answer end.
    pub expires_at: Timestamp,
}

/// A user's yes to one call, spent: there is no other way to one than
/// [`spend`], and [`crate::decide::Judged::agreed`] takes it.
#[derive(Debug)]
pub struct Word {
    digest: Digest,
}

impl Word {
    /// Whether it was given for this question.
    pub(crate) fn is_for(&self, question: &Question) -> bool {
        self.digest == question.digest
    }
}

/// What an agent that calls (again) meets.
#[derive(Debug)]
pub enum Standing {
    /// The user allowed it, and this call has used that up.
    Allowed(Word),
    /// The user said no a little while ago.
    Denied,
    /// He has not answered yet.
    Open,
    /// He has too many questions open to get another.
    TooMany,
}

/// Why a question cannot be shown or answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    /// Never asked of this user, used up, or ended.
    #[error("there is no such question for you, or it has been used or has ended")]
    Unknown,
    /// Answered before.
    #[error("you have answered this question already")]
    Answered(Answer),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn find(
    records: &dyn Records,
    user: &UserName,
    id: &ApprovalId,
    now: Timestamp,
) -> Result<Option<(Approval, crate::ports::Revision, bool)>, StoreError> {
    let found = load::<Approval>(records, &id.key(user)).await?;
    Ok(found.map(|(approval, revision)| {
        let stands = approval.expires_at > now;
        (approval, revision, stands)
    }))
}

/// Uses up the user's yes, or puts the question to him.
///
/// # Errors
/// The store's; nothing is used up then.
pub async fn spend(
    records: &dyn Records,
    question: &Question,
    id: &ApprovalId,
    now: Timestamp,
) -> Result<Standing, StoreError> {
    loop {
        let found = find(records, &question.user, id, now).await?;
        let expect = match &found {
            Some((_, revision, _)) => Expect::At(*revision),
            None => Expect::Absent,
        };
        let (writes, standing) = match found {
            Some((approval, _, true)) if approval.question.digest == question.digest => {
                match approval.answer {
                    Answer::Denied => return Ok(Standing::Denied),
                    Answer::Open if approval.expires_at.since(now) > ASKED_FOR / 2 => {
                        return Ok(Standing::Open);
                    }
                    Answer::Open => (asked(question, id, expect, now)?, Standing::Open),
                    Answer::Allowed => {
                        let word = Word {
                            digest: approval.question.digest,
                        };
                        let pieces = 0..approval.pieces;
                        let mut writes = vec![delete(id.key(&question.user), expect)];
                        writes.extend(
                            pieces.map(|n| delete(id.piece(&question.user, n), Expect::Anything)),
                        );
                        (writes, Standing::Allowed(word))
                    }
                }
            }
            _ => {
                if open_questions(records, &question.user, now).await? >= MOST_OPEN {
                    return Ok(Standing::TooMany);
                }
                (asked(question, id, expect, now)?, Standing::Open)
            }
        };
        match records.write(writes).await {
            Ok(_) => return Ok(standing),
            // Somebody was faster: look again at what he left.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
}

fn asked(
    question: &Question,
    id: &ApprovalId,
    expect: Expect,
    now: Timestamp,
) -> Result<Vec<crate::ports::Write>, StoreError> {
    let expires_at = now.plus(ASKED_FOR);
    let pieces = pieces(&question.arguments);
    let approval = Approval {
        question: question.clone(),
        pieces: pieces.len(),
        answer: Answer::Open,
        asked_at: now,
        expires_at,
    };
    // Pieces outlive what they belong to, whatever the answer does to its time.
    let until = Some(expires_at.plus(ALLOWED_FOR));
    let mut writes = vec![put_until(id.key(&question.user), expect, &approval, until)?];
    for (index, piece) in pieces.iter().enumerate() {
        let key = id.piece(&question.user, index);
        writes.push(put_until(key, Expect::Anything, piece, until)?);
    }
    Ok(writes)
}

/// Cuts a text at character boundaries.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

async fn open_questions(
    records: &dyn Records,
    user: &UserName,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let user = user.as_str().to_ascii_lowercase();
    let rows = records.list(Kind::Approval, Some(&user)).await?;
    let open = rows
        .iter()
        .filter(|row| !row.key.name.contains('.'))
        .filter_map(|row| crate::ports::parse::<Approval>(row).ok())
        .filter(|a| a.answer == Answer::Open && a.expires_at > now);
    Ok(open.count())
}

/// What the user is asked, to show it.
///
/// # Errors
/// [`NotAsked`].
pub async fn show(
    records: &dyn Records,
    user: &UserName,
    id: &ApprovalId,
    now: Timestamp,
) -> Result<Approval, NotAsked> {
    let (mut approval, _, stands) = find(records, user, id, now)
        .await?
        .ok_or(NotAsked::Unknown)?;
    if !stands || approval.question.user != *user {
        return Err(NotAsked::Unknown);
    }
    for index in 0..approval.pieces {
        let (piece, _) = load::<String>(records, &id.piece(user, index))
            .await?
            .ok_or(NotAsked::Unknown)?;
        approval.question.arguments.push_str(&piece);
    }
    Ok(approval)
}

/// How a question stands, for who waits for its answer; none if it is gone.
///
/// # Errors
/// The store's.
pub async fn answer(
    records: &dyn Records,
    user: &UserName,
    id: &ApprovalId,
    now: Timestamp,
) -> Result<Option<Answer>, StoreError> {
    let found = find(records, user, id, now).await?;
    Ok(found.and_then(|(approval, _, stands)| stands.then_some(approval.answer)))
}

/// The user's answer; only the first one counts.
///
/// # Errors
/// [`NotAsked`].
pub async fn decide(
    records: &dyn Records,
    user: &UserName,
    id: &ApprovalId,
    allow: bool,
    now: Timestamp,
) -> Result<Approval, NotAsked> {
    loop {
        let (mut approval, revision, stands) = find(records, user, id, now)
            .await?
            .ok_or(NotAsked::Unknown)?;
        if !stands || approval.question.user != *user {
            return Err(NotAsked::Unknown);
        }
        if approval.answer != Answer::Open {
            return Err(NotAsked::Answered(approval.answer));
        }
        let (answer, time) = if allow {
            (Answer::Allowed, ALLOWED_FOR)
        } else {
            (Answer::Denied, DENIED_FOR)
        };
        approval.answer = answer;
        approval.expires_at = now.plus(time);
        let until = Some(approval.expires_at.plus(DENIED_FOR));
        let write = put_until(id.key(user), Expect::At(revision), &approval, until)?;
        match records.write(vec![write]).await {
            Ok(_) => return Ok(approval),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;

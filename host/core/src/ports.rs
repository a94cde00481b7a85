//! The traits through which the pure core and the crates around it reach the
//! world. Implementations: records in `vault`, presets in `presets`, clock and
//! randomness in `server`, fakes in [`fakes`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::audit::AuditEvent;
use crate::secret::{Sealed, Secret};
use crate::time::Timestamp;

#[cfg(any(test, feature = "fakes"))]
pub mod fakes;

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads the time.
pub trait Clock: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Timestamp;
    /// Microseconds since some fixed point; never goes back. For latencies.
    fn monotonic_micros(&self) -> u64;
}

/// A source of cryptographic randomness.
pub trait Random: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// Random bytes of a fixed length.
#[must_use]
pub fn random_bytes<const N: usize>(random: &dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// A URL-safe random token with `N` bytes of entropy.
#[must_use]
pub fn random_token<const N: usize>(random: &dyn Random) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<N>(random))
}

/// What a stored record is. The byte is part of the stored layout: never
/// reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// About the installation itself.
    Meta = 1,
    /// [`crate::provider::Provider`].
    Provider = 2,
    /// [`crate::server::Server`].
    Server = 3,
    /// A named secret; its value is the record's secret half.
    Secret = 4,
    /// [`crate::connection::Connection`] with its tokens.
    Connection = 5,
    /// A consent that has begun and not yet ended.
    Flow = 6,
    /// A user.
    User = 7,
    /// A team.
    Team = 8,
    /// A role.
    Role = 9,
    /// An OAuth client of the embedded authorization server.
    Client = 10,
    /// An authorization code of the embedded authorization server.
    Code = 11,
    /// An access token, refresh token or API token of Countersign, by its
    /// fingerprint.
    Token = 12,
    /// A browser session.
    Session = 13,
    /// A preset's enablement and approvals.
    Preset = 14,
    /// A batch of audit events.
    Audit = 15,
    /// An upstream MCP session.
    UpstreamSession = 16,
    /// A refresh lease.
    Lease = 17,
    /// A remembered consent of a user to an agent.
    AgentConsent = 18,
    /// A link for one user to connect one account.
    ConnectLink = 19,
    /// A declarative policy.
    Policy = 20,
    /// Redacted inputs of decisions. Its partition is the server's name.
    Decision = 24,
    /// Work that falls due at its `expires_at`. Never swept: see
    /// [`Records::due`].
    Due = 26,
    /// What tokens descend from: a user's word to an agent, or an API token. Its
    /// partition is the user's name.
    Grant = 21,
    /// A question to a user about one call, and his answer. Its partition is
    /// the user's name.
    Approval = 22,
    /// A token that Countersign obtained without a consent. Its partition is
    /// the provider's name.
    Obtained = 30,
    /// A key that the host signs assertions with.
    SigningKey = 31,
    /// [`crate::user_key::UserKey`] with the key. Its partition is the user's
    /// name.
    UserKey = 32,
    /// A device authorization that is under way, with its code and then what it
    /// gave.
    DeviceFlow = 33,
    /// A user's word that he knows of a change of a server. Its partition is the
    /// user's name.
    KnownChange = 34,
    /// Which user a person of an external issuer is.
    ForeignIdentity = 35,
    /// What came of a browser session's last consent, to be shown.
    Ending = 40,
    /// What a user did with an elicitation whose call another process holds.
    Elicited = 41,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 32] = [
        Self::Meta,
        Self::Provider,
        Self::Server,
        Self::Secret,
        Self::Connection,
        Self::Flow,
        Self::User,
        Self::Team,
        Self::Role,
        Self::Client,
        Self::Code,
        Self::Token,
        Self::Session,
        Self::Preset,
        Self::Audit,
        Self::UpstreamSession,
        Self::Lease,
        Self::AgentConsent,
        Self::ConnectLink,
        Self::Policy,
        Self::Decision,
        Self::Due,
        Self::Grant,
        Self::Approval,
        Self::Obtained,
        Self::SigningKey,
        Self::UserKey,
        Self::DeviceFlow,
        Self::KnownChange,
        Self::ForeignIdentity,
        Self::Ending,
        Self::Elicited,
    ];

    /// The kind with this byte.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// In a word, for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Provider => "provider",
            Self::Server => "server",
            Self::Secret => "secret",
            Self::Connection => "connection",
            Self::Flow => "flow",
            Self::User => "user",
            Self::Team => "team",
            Self::Role => "role",
            Self::Client => "client",
            Self::Code => "code",
            Self::Token => "token",
            Self::Session => "session",
            Self::Preset => "preset",
            Self::Audit => "audit",
            Self::UpstreamSession => "upstream session",
            Self::Lease => "lease",
            Self::AgentConsent => "agent consent",
            Self::ConnectLink => "connect link",
            Self::Policy => "policy",
            Self::Decision => "decision",
            Self::Due => "due work",
            Self::Grant => "grant",
            Self::Approval => "approval",
            Self::Obtained => "obtained token",
            Self::SigningKey => "signing key",
            Self::UserKey => "user's key",
            Self::DeviceFlow => "device authorization",
            Self::KnownChange => "known change",
            Self::ForeignIdentity => "identity at an issuer",
            Self::Ending => "consent's result",
            Self::Elicited => "elicitation's answer",
        }
    }

    /// What a restore does with a record of this kind: the time after it is
    /// another epoch, in which nothing begun, given or withdrawn in the one
    /// before may come back to life.
    #[must_use]
    pub fn after_restore(self) -> AfterRestore {
        match self {
            Self::Flow
            | Self::Code
            | Self::Token
            | Self::Session
            | Self::UpstreamSession
            | Self::Lease
            | Self::AgentConsent
            | Self::ConnectLink
            | Self::Grant
            | Self::Approval
            | Self::Obtained
            | Self::DeviceFlow
            | Self::Ending
            | Self::Elicited => AfterRestore::Void,
            Self::Provider | Self::Server | Self::Team | Self::Role | Self::Policy => {
                AfterRestore::Settings
            }
            Self::Secret | Self::Preset | Self::SigningKey => AfterRestore::Trust,
            Self::Connection
            | Self::User
            | Self::UserKey
            | Self::KnownChange
            | Self::ForeignIdentity
            | Self::Client => AfterRestore::People,
            // What was to be revoked still is; what has become needless is
            // noticed by whoever does it.
            Self::Meta | Self::Audit | Self::Decision | Self::Due => AfterRestore::History,
        }
    }
}

/// What a restore does with a record; where the store that it replaces can
/// still be read, that is asked, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRestore {
    /// It is dropped.
    Void,
    /// What administrators set: as it was in the backup.
    Settings,
    /// As it was in the backup, unless the replaced store knows a later
    /// version: what was rotated or withdrawn stays so.
    Trust,
    /// As with [`AfterRestore::Trust`]; and what the replaced store has no more
    /// stays deleted.
    People,
    /// What the replaced store has is kept as well.
    History,
}

/// Counts the writes of one record, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Tells one version of a record from all others it ever had, also from those
/// of a deleted record of the same name, which counts its revisions anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub [u8; 24]);

/// Which record. Stored files show neither partition nor name, only keyed
/// hashes of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// What it is.
    pub kind: Kind,
    /// What it is listed by: a user's name for connections, else empty.
    pub partition: String,
    /// Unique within kind and partition.
    pub name: String,
}

impl RecordKey {
    /// A record that is listed with all of its kind.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind,
            partition: String::new(),
            name: name.into(),
        }
    }

    /// A record that is listed by its partition.
    #[must_use]
    pub fn within(kind: Kind, partition: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            partition: partition.into(),
            name: name.into(),
        }
    }
}

/// A record as read.
pub struct Record {
    /// Its key.
    pub key: RecordKey,
    /// Its revision, for compare-and-set.
    pub revision: Revision,
    /// For [`Records::reread`].
    pub version: Version,
    /// The public half: JSON.
    pub document: Vec<u8>,
    /// The secret half, still sealed.
    pub secret: Option<Sealed>,
}

/// A record, read by somebody who remembers a version's public half.
pub enum Reread {
    /// It still is that version; here is its secret half.
    Same(Option<Sealed>),
    /// It is another one, or gone.
    Other(Option<Record>),
}

/// What a write demands of the record it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// It is at this revision.
    At(Revision),
    /// Whatever is there.
    Anything,
}

/// What a write does with the secret half.
pub enum SecretChange {
    /// Leaves what is there.
    Keep,
    /// Replaces or adds it, under a fresh data key.
    Set(Secret),
    /// Removes it, and with it its data key.
    Remove,
}

/// One write of an atomic batch.
pub struct Write {
    /// Which record.
    pub key: RecordKey,
    /// Compare.
    pub expect: Expect,
    /// And set; `None` deletes.
    pub change: Option<Change>,
}

/// The new content of a record.
pub struct Change {
    /// The public half: JSON, at most 8 KiB with the secret half.
    pub document: Vec<u8>,
    /// The secret half.
    pub secret: SecretChange,
    /// When the record may be swept away; of [`Kind::Due`], when it falls due.
    pub expires_at: Option<Timestamp>,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first. Nothing of the batch was written.
    #[error("the record was changed by somebody else meanwhile; read it again")]
    Conflict,
    /// The record cannot be decrypted or parsed.
    #[error("a stored record is damaged: {0}")]
    Damaged(String),
    /// The record is larger than the store takes.
    #[error("the record is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The disk or the database failed; nothing of the batch is acknowledged.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// The one store. Every write that returns `Ok` is durable and atomic.
pub trait Records: Send + Sync {
    /// Reads one record.
    fn get<'a>(&'a self, key: &'a RecordKey) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Reads one record for a reader who remembers the public half of `known`:
    /// as long as that is what is stored, it is not opened again.
    fn reread<'a>(
        &'a self,
        key: &'a RecordKey,
        known: Version,
    ) -> BoxFuture<'a, Result<Reread, StoreError>> {
        Box::pin(async move {
            Ok(match self.get(key).await? {
                Some(record) if record.version == known => Reread::Same(record.secret),
                other => Reread::Other(other),
            })
        })
    }

    /// Writes all or nothing; returns the new revisions in order (a deleted
    /// record's is its last).
    fn write(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<Vec<Revision>, StoreError>>;

    /// All records of a kind, or of one partition of it, ordered by nothing in
    /// particular.
    fn list<'a>(
        &'a self,
        kind: Kind,
        partition: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Record>, StoreError>>;

    /// Up to `limit` records of [`Kind::Due`] whose `expires_at` is past,
    /// soonest first. Costs what is due, not what is stored.
    fn due(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, StoreError>>;

    /// Removes records whose `expires_at` is past, but for [`Kind::Due`];
    /// returns how many.
    fn sweep(&self, now: Timestamp) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Whether writes are being acknowledged.
    fn is_ready(&self) -> bool;

    /// What this process is called among those that share the store: another
    /// name after every start.
    fn process(&self) -> &str {
        "only"
    }

    /// Whether the process with this name may still be running. A false "no"
    /// is possible for a moment, while it has lost the store; a false "yes" is
    /// possible for as long as the store takes it for merely slow.
    fn is_running<'a>(&'a self, process: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(std::future::ready(Ok(process == self.process())))
    }
}

/// Takes audit events.
pub trait AuditSink: Send + Sync {
    /// For consent and administration: returns when the event is durable.
    fn record(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), StoreError>>;

    /// For calls: queued, written in batches; a lost batch is counted.
    fn enqueue(&self, event: AuditEvent);
}

/// The surroundings most services need.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The store.
    pub records: Arc<dyn Records>,
    /// The audit log.
    pub audit: Arc<dyn AuditSink>,
}

/// Reads and parses one document.
///
/// # Errors
/// [`StoreError::Damaged`] if it is not a `T`.
pub async fn load<T: serde::de::DeserializeOwned>(
    records: &dyn Records,
    key: &RecordKey,
) -> Result<Option<(T, Revision)>, StoreError> {
    let Some(record) = records.get(key).await? else {
        return Ok(None);
    };
    Ok(Some((parse(&record)?, record.revision)))
}

/// Parses a record's public half.
///
/// # Errors
/// [`StoreError::Damaged`] if it is not a `T`.
pub fn parse<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T, StoreError> {
    serde_json::from_slice(&record.document)
        .map_err(|e| StoreError::Damaged(format!("{:?} record: {e}", record.key.kind)))
}

/// A write that sets the public half and keeps the secret half.
///
/// # Errors
/// [`StoreError::Damaged`] if `document` cannot be written as JSON.
pub fn put<T: serde::Serialize>(
    key: RecordKey,
    expect: Expect,
    document: &T,
) -> Result<Write, StoreError> {
    put_until(key, expect, document, None)
}

/// [`put`] for a record that may be swept away later.
///
/// # Errors
/// As [`put`].
pub fn put_until<T: serde::Serialize>(
    key: RecordKey,
    expect: Expect,
    document: &T,
    expires_at: Option<Timestamp>,
) -> Result<Write, StoreError> {
    let document = serde_json::to_vec(document).map_err(|e| StoreError::Damaged(e.to_string()))?;
    Ok(Write {
        key,
        expect,
        change: Some(Change {
            document,
            secret: SecretChange::Keep,
            expires_at,
        }),
    })
}

/// A write that deletes.
#[must_use]
pub fn delete(key: RecordKey, expect: Expect) -> Write {
    Write {
        key,
        expect,
        change: None,
    }
}

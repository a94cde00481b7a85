//! Records, sealed and opened.

use std::sync::{Arc, PoisonError, RwLock};

use countersign_core::ports::{Kind, Random, RecordKey, Version, random_bytes};
use countersign_core::secret::{MacKey, SealKey, Sealed, Secret};

use crate::keys::{Kek, KekId, KeyRing};
use crate::layout::{self, Body, Malformed};
use crate::store::Row;

/// One byte of kind, 16 of the partition's keyed hash, 16 of the name's.
pub(crate) type StoreKey = [u8; 33];

/// Why a stored record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(
        "its bytes were changed, or it was moved here from another place or revision (or a disk \
         error hit it)"
    )]
    Seal,
    #[error("its secret half was sealed with key {0}, which the key source does not give")]
    NoKey(KekId),
}

/// The secret half that a record is sealed with.
pub(crate) enum Half<'a> {
    None,
    /// Under a fresh data key.
    Fresh(&'a Secret),
    /// As it lies in the record being replaced.
    Kept(&'a Row),
}

/// A record, opened but for its secret half.
pub(crate) struct Unsealed {
    pub(crate) partition: String,
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) document: Vec<u8>,
    pub(crate) secret: Option<Sealed>,
}

/// The key-encryption keys in use.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) ring: KeyRing,
    /// What the store says that everything new is sealed with; in the ring.
    pub(crate) sealing: Arc<Kek>,
}

/// All keys of one store.
pub(crate) struct Sealer {
    keys: RwLock<Keys>,
    random: Arc<dyn Random>,
    /// To be wrapped anew when keys are rotated.
    pub(crate) root: SealKey,
    names: MacKey,
    kinds: Vec<SealKey>,
    /// For the head.
    pub(crate) head: SealKey,
}

impl Sealer {
    pub(crate) fn new(root: SealKey, keys: Keys, random: Arc<dyn Random>) -> Self {
        Self {
            keys: RwLock::new(keys),
            random,
            names: root.derive("vault record keys 1").for_macs(),
            kinds: (0..=u8::MAX)
                .map(|k| root.derive(&format!("vault kind {k} 1")))
                .collect(),
            head: root.derive("vault head 1"),
            root,
        }
    }

    /// The keys as they are now.
    pub(crate) fn keys(&self) -> Keys {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    fn find(&self, id: KekId) -> Option<Arc<Kek>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.ring.find(id).cloned()
    }

    pub(crate) fn random(&self) -> &dyn Random {
        &*self.random
    }

    pub(crate) fn nonce(&self) -> [u8; 24] {
        random_bytes(&*self.random)
    }

    pub(crate) fn store_key(&self, key: &RecordKey) -> StoreKey {
        let kind = key.kind as u8;
        let partition = self.partition_hash(kind, &key.partition);
        let name = self.names.mac(&[
            b"name",
            &[kind],
            key.partition.as_bytes(),
            key.name.as_bytes(),
        ]);
        let mut out = [kind; 33];
        for (to, from) in out[1..]
            .iter_mut()
            .zip(partition[..16].iter().chain(&name[..16]))
        {
            *to = *from;
        }
        out
    }

    /// What the store keys of a kind, or of a partition of it, begin with.
    pub(crate) fn prefix(&self, kind: Kind, partition: Option<&str>) -> Vec<u8> {
        let mut out = vec![kind as u8];
        if let Some(partition) = partition {
            out.extend_from_slice(&self.partition_hash(kind as u8, partition)[..16]);
        }
        out
    }

    fn partition_hash(&self, kind: u8, partition: &str) -> [u8; 32] {
        self.names
            .mac(&[b"partition", &[kind], partition.as_bytes()])
    }

    /// Seals a record.
    ///
    /// # Errors
    /// [`Broken`] if a secret half is to be kept and does not open; `Short` if
    /// a part is too long for its frame.
    pub(crate) fn seal(
        &self,
        key: &RecordKey,
        (revision, expires_at): (u64, Option<i64>),
        document: &[u8],
        half: &Half<'_>,
    ) -> Result<Row, Broken> {
        let place = self.store_key(key);
        let kek = self.keys().sealing;
        let (data_key, secret) = match half {
            Half::None => (None, Vec::new()),
            Half::Fresh(secret) => {
                let data_key = SealKey::new(random_bytes(&*self.random));
                let sealed = secret.seal(&data_key, self.nonce(), &secret_aad(&place));
                (Some(data_key), sealed)
            }
            Half::Kept(old) => {
                let body = Body::parse(&old.body)?;
                let data_key = self.data_key(&place, old, &body)?;
                (data_key, body.secret.to_vec())
            }
        };
        let nonce = self.nonce();
        let bind = binding(&place, revision, expires_at);
        let id = if data_key.is_some() {
            kek.id
        } else {
            KekId([0; 8])
        };
        let wrapped = data_key
            .map(|k| k.wrap(&kek.key, self.nonce(), &wrap_aad(&bind, id, &nonce)))
            .unwrap_or_default();
        let kind = key.kind as u8;
        let header =
            layout::header(kind, id, wrapped.len(), secret.len()).ok_or(Malformed::Short)?;
        let framed =
            layout::frame_document(&key.partition, &key.name, document).ok_or(Malformed::Short)?;
        let sealed = self
            .kind_key(kind)?
            .seal(nonce, &document_aad(&bind, &header), &framed);
        let body = [&header[..], &sealed, &wrapped, &secret].concat();
        Ok(Row {
            revision,
            expires_at,
            body,
        })
    }

    /// Opens a record found at `place`.
    pub(crate) fn open(&self, place: &[u8], row: &Row) -> Result<Unsealed, Broken> {
        let body = Body::parse(&row.body)?;
        if place.first() != Some(&body.kind) {
            return Err(Broken::Seal);
        }
        let bind = binding(place, row.revision, row.expires_at);
        let framed = self
            .kind_key(body.kind)?
            .open(&document_aad(&bind, &body.header), body.document)
            .map_err(|_| Broken::Seal)?;
        let (partition, name, document) = layout::read_document(&framed).ok_or(Broken::Seal)?;
        Ok(Unsealed {
            secret: self.secret_half(place, row, &body)?,
            partition: partition.to_owned(),
            name: name.to_owned(),
            version: body.version(),
            document: document.to_vec(),
        })
    }

    /// The secret half of a record whose public half is known already; none if
    /// it is another version by now. The data key opens only for the revision,
    /// place and nonce that it was wrapped for.
    pub(crate) fn reopen(
        &self,
        place: &[u8],
        row: &Row,
        known: Version,
    ) -> Result<Option<Option<Sealed>>, Broken> {
        let body = Body::parse(&row.body)?;
        if place.first() != Some(&body.kind) || body.version() != known {
            return Ok(None);
        }
        self.secret_half(place, row, &body).map(Some)
    }

    fn secret_half(
        &self,
        place: &[u8],
        row: &Row,
        body: &Body<'_>,
    ) -> Result<Option<Sealed>, Broken> {
        let key = self.data_key(place, row, body)?;
        Ok(key.map(|key| Sealed::new(key, secret_aad(place), body.secret.to_vec())))
    }

    /// The same record with its data key wrapped by the key that seals now;
    /// none if it is already, or has no data key. The revision stays: for whom
    /// it belongs to, nothing has changed.
    pub(crate) fn rewrap(&self, place: &[u8], row: &Row) -> Result<Option<Row>, Broken> {
        let body = Body::parse(&row.body)?;
        let kek = self.keys().sealing;
        if body.wrapped.is_empty() || body.kek == kek.id {
            return Ok(None);
        }
        self.verify(place, row)?;
        let Some(data_key) = self.data_key(place, row, &body)? else {
            return Ok(None);
        };
        let bind = binding(place, row.revision, row.expires_at);
        let kind_key = self.kind_key(body.kind)?;
        let framed = kind_key
            .open(&document_aad(&bind, &body.header), body.document)
            .map_err(|_| Broken::Seal)?;
        let nonce = self.nonce();
        let wrapped = data_key.wrap(&kek.key, self.nonce(), &wrap_aad(&bind, kek.id, &nonce));
        let header = layout::header(body.kind, kek.id, wrapped.len(), body.secret.len())
            .ok_or(Malformed::Short)?;
        let sealed = kind_key.seal(nonce, &document_aad(&bind, &header), &framed);
        Ok(Some(Row {
            body: [&header[..], &sealed, &wrapped, body.secret].concat(),
            ..row.clone()
        }))
    }

    /// Whether everything in it opens.
    pub(crate) fn verify(&self, place: &[u8], row: &Row) -> Result<(), Broken> {
        match self.open(place, row)?.secret {
            Some(secret) if !secret.is_sound() => Err(Broken::Seal),
            _ => Ok(()),
        }
    }

    fn data_key(
        &self,
        place: &[u8],
        row: &Row,
        body: &Body<'_>,
    ) -> Result<Option<SealKey>, Broken> {
        if body.wrapped.is_empty() {
            return Ok(None);
        }
        let kek = self.find(body.kek).ok_or(Broken::NoKey(body.kek))?;
        let bind = binding(place, row.revision, row.expires_at);
        let aad = wrap_aad(&bind, body.kek, body.nonce());
        SealKey::unwrap(&kek.key, &aad, body.wrapped)
            .map(Some)
            .map_err(|_| Broken::Seal)
    }

    fn kind_key(&self, kind: u8) -> Result<&SealKey, Broken> {
        self.kinds.get(usize::from(kind)).ok_or(Broken::Seal)
    }
}

/// Layout, kind, partition and name (as the store key's keyed hashes), revision
/// and expiry.
fn binding(place: &[u8], revision: u64, expires_at: Option<i64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(layout::LAYOUT);
    out.extend_from_slice(&revision.to_le_bytes());
    out.push(u8::from(expires_at.is_some()));
    out.extend_from_slice(&expires_at.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(place);
    out
}

fn document_aad(bind: &[u8], header: &[u8]) -> Vec<u8> {
    [b"document", bind, header].concat()
}

/// The nonce of the public half ties the secret half to this very version.
fn wrap_aad(bind: &[u8], kek: KekId, nonce: &[u8]) -> Vec<u8> {
    [b"data key", bind, &kek.0, nonce].concat()
}

/// Without the revision: a data key seals one secret only, and what changes
/// with the revision is how that key is wrapped.
fn secret_aad(place: &[u8]) -> Vec<u8> {
    [b"secret half 1", place].concat()
}

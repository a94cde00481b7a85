//! Making a backup of a vault in use.

use std::collections::BTreeMap;

use countersign_core::ports::{Kind, random_bytes};
use countersign_core::time::Timestamp;
use tokio::sync::mpsc;

use super::chunk::{self, Chunks};
use super::{BackupError, Summary};
use crate::head::{HEAD_KEY, Head};
use crate::vault::{Vault, check, open};

/// Rows read at a time.
const PAGE: usize = 256;

impl Vault {
    /// Sends a backup, piece by piece. What is written meanwhile is not in it.
    ///
    /// # Errors
    /// [`BackupError`]; what was sent until then is no backup, and is refused
    /// as one.
    pub async fn backup(
        &self,
        now: Timestamp,
        pieces: mpsc::Sender<Vec<u8>>,
    ) -> Result<Summary, BackupError> {
        let sealer = &self.shared.sealer;
        let store = &*self.shared.store;
        let view = store.view().await?;
        let keys = sealer.keys();
        // Of this moment or a little later: what it says holds for both.
        let check = check::read(store, &keys.ring).await?;
        let id: [u8; chunk::ID] = random_bytes(sealer.random());
        let header = chunk::header(id, now, &check.row(&sealer.root, check.revision()))
            .ok_or(BackupError::Header)?;
        let chunks = Chunks::new(&sealer.root, &header);
        let send = async |piece| {
            let sent = pieces.send(piece).await;
            sent.map_err(|_| BackupError::BrokenOff)
        };
        send(header).await?;

        let (mut number, mut plain) = (0, Vec::new());
        let mut summary = Summary {
            id: id.iter().map(|b| format!("{b:02x}")).collect(),
            created_at: now,
            records: 0,
            kinds: BTreeMap::new(),
            damaged: 0,
            unreadable_parts: 0,
            is_complete: false,
        };
        let (mut told, mut counted) = (None, Head::default());
        let mut from = Some(Vec::new());
        while let Some(at) = from {
            let page = view.scan(&[], &at, PAGE).await?;
            summary.unreadable_parts += page.holes.len() as u64;
            for (place, row) in &page.rows {
                if place == HEAD_KEY {
                    told = Head::open(&sealer.head, row).ok();
                }
                if !open::is_record(place) {
                    continue;
                }
                counted.add(&sealer.head, place, row);
                summary.damaged += u64::from(sealer.verify(place, row).is_err());
                summary.records += 1;
                let kind = place.first().and_then(|byte| Kind::of(*byte));
                let kind = kind.map_or("unknown", Kind::word).to_owned();
                *summary.kinds.entry(kind).or_default() += 1;
                chunk::frame(&mut plain, place, row);
                if plain.len() >= chunk::FULL {
                    send(chunks.seal(sealer.nonce(), number, false, &plain)).await?;
                    number += 1;
                    plain.clear();
                }
            }
            from = page.next;
        }
        if !plain.is_empty() {
            send(chunks.seal(sealer.nonce(), number, false, &plain)).await?;
            number += 1;
        }
        summary.is_complete = told == Some(counted) && summary.unreadable_parts == 0;
        let last = serde_json::to_vec(&summary)
            .map_err(|_| BackupError::Inconsistent("its summary cannot be written"))?;
        send(chunks.seal(sealer.nonce(), number, true, &last)).await?;
        Ok(summary)
    }
}

//! Reading a backup: nothing of it is believed before its chunk has opened.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use countersign_core::ports::Random;

use super::chunk::{self, Chunks};
use super::{BackupError, Summary};
use crate::keys::{KekId, KeyRing};
use crate::seal::{Broken, Keys, Sealer};
use crate::store::Row;
use crate::vault::check::{self, Check, Closed};
use crate::vault::open;

/// A backup being read, row by row.
pub(super) struct Reader<R> {
    input: R,
    chunks: Chunks,
    /// Number of the next chunk.
    number: u64,
    plain: Vec<u8>,
    at: usize,
    last_place: Vec<u8>,
    count: u64,
    summary: Option<Summary>,
    check: Check,
}

impl<R: Read> Reader<R> {
    /// Reads what stands before the first chunk; and what opens the records.
    pub(super) fn open(
        mut input: R,
        ring: &KeyRing,
        random: Arc<dyn Random>,
    ) -> Result<(Self, Sealer), BackupError> {
        let mut magic = [0; chunk::MAGIC.len()];
        let mut rest = [0; chunk::ID + 8 + 8 + 2];
        let begins = input.read_exact(&mut magic);
        if begins.is_err() || magic != chunk::MAGIC {
            return Err(BackupError::NotOne);
        }
        input.read_exact(&mut rest).map_err(|e| ended(e, 0))?;
        let [.., r0, r1, r2, r3, r4, r5, r6, r7, l0, l1] = rest;
        let revision = u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7]);
        let mut body = vec![0; usize::from(u16::from_le_bytes([l0, l1]))];
        input.read_exact(&mut body).map_err(|e| ended(e, 0))?;
        let header = [&magic[..], &rest, &body].concat();
        let row = Row {
            revision,
            expires_at: None,
            body,
        };
        let (check, root) = Check::open(ring, &row).map_err(|closed| match closed {
            Closed::Broken => BackupError::Header,
            Closed::NeedsKey(ids) => BackupError::WrongKey {
                configured: check::in_words(ring.ids().map(|(id, _)| id).collect()),
                needed: check::in_words(ids),
            },
        })?;
        let absent: Vec<KekId> = check.ids().filter(|id| ring.find(*id).is_none()).collect();
        if !absent.is_empty() {
            return Err(BackupError::MissingKey {
                needed: check::in_words(absent),
            });
        }
        let sealing = check.sealing().and_then(|id| ring.find(id));
        let keys = Keys {
            ring: ring.clone(),
            sealing: Arc::clone(sealing.unwrap_or_else(|| ring.current())),
        };
        let reader = Self {
            input,
            chunks: Chunks::new(&root, &header),
            number: 0,
            plain: Vec::new(),
            at: 0,
            last_place: Vec::new(),
            count: 0,
            summary: None,
            check,
        };
        Ok((reader, Sealer::new(root, keys, random)))
    }

    /// The next record, in order of places; none after the last one.
    pub(super) fn row(&mut self) -> Result<Option<(Vec<u8>, Row)>, BackupError> {
        while self.at == self.plain.len() {
            if self.summary.is_some() || !self.next_chunk()? {
                return Ok(None);
            }
        }
        let mut rest = self.plain.get(self.at..).unwrap_or_default();
        let (place, row) =
            chunk::read_frame(&mut rest).ok_or(BackupError::Inconsistent("a record's frame"))?;
        self.at = self.plain.len() - rest.len();
        if place <= self.last_place || !open::is_record(&place) {
            return Err(BackupError::Inconsistent("the order of its records"));
        }
        self.last_place.clone_from(&place);
        self.count += 1;
        Ok(Some((place, row)))
    }

    pub(super) fn check(&self) -> &Check {
        &self.check
    }

    /// Whether there is another chunk of records.
    fn next_chunk(&mut self) -> Result<bool, BackupError> {
        let mut head = [0; 5];
        let number = self.number;
        self.input
            .read_exact(&mut head)
            .map_err(|e| ended(e, number))?;
        let [l0, l1, l2, l3, last] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let damaged = || BackupError::Damaged { chunk: number + 1 };
        if length > chunk::LONGEST || last > 1 {
            return Err(damaged());
        }
        let mut sealed = vec![0; length];
        self.input
            .read_exact(&mut sealed)
            .map_err(|e| ended(e, number))?;
        let plain = self.chunks.open(number, last == 1, &sealed);
        let plain = plain.ok_or_else(damaged)?;
        self.number += 1;
        if last == 0 {
            (self.plain, self.at) = (plain, 0);
            return Ok(true);
        }
        let summary: Summary =
            serde_json::from_slice(&plain).map_err(|_| BackupError::Inconsistent("its summary"))?;
        if summary.records != self.count {
            return Err(BackupError::Inconsistent("the number of its records"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(BackupError::Trailing);
        }
        self.summary = Some(summary);
        Ok(false)
    }
}

fn ended(error: std::io::Error, chunks: u64) -> BackupError {
    match error.kind() {
        ErrorKind::UnexpectedEof => BackupError::CutShort { chunks },
        _ => BackupError::Io(error),
    }
}

/// Reads a backup to its end and opens every record in it.
///
/// # Errors
/// [`BackupError`] if anything is not as it was written. Records that were
/// damaged when the backup was made are no error; the summary counts them.
pub fn verify(
    input: impl Read,
    ring: &KeyRing,
    random: Arc<dyn Random>,
) -> Result<Summary, BackupError> {
    let (mut reader, sealer) = Reader::open(input, ring, random)?;
    let (mut needed, mut damaged) = (Vec::new(), 0);
    while let Some((place, row)) = reader.row()? {
        match sealer.verify(&place, &row) {
            Ok(()) => {}
            Err(Broken::NoKey(id)) => needed.push(id),
            Err(_) => damaged += 1,
        }
    }
    if !needed.is_empty() {
        return Err(BackupError::MissingKey {
            needed: check::in_words(needed),
        });
    }
    let summary = reader
        .summary
        .ok_or(BackupError::Inconsistent("its summary"))?;
    if summary.damaged != damaged {
        return Err(BackupError::Inconsistent("the number of damaged records"));
    }
    Ok(summary)
}

//! Many events in one record.

use countersign_core::audit::AuditEvent;
use countersign_core::ports::{Change, Expect, Kind, RecordKey, SecretChange, StoreError, Write};

/// Below the vault's limit for document and names together.
const LONGEST_BATCH: usize = 8000;
const LONGEST_EVENT: usize = 4000;
/// Sequence numbers of one partition: the step in which the log is read.
const BLOCK: u64 = 256;

/// The partition of the record that holds this number.
pub(super) fn partition(sequence: u64) -> String {
    (sequence / BLOCK).to_string()
}

/// The lowest number of this number's partition.
pub(super) fn block_start(sequence: u64) -> u64 {
    sequence - sequence % BLOCK
}

/// The records that hold these events, in order. Each holds as many as fit, all
/// of one partition.
pub(super) fn pack(events: &mut [AuditEvent]) -> Result<Vec<Write>, StoreError> {
    let mut writes = Vec::new();
    let mut document = Vec::with_capacity(LONGEST_BATCH);
    let mut first = 0;
    for event in events {
        let mut bytes = json(event)?;
        if bytes.len() > LONGEST_EVENT {
            shorten(event);
            bytes = json(event)?;
        }
        let full = document.len() + bytes.len() + 2 > LONGEST_BATCH
            || block_start(event.sequence) != block_start(first);
        if full && !document.is_empty() {
            writes.push(write(first, std::mem::take(&mut document)));
        }
        if document.is_empty() {
            first = event.sequence;
        }
        document.push(if document.is_empty() { b'[' } else { b',' });
        document.extend_from_slice(&bytes);
    }
    if !document.is_empty() {
        writes.push(write(first, document));
    }
    Ok(writes)
}

fn write(first: u64, mut document: Vec<u8>) -> Write {
    document.push(b']');
    Write {
        key: RecordKey::within(Kind::Audit, partition(first), first.to_string()),
        expect: Expect::Absent,
        change: Some(Change {
            document,
            secret: SecretChange::Keep,
            expires_at: None,
        }),
    }
}

fn json(event: &AuditEvent) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(event).map_err(|e| StoreError::Damaged(e.to_string()))
}

/// Cuts what is too long to be meant: texts from outside have limits where they
/// come in, this one makes the record fit.
fn shorten(event: &mut AuditEvent) {
    fn cut(text: &mut String, longest: usize) {
        if text.len() > longest {
            text.truncate(text.floor_char_boundary(longest));
            text.push('…');
        }
    }
    cut(&mut event.action, 100);
    for field in [
        &mut event.user,
        &mut event.team,
        &mut event.client,
        &mut event.resource,
    ] {
        field.iter_mut().for_each(|text| cut(text, 200));
    }
    event.detail.iter_mut().for_each(|text| cut(text, 400));
    if let Some(call) = &mut event.call {
        cut(&mut call.call_id, 100);
        cut(&mut call.method, 100);
        cut(&mut call.decided_by, 200);
        for field in [
            &mut call.name,
            &mut call.arguments_hash,
            &mut call.error,
            &mut call.connection,
        ] {
            field.iter_mut().for_each(|text| cut(text, 200));
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::audit::Outcome;
    use countersign_core::time::Timestamp;

    use super::*;

    #[test]
    fn every_event_is_in_one_batch_and_no_batch_is_too_long() {
        let mut events: Vec<_> = (0..500)
            .map(|n| {
                let detail = "\u{1}é".repeat(n * 7 % 3000);
                let mut e = AuditEvent::new(Timestamp::from_secs(1), "call", Outcome::Allowed)
                    .by("\u{1}".repeat(n * 11 % 3000))
                    .detail(detail);
                e.sequence = BLOCK - 200 + n as u64;
                e
            })
            .collect();
        let mut next = BLOCK - 200;
        for write in pack(&mut events).unwrap() {
            let document = write.change.unwrap().document;
            assert!(document.len() <= LONGEST_BATCH, "{}", document.len());
            let batch: Vec<AuditEvent> = serde_json::from_slice(&document).unwrap();
            assert_eq!(write.key.name, batch[0].sequence.to_string());
            for event in batch {
                assert_eq!(write.key.partition, partition(event.sequence));
                assert_eq!(event.sequence, next);
                next += 1;
            }
        }
        assert_eq!(next, BLOCK + 300);
    }
}

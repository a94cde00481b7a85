//! Of a record's versions in the backup and in the store that is replaced,
//! which one goes on living.

use countersign_core::ports::AfterRestore;

use super::Mode;

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) revision: u64,
    pub(super) is_sound: bool,
}

/// What the replaced store's missing records mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldFacts {
    /// A record that it has not was deleted.
    pub(super) is_whole: bool,
    /// It may be older than the backup.
    pub(super) lost_writes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// As the replaced store has it.
    Old,
    /// As the backup has it.
    Backup,
    /// It was deleted after the backup, and stays so.
    Deleted,
    /// It belongs to the epoch before, or to settings that are taken back.
    Dropped,
    /// No version of it opens.
    Lost,
}

pub(super) fn choose(
    class: AfterRestore,
    mode: Mode,
    facts: OldFacts,
    old: Option<Seen>,
    backup: Option<Seen>,
) -> Choice {
    if class == AfterRestore::Void {
        return Choice::Dropped;
    }
    let takes_back = class == AfterRestore::Settings && mode == Mode::Force;
    let old = old.map(|seen| (seen.is_sound, seen.revision));
    let backup = backup.map(|seen| (seen.is_sound, seen.revision));
    match (old, backup) {
        (Some((true, _)), None) if takes_back => Choice::Dropped,
        (Some((true, _)), None | Some((false, _))) => Choice::Old,
        (Some((true, _)), Some(_)) if takes_back => Choice::Backup,
        (Some((true, old)), Some((true, backup))) if facts.lost_writes && backup > old => {
            Choice::Backup
        }
        (Some((true, _)), Some(_)) => Choice::Old,
        (Some((false, _)), Some((true, _))) => Choice::Backup,
        (None, Some((true, _))) => {
            // Settings and trust that were deleted are what is taken back.
            let undone = mode == Mode::Force
                && matches!(class, AfterRestore::Settings | AfterRestore::Trust);
            if facts.is_whole && !undone {
                Choice::Deleted
            } else {
                Choice::Backup
            }
        }
        (_, Some((false, _))) | (Some((false, _)), None) => Choice::Lost,
        (None, None) => Choice::Dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_withdrawn_after_the_backup_stays_withdrawn_and_nothing_readable_is_lost() {
        use AfterRestore::{History, People, Settings, Trust, Void};
        use Choice::{Backup, Deleted, Dropped, Lost, Old};
        let good = |revision| {
            Some(Seen {
                revision,
                is_sound: true,
            })
        };
        let bad = Some(Seen {
            revision: 9,
            is_sound: false,
        });
        let whole = OldFacts {
            is_whole: true,
            lost_writes: false,
        };
        let holed = OldFacts {
            is_whole: false,
            lost_writes: false,
        };
        let older = OldFacts {
            is_whole: false,
            lost_writes: true,
        };
        let none = OldFacts {
            is_whole: false,
            lost_writes: false,
        };
        let (empty, force, salvage) = (Mode::Empty, Mode::Force, Mode::Salvage);
        for (class, mode, facts, old, backup, chosen) in [
            (People, empty, none, None, good(3), Backup),
            (People, empty, none, None, bad, Lost),
            (Void, empty, none, None, good(3), Dropped),
            (Void, salvage, whole, good(3), good(3), Dropped),
            // Newer wins; made anew after a delete counts from 1.
            (People, salvage, whole, good(4), good(3), Old),
            (People, salvage, whole, good(1), good(3), Old),
            (People, salvage, older, good(2), good(3), Backup),
            (People, salvage, older, good(3), good(3), Old),
            (People, salvage, holed, good(3), None, Old),
            (People, salvage, holed, good(3), bad, Old),
            // Damaged there, sound here.
            (People, salvage, whole, bad, good(3), Backup),
            (People, salvage, whole, bad, None, Lost),
            (People, salvage, whole, bad, bad, Lost),
            // Not there: deleted, unless that cannot be known.
            (People, salvage, whole, None, good(3), Deleted),
            (People, salvage, holed, None, good(3), Backup),
            (Settings, salvage, whole, None, good(3), Deleted),
            // Taking settings back does not take people back.
            (Settings, force, whole, good(4), good(3), Backup),
            (Settings, force, whole, None, good(3), Backup),
            (Settings, force, whole, good(1), None, Dropped),
            (Trust, force, whole, good(4), good(3), Old),
            (Trust, force, whole, None, good(3), Backup),
            (People, force, whole, good(4), good(3), Old),
            (People, force, whole, None, good(3), Deleted),
            (People, force, whole, good(1), None, Old),
            (History, force, whole, good(1), None, Old),
        ] {
            assert_eq!(
                choose(class, mode, facts, old, backup),
                chosen,
                "{class:?} {mode:?} {facts:?} {old:?} {backup:?}"
            );
        }
    }
}

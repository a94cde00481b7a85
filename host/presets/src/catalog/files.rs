//! What is in the directory, and the last good content of each file.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Weak};

use countersign_core::names::{Digest, PresetName};

use super::report::{entry, inspection};
use super::{CatalogEntry, CatalogEvent, FileState, Inspection};
use crate::load::{LoadError, Loaded, SharedLoaded, parse_file_name};
use crate::signature::{ORIGIN_SUFFIX, SIGNATURE_SUFFIX, Trust};

/// Changes when a component does, or what lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([Option<One>; 3]);

/// Changes when a file does: size, inode, and both of its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct One(u64, u64, [i64; 4]);

impl One {
    /// None if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let times = [
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ];
        Some(Self(metadata.len(), metadata.ino(), times))
    }
}

/// The component's file name, if this is one or lies beside one.
pub(super) fn component_of(file: &str) -> &str {
    [SIGNATURE_SUFFIX, ORIGIN_SUFFIX]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))
        .unwrap_or(file)
}

/// Files of a directory with their stamps.
pub(super) type Found = BTreeMap<String, Stamp>;

/// Lists `*.wasm`, hidden files aside.
pub(super) fn look(dir: &Path) -> std::io::Result<Found> {
    let mut found = Found::new();
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        let Ok(name) = item.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') || !name.ends_with(".wasm") {
            continue;
        }
        // Gone between the two: then it is not there.
        let Some(own) = One::of(&item.path()) else {
            continue;
        };
        let beside = |suffix| One::of(&dir.join(format!("{name}{suffix}")));
        let stamp = Stamp([Some(own), beside(SIGNATURE_SUFFIX), beside(ORIGIN_SUFFIX)]);
        found.insert(name, stamp);
    }
    Ok(found)
}

/// Everything known of the directory.
#[derive(Default)]
pub(super) struct Files {
    known: BTreeMap<String, Known>,
    /// Files that looked half-written, as they were then.
    unsettled: BTreeMap<String, Stamp>,
    /// What is no longer the content of any file, while somebody holds it.
    leaving: Vec<Leaving>,
}

struct Leaving {
    file: String,
    entry: CatalogEntry,
    loaded: Weak<Loaded>,
}

struct Known {
    stamp: Stamp,
    /// Of the content that is there now and what lies beside it, if they could
    /// be read.
    read: Option<Digest>,
    /// Of the content that is there now, if it could be read.
    digest: Option<Digest>,
    /// The last content that was good.
    good: Option<SharedLoaded>,
    /// Why the content that is there now is refused.
    refusal: Option<String>,
    /// The refusal may end without a change of the file: a disk that did not
    /// answer.
    passing: bool,
}

/// A version that may serve.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) file: String,
    pub(super) loaded: SharedLoaded,
}

impl Files {
    /// Files to read: new ones, changed ones, those that could not be read,
    /// and those named.
    pub(super) fn outdated(&self, found: &Found, changed: &[String]) -> Vec<(String, Stamp)> {
        found
            .iter()
            .filter(|(file, stamp)| {
                self.known
                    .get(*file)
                    .is_none_or(|known| known.stamp != **stamp || known.passing)
                    || changed.iter().any(|name| component_of(name) == *file)
            })
            .map(|(file, stamp)| (file.clone(), *stamp))
            .collect()
    }

    /// Whether a file that failed so may only be half-written: it has changed
    /// since it was last looked at.
    pub(super) fn may_be_half_written(
        &mut self,
        file: &str,
        stamp: Stamp,
        error: &LoadError,
    ) -> bool {
        // A component whose signature is still on its way is one, too.
        let half = match error {
            LoadError::NotWasm | LoadError::Invalid(_) => true,
            LoadError::Signature(error) => error.may_be_half_written(),
            _ => false,
        };
        if !half {
            return false;
        }
        if self.unsettled.get(file) == Some(&stamp) {
            return false;
        }
        self.unsettled.insert(file.to_owned(), stamp);
        true
    }

    /// Whether some file should be looked at again soon.
    pub(super) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Whether this very content was looked at before; if so, remembers the
    /// stamp.
    pub(super) fn is_known(&mut self, file: &str, stamp: Stamp, read: Option<Digest>) -> bool {
        match self.known.get_mut(file) {
            Some(known) if read.is_some() && known.read == read => {
                known.stamp = stamp;
                true
            }
            _ => false,
        }
    }

    /// Takes in the outcome of a load. True if what may serve has changed.
    pub(super) fn put(
        &mut self,
        file: String,
        stamp: Stamp,
        (read, digest): (Option<Digest>, Option<Digest>),
        result: Result<Loaded, LoadError>,
        report: &mut impl FnMut(CatalogEvent),
    ) -> bool {
        self.unsettled.remove(&file);
        let before = self.known.remove(&file);
        let (good, told) = before.map_or((None, None), |known| (known.good, known.refusal));
        let (known, changed) = match result {
            Ok(loaded) => {
                let changed = good
                    .as_ref()
                    .is_none_or(|good| good.digest != loaded.digest);
                report(CatalogEvent::Loaded {
                    file: file.clone(),
                    digest: loaded.digest,
                    origin: Box::new(loaded.standing.origin()),
                });
                if let Some(good) = good.filter(|_| changed) {
                    self.leaves(&file, &good);
                }
                let known = Known {
                    stamp,
                    read,
                    digest,
                    good: Some(Arc::new(loaded)),
                    refusal: None,
                    passing: false,
                };
                (known, changed)
            }
            Err(error) => {
                let reason = error.to_string();
                if told.as_ref() != Some(&reason) {
                    report(CatalogEvent::Refused {
                        file: file.clone(),
                        reason: reason.clone(),
                    });
                }
                let known = Known {
                    stamp,
                    read,
                    digest,
                    good,
                    refusal: Some(reason),
                    passing: matches!(error, LoadError::Unreadable(_)),
                };
                (known, false)
            }
        };
        self.known.insert(file, known);
        changed
    }

    /// Judges every content by what is trusted now. What may serve no more is
    /// let go of; what was refused is to be read again. True if what may serve
    /// has changed.
    pub(super) fn judge_again(
        &mut self,
        trust: &Trust,
        report: &mut impl FnMut(CatalogEvent),
    ) -> bool {
        let mut gone = Vec::new();
        for (file, known) in &mut self.known {
            if known.refusal.is_some() {
                known.read = None;
                known.passing = true;
            }
            let Some(good) = &known.good else { continue };
            match good.judge_again(file, trust) {
                Ok(false) => {}
                Ok(true) => report(CatalogEvent::Loaded {
                    file: file.clone(),
                    digest: good.digest,
                    origin: Box::new(good.standing.origin()),
                }),
                Err(why) => {
                    let reason = LoadError::from(why).to_string();
                    report(CatalogEvent::Refused {
                        file: file.clone(),
                        reason: reason.clone(),
                    });
                    known.refusal = Some(reason);
                    known.read = None;
                    known.passing = true;
                    gone.extend(known.good.take().map(|good| (file.clone(), good)));
                }
            }
        }
        for (file, good) in &gone {
            self.leaves(file, good);
        }
        !gone.is_empty()
    }

    /// Remembers a content that no file has any more, without keeping it.
    fn leaves(&mut self, file: &str, loaded: &SharedLoaded) {
        self.leaving.push(Leaving {
            file: file.to_owned(),
            entry: entry(file, loaded, None),
            loaded: Arc::downgrade(loaded),
        });
    }

    /// Forgets contents that nobody holds any more: their compiled code is
    /// dropped.
    pub(super) fn forget_drained(&mut self) {
        self.leaving.retain(|left| {
            let held = left.loaded.strong_count() > 0;
            if !held {
                tracing::info!(file = left.file, digest = ?left.entry.digest, "the last call on this version has ended; its compiled code is dropped");
            }
            held
        });
    }

    /// Forgets files that are gone. True if there were any.
    pub(super) fn retain(&mut self, found: &Found, report: &mut impl FnMut(CatalogEvent)) -> bool {
        self.unsettled.retain(|file, _| found.contains_key(file));
        let gone: Vec<String> = self
            .known
            .keys()
            .filter(|file| !found.contains_key(*file))
            .cloned()
            .collect();
        for file in &gone {
            report(CatalogEvent::Removed { file: file.clone() });
            if let Some(good) = self.known.remove(file).and_then(|known| known.good) {
                self.leaves(file, &good);
            }
        }
        !gone.is_empty()
    }

    /// Versions of a preset, newest first.
    pub(super) fn candidates(&self, preset: &PresetName) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self
            .known
            .iter()
            .filter_map(|(file, known)| {
                Some(Candidate {
                    file: file.clone(),
                    loaded: known.good.clone()?,
                })
            })
            .filter(|candidate| candidate.loaded.name == *preset)
            .collect();
        candidates.sort_by(|a, b| compare_versions(&b.loaded.version, &a.loaded.version));
        candidates
    }

    /// Every file, and what is no longer in one but still held; `serves` says
    /// which contents serve somebody.
    pub(super) fn list(&self, serves: impl Fn(&Digest) -> bool) -> Vec<CatalogEntry> {
        let left = self
            .leaving
            .iter()
            .filter(|left| left.loaded.strong_count() > 0)
            .map(|left| CatalogEntry {
                state: if left.entry.digest.as_ref().is_some_and(&serves) {
                    FileState::Kept
                } else {
                    FileState::Draining
                },
                ..left.entry.clone()
            });
        self.known
            .iter()
            .map(|(file, known)| known.entry(file))
            .chain(left)
            .collect()
    }

    pub(super) fn inspect(&self, name_or_file: &str) -> Option<Inspection> {
        let by_name = || {
            let newest = self
                .candidates(&PresetName::parse(name_or_file).ok()?)
                .into_iter()
                .next()?;
            self.known.get_key_value(&newest.file)
        };
        let (file, known) = self
            .known
            .get_key_value(name_or_file)
            .or_else(by_name)
            .or_else(|| self.newest_refused(name_or_file))?;
        Some(match &known.good {
            Some(loaded) => inspection(
                file,
                loaded,
                known.refusal.as_deref(),
                loaded.permissions.clone(),
            ),
            None => Inspection {
                entry: known.entry(file),
                imports: vec![],
                hooks: vec![],
                permissions: None,
                description: None,
            },
        })
    }

    /// Of a preset of which no file may be used, the newest.
    fn newest_refused(&self, name: &str) -> Option<(&String, &Known)> {
        let named = |file: &str| parse_file_name(file).ok();
        self.known
            .iter()
            .filter(|(file, _)| named(file).is_some_and(|(preset, _)| preset.as_str() == name))
            .max_by(|(a, _), (b, _)| {
                let version = |file: &str| named(file).map(|(_, v)| v).unwrap_or_default();
                compare_versions(&version(a), &version(b))
            })
    }
}

impl Known {
    fn entry(&self, file: &str) -> CatalogEntry {
        if let Some(loaded) = &self.good {
            return entry(file, loaded, self.refusal.as_deref());
        }
        let (preset, version) = parse_file_name(file).ok().unzip();
        let reason = self.refusal.clone().unwrap_or_default();
        CatalogEntry {
            file: file.to_owned(),
            preset,
            version,
            digest: self.digest,
            size: None,
            origin: None,
            state: FileState::Refused { reason },
        }
    }
}

/// Orders versions: numbers by value, a pre-release (`-rc.1`) before its
/// release, the rest as text.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    fn numbers(text: &str) -> Vec<u64> {
        text.split('.')
            .map(|piece| piece.parse().unwrap_or_default())
            .collect()
    }
    fn halves(text: &str) -> (&str, Option<&str>) {
        let text = text.split('+').next().unwrap_or(text);
        text.split_once('-')
            .map_or((text, None), |(release, pre)| (release, Some(pre)))
    }
    let ((a_release, a_pre), (b_release, b_pre)) = (halves(a), halves(b));
    numbers(a_release)
        .cmp(&numbers(b_release))
        .then_with(|| match (a_pre, b_pre) {
            (None, None) => a.cmp(b),
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(b),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        for (older, newer) in [
            ("0.9.0", "0.10.0"),
            ("1.0.0-rc.1", "1.0.0"),
            ("1.0", "1.0.1"),
            ("1.0.0-a", "1.0.0-b"),
            ("2", "10"),
        ] {
            assert_eq!(
                compare_versions(older, newer),
                Ordering::Less,
                "{older} {newer}"
            );
            assert_eq!(
                compare_versions(newer, older),
                Ordering::Greater,
                "{older} {newer}"
            );
        }
        assert_eq!(compare_versions("1.0.0", "1.0.0"), Ordering::Equal);
    }
}

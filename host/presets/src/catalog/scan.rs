//! Reading the directory: what is new is loaded, and what may serve is decided
//! anew.

use std::sync::Arc;

use countersign_core::names::Digest;

use super::files::Stamp;
use super::{Catalog, CatalogEvent, files, lock};
use crate::crew::side_by_side;
use crate::load::{self, LoadError, Loaded};
use crate::signature::Trust;

/// What was made of one file.
struct Read {
    /// Of the component and what lies beside it, if they could be read.
    all: Option<Digest>,
    /// Of the component alone.
    digest: Option<Digest>,
    result: Result<Loaded, LoadError>,
}

impl Catalog {
    /// Takes other words for components from now on, presets and policies. What
    /// may serve no more is taken away, while calls that have begun finish on
    /// it; what was refused is looked at again. Blocks as [`Self::rescan`] does.
    pub fn retrust(&self, trust: Trust) {
        let trust = Arc::new(trust);
        {
            let _scanning = lock(&self.scanning);
            self.trust.store(Arc::clone(&trust));
            let mut reporter = self.reporter();
            let mut any = lock(&self.files).judge_again(&trust, &mut reporter);
            // Last good ones whose files are gone.
            let served = lock(&self.bindings).served();
            for (file, loaded) in served.iter().filter(|(_, l)| l.standing.is_good()) {
                if let Err(why) = loaded.judge_again(file, &trust) {
                    reporter(CatalogEvent::Refused {
                        file: file.clone(),
                        reason: why.to_string(),
                    });
                    any = true;
                }
            }
            drop(served);
            if any {
                self.swap();
            }
        }
        self.policies.retrust(trust);
        self.rescan();
    }

    /// Looks at the whole directory now, as the watcher does by itself.
    pub fn rescan(&self) {
        self.scan(&[], false);
    }

    /// Looks at the directory; `changed` are files to read even if they look
    /// unchanged. With `patience`, one that may be half-written is left as it
    /// was; true says that it should be looked at again soon.
    pub(super) fn scan(&self, changed: &[String], patience: bool) -> bool {
        let _scanning = lock(&self.scanning);
        let found = match files::look(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "the catalog directory cannot be listed; keeping what is loaded");
                return false;
            }
        };
        let work = lock(&self.files).outdated(&found, changed);
        let mut reporter = self.reporter();
        let mut any = false;
        for ((file, stamp), read) in work.iter().zip(self.read_all(&work)) {
            // Its content was looked at before.
            let Some(read) = read else { continue };
            if let Err(error) = &read.result
                && patience
                && lock(&self.files).may_be_half_written(file, *stamp, error)
            {
                continue;
            }
            let digests = (read.all, read.digest);
            any |= lock(&self.files).put(file.clone(), *stamp, digests, read.result, &mut reporter);
        }
        any |= lock(&self.files).retain(&found, &mut reporter);
        if any {
            self.swap();
        }
        let mut files = lock(&self.files);
        files.forget_drained();
        files.has_unsettled()
    }

    /// Reads, compiles and tries out files; the outcomes are in the order of the
    /// files.
    fn read_all(&self, work: &[(String, Stamp)]) -> Vec<Option<Read>> {
        side_by_side("presets", work, |(file, stamp)| self.read_one(file, *stamp))
    }

    /// None if this very content was looked at before.
    fn read_one(&self, file: &str, stamp: Stamp) -> Option<Read> {
        let source = load::read_all(&self.dir.join(file));
        let all = source.as_ref().ok().map(load::Source::digest);
        if lock(&self.files).is_known(file, stamp, all) {
            return None;
        }
        let digest = source.as_ref().ok().map(|s| Digest::of(&s.bytes));
        let load = |source| load::load(&self.sandboxes, &self.trust.load(), file, source);
        Some(Read {
            all,
            digest,
            result: source.and_then(load),
        })
    }

    /// Decides for every binding anew.
    fn swap(&self) {
        let mut bindings = lock(&self.bindings);
        let files = lock(&self.files);
        let candidates: Vec<_> = bindings
            .presets()
            .into_iter()
            .map(|name| (files.candidates(&name), name))
            .collect();
        drop(files);
        for (candidates, name) in candidates {
            bindings.refresh(&name, &candidates, &mut self.reporter());
        }
        self.serving.store(Arc::new(bindings.serving()));
    }
}

//! Reading the directory: what is new is loaded, and what may serve is decided
//! anew.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use countersign_core::names::Digest;

use super::files::Stamp;
use super::{Catalog, CatalogEvent, files, lock};
use crate::load::{self, LoadError, Loaded};
use crate::signature::Trust;

/// Components that are compiled side by side at most: each compiler works on
/// several functions at once by itself.
const WORKERS: usize = 4;
/// Files between two lines of progress.
const PROGRESS: usize = 10;

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

    /// Reads, compiles and tries out files, a few at a time; the outcomes are in
    /// the order of the files.
    fn read_all(&self, work: &[(String, Stamp)]) -> Vec<Option<Read>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = cores.min(WORKERS).min(work.len());
        if workers < 2 {
            return work.iter().map(|(f, s)| self.read_one(f, *s)).collect();
        }
        let next = AtomicUsize::new(0);
        let (done, outcomes) = mpsc::channel();
        let mut all: Vec<Option<Read>> = work.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (next, done) = (&next, done.clone());
                scope.spawn(move || {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some((file, stamp)) = work.get(place) else {
                            return;
                        };
                        // Read to the end below.
                        let _ = done.send((place, self.read_one(file, *stamp)));
                    }
                });
            }
            drop(done);
            for (count, (place, outcome)) in outcomes.iter().enumerate() {
                if (count + 1) % PROGRESS == 0 && count + 1 < work.len() {
                    tracing::info!("presets: looked at {} of {}", count + 1, work.len());
                }
                if let Some(slot) = all.get_mut(place) {
                    *slot = outcome;
                }
            }
        });
        if work.len() >= PROGRESS {
            tracing::info!("presets: looked at all {}", work.len());
        }
        all
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

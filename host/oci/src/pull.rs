//! Out of a registry: what arrives is what its digest says, or nothing.

use std::io::SeekFrom;
use std::path::Path;

use countersign_core::names::Digest;
use reqwest::{Method, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::artifact::{
    Descriptor, LARGEST_LAYER, LARGEST_MANIFEST, MANIFEST_TYPE, Manifest, TITLE,
};
use crate::error::{OciError, What};
use crate::http::{Ask, Registry};

/// How often a download that broke off is taken up again.
const MOST_TRIES: usize = 4;

/// An artifact that is there, before its component is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its manifest.
    pub manifest: Manifest,
    /// The manifest's digest.
    pub digest: Digest,
    /// The component.
    pub component: Descriptor,
}

impl Found {
    /// The file name that its layer bears, in its publisher's words.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.component.annotations.get(TITLE).map(String::as_str)
    }
}

impl Registry {
    /// Reads and checks the manifest that the reference stands for.
    ///
    /// # Errors
    /// [`OciError`].
    pub async fn find(&self) -> Result<Found, OciError> {
        let url = self.address(&format!("manifests/{}", self.reference.manifest()))?;
        let ask = Ask::new(Method::GET, url, What::Manifest).accept(MANIFEST_TYPE);
        let response = self.ask(&ask, &[StatusCode::OK]).await?;
        let bytes = self
            .capped(response, What::Manifest, LARGEST_MANIFEST)
            .await?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = self.reference.digest().filter(|d| *d != digest) {
            return Err(OciError::Digest {
                what: What::Manifest,
                expected,
                found: digest,
            });
        }
        let layout = |why| OciError::Layout {
            reference: self.reference.to_string(),
            why,
        };
        let manifest = Manifest::parse(&bytes).map_err(layout)?;
        let component = manifest
            .layer()
            .cloned()
            .ok_or_else(|| layout("it has no layer".into()))?;
        if component.size > LARGEST_LAYER {
            return Err(OciError::TooLarge {
                what: What::Component,
                size: component.size,
                most: LARGEST_LAYER,
            });
        }
        Ok(Found {
            manifest,
            digest,
            component,
        })
    }

    /// Fetches the component into `file`, whose content may be the beginning of
    /// an earlier try. `progress` is told how many bytes are there.
    ///
    /// # Errors
    /// [`OciError`]. A file with other content than the digest says is emptied,
    /// one that broke off is kept for the next try.
    pub async fn fetch(
        &self,
        found: &Found,
        file: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), OciError> {
        let cannot = |error| OciError::File {
            path: file.display().to_string(),
            error,
        };
        let mut part = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(file)
            .await
            .map_err(cannot)?;
        let (mut sum, mut have) = begun(&mut part, &found.component).await.map_err(cannot)?;
        let mut tries = 1;
        while have < found.component.size {
            let before = have;
            match self
                .more(found, &mut part, (&mut sum, &mut have), progress)
                .await
            {
                Ok(()) => {}
                Err(Broken::Off(_)) if tries < MOST_TRIES || have > before => {
                    tries = if have > before { 1 } else { tries + 1 };
                }
                Err(Broken::Off(error) | Broken::Final(error)) => {
                    part.sync_all().await.map_err(cannot)?;
                    return Err(error);
                }
            }
        }
        let digest = digest_of(sum);
        if digest != Some(found.component.digest) {
            part.set_len(0).await.map_err(cannot)?;
            return Err(OciError::Digest {
                what: What::Component,
                expected: found.component.digest,
                found: digest.unwrap_or_else(|| Digest::of(b"")),
            });
        }
        part.sync_all().await.map_err(cannot)
    }

    /// One request for what is missing.
    async fn more(
        &self,
        found: &Found,
        part: &mut File,
        (sum, have): (&mut Sha256, &mut u64),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Broken> {
        let size = found.component.size;
        let url = self
            .address(&format!("blobs/{}", found.component.digest))
            .map_err(Broken::Final)?;
        let mut ask = Ask::new(Method::GET, url, What::Component);
        ask.from = *have;
        let good = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let mut response = self.ask(&ask, &good).await.map_err(Broken::of)?;
        let file = |error| {
            Broken::Final(OciError::File {
                path: "the component".into(),
                error,
            })
        };
        if !goes_on(&response, *have) {
            // The whole of it again.
            part.set_len(0).await.map_err(file)?;
            part.seek(SeekFrom::Start(0)).await.map_err(file)?;
            (*sum, *have) = (Sha256::new(), 0);
        }
        loop {
            let piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) if *have == size => return Ok(()),
                Ok(None) => {
                    return Err(Broken::Off(OciError::Unreachable {
                        registry: self.reference.registry().to_owned(),
                        why: format!("the download ended after {have} of {size} bytes"),
                    }));
                }
                Err(error) => return Err(Broken::Off(self.unreachable(&error))),
            };
            let now = have.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if now > size {
                part.set_len(0).await.map_err(file)?;
                return Err(Broken::Final(OciError::TooLarge {
                    what: What::Component,
                    size: now,
                    most: size,
                }));
            }
            part.write_all(&piece).await.map_err(file)?;
            sum.update(&piece);
            *have = now;
            progress(now);
        }
    }
}

/// How a request for more ended before all was there.
enum Broken {
    /// On the way: what came is good, and more may come.
    Off(OciError),
    /// For good.
    Final(OciError),
}

impl Broken {
    fn of(error: OciError) -> Self {
        match error {
            OciError::Unreachable { .. } => Self::Off(error),
            OciError::Status { status, .. } if status >= 500 => Self::Off(error),
            other => Self::Final(other),
        }
    }
}

/// What a sum comes to. Text of that form always is a digest.
fn digest_of(sum: Sha256) -> Option<Digest> {
    let text = format!("sha256:{}", countersign_core::names::hex(&sum.finalize()));
    Digest::try_from(text).ok()
}

/// Whether an answer goes on from where the file ends.
fn goes_on(response: &Response, have: u64) -> bool {
    let range = response
        .headers()
        .get(reqwest::header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    have == 0
        || (response.status() == StatusCode::PARTIAL_CONTENT
            && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))))
}

/// The sum over what an earlier try left, and how much that is.
async fn begun(part: &mut File, component: &Descriptor) -> std::io::Result<(Sha256, u64)> {
    let mut sum = Sha256::new();
    // More than there should be is nothing to go on from.
    if part.metadata().await?.len() > component.size {
        part.set_len(0).await?;
        return Ok((sum, 0));
    }
    let mut buffer = vec![0; 64 << 10];
    let mut have = 0;
    loop {
        let read = part.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            // Nor is as much of something else.
            if have == component.size && digest_of(sum.clone()) != Some(component.digest) {
                part.set_len(0).await?;
                part.seek(SeekFrom::Start(0)).await?;
                return Ok((Sha256::new(), 0));
            }
            return Ok((sum, have));
        };
        sum.update(piece);
        have += u64::try_from(read).unwrap_or_default();
    }
}

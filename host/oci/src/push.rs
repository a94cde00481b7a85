//! Into a registry: blobs first, the manifest last, so that a tag never stands
//! for something that is not there (distribution-spec, "Push").

use std::sync::Arc;

use countersign_core::names::Digest;
use reqwest::{Method, StatusCode};

use crate::artifact::{Artifact, LARGEST_MANIFEST, MANIFEST_TYPE};
use crate::error::{OciError, What};
use crate::http::{Ask, Progress, Registry};

/// What is in the registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Whether it was there before.
    pub was_there: bool,
}

impl Registry {
    /// Pushes an artifact under the reference's tag. Without `replace` a tag
    /// that stands for something else is left alone. `progress` is told how
    /// much of the component is on its way.
    ///
    /// # Errors
    /// [`OciError`].
    pub async fn push(
        &self,
        artifact: &Artifact,
        replace: bool,
        progress: &Progress,
    ) -> Result<Pushed, OciError> {
        let manifest = artifact.digest();
        let there = self.there().await?;
        match there {
            Some(there) if there == manifest => {
                return Ok(Pushed {
                    manifest,
                    was_there: true,
                });
            }
            Some(there) if !replace => {
                return Err(OciError::Exists {
                    reference: self.reference.to_string(),
                    there: there.to_string(),
                });
            }
            _ => {}
        }
        let config = artifact.parsed.config.digest;
        let quietly: Progress = Arc::new(|_| {});
        self.blob(What::Config, &artifact.config, config, &quietly)
            .await?;
        let component = Digest::of(&artifact.component);
        self.blob(What::Component, &artifact.component, component, progress)
            .await?;
        let url = self.address(&format!("manifests/{}", self.reference.manifest()))?;
        let ask =
            Ask::new(Method::PUT, url, What::Manifest).body(MANIFEST_TYPE, &artifact.manifest);
        self.ask(&ask, &[StatusCode::CREATED]).await?;
        Ok(Pushed {
            manifest,
            was_there: false,
        })
    }

    /// The digest of what the tag stands for now.
    async fn there(&self) -> Result<Option<Digest>, OciError> {
        let url = self.address(&format!("manifests/{}", self.reference.manifest()))?;
        let ask = Ask::new(Method::GET, url, What::Manifest)
            .accept(MANIFEST_TYPE)
            .for_push();
        match self.ask(&ask, &[StatusCode::OK]).await {
            Ok(response) => {
                let bytes = self
                    .capped(response, What::Manifest, LARGEST_MANIFEST)
                    .await?;
                Ok(Some(Digest::of(&bytes)))
            }
            Err(OciError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn blob(
        &self,
        what: What,
        bytes: &[u8],
        digest: Digest,
        progress: &Progress,
    ) -> Result<(), OciError> {
        let url = self.address(&format!("blobs/{digest}"))?;
        let ask = Ask::new(Method::HEAD, url, what).for_push();
        match self.ask(&ask, &[StatusCode::OK]).await {
            Ok(_) => return Ok(()),
            // Some answer a look at a blob that is not there in their own way:
            // then it is uploaded, which tells what is wrong.
            Err(OciError::NotFound(_) | OciError::Status { .. } | OciError::Redirect { .. }) => {}
            Err(error) => return Err(error),
        }
        let url = self.address("blobs/uploads/")?;
        let begin = Ask::new(Method::POST, url, What::Upload).body("application/octet-stream", &[]);
        let session = self.ask(&begin, &[StatusCode::ACCEPTED]).await?;
        let mut place = self.location(&session)?;
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let put = Ask::new(Method::PUT, place, what)
            .body("application/octet-stream", bytes)
            .telling(progress);
        self.ask(&put, &[StatusCode::CREATED]).await?;
        Ok(())
    }
}

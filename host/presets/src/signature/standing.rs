//! How a component stands with the operator: judged when it is loaded, and again
//! when trust changes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::names::{Digest, PresetName};

use super::error::SignatureError;
use super::origin::Origin;
use super::trust::Trust;
use crate::permissions::PermissionSet;

/// What lay beside a component, and what was made of it last.
pub(crate) struct Standing {
    signature: Option<Result<Vec<u8>, SignatureError>>,
    judged: ArcSwap<Result<Origin, SignatureError>>,
}

impl Standing {
    /// As it was judged when it was loaded.
    pub(crate) fn new(signature: Option<Result<Vec<u8>, SignatureError>>, origin: Origin) -> Self {
        Self {
            signature,
            judged: ArcSwap::from_pointee(Ok(origin)),
        }
    }

    /// Of one that is only looked at; a catalog would refuse it.
    pub(crate) fn refused(why: SignatureError) -> Self {
        Self {
            signature: None,
            judged: ArcSwap::from_pointee(Err(why)),
        }
    }

    /// Who vouches for it.
    pub(crate) fn origin(&self) -> Origin {
        match &**self.judged.load() {
            Ok(origin) => origin.clone(),
            Err(why) => Origin::refused(why),
        }
    }

    /// Whether it may serve.
    pub(crate) fn is_good(&self) -> bool {
        self.judged.load().is_ok()
    }

    /// Judges it by what the operator trusts now; whether somebody else vouches
    /// for it than before. `asked` is what it asks for by itself.
    ///
    /// # Errors
    /// [`SignatureError`]: it may not serve any more.
    pub(crate) fn judge_again(
        &self,
        named: (&str, &PresetName, &str),
        digest: Digest,
        asked: &PermissionSet,
        trust: &Trust,
    ) -> Result<bool, SignatureError> {
        let before = self.judged.load_full();
        let pulled = before.as_ref().as_ref().ok().and_then(|o| o.pulled.clone());
        let judged = trust
            .judge_whole(named, digest, self.signature.clone(), asked)
            .map(|origin| Origin { pulled, ..origin });
        self.judged.store(Arc::new(judged.clone()));
        judged.map(|origin| before.as_ref().as_ref() != Ok(&origin))
    }
}

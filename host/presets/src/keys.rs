//! Keys for the hook `sign`: the guest holds handles, and this host holds no
//! key either.
//!
//! What a guest asks for is written down as a [`Step`]; the HMACs are computed
//! by the core when the request is filled, long after the guest has ended.

use countersign_core::signing::{Algorithm, Key, MOST_DATA, MOST_STEPS, Step};
use wasmtime::component::{ComponentType, Lift, Linker, Resource, ResourceType};

use crate::host::HostState;

/// What the guest's handles of type `key` stand for. There is never a value of
/// it: a handle's number is an index into the [`KeyRing`].
pub(crate) struct SigningKey;

/// The number of the credential's own key; step `n` has `n + 1`.
const CREDENTIAL: u32 = 0;

/// The steps that one guest asked for.
#[derive(Default)]
pub(crate) struct KeyRing(Vec<Step>);

impl KeyRing {
    /// The key that a guest is lent.
    pub(crate) fn lent() -> Resource<SigningKey> {
        Resource::new_borrow(CREDENTIAL)
    }

    /// What a handle stands for.
    pub(crate) fn key(handle: &Resource<SigningKey>) -> Key {
        match handle.rep().checked_sub(1) {
            None => Key::Credential,
            Some(index) => Key::Made(index as usize),
        }
    }

    /// All steps, in the order they were asked for.
    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.0
    }

    fn hmac(
        &mut self,
        key: &Resource<SigningKey>,
        algorithm: Algorithm,
        data: Vec<u8>,
    ) -> Result<Resource<SigningKey>, TooMuch> {
        let held: usize = self.0.iter().map(|s| s.data.len()).sum();
        if self.0.len() >= MOST_STEPS || held + data.len() > MOST_DATA {
            return Err(TooMuch);
        }
        self.0.push(Step {
            key: Self::key(key),
            algorithm,
            data,
        });
        let number = u32::try_from(self.0.len()).map_err(|_| TooMuch)?;
        Ok(Resource::new_own(number))
    }
}

/// One guest asked for too many or too large HMACs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it takes more than {MOST_STEPS} HMACs or {MOST_DATA} bytes of data for one signature")]
pub(crate) struct TooMuch;

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "the guest chooses")]
enum WitAlgorithm {
    #[component(name = "hmac-sha256")]
    HmacSha256,
    #[component(name = "hmac-sha1")]
    HmacSha1,
    #[component(name = "hmac-sha512")]
    HmacSha512,
}

impl From<WitAlgorithm> for Algorithm {
    fn from(algorithm: WitAlgorithm) -> Self {
        match algorithm {
            WitAlgorithm::HmacSha256 => Self::HmacSha256,
            WitAlgorithm::HmacSha1 => Self::HmacSha1,
            WitAlgorithm::HmacSha512 => Self::HmacSha512,
        }
    }
}

/// Gives a component the interface `signing`.
///
/// # Errors
/// If the interface is linked already.
pub(crate) fn link_signing(
    linker: &mut Linker<HostState>,
    interface: &str,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(interface)?;
    instance.resource("key", ResourceType::host::<SigningKey>(), |_, _| Ok(()))?;
    instance.func_wrap(
        "[method]key.hmac",
        |mut store: wasmtime::StoreContextMut<'_, HostState>,
         (key, algorithm, data): (Resource<SigningKey>, WitAlgorithm, Vec<u8>)| {
            let made = store.data_mut().keys.hmac(&key, algorithm.into(), data)?;
            Ok((made,))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_asks_for_is_written_down_and_not_computed() {
        let mut ring = KeyRing::default();
        let lent = KeyRing::lent();
        let day = ring.hmac(&lent, Algorithm::HmacSha256, b"day".to_vec());
        let request = ring.hmac(&day.unwrap(), Algorithm::HmacSha1, b"request".to_vec());
        assert_eq!(KeyRing::key(&request.unwrap()), Key::Made(1));
        let keys: Vec<Key> = ring.into_steps().iter().map(|s| s.key).collect();
        assert_eq!(keys, [Key::Credential, Key::Made(0)]);
    }

    #[test]
    fn a_guest_cannot_ask_without_end() {
        let lent = KeyRing::lent();
        let mut many = KeyRing::default();
        for _ in 0..MOST_STEPS {
            assert!(many.hmac(&lent, Algorithm::HmacSha256, vec![]).is_ok());
        }
        assert!(many.hmac(&lent, Algorithm::HmacSha256, vec![]).is_err());
        let mut large = KeyRing::default();
        let data = || vec![0; MOST_DATA / 2 + 1];
        assert!(large.hmac(&lent, Algorithm::HmacSha256, data()).is_ok());
        assert!(large.hmac(&lent, Algorithm::HmacSha256, data()).is_err());
    }
}

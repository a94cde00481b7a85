//! Types of the hooks' interfaces. They are written out because each hook is a
//! world of its own, which a component may lack.

use countersign_core::preset as host;
use countersign_core::signing;
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::types::Slot;
use crate::keys::{KeyRing, SigningKey};

/// What the hook `refresh-error` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "the guest chooses")]
pub(super) enum Outcome {
    #[component(name = "permanent")]
    Permanent,
    #[component(name = "transient")]
    Transient,
}

/// A request that the hook `sign` is to sign.
#[derive(Debug, Clone, ComponentType, Lower)]
#[component(record)]
pub(super) struct Outgoing {
    method: String,
    host: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    #[component(name = "body-sha256")]
    body_sha256: String,
    time: u64,
}

impl From<&signing::Unsigned> for Outgoing {
    fn from(request: &signing::Unsigned) -> Self {
        Self {
            method: request.method.clone(),
            host: request.host.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: request.headers.clone(),
            body_sha256: request.body_sha256.clone(),
            time: request.time,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "the guest chooses")]
pub(super) enum Encoding {
    #[component(name = "hex")]
    Hex,
    #[component(name = "base64")]
    Base64,
    #[component(name = "base64url")]
    Base64Url,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum SignedPart {
    #[component(name = "literal")]
    Literal(String),
    #[component(name = "slot")]
    Slot(Slot),
    #[component(name = "signature")]
    Signature((Resource<SigningKey>, Encoding)),
}

/// A header of the hook `sign`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct SignedHeader {
    name: String,
    value: Vec<SignedPart>,
}

impl From<SignedHeader> for signing::SignedHeader {
    fn from(header: SignedHeader) -> Self {
        let part = |part| match part {
            SignedPart::Literal(text) => signing::SignedPart::Literal(text),
            SignedPart::Slot(slot) => signing::SignedPart::Slot(super::convert::slot(slot)),
            SignedPart::Signature((key, encoding)) => {
                let text = match encoding {
                    Encoding::Hex => signing::SignatureText::Hex,
                    Encoding::Base64 => signing::SignatureText::Base64,
                    Encoding::Base64Url => signing::SignatureText::Base64Url,
                };
                signing::SignedPart::Signature(KeyRing::key(&key), text)
            }
        };
        Self {
            name: header.name,
            value: header.value.into_iter().map(part).collect(),
        }
    }
}

/// What the hook `identity` answers.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(record)]
pub(super) struct Account {
    id: String,
    label: String,
    tenant: Option<String>,
}

impl From<Account> for host::AccountFacts {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            label: account.label,
            tenant: account.tenant,
        }
    }
}

/// What the hook `redact` answers.
#[derive(Debug, Clone, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Redaction {
    #[component(name = "drop")]
    Drop(String),
    #[component(name = "mask")]
    Mask(String),
    #[component(name = "mask-range")]
    MaskRange((String, u32, u32)),
}

impl From<Redaction> for host::Redaction {
    fn from(redaction: Redaction) -> Self {
        match redaction {
            Redaction::Drop(pointer) => Self::Drop(pointer),
            Redaction::Mask(pointer) => Self::Mask(pointer),
            Redaction::MaskRange((pointer, start, end)) => Self::MaskRange(pointer, start, end),
        }
    }
}

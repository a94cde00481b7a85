//! Headers and bodies as they go over the wire.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;
use zeroize::Zeroizing;

use super::RequestError;
use crate::preset::{BodyFormat, Header, Parameter};
use crate::secret::Secret;
use crate::template::{Encoding, Slots, Variables, concat, fill};

pub(super) fn set_headers(
    headers: &mut HeaderMap,
    described: &[Header],
    variables: Variables<'_>,
    slots: &dyn Slots,
) -> Result<(), RequestError> {
    const OURS: [&str; 7] = [
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "transfer-encoding",
        "upgrade",
    ];
    for header in described {
        let bad = || RequestError::BadHeader(header.name.clone());
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| bad())?;
        if OURS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(bad());
        }
        let value = fill(&header.value, variables, slots, Encoding::Plain)?;
        headers.insert(name, header_value(&header.name, &value)?);
    }
    Ok(())
}

pub(super) fn header_value(name: &str, value: &Secret) -> Result<HeaderValue, RequestError> {
    let bad = || RequestError::BadHeader(name.to_owned());
    if !value
        .expose()
        .iter()
        .all(|b| matches!(b, b'\t' | b' '..=b'~'))
    {
        return Err(bad());
    }
    let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

/// One value of `application/x-www-form-urlencoded`, without a reallocation.
pub(super) fn form_encode(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() * 3));
    for piece in url::form_urlencoded::byte_serialize(bytes) {
        out.extend_from_slice(piece.as_bytes());
    }
    out
}

/// Parameters of a body, in order.
#[derive(Default)]
pub(super) struct Form(pub(super) Vec<(String, Secret)>);

impl Form {
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        self.0.retain(|(n, _)| n != name);
        self.0.push((name.to_owned(), Secret::new(value.to_vec())));
    }

    pub(super) fn add_resource(&mut self, resource: Option<&Url>) {
        if let Some(resource) = resource {
            self.add("resource", resource.as_str().as_bytes());
        }
    }

    pub(super) fn add_all(
        &mut self,
        parameters: &[Parameter],
        variables: Variables<'_>,
        slots: &dyn Slots,
    ) -> Result<(), RequestError> {
        for parameter in parameters {
            let value = fill(&parameter.value, variables, slots, Encoding::Plain)?;
            self.0.retain(|(n, _)| *n != parameter.name);
            self.0.push((parameter.name.clone(), value));
        }
        Ok(())
    }

    pub(super) fn encode(
        self,
        format: BodyFormat,
        headers: &mut HeaderMap,
    ) -> Result<Bytes, RequestError> {
        let (content_type, body) = match format {
            BodyFormat::Form => ("application/x-www-form-urlencoded", self.encode_form()),
            BodyFormat::Json => ("application/json", self.encode_json()?),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(Bytes::from_owner(body.into_zeroizing()))
    }

    fn encode_form(&self) -> Secret {
        let mut pieces = Vec::with_capacity(self.0.len() * 4);
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                pieces.push(Zeroizing::new(b"&".to_vec()));
            }
            pieces.push(form_encode(name.as_bytes()));
            pieces.push(Zeroizing::new(b"=".to_vec()));
            pieces.push(form_encode(value.expose()));
        }
        concat(&pieces)
    }

    fn encode_json(&self) -> Result<Secret, RequestError> {
        let string = |text: &str| {
            let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 6 + 2));
            serde_json::to_writer(&mut *out, text)
                .map(|()| out)
                .map_err(|_| RequestError::Unreadable)
        };
        let mut pieces = vec![Zeroizing::new(b"{".to_vec())];
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                pieces.push(Zeroizing::new(b",".to_vec()));
            }
            pieces.push(string(name)?);
            pieces.push(Zeroizing::new(b":".to_vec()));
            pieces.push(string(
                value.expose_text().ok_or(RequestError::Unreadable)?,
            )?);
        }
        pieces.push(Zeroizing::new(b"}".to_vec()));
        Ok(concat(&pieces))
    }
}

//! What settings may hold. The host checks all of it again; here it is said in
//! words an administrator understands.

/// Parameters of the authorization request that the gateway sets itself.
pub(crate) fn reserved(name: &str) -> bool {
    matches!(
        name,
        "client_id"
            | "redirect_uri"
            | "response_type"
            | "state"
            | "code_challenge"
            | "code_challenge_method"
            | "scope"
            | "resource"
            | "nonce"
            | "request"
            | "request_uri"
            | "response_mode"
    )
}

pub(crate) fn parameter_names(key: &str, map: &[(String, String)]) -> Result<(), String> {
    match map.iter().find(|(name, _)| !is_token(name)) {
        Some((name, _)) => Err([
            "setting `",
            key,
            "`: `",
            name,
            "` is no name for a parameter",
        ]
        .concat()),
        None => Ok(()),
    }
}

pub(crate) fn header_name(key: &str, name: &str) -> Result<(), String> {
    if is_token(name) {
        Ok(())
    } else {
        Err(["setting `", key, "`: `", name, "` is no name for a header"].concat())
    }
}

pub(crate) fn one_line(key: &str, value: &str) -> Result<(), String> {
    if value.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
        Ok(())
    } else {
        Err(["setting `", key, "` must be one line of printable ASCII"].concat())
    }
}

/// An https address; http only on this machine, where the host allows it.
pub(crate) fn https_url(key: &str, url: &str) -> Result<(), String> {
    let host_of = |rest: &'static str| {
        url.strip_prefix(rest)
            .and_then(|rest| rest.split(['/', '?']).next())
    };
    let local = |host: &&str| {
        let name = host.split(':').next().unwrap_or_default();
        name == "localhost" || name == "127.0.0.1"
    };
    let host = host_of("https://").or_else(|| host_of("http://").filter(local));
    let well_formed = host.is_some_and(|host| {
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'))
    });
    let clean = url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if well_formed && clean {
        Ok(())
    } else {
        Err([
            "setting `",
            key,
            "` must be an https address without a fragment",
        ]
        .concat())
    }
}

/// RFC 9110's token, which suits names of parameters as well.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

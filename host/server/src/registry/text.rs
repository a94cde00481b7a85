//! Text that people read, and where it ends.

use super::Refusal;

/// One line without control characters, at most `longest` characters.
pub(super) fn line(field: &str, value: &str, longest: usize) -> Result<String, Refusal> {
    let value = value.trim();
    if value.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            field,
            "holds a line break or another control character",
        ));
    }
    if value.chars().count() > longest {
        return Err(Refusal::invalid(
            field,
            format!("is longer than {longest} characters"),
        ));
    }
    Ok(value.to_owned())
}

/// A display name; the name itself if there is none.
pub(super) fn display_name(given: Option<&str>, name: &str) -> Result<String, Refusal> {
    let given = line("display_name", given.unwrap_or_default(), 128)?;
    Ok(if given.is_empty() {
        name.to_owned()
    } else {
        given
    })
}

/// At most 80 characters of it, for messages.
pub(super) fn cut(value: &str) -> String {
    value.chars().take(80).collect()
}

/// Host, and port if it is not the scheme's own.
pub(super) fn host(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

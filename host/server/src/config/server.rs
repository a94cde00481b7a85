//! `[server]`: where it listens, what it is called, where it keeps things.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use countersign_core::hosts::is_loopback;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::{Fault, beside};

/// Where it listens, unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8700";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerRaw {
    listen: Option<Spanned<String>>,
    public_url: Option<Spanned<String>>,
    data_dir: Option<String>,
    catalog_dir: Option<String>,
    #[serde(default)]
    trusted_proxies: Vec<Spanned<String>>,
}

/// `[server]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Address to bind.
    pub listen: SocketAddr,
    /// The origin that agents, browsers and providers see.
    pub public_url: Url,
    /// Everything the host writes.
    pub data_dir: PathBuf,
    /// Preset components.
    pub catalog_dir: PathBuf,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` is believed; none by
    /// default.
    pub trusted_proxies: Vec<IpNet>,
}

/// An address and the URL that belongs to it.
pub struct ListenAndUrl {
    /// Address to bind.
    pub listen: SocketAddr,
    /// What it is called from outside.
    pub public_url: Url,
}

impl ListenAndUrl {
    /// Fills in the one from the other as far as that is safe.
    ///
    /// # Errors
    /// A sentence; the address is none, or a URL is needed and absent.
    pub fn parse(listen: Option<&str>, public_url: Option<&str>) -> Result<Self, (String, String)> {
        let text = listen.unwrap_or(DEFAULT_LISTEN);
        let listen: SocketAddr = text.parse().map_err(|_| {
            (
                format!("{text:?} is not an address to listen on"),
                format!("Write an IP address and a port, for example \"{DEFAULT_LISTEN}\"."),
            )
        })?;
        let public_url = match public_url {
            Some(text) => check_public_url(text)?,
            None if listen.ip().is_loopback() => check_public_url(&format!("http://{listen}"))?,
            None => {
                return Err((
                    format!(
                        "listening on {listen}, but nothing says what the host is called from outside"
                    ),
                    "Give the public URL too, for example \"https://countersign.example.com\"."
                        .into(),
                ));
            }
        };
        Ok(Self { listen, public_url })
    }
}

/// Parses a public URL: an origin, `https` unless loopback.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn check_public_url(text: &str) -> Result<Url, (String, String)> {
    let example = "https://countersign.example.com";
    let url = Url::parse(text)
        .ok()
        .filter(|u| u.host().is_some())
        .ok_or_else(|| {
            (
                format!("{text:?} is not a URL"),
                format!("Write an origin, for example \"{example}\"."),
            )
        })?;
    let is_origin = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !is_origin {
        return Err((
            format!("{text:?} is more than an origin"),
            format!(
                "Write scheme, host and port only: \"{}\".",
                url.origin().ascii_serialization()
            ),
        ));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err((
            format!("{text:?} is not https, and not this machine itself"),
            format!("Put a TLS proxy in front and write its address, for example \"{example}\"."),
        )),
    }
}

/// One address or a network of them.
fn proxy(text: &Spanned<String>) -> Result<IpNet, Fault> {
    let example = "Write an address or a network, for example \"10.0.0.5\" or \"10.0.0.0/24\".";
    let written = text.get_ref();
    let net = written
        .parse::<IpNet>()
        .or_else(|_| written.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| Fault::at(text, format!("{written:?} is not an address"), example))?;
    if net.prefix_len() == 0 {
        let problem = format!("{written:?} is everybody: anybody could claim any address");
        return Err(Fault::at(text, problem, example));
    }
    Ok(net.trunc())
}

impl Server {
    pub(super) fn checked(raw: ServerRaw, dir: &Path) -> Result<Self, Fault> {
        let text = |v: &Option<Spanned<String>>| v.as_ref().map(|s| s.get_ref().clone());
        let (listen, public_url) = (text(&raw.listen), text(&raw.public_url));
        let place = |v: &Option<Spanned<String>>| v.as_ref().map(Spanned::span);
        // The address is judged first, so that a fault is blamed on its own line.
        if let Some(listen) = &raw.listen {
            ListenAndUrl::parse(Some(listen.get_ref()), Some("http://127.0.0.1"))
                .map_err(|(problem, instead)| Fault::at(listen, problem, instead))?;
        }
        let both = ListenAndUrl::parse(listen.as_deref(), public_url.as_deref()).map_err(
            |(problem, instead)| Fault {
                place: place(&raw.public_url)
                    .or_else(|| place(&raw.listen))
                    .unwrap_or(0..0),
                problem,
                instead,
            },
        )?;
        Ok(Self {
            listen: both.listen,
            public_url: both.public_url,
            data_dir: beside(dir, raw.data_dir.as_deref().unwrap_or("data")),
            catalog_dir: beside(dir, raw.catalog_dir.as_deref().unwrap_or("catalog")),
            trusted_proxies: raw
                .trusted_proxies
                .iter()
                .map(proxy)
                .collect::<Result<_, _>>()?,
        })
    }

    /// `public_url` and a path below it. The path begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public_url.as_str().trim_end_matches('/'))
    }
}

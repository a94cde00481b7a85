//! The layout (CNCF TAG Runtime, "Wasm OCI Artifact layout").

use std::collections::BTreeMap;

use countersign_core::names::Digest;
use countersign_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Media type of the manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of the config.
pub const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// Media type of the one layer.
pub const LAYER_TYPE: &str = "application/wasm";
/// Annotation of a layer: its file name (OCI image-spec, annotations).
pub const TITLE: &str = "org.opencontainers.image.title";
/// Largest manifest, in bytes (distribution-spec: registries take 4 MiB).
pub const LARGEST_MANIFEST: u64 = 4 << 20;
/// Largest component, in bytes: what a host takes.
pub const LARGEST_LAYER: u64 = 32 << 20;

/// OCI image manifest, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST_TYPE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A blob, by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            annotations: BTreeMap::new(),
        }
    }
}

/// `application/vnd.wasm.config.v0+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WasmConfig {
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// Always `wasm`.
    pub architecture: String,
    /// `wasip2` for every component, whether or not it imports any WASI.
    pub os: String,
    /// Digests of the layers, in their order.
    pub layer_digests: Vec<String>,
    /// What the component imports and exports.
    pub component: WasmInterfaces,
}

/// Interfaces of a component by their full names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WasmInterfaces {
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// The world it is made for, if that is said.
    #[serde(default)]
    pub target: Option<String>,
}

/// A component, ready to be pushed.
pub struct Artifact {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) component: Vec<u8>,
    pub(crate) parsed: Manifest,
}

impl Artifact {
    /// Lays a component out. The same arguments make the same bytes.
    #[must_use]
    pub fn new(
        component: Vec<u8>,
        title: &str,
        created: Timestamp,
        author: Option<String>,
        interfaces: WasmInterfaces,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        let mut layer = Descriptor::of(LAYER_TYPE, &component);
        layer.annotations.insert(TITLE.to_owned(), title.to_owned());
        let config = WasmConfig {
            created,
            author,
            architecture: "wasm".to_owned(),
            os: "wasip2".to_owned(),
            layer_digests: vec![layer.digest.to_string()],
            component: interfaces,
        };
        // Text into memory cannot fail.
        let config = serde_json::to_vec(&config).unwrap_or_default();
        let parsed = Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            config: Descriptor::of(CONFIG_TYPE, &config),
            layers: vec![layer],
            annotations,
        };
        Self {
            manifest: serde_json::to_vec(&parsed).unwrap_or_default(),
            config,
            component,
            parsed,
        }
    }

    /// The digest of its manifest: what it is known by in a registry.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

impl Manifest {
    /// Reads a manifest of the layout.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(default, rename = "mediaType")]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
        }
        let none = |e: serde_json::Error| format!("its manifest cannot be read ({e})");
        let kind: Kind = serde_json::from_slice(bytes).map_err(none)?;
        if kind.manifests.is_some() {
            return Err("it is an index of several images".into());
        }
        if let Some(other) = kind.media_type.filter(|t| t != MANIFEST_TYPE) {
            return Err(format!("its manifest is {other:?}"));
        }
        let this: Self = serde_json::from_slice(bytes).map_err(none)?;
        if this.schema_version != 2 {
            return Err(format!(
                "its manifest has schema version {}",
                this.schema_version
            ));
        }
        if this.config.media_type != CONFIG_TYPE {
            return Err(format!("its config is {:?}", this.config.media_type));
        }
        match this.layers.as_slice() {
            [layer] if layer.media_type == LAYER_TYPE => Ok(this),
            [layer] => Err(format!("its layer is {:?}", layer.media_type)),
            layers => Err(format!("it has {} layers instead of one", layers.len())),
        }
    }

    /// The component's descriptor; `parse` found that there is one.
    pub(crate) fn layer(&self) -> Option<&Descriptor> {
        self.layers.first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        Artifact::new(
            b"\0asm component".to_vec(),
            "github-1.2.0.wasm",
            Timestamp::from_secs(1_800_000_000),
            Some("acme".into()),
            WasmInterfaces {
                exports: vec!["countersign:preset/provider@0.1.0".into()],
                imports: vec!["countersign:preset/log@0.1.0".into()],
                target: None,
            },
            [(
                "org.opencontainers.image.version".to_owned(),
                "1.2.0".to_owned(),
            )]
            .into(),
        )
    }

    #[test]
    fn the_layout_is_the_one_of_the_specification() {
        let artifact = artifact();
        let manifest: serde_json::Value = serde_json::from_slice(&artifact.manifest).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&artifact.config).unwrap();
        insta::assert_json_snapshot!([manifest, config]);
        assert_eq!(Manifest::parse(&artifact.manifest), Ok(artifact.parsed));
    }

    #[test]
    fn another_layout_is_refused_by_what_differs() {
        let text = String::from_utf8(artifact().manifest).unwrap();
        let mut out = String::new();
        for (from, to) in [
            ("{", "x"),
            ("\"layers\":[", "\"layers\":[], \"other\":["),
            (LAYER_TYPE, "application/vnd.oci.image.layer.v1.tar"),
            (CONFIG_TYPE, "application/vnd.oci.image.config.v1+json"),
            (
                MANIFEST_TYPE,
                "application/vnd.docker.distribution.manifest.v2+json",
            ),
            ("\"schemaVersion\":2", "\"schemaVersion\":1"),
            ("\"config\"", "\"manifests\":[],\"config\""),
            ("sha256:", "sha512:"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = Manifest::parse(text.replacen(from, to, 1).as_bytes()).expect_err(from);
            out.push_str(&format!("{error}\n"));
        }
        insta::assert_snapshot!(out);
    }
}

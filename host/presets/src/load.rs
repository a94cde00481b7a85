//! From a file to a component that may be used, or to the sentence that says
//! why not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use countersign_core::names::{Digest, PresetName};
use countersign_core::preset::{Call, Description, GrantFacts, PresetFault};
use countersign_core::scope::ScopeSet;
use serde_json::{Map, Value};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::abi::{self, Compiled, Described, Guest, PACKAGE, Version};
use crate::approval::canonical_settings;
use crate::check::{self, CheckError, Declared};
use crate::engine::Sandboxes;
use crate::host::PresetLog;
use crate::permissions::{PermissionSet, hook_names};
use crate::signature::{
    LARGEST_PULLED, LARGEST_SIGNATURE, ORIGIN_SUFFIX, Pulled, SIGNATURE_SUFFIX, SignatureError,
    Standing, Trust, permissions_of,
};
use crate::symbols::Symbols;
use crate::{outline, wasi};

/// Largest component, in bytes.
pub const LARGEST_COMPONENT: u64 = 32 << 20;

/// Why a component is refused. Each says what its author or the administrator
/// can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file's name says neither preset nor version.
    #[error("{0:?} is not named NAME-VERSION.wasm, like github-1.2.0.wasm")]
    FileName(String),
    /// It could not be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// Too large.
    #[error("the file has {size} bytes, and a component may have at most {LARGEST_COMPONENT}")]
    TooLarge {
        /// In bytes.
        size: u64,
    },
    /// Nobody whom the operator trusts vouches for it, or somebody's word about
    /// it is broken.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// No WebAssembly at all.
    #[error("the file is not WebAssembly, or is cut off before its first eight bytes")]
    NotWasm,
    /// A module.
    #[error(
        "the file is a core module, not a component: build it with `cargo xtask presets` or `preset build`"
    )]
    CoreModule,
    /// Truncated, malformed, or with features that are switched off.
    #[error("the component does not compile: {0}")]
    Invalid(String),
    /// Nested or repeated beyond anything a tool makes.
    #[error("the component is a burden to read ({0}): build it with the usual tools")]
    Burden(String),
    /// It imports of WASI what presets do not have.
    #[error(
        "the component imports {0}, which presets do not have, not even empty: build it without (Python: componentize-py --stub-wasi; JavaScript: disableFeatures; Rust: wasm32-unknown-unknown)"
    )]
    Wasi(String),
    /// It imports something else.
    #[error(
        "the component imports {0}, and a preset may import only countersign:preset/log and countersign:preset/signing of version 0.1"
    )]
    ForbiddenImport(String),
    /// A policy imports something.
    #[error(
        "the component imports {0}, and a policy may import only countersign:policy/log of version 0.1"
    )]
    ForbiddenPolicyImport(String),
    /// It is no policy.
    #[error(
        "the component exports {found}, and a policy exports countersign:policy/judge@0.1.0: build it against wit/policy-v0.1.0"
    )]
    NoJudge {
        /// What it exports instead.
        found: String,
    },
    /// It exports no interface this host knows.
    #[error("the component exports {found}, but this host speaks {newest}: build it against wit/v0.1.0", newest = Version::NEWEST)]
    Abi {
        /// What it exports instead.
        found: String,
    },
    /// The interface has the right name and other types.
    #[error("the component does not fit the interface it names: {0}")]
    Shape(String),
    /// `describe` failed.
    #[error("describe failed: {0}")]
    Describe(PresetFault),
    /// What it described is refused.
    #[error("{0}")]
    Check(#[from] CheckError),
    /// `evaluate` failed on a harmless call.
    #[error("the self-test (evaluate of tools/list without scopes) failed: {0}")]
    SelfTest(PresetFault),
}

/// A component that passed everything that does not depend on a provider.
pub(crate) struct Loaded {
    pub(crate) name: PresetName,
    pub(crate) version: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Interfaces with functions that it imports, by short name.
    pub(crate) imports: BTreeSet<String>,
    pub(crate) guest: Box<dyn Guest>,
    /// Under empty settings; none if it refuses those.
    pub(crate) description: Result<Description, String>,
    /// What follows from it, for a provider that adds nothing of its own.
    pub(crate) permissions: Option<PermissionSet>,
    /// What is signed of it: the same, or imports and exported hooks if there
    /// is nothing else before settings.
    pub(crate) signed: PermissionSet,
    /// Who vouches for it.
    pub(crate) standing: Standing,
}

impl Loaded {
    /// Judges it by what the operator trusts now; whether somebody else vouches
    /// for it than before.
    ///
    /// # Errors
    /// [`SignatureError`]: it may not serve any more.
    pub(crate) fn judge_again(&self, file: &str, trust: &Trust) -> Result<bool, SignatureError> {
        let named = (file, &self.name, self.version.as_str());
        self.standing
            .judge_again(named, self.digest, &self.signed, trust)
    }
}

/// A component's bytes, and what lies beside it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) bytes: Vec<u8>,
    pub(crate) signature: Option<Result<Vec<u8>, SignatureError>>,
    pulled: Option<Vec<u8>>,
}

impl Source {
    /// Without anything beside it.
    pub(crate) fn alone(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            signature: None,
            pulled: None,
        }
    }

    /// The note of where it was pulled from, if it speaks of this component.
    pub(crate) fn pulled(&self, digest: Digest) -> Option<Pulled> {
        Pulled::parse(self.pulled.as_deref()?, digest)
    }

    /// Changes with any of the files.
    pub(crate) fn digest(&self) -> Digest {
        let signature = match &self.signature {
            Some(Ok(bytes)) => Digest::of(bytes),
            Some(Err(error)) => Digest::of(error.to_string().as_bytes()),
            None => Digest::of(b""),
        };
        let pulled = Digest::of(self.pulled.as_deref().unwrap_or_default());
        let mut all = Vec::with_capacity(96);
        for digest in [Digest::of(&self.bytes), signature, pulled] {
            all.extend_from_slice(digest.as_bytes());
        }
        Digest::of(&all)
    }
}

/// Whether a file may bear this name in a catalog: `NAME-VERSION.wasm`.
#[must_use]
pub fn is_component_name(file: &str) -> bool {
    parse_file_name(file).is_ok()
}

/// The preset and version that a file name says.
pub(crate) fn parse_file_name(file: &str) -> Result<(PresetName, String), LoadError> {
    let bad = || LoadError::FileName(crate::check::cut(file));
    let stem = file.strip_suffix(".wasm").ok_or_else(bad)?;
    let (name, version) = stem
        .match_indices('-')
        .map(|(i, _)| (&stem[..i], &stem[i + 1..]))
        .find(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
        .ok_or_else(bad)?;
    let name = PresetName::parse(name).map_err(|_| bad())?;
    if is_version(version) {
        Ok((name, version.to_owned()))
    } else {
        Err(bad())
    }
}

/// Whether this can be a version in a file name: `1.2.0`, `2`, `1.0.0-rc.1`.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-+_".contains(&b))
}

/// Reads a file of at most [`LARGEST_COMPONENT`] bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    capped(path, LARGEST_COMPONENT).map_err(|error| match error {
        ReadError::TooLarge(size) => LoadError::TooLarge { size },
        ReadError::Io(error) => LoadError::Unreadable(error.to_string()),
        ReadError::NoFile => LoadError::Unreadable("it is not a regular file".into()),
    })
}

/// Reads a component and what lies beside it.
pub(crate) fn read_all(path: &Path) -> Result<Source, LoadError> {
    let beside = |suffix: &str, most: u64| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match capped(Path::new(&name), most) {
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read),
        }
    };
    // The component last: whoever puts both there writes the signature first.
    let signature = beside(SIGNATURE_SUFFIX, LARGEST_SIGNATURE).map(|read| {
        read.map_err(|error| match error {
            ReadError::TooLarge(_) => SignatureError::TooLarge,
            ReadError::Io(error) => SignatureError::Unreadable(error.to_string()),
            ReadError::NoFile => SignatureError::Unreadable("it is not a regular file".into()),
        })
    });
    let pulled = beside(ORIGIN_SUFFIX, LARGEST_PULLED).and_then(Result::ok);
    Ok(Source {
        bytes: read(path)?,
        signature,
        pulled,
    })
}

enum ReadError {
    TooLarge(u64),
    Io(std::io::Error),
    NoFile,
}

fn capped(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(ReadError::Io)?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    if !metadata.is_file() {
        return Err(ReadError::NoFile);
    }
    if metadata.len() > most {
        return Err(ReadError::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    let read = file.take(most + 1).read_to_end(&mut bytes);
    match u64::try_from(read.map_err(ReadError::Io)?) {
        Ok(size) if size <= most => Ok(bytes),
        _ => Err(ReadError::TooLarge(most + 1)),
    }
}

/// Takes a component through the whole pipeline.
///
/// # Errors
/// The first [`LoadError`].
pub(crate) fn load(
    sandboxes: &Sandboxes,
    trust: &Trust,
    file: &str,
    source: Source,
) -> Result<Loaded, LoadError> {
    let (name, version) = parse_file_name(file)?;
    let Source {
        bytes,
        signature,
        pulled,
    } = source;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > LARGEST_COMPONENT {
        return Err(LoadError::TooLarge { size });
    }
    is_component(&bytes)?;
    outline::check(&bytes, sandboxes.config().large.modules).map_err(LoadError::Burden)?;
    let digest = Digest::of(&bytes);
    // Before anything is compiled.
    let kept = signature.clone();
    let (mut origin, signature) = trust.judge((file, &name, &version), digest, signature)?;
    origin.pulled = pulled.and_then(|note| Pulled::parse(&note, digest));
    let (component, class) = sandboxes
        .compile(&bytes)
        .map_err(|e| LoadError::Invalid(crate::faults::plain(&e)))?;
    let imports = imports(&component)?;
    let abi = version_of(&component)?;
    let compiled = Compiled {
        signing: imports.contains("signing"),
        component,
        class,
        log: PresetLog::new(format!("{name}@{}", digest.short()), sandboxes.seconds()),
        config: sandboxes.config().clone(),
    };
    let guest =
        abi::prepare(abi, compiled).map_err(|e| LoadError::Shape(crate::faults::plain(&e)))?;
    let (description, permissions) = match try_out(&*guest, &name, &imports)? {
        Ok((description, permissions)) => (Ok(description), Some(permissions)),
        Err(text) => (Err(text), None),
    };
    let signed = permissions.clone().unwrap_or_else(|| PermissionSet {
        imports: imports.clone(),
        hooks: hook_names(guest.exported_hooks()),
        ..PermissionSet::default()
    });
    if let Some(signature) = signature {
        signature.agrees(&permissions_of(&signed))?;
    }
    Ok(Loaded {
        name,
        version,
        digest,
        size,
        imports,
        guest,
        description,
        permissions,
        signed,
        standing: Standing::new(kept, origin),
    })
}

/// Describes, checks and tests under empty settings. A preset that refuses
/// empty settings in so many words is not broken: it waits for a provider's.
fn try_out(
    guest: &dyn Guest,
    name: &PresetName,
    imports: &BTreeSet<String>,
) -> Result<Result<(Description, PermissionSet), String>, LoadError> {
    let settings = Map::new();
    let described = match guest.describe("{}") {
        Ok(described) => described,
        Err(PresetFault::Reported(text)) => return Ok(Err(text)),
        Err(fault) => return Err(LoadError::Describe(fault)),
    };
    check::check(
        &described.description,
        name,
        guest.exported_hooks(),
        &settings,
        true,
    )?;
    self_test(guest, &described.description, "{}")?;
    let permissions = permissions(&described, imports, &settings, true)?;
    Ok(Ok((described.description, permissions)))
}

/// What follows from a description whoever the provider is.
fn permissions(
    described: &Described,
    imports: &BTreeSet<String>,
    settings: &Map<String, Value>,
    lenient: bool,
) -> Result<PermissionSet, LoadError> {
    let description = &described.description;
    let symbols = Symbols::new(description, settings, lenient)
        .map_err(|error| check::at("variables", error))?;
    let set = PermissionSet::resolve(
        description,
        &described.arguments_of,
        imports,
        None,
        &symbols,
    )?;
    Ok(set)
}

/// Describes and tests a loaded component under other settings.
pub(crate) fn describe_with(
    loaded: &Loaded,
    settings: &Map<String, Value>,
) -> Result<(Description, PermissionSet), LoadError> {
    let text = canonical_settings(settings);
    let described = loaded.guest.describe(&text).map_err(LoadError::Describe)?;
    check::check(
        &described.description,
        &loaded.name,
        loaded.guest.exported_hooks(),
        settings,
        false,
    )?;
    self_test(&*loaded.guest, &described.description, &text)?;
    let permissions = permissions(&described, &loaded.imports, settings, false)?;
    Ok((described.description, permissions))
}

/// Evaluates one harmless call.
pub(crate) fn self_test(
    guest: &dyn Guest,
    description: &Description,
    settings: &str,
) -> Result<(), LoadError> {
    let call = Call {
        method: "tools/list",
        name: None,
        arguments: None,
        host: "self-test.invalid",
    };
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    let settings = description.wants.settings.then_some(settings);
    guest
        .evaluate(&call, settings, &grant)
        .and_then(|verdict| check::check_verdict(&verdict, &Declared::of(description)))
        .map_err(LoadError::SelfTest)
}

/// Layer 1 of the component model's binary format (version 13), where a core
/// module has layer 0.
pub(crate) fn is_component(bytes: &[u8]) -> Result<(), LoadError> {
    let header: &[u8; 8] = bytes.first_chunk().ok_or(LoadError::NotWasm)?;
    match header {
        [0, b'a', b's', b'm', _, _, 1, 0] => Ok(()),
        [0, b'a', b's', b'm', _, _, 0, 0] => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

fn imports(component: &Component) -> Result<BTreeSet<String>, LoadError> {
    let engine = component.engine();
    let mut with_functions = BTreeSet::new();
    for (name, import) in component.component_type().imports(engine) {
        if name.starts_with("wasi:") {
            if !wasi::is_offered(name) {
                return Err(LoadError::Wasi(crate::check::cut(name)));
            }
            with_functions.insert(name.to_owned());
            continue;
        }
        let forbidden = || LoadError::ForbiddenImport(crate::check::cut(name));
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            return Err(forbidden());
        };
        let (short, version) = name
            .strip_prefix(PACKAGE)
            .and_then(|rest| rest.split_once('@'))
            .ok_or_else(forbidden)?;
        if !version.starts_with("0.1.") {
            return Err(forbidden());
        }
        let types_only = instance
            .exports(engine)
            .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)));
        match (short, types_only) {
            ("log" | "signing", _) => {
                with_functions.insert(short.to_owned());
            }
            (_, true) => {}
            (_, false) => return Err(forbidden()),
        }
    }
    Ok(with_functions)
}

fn version_of(component: &Component) -> Result<Version, LoadError> {
    let engine = component.engine();
    let mut found = Vec::new();
    for (name, _) in component.component_type().exports(engine) {
        if let Some(version) = Version::of_export(name) {
            return Ok(version);
        }
        found.push(crate::check::cut(name));
    }
    found.truncate(5);
    let found = if found.is_empty() {
        "nothing".to_owned()
    } else {
        found.join(", ")
    };
    Err(LoadError::Abi { found })
}

/// A loaded component, shared by all that use it.
pub(crate) type SharedLoaded = Arc<Loaded>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_says_preset_and_version() {
        for (file, expected) in [
            ("github-0.1.0.wasm", Some(("github", "0.1.0"))),
            ("google-drive-2.wasm", Some(("google-drive", "2"))),
            ("a-1.0.0-rc.1.wasm", Some(("a", "1.0.0-rc.1"))),
            ("github.wasm", None),
            ("github-latest.wasm", None),
            ("GitHub-1.wasm", None),
            ("github-1.0.wasm.tmp", None),
            ("github-1/../x.wasm", None),
            ("-1.wasm", None),
        ] {
            let parsed = parse_file_name(file).ok();
            assert_eq!(
                parsed.as_ref().map(|(n, v)| (n.as_str(), v.as_str())),
                expected,
                "{file}"
            );
        }
    }
}

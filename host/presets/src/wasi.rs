//! A WASI with nothing in it.
//!
//! Guests in Python, Go or Rust's `wasm32-wasip2` import WASI whether or not
//! they use it. What they get is made here and reaches no operating system:
//! there is no environment, no argument, no folder; standard streams are
//! closed; every clock stands still and every random number comes out of one
//! fixed seed, so that a verdict stays a function of its input. Whatever else
//! they call ends them by name. Nothing can wait: a guest that sleeps in the
//! host would outlive its deadline, which is why this is not `wasmtime-wasi`
//! with an empty context.
//!
//! Interfaces outside [`is_offered`] (sockets, HTTP) are refused when the file
//! is loaded.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use crate::host::HostState;

/// Most random bytes of one request.
const MOST_RANDOM: u64 = 64 << 10;

/// Interfaces that a preset may import, each of any 0.2 version.
const OFFERED: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
];
/// Random numbers that need not be secret.
const INSECURE: [&str; 2] = ["wasi:random/insecure", "wasi:random/insecure-seed"];

/// Whether a preset may import this interface of WASI.
pub(crate) fn is_offered(import: &str) -> bool {
    import.split_once('@').is_some_and(|(name, version)| {
        version.starts_with("0.2.") && OFFERED.iter().chain(&INSECURE).any(|o| *o == name)
    })
}

/// The guest called what is not there.
#[derive(Debug, thiserror::Error)]
#[error("it called {0}, which presets do not have")]
pub(crate) struct NotThere(String);

/// Stands for every resource of WASI; none of them holds anything.
enum Nothing {}

/// Seconds and nanoseconds since 1970.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
#[allow(
    dead_code,
    reason = "the interface has it; a closed stream never fails otherwise"
)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<Nothing>),
    #[component(name = "closed")]
    Closed,
}

/// Numbers out of a fixed seed (SplitMix64), anew for each sandbox.
#[derive(Default)]
pub(crate) struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Gives a component the interfaces of WASI that it imports.
///
/// # Errors
/// If a function has other types than WASI 0.2 says.
pub(crate) fn link(linker: &mut Linker<HostState>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (import, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else {
            continue;
        };
        if !is_offered(import) {
            continue;
        }
        let short = import.split('@').next().unwrap_or(import);
        let mut instance = linker.instance(import)?;
        for (name, item) in interface.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    let nothing = ResourceType::host::<Nothing>();
                    instance.resource(name, nothing, |_, _| Ok(()))?;
                }
                ComponentItem::ComponentFunc(_) if !define(&mut instance, short, name)? => {
                    let called = format!("{short} {name}");
                    instance
                        .func_new(name, move |_, _, _, _| Err(NotThere(called.clone()).into()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The functions that have an answer; false for the others.
fn define(
    instance: &mut LinkerInstance<'_, HostState>,
    interface: &str,
    function: &str,
) -> wasmtime::Result<bool> {
    match (interface, function) {
        ("wasi:cli/environment", "get-environment") => {
            instance.func_wrap(function, |_, ()| Ok((Vec::<(String, String)>::new(),)))?;
        }
        ("wasi:cli/environment", "get-arguments") => {
            instance.func_wrap(function, |_, ()| Ok((Vec::<String>::new(),)))?;
        }
        ("wasi:cli/environment", "initial-cwd") => {
            instance.func_wrap(function, |_, ()| Ok((None::<String>,)))?;
        }
        ("wasi:cli/stdin" | "wasi:cli/stdout" | "wasi:cli/stderr", _) => {
            instance.func_wrap(function, |_, ()| Ok((Resource::<Nothing>::new_own(0),)))?;
        }
        (
            "wasi:cli/terminal-stdin" | "wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr",
            _,
        ) => {
            instance.func_wrap(function, |_, ()| Ok((None::<Resource<Nothing>>,)))?;
        }
        ("wasi:clocks/monotonic-clock", "now") => {
            instance.func_wrap(function, |_, ()| Ok((0_u64,)))?;
        }
        ("wasi:clocks/monotonic-clock", "resolution") => {
            instance.func_wrap(function, |_, ()| Ok((1_u64,)))?;
        }
        ("wasi:clocks/wall-clock", "now" | "resolution") => {
            instance.func_wrap(function, |_, ()| {
                Ok((Datetime {
                    seconds: 0,
                    nanoseconds: 0,
                },))
            })?;
        }
        ("wasi:filesystem/preopens", "get-directories") => {
            instance.func_wrap(function, |_, ()| {
                Ok((Vec::<(Resource<Nothing>, String)>::new(),))
            })?;
        }
        (
            "wasi:random/random" | "wasi:random/insecure",
            "get-random-bytes" | "get-insecure-random-bytes",
        ) => {
            instance.func_wrap(function, |mut store, (length,): (u64,)| {
                if length > MOST_RANDOM {
                    return Err(NotThere(format!(
                        "for more than {MOST_RANDOM} random bytes at once"
                    ))
                    .into());
                }
                let numbers = &mut store.data_mut().numbers;
                let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
                Ok((bytes,))
            })?;
        }
        (
            "wasi:random/random" | "wasi:random/insecure",
            "get-random-u64" | "get-insecure-random-u64",
        ) => {
            instance.func_wrap(function, |mut store, ()| {
                Ok((store.data_mut().numbers.next(),))
            })?;
        }
        ("wasi:random/insecure-seed", "insecure-seed") => {
            instance.func_wrap(function, |mut store, ()| {
                let numbers = &mut store.data_mut().numbers;
                Ok(((numbers.next(), numbers.next()),))
            })?;
        }
        // A closed stream: nothing can be written, nothing comes.
        ("wasi:io/streams", "[method]output-stream.check-write") => {
            instance.func_wrap(function, |_, (_,): (Resource<Nothing>,)| {
                Ok((Err::<u64, _>(StreamError::Closed),))
            })?;
        }
        (
            "wasi:io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => {
            instance.func_wrap(function, |_, (_, _): (Resource<Nothing>, Vec<u8>)| {
                Ok((Err::<(), _>(StreamError::Closed),))
            })?;
        }
        (
            "wasi:io/streams",
            "[method]output-stream.flush" | "[method]output-stream.blocking-flush",
        ) => {
            instance.func_wrap(function, |_, (_,): (Resource<Nothing>,)| {
                Ok((Err::<(), _>(StreamError::Closed),))
            })?;
        }
        ("wasi:io/streams", "[method]input-stream.read" | "[method]input-stream.blocking-read") => {
            instance.func_wrap(function, |_, (_, _): (Resource<Nothing>, u64)| {
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

//! The threads that compile: they give way to those that serve calls.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Engine;
use wasmtime::component::Component;

/// How much less they ask for than others (`nice`, per thread on Linux): a
/// compiler that nobody waits for takes a tenth of a processor that is wanted.
const MODESTY: i32 = 10;
/// Address space for the compiler's stack; only what is used is taken.
pub(crate) const STACK: usize = 128 << 20;

/// Compiles a component.
///
/// # Errors
/// What the compiler says.
pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let compile = || Component::from_binary(engine, bytes);
    match THREADS.get_or_init(threads) {
        Some(threads) => threads.install(compile),
        None => compile(),
    }
}

fn threads() -> Option<ThreadPool> {
    let count = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|n| format!("compiler-{n}"))
        .stack_size(STACK)
        .start_handler(|_| {
            if let Err(error) = rustix::process::nice(MODESTY) {
                tracing::debug!(%error, "compiling takes as much of a processor as serving");
            }
        })
        .build()
        .inspect_err(|error| tracing::warn!(%error, "compiling on wasmtime's own threads"))
        .ok()
}

//! The sandboxes: two wasmtime engines, their pools, limits and deadline.
//!
//! A fresh instance serves one call and is thrown away. What makes that cheap
//! is the pool: memories, tables and instances are reserved once, a memory's
//! first content is mapped copy-on-write, and a used slot is reset in place
//! instead of being given back to the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::cache::CompileCache;
use crate::compiling;
use countersign_core::preset::PresetFault;
use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

/// How often a running guest's deadline is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(5);
const TICKS_A_SECOND: u64 = 200;
/// Components of more bytes than this are for the large class in any case.
const SMALL: usize = 2 << 20;

/// Limits of one size class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassConfig {
    /// Sandboxes that may exist at a time; one more is `Busy`.
    pub sandboxes: u32,
    /// Linear memory of one sandbox, all its modules together, in bytes; a
    /// multiple of 64 KiB.
    pub memory: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Core modules of one component.
    pub modules: u32,
    /// Memories of one component.
    pub memories: u32,
    /// Tables of one component.
    pub tables: u32,
    /// Stack of the guest, in bytes.
    pub stack: usize,
    /// Memory of a slot that is reset in place rather than unmapped, in bytes.
    pub keep_resident: usize,
}

/// Limits of all sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// For presets of one or two core modules.
    pub small: ClassConfig,
    /// For what does not fit: JavaScript and Python bring many modules.
    pub large: ClassConfig,
    /// For `evaluate` and the hooks, in processor time: a guest does not pay for
    /// a busy machine. Kept to within a few ticks of 5 ms.
    pub deadline: Duration,
    /// For `describe`, which runs once for each load.
    pub describe_deadline: Duration,
    /// Bytes a guest may hand over in one answer, strings and lists together.
    pub answer: usize,
    /// The same for `describe`.
    pub description: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            small: ClassConfig {
                sandboxes: 64,
                memory: 4 << 20,
                table_elements: 4096,
                modules: 4,
                memories: 2,
                tables: 4,
                stack: 256 << 10,
                keep_resident: 256 << 10,
            },
            large: ClassConfig {
                sandboxes: 8,
                memory: 64 << 20,
                table_elements: 65_536,
                modules: 64,
                memories: 16,
                tables: 64,
                stack: 512 << 10,
                keep_resident: 1 << 20,
            },
            deadline: Duration::from_millis(50),
            describe_deadline: Duration::from_millis(500),
            answer: 256 << 10,
            description: 8 << 20,
        }
    }
}

/// The engines could not be made: wrong limits, or no address space.
#[derive(Debug, thiserror::Error)]
#[error(
    "the sandbox engine cannot start: {0}; lower the limits under [presets], or give the process more address space"
)]
pub struct EngineError(String);

/// A size class: an engine, its pool and the cap in front of it.
pub(crate) struct SizeClass {
    engine: Engine,
    limits: ClassConfig,
    running: AtomicU32,
}

/// Leave to use one sandbox; given back when dropped.
pub(crate) struct Seat(Arc<SizeClass>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SizeClass {
    fn new(limits: &ClassConfig) -> Result<Arc<Self>, EngineError> {
        let engine = Engine::new(&config(limits)).map_err(|e| EngineError(format!("{e:#}")))?;
        Ok(Arc::new(Self {
            engine,
            limits: limits.clone(),
            running: AtomicU32::new(0),
        }))
    }

    /// Its engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> &ClassConfig {
        &self.limits
    }

    /// Takes a seat, or says that there is none. Nobody waits: a call that
    /// finds every sandbox taken is told so and can be repeated.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Seat, PresetFault> {
        // So that the next one takes its place in the pool, which is warm.
        crate::spent::clear_for_next();
        self.running
            .try_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < self.limits.sandboxes).then_some(n + 1)
            })
            .map(|_| Seat(Arc::clone(self)))
            .map_err(|_| PresetFault::Busy)
    }
}

/// Both size classes and their ticker.
pub(crate) struct Sandboxes {
    small: Arc<SizeClass>,
    large: Arc<SizeClass>,
    config: EngineConfig,
    seconds: Arc<AtomicU64>,
    cache: Option<CompileCache>,
    // Dropping it ends the ticker.
    _ticker: mpsc::Sender<()>,
}

impl Sandboxes {
    /// Reserves the pools and starts the ticker thread.
    ///
    /// # Errors
    /// [`EngineError`] if the limits make no sense or memory cannot be
    /// reserved.
    pub(crate) fn new(
        config: EngineConfig,
        cache: Option<CompileCache>,
    ) -> Result<Arc<Self>, EngineError> {
        let small = SizeClass::new(&config.small)?;
        let large = SizeClass::new(&config.large)?;
        let seconds = Arc::new(AtomicU64::new(0));
        let engines = [small.engine.clone(), large.engine.clone()];
        let ticker = start_ticker(engines, Arc::clone(&seconds))?;
        Ok(Arc::new(Self {
            small,
            large,
            config,
            seconds,
            cache,
            _ticker: ticker,
        }))
    }

    /// Removes compiled code that nobody asked for since the start.
    pub(crate) fn sweep_cache(&self) {
        if let Some(cache) = &self.cache {
            cache.sweep();
        }
    }

    /// The limits in force.
    pub(crate) fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Counts up about once a second.
    pub(crate) fn seconds(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.seconds)
    }

    /// Compiles for the smallest class that holds the component.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<(Component, Arc<SizeClass>), String> {
        // Types inside types are read by recursion; `outline` bounds how deep,
        // and this stack is enough for that.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("preset-compiler".into())
                .stack_size(compiling::STACK)
                .spawn_scoped(scope, || self.compile_here(bytes))
                .map_err(|error| format!("no thread to compile on: {error}"))?
                .join()
                .unwrap_or_else(|_| Err("the compiler failed".into()))
        })
    }

    fn compile_here(&self, bytes: &[u8]) -> Result<(Component, Arc<SizeClass>), String> {
        let compiled = |class: &SizeClass| match &self.cache {
            Some(cache) => cache.compile(&class.engine, bytes),
            None => compiling::compile(&class.engine, bytes),
        };
        // A class is only found too small when all is compiled.
        if bytes.len() <= SMALL
            && let Ok(component) = compiled(&self.small)
        {
            return Ok((component, Arc::clone(&self.small)));
        }
        compiled(&self.large)
            .map(|component| (component, Arc::clone(&self.large)))
            .map_err(|e| format!("{e:#}"))
    }
}

fn start_ticker(
    engines: [Engine; 2],
    seconds: Arc<AtomicU64>,
) -> Result<mpsc::Sender<()>, EngineError> {
    let (alive, ended) = mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("preset-deadlines".into())
        .spawn(move || {
            let mut ticks = 0u64;
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                for engine in &engines {
                    engine.increment_epoch();
                }
                ticks += 1;
                seconds.store(ticks / TICKS_A_SECOND, Ordering::Relaxed);
            }
        })
        .map_err(|e| EngineError(format!("no thread for deadlines: {e}")))?;
    Ok(alive)
}

fn config(limits: &ClassConfig) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let sandboxes = limits.sandboxes;
    pool.total_component_instances(sandboxes)
        .total_core_instances(sandboxes.saturating_mul(limits.modules))
        .total_memories(sandboxes.saturating_mul(limits.memories))
        .total_tables(sandboxes.saturating_mul(limits.tables))
        .max_core_instances_per_component(limits.modules)
        .max_memories_per_component(limits.memories)
        .max_tables_per_component(limits.tables)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements)
        .max_unused_warm_slots(sandboxes)
        .linear_memory_keep_resident(limits.keep_resident)
        .table_keep_resident(limits.table_elements.saturating_mul(8))
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack)
        .memory_init_cow(true)
        .memory_may_move(false)
        .memory_reservation(limits.memory as u64)
        .memory_guard_size(64 << 10)
        .table_lazy_init(true)
        .cranelift_opt_level(OptLevel::Speed)
        // The same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // Traps are told by class; frames of a guest help nobody here.
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_tail_call(false);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_all_sandboxes_is_told_that_they_are_busy() {
        let mut config = EngineConfig::default();
        config.small.sandboxes = 2;
        let class = SizeClass::new(&config.small).unwrap();
        let first = class.enter().ok().unwrap();
        let _second = class.enter().ok().unwrap();
        assert_eq!(class.enter().err(), Some(PresetFault::Busy));
        drop(first);
        assert!(class.enter().is_ok());
    }
}

//! What one sandbox may use, and the memory of having refused more.

use wasmtime::ResourceLimiter;

use crate::engine::ClassConfig;

/// Counts what a store uses. A refused `memory.grow` is not a trap: the guest
/// sees -1 and usually aborts in its own way, so the limiter remembers.
pub(crate) struct Limiter {
    memory: usize,
    memory_left: usize,
    table_elements: usize,
    instances: usize,
    memories: usize,
    tables: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &ClassConfig) -> Self {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            memory: limits.memory,
            memory_left: limits.memory,
            table_elements: limits.table_elements,
            instances: count(limits.modules),
            memories: count(limits.memories),
            tables: count(limits.tables),
            refused: false,
        }
    }

    /// Bytes of linear memory in use, all modules together.
    pub(crate) fn used(&self) -> usize {
        self.memory - self.memory_left
    }

    /// Whether something was refused.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        // Beyond the module's own maximum it is the module that says no.
        let own = maximum.is_none_or(|m| desired <= m);
        if more > self.memory_left || !own {
            self.refused |= more > self.memory_left;
            return Ok(false);
        }
        self.memory_left -= more;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= self.table_elements;
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn instances(&self) -> usize {
        // Core instances and the component's own bookkeeping.
        self.instances.saturating_mul(2)
    }

    fn tables(&self) -> usize {
        self.tables
    }

    fn memories(&self) -> usize {
        self.memories
    }
}

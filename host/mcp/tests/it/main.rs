//! Tests of countersign-mcp against its public interface.

mod carriers;
mod envelope;
mod revision;
mod state;
mod support;
mod upstream;

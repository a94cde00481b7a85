//! Policy components made on the spot.

use std::fmt::Write as _;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::fixture::{Body, Memory, result_type, wit_dir};

/// A policy to be, named `judge`.
pub struct PolicyFixture {
    pub describe: Body,
    pub judge: Body,
    pub imports_log: bool,
    /// More top-level fields of the module.
    pub more: &'static str,
}

/// What a well-behaved one says of itself.
pub fn described(name: &str) -> Value {
    json!({"ok": {"name": name, "display-name": "Judge", "documentation-url": "", "wants": []}})
}

impl PolicyFixture {
    /// Describes itself well, and judges so.
    pub fn judging(judge: Body) -> Self {
        Self {
            describe: Body::Answer(described("judge")),
            judge,
            imports_log: false,
            more: "",
        }
    }

    /// The component.
    pub fn bytes(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(wit_dir("policy-v0.1.0")).unwrap();
        let world = resolve.select_world(&[package], Some("policy")).unwrap();
        let mut memory = Memory::new(&resolve);
        let mut functions = String::new();
        // `judge` has more parameters than are passed flat: one pointer.
        let bodies = [
            ("describe", "i32 i32", &self.describe),
            ("judge", "i32", &self.judge),
        ];
        for (function, parameters, body) in bodies {
            let result = result_type(&resolve, world, "judge", function);
            let text = memory.code(&result, body);
            writeln!(
                functions,
                "(func (export \"countersign:policy/judge@0.1.0#{function}\") (param {parameters}) (result i32) {text})"
            )
            .unwrap();
        }
        let log = match self.imports_log {
            true => {
                "(import \"countersign:policy/log@0.1.0\" \"log\" (func $log (param i32 i32 i32)))"
            }
            false => "",
        };
        let text = memory.module(log, &(functions + self.more), 2);
        let mut module = wat::parse_str(text).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .unwrap()
            .encode()
            .unwrap()
    }
}

//! Components made on the spot: a description given as JSON, laid out in
//! memory as the canonical ABI wants it, and functions in WebAssembly text.
//! No guest toolchain is needed, and a guest can be as hostile as text allows.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Int, Resolve, SizeAlign, Type, TypeDefKind, WorldItem};

const BASE: usize = 1024;

/// What a function does.
#[derive(Clone)]
pub enum Body {
    /// Returns this.
    Answer(Value),
    /// WebAssembly text; `$0`, `$1` … are the addresses of these answers.
    Wat(&'static str, Vec<Value>),
}

/// A preset to be.
#[derive(Clone)]
pub struct Fixture {
    pub describe: Body,
    pub evaluate: Body,
    /// Hook and what it does.
    pub hooks: Vec<(&'static str, Body)>,
    pub pages: u32,
    pub imports_log: bool,
    /// Other interfaces that it imports.
    pub interfaces: Vec<Interface>,
    /// More top-level fields of the module.
    pub more: String,
}

/// An imported interface.
#[derive(Clone)]
pub struct Interface {
    /// Its package as WIT text, with what is used of it.
    pub package: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The imports of the module.
    pub core: &'static str,
}

/// The smallest description that passes, for the preset `probe`.
pub fn description() -> Value {
    json!({
        "name": "probe",
        "display-name": "Probe",
        "version": "1.0.0",
        "authorization-hosts": [[{"literal": "login.example.com"}]],
        "audience-hosts": [[{"literal": "api.example.com"}]],
        "authorization": {"endpoint": [{"literal": "https://login.example.com/authorize"}]},
        "token-endpoint": [{"literal": "https://login.example.com/token"}],
        "token-shapes": [{"credential": "user", "access-token": ["/access_token"]}],
        "default-scopes": ["read"],
        "credentials": [{
            "name": "user",
            "title": "User",
            "rules": [{"set-header": {
                "name": "Authorization",
                "value": [{"literal": "Bearer "}, {"slot": "access-token"}],
            }}],
        }],
    })
}

pub fn allow() -> Value {
    json!({"ok": {"allow": {"credential": null, "rules": []}}})
}

pub fn deny(code: &str) -> Value {
    json!({"ok": {"deny": {"code": code, "message": "no"}}})
}

impl Default for Fixture {
    fn default() -> Self {
        Self::described(description())
    }
}

impl Fixture {
    /// Describes itself so and allows everything.
    pub fn described(description: Value) -> Self {
        Self {
            describe: Body::Answer(json!({"ok": description})),
            evaluate: Body::Answer(allow()),
            hooks: vec![],
            pages: 2,
            imports_log: false,
            interfaces: vec![],
            more: String::new(),
        }
    }

    pub fn evaluating(body: Body) -> Self {
        Self {
            evaluate: body,
            ..Self::default()
        }
    }

    /// The component.
    pub fn bytes(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        resolve.push_dir(wit_dir("v0.1.0")).unwrap();
        let mut world = String::from(
            "package test:fixture;\nworld fixture {\n include countersign:preset/preset@0.1.0;\n",
        );
        for (hook, _) in &self.hooks {
            writeln!(world, " include countersign:preset/{hook}-hook@0.1.0;").unwrap();
        }
        for interface in &self.interfaces {
            resolve
                .push_str("interface.wit", interface.package)
                .unwrap();
            writeln!(world, " import {};", interface.name).unwrap();
        }
        world.push('}');
        let package = resolve.push_str("fixture.wit", &world).unwrap();
        let world = resolve.select_world(&[package], Some("fixture")).unwrap();
        let mut module = wat::parse_str(self.wat(&resolve, world)).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default()
            .validate(true)
            .module(&module)
            .unwrap()
            .encode()
            .unwrap()
    }

    fn wat(&self, resolve: &Resolve, world: wit_parser::WorldId) -> String {
        let mut memory = Memory::new(resolve);
        let mut functions = String::new();
        let bodies = [
            ("provider", "describe", &self.describe),
            ("provider", "evaluate", &self.evaluate),
        ];
        let hooks = self.hooks.iter().map(|(hook, body)| (*hook, *hook, body));
        for (interface, function, body) in bodies.into_iter().chain(hooks) {
            let result = result_type(resolve, world, interface, function);
            let text = memory.code(&result, body);
            let parameters = parameters(interface, function);
            writeln!(
                functions,
                "(func (export \"countersign:preset/{interface}@0.1.0#{function}\") (param {parameters}) (result i32) {text})"
            )
            .unwrap();
        }
        let log = if self.imports_log {
            "(import \"countersign:preset/log@0.1.0\" \"log\" (func $log (param i32 i32 i32)))"
        } else {
            ""
        };
        // A lent key has to be given back.
        let key = if self.hooks.iter().any(|(hook, _)| *hook == "sign") {
            "(import \"countersign:preset/signing@0.1.0\" \"[resource-drop]key\" (func $give_back (param i32)))"
        } else {
            ""
        };
        let interfaces: String = self.interfaces.iter().map(|i| i.core).collect();
        let imports = format!("{log} {key} {interfaces}");
        memory.module(&imports, &(functions + &self.more), self.pages)
    }
}

/// Flattened parameters (at most 16, else one pointer).
fn parameters(interface: &str, function: &str) -> &'static str {
    match (interface, function) {
        ("provider", "describe") => "i32 i32",
        ("provider", "evaluate") => "i32",
        ("authorize-parameters", _) => "i32 i32 i32 i32",
        ("token-answer", _) => "i32 i32 i32",
        ("refresh-error", _) => "i32 i32 i32 i32 i32 i32",
        ("filter-tools", _) => "i32 i32 i32 i32 i32 i32 i32 i32 i32",
        ("identity", _) => "i32 i32",
        ("sign", _) => "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32",
        ("redact", _) => "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32",
        other => panic!("no signature for {other:?}"),
    }
}

pub fn result_type(
    resolve: &Resolve,
    world: wit_parser::WorldId,
    interface: &str,
    function: &str,
) -> Type {
    resolve.worlds[world]
        .exports
        .values()
        .find_map(|item| match item {
            WorldItem::Interface { id, .. }
                if resolve.interfaces[*id].name.as_deref() == Some(interface) =>
            {
                resolve.interfaces[*id].functions[function].result
            }
            _ => None,
        })
        .unwrap()
}

pub fn wit_dir(world: &str) -> PathBuf {
    // From wherever this file is compiled: `tests/hostile` uses it too.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("wit").join(world))
        .find(|folder| folder.is_dir())
        .unwrap()
}

/// A module's data, with values laid out for the canonical ABI.
pub struct Memory<'a> {
    resolve: &'a Resolve,
    sizes: SizeAlign,
    bytes: Vec<u8>,
}

impl<'a> Memory<'a> {
    pub fn new(resolve: &'a Resolve) -> Self {
        let mut sizes = SizeAlign::default();
        sizes.fill(resolve);
        Self {
            resolve,
            sizes,
            bytes: Vec::new(),
        }
    }

    /// A function's code, with its answers put in place.
    pub fn code(&mut self, result: &Type, body: &Body) -> String {
        match body {
            Body::Answer(answer) => format!("i32.const {}", self.place(result, answer)),
            Body::Wat(text, answers) => {
                let answers = answers.iter().enumerate();
                answers.fold((*text).to_owned(), |text, (i, answer)| {
                    text.replace(&format!("${i}"), &self.place(result, answer).to_string())
                })
            }
        }
    }

    /// A module of these fields, with this memory and an allocator.
    pub fn module(&self, imports: &str, fields: &str, pages: u32) -> String {
        let data: String = self.bytes.iter().map(|b| format!("\\{b:02x}")).collect();
        let heap = (BASE + self.bytes.len()).next_multiple_of(16);
        let pages = pages.max(u32::try_from(heap / 65536).unwrap() + 1);
        format!(
            r#"(module {imports}
            (memory (export "memory") {pages})
            (global $heap (mut i32) (i32.const {heap}))
            (data (i32.const {BASE}) "{data}")
            (func $realloc (export "cabi_realloc") (param $old i32) (param i32) (param $align i32) (param $size i32) (result i32)
              (local $at i32)
              (local.set $at (i32.and
                (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get $align))))
              (global.set $heap (i32.add (local.get $at) (local.get $size)))
              (block $enough (loop $more
                (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
                (br $more)))
              (local.get $at))
            {fields})"#
        )
    }

    fn size(&self, ty: &Type) -> usize {
        self.sizes.size(ty).size_wasm32()
    }

    fn take(&mut self, size: usize, align: usize) -> usize {
        let at = (BASE + self.bytes.len()).next_multiple_of(align.max(1)) - BASE;
        self.bytes.resize(at + size, 0);
        at
    }

    /// Lays out a value; returns its address.
    fn place(&mut self, ty: &Type, value: &Value) -> usize {
        let at = self.take(self.size(ty), self.sizes.align(ty).align_wasm32());
        self.store(ty, value, at);
        at + BASE
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn integer(&mut self, at: usize, value: u64, size: usize) {
        self.put(at, &value.to_le_bytes()[..size]);
    }

    fn list(&mut self, at: usize, element: &Type, items: &[Value]) {
        let size = self.size(element);
        let start = self.take(size * items.len(), self.sizes.align(element).align_wasm32());
        for (i, item) in items.iter().enumerate() {
            self.store(element, item, start + i * size);
        }
        self.integer(at, (start + BASE) as u64, 4);
        self.integer(at + 4, items.len() as u64, 4);
    }

    /// `case` or `{case: payload}`; missing means the first.
    fn variant(&mut self, at: usize, tag: Int, cases: &[(&str, Option<Type>)], value: &Value) {
        let (name, payload) = match value {
            Value::String(name) => (name.as_str(), &Value::Null),
            Value::Object(map) => map.iter().next().map(|(n, p)| (n.as_str(), p)).unwrap(),
            _ => (cases[0].0, &Value::Null),
        };
        let index = cases
            .iter()
            .position(|(n, _)| *n == name)
            .unwrap_or_else(|| panic!("no case {name}"));
        self.integer(at, index as u64, self.sizes_of(tag));
        if let Some(ty) = cases[index].1 {
            let offset = self
                .sizes
                .payload_offset(tag, cases.iter().map(|(_, t)| t.as_ref()))
                .size_wasm32();
            self.store(&ty, payload, at + offset);
        }
    }

    fn sizes_of(&self, tag: Int) -> usize {
        match tag {
            Int::U8 => 1,
            Int::U16 => 2,
            Int::U32 => 4,
            Int::U64 => 8,
        }
    }

    fn store(&mut self, ty: &Type, value: &Value, at: usize) {
        match ty {
            Type::Bool => self.integer(at, u64::from(value.as_bool().unwrap_or_default()), 1),
            Type::U8 => self.integer(at, value.as_u64().unwrap_or_default(), 1),
            Type::U16 => self.integer(at, value.as_u64().unwrap_or_default(), 2),
            Type::U32 => self.integer(at, value.as_u64().unwrap_or_default(), 4),
            Type::U64 => self.integer(at, value.as_u64().unwrap_or_default(), 8),
            Type::String => {
                let text = value.as_str().unwrap_or_default();
                let start = self.take(text.len(), 1);
                self.put(start, text.as_bytes());
                self.integer(at, (start + BASE) as u64, 4);
                self.integer(at + 4, text.len() as u64, 4);
            }
            Type::Id(id) => self.store_defined(*id, value, at),
            other => panic!("{other:?} is not in the WIT"),
        }
    }

    fn store_defined(&mut self, id: wit_parser::TypeId, value: &Value, at: usize) {
        let resolve = self.resolve;
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => self.store(ty, value, at),
            TypeDefKind::Record(record) => {
                if let Some(object) = value.as_object() {
                    for name in object.keys() {
                        assert!(
                            record.fields.iter().any(|f| f.name == *name),
                            "no field {name}"
                        );
                    }
                }
                let types: Vec<Type> = record.fields.iter().map(|f| f.ty).collect();
                let offsets = self.offsets(&types);
                for (field, offset) in record.fields.iter().zip(offsets) {
                    self.store(
                        &field.ty,
                        value.get(&field.name).unwrap_or(&Value::Null),
                        at + offset,
                    );
                }
            }
            TypeDefKind::Tuple(tuple) => {
                let offsets = self.offsets(&tuple.types);
                for (i, (ty, offset)) in tuple.types.iter().zip(offsets).enumerate() {
                    self.store(ty, value.get(i).unwrap_or(&Value::Null), at + offset);
                }
            }
            TypeDefKind::List(element) => {
                let items = value.as_array().cloned().unwrap_or_default();
                self.list(at, element, &items);
            }
            TypeDefKind::Option(inner) => {
                let cases = [("none", None), ("some", Some(*inner))];
                let value = if value.is_null() {
                    json!("none")
                } else {
                    json!({"some": value})
                };
                self.variant(at, Int::U8, &cases, &value);
            }
            TypeDefKind::Result(result) => {
                self.variant(
                    at,
                    Int::U8,
                    &[("ok", result.ok), ("err", result.err)],
                    value,
                );
            }
            TypeDefKind::Variant(variant) => {
                let cases: Vec<_> = variant
                    .cases
                    .iter()
                    .map(|c| (c.name.as_str(), c.ty))
                    .collect();
                self.variant(at, variant.tag(), &cases, value);
            }
            TypeDefKind::Enum(cases) => {
                let names: Vec<_> = cases
                    .cases
                    .iter()
                    .map(|c| (c.name.as_str(), None))
                    .collect();
                self.variant(at, cases.tag(), &names, value);
            }
            TypeDefKind::Flags(flags) => {
                let set = value.as_array().cloned().unwrap_or_default();
                let bits = flags.flags.iter().enumerate().fold(0, |bits, (i, flag)| {
                    if set.iter().any(|name| *name == flag.name.as_str()) {
                        bits | 1 << i
                    } else {
                        bits
                    }
                });
                self.integer(at, bits, 1);
            }
            other => panic!("{other:?} is not in the WIT"),
        }
    }

    fn offsets(&self, types: &[Type]) -> Vec<usize> {
        self.sizes
            .field_offsets(types)
            .into_iter()
            .map(|(offset, _)| offset.size_wasm32())
            .collect()
    }
}

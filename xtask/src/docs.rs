//! `cargo xtask docs`: the reference of the WIT, out of its own comments.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use wit_parser::{
    Docs, Function, Handle, Resolve, Type, TypeDef, TypeDefKind, UnresolvedPackageGroup, WorldItem,
};

/// What to do with it.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only says whether the files are up to date.
    #[arg(long)]
    check: bool,
}

/// Writes the reference, or says that it is stale.
pub(crate) fn run(options: &Options) -> Result<()> {
    let repository = crate::repository();
    let file = repository.join("docs/wit-reference.md");
    let text = reference(&repository)?;
    let present = fs::read_to_string(&file).unwrap_or_default();
    if present == text {
        println!("{} is up to date", file.display());
        return Ok(());
    }
    ensure!(
        !options.check,
        "{} is stale: run `cargo xtask docs` and commit it",
        file.display()
    );
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

/// Every released interface, in the order of its folders.
fn reference(repository: &Path) -> Result<String> {
    let mut text = String::from(
        "# Reference of the interface\n\n\
         Made from the comments in `wit/` by `cargo xtask docs`; change them there.\n",
    );
    for folder in folders(&repository.join("wit"))? {
        package(&folder, &mut text)?;
    }
    Ok(tidy(&text))
}

/// One empty line around headings, never two; none with spaces in it.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = true;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() && empty {
            continue;
        }
        if line.starts_with('#') && !empty {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
        // What follows a heading stands apart from it.
        empty = line.is_empty();
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

/// Folders that hold WIT files, by name.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let mut holds = false;
        for entry in
            fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))?
        {
            let path = entry?.path();
            holds |= path.extension().is_some_and(|e| e == "wit");
            if path.is_dir() {
                open.push(path);
            }
        }
        if holds {
            found.push(folder);
        }
    }
    found.sort();
    Ok(found)
}

fn package(folder: &Path, text: &mut String) -> Result<()> {
    let mut resolve = Resolve::default();
    let group = UnresolvedPackageGroup::parse_dir(folder)
        .with_context(|| format!("{} is no WIT", folder.display()))?;
    let package = resolve.push_group(group)?;
    let package = &resolve.packages[package];
    let _ = writeln!(text, "\n## {}\n\n{}", package.name, prose(&package.docs));

    let _ = writeln!(text, "| world | imports | exports |\n|---|---|---|");
    for (name, id) in &package.worlds {
        let world = &resolve.worlds[*id];
        let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let is_own = |item: &WorldItem| match item {
            WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
            WorldItem::Function(_) | WorldItem::Type { .. } => true,
        };
        let mut imports = world
            .imports
            .iter()
            .filter(|(_, item)| is_own(item))
            .map(|(key, _)| short(&resolve.name_world_key(key)));
        let mut exports = world
            .exports
            .keys()
            .map(|key| short(&resolve.name_world_key(key)));
        let _ = writeln!(
            text,
            "| `{name}` | {} | {} |",
            list(&mut imports),
            list(&mut exports)
        );
    }
    for (name, id) in &package.worlds {
        let docs = prose(&resolve.worlds[*id].docs);
        if !docs.is_empty() {
            let _ = writeln!(text, "\n`{name}`: {docs}");
        }
    }
    for (name, id) in &package.interfaces {
        let interface = &resolve.interfaces[*id];
        let _ = writeln!(text, "\n### {name}\n\n{}", prose(&interface.docs));
        for function in interface.functions.values() {
            function_text(&resolve, function, text);
        }
        for (name, id) in &interface.types {
            type_text(&resolve, name, &resolve.types[*id], text);
        }
    }
    Ok(())
}

/// `countersign:preset/log@0.1.0` as `log`.
fn short(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    format!("`{}`", name.split('@').next().unwrap_or(name))
}

/// A comment as one paragraph.
fn prose(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn function_text(resolve: &Resolve, function: &Function, text: &mut String) {
    let parameters: Vec<String> = function
        .params
        .iter()
        .map(|parameter| format!("{}: {}", parameter.name, type_name(resolve, &parameter.ty)))
        .collect();
    let result = function
        .result
        .as_ref()
        .map(|result| format!(" -> {}", type_name(resolve, result)))
        .unwrap_or_default();
    let name = function.name.rsplit('.').next().unwrap_or(&function.name);
    let _ = writeln!(
        text,
        "#### {name}\n\n```wit\n{name}: func({}){result}\n```\n\n{}\n",
        parameters.join(", "),
        prose(&function.docs)
    );
}

fn type_text(resolve: &Resolve, name: &str, def: &TypeDef, text: &mut String) {
    // What another interface defines is described there.
    if matches!(def.kind, TypeDefKind::Type(Type::Id(id)) if resolve.types[id].owner != def.owner) {
        return;
    }
    let rows: Vec<(String, String, String)> = match &def.kind {
        TypeDefKind::Record(record) => record
            .fields
            .iter()
            .map(|f| (f.name.clone(), type_name(resolve, &f.ty), prose(&f.docs)))
            .collect(),
        TypeDefKind::Variant(variant) => variant
            .cases
            .iter()
            .map(|c| {
                let ty = c.ty.as_ref().map(|ty| type_name(resolve, ty));
                (c.name.clone(), ty.unwrap_or_default(), prose(&c.docs))
            })
            .collect(),
        TypeDefKind::Enum(cases) => {
            let cases = cases.cases.iter();
            cases
                .map(|c| (c.name.clone(), String::new(), prose(&c.docs)))
                .collect()
        }
        TypeDefKind::Flags(flags) => {
            let flags = flags.flags.iter();
            flags
                .map(|f| (f.name.clone(), String::new(), prose(&f.docs)))
                .collect()
        }
        _ => Vec::new(),
    };
    let kind = match &def.kind {
        TypeDefKind::Type(ty) => format!("type = {}", type_name(resolve, ty)),
        TypeDefKind::List(ty) => format!("type = list<{}>", type_name(resolve, ty)),
        kind => kind.as_str().to_owned(),
    };
    let _ = writeln!(text, "#### {name}\n\n`{kind}` {}\n", prose(&def.docs));
    if rows.is_empty() {
        return;
    }
    let cell = |text: &str| text.replace('|', "\\|");
    let _ = writeln!(text, "| | | |\n|---|---|---|");
    for (name, ty, docs) in rows {
        let ty = if ty.is_empty() {
            ty
        } else {
            format!("`{}`", cell(&ty))
        };
        let _ = writeln!(text, "| `{name}` | {ty} | {} |", cell(&docs));
    }
    text.push('\n');
}

/// A type as WIT writes it.
fn type_name(resolve: &Resolve, ty: &Type) -> String {
    let id = match ty {
        Type::Id(id) => *id,
        Type::Bool => return "bool".into(),
        Type::U8 => return "u8".into(),
        Type::U16 => return "u16".into(),
        Type::U32 => return "u32".into(),
        Type::U64 => return "u64".into(),
        Type::S8 => return "s8".into(),
        Type::S16 => return "s16".into(),
        Type::S32 => return "s32".into(),
        Type::S64 => return "s64".into(),
        Type::F32 => return "f32".into(),
        Type::F64 => return "f64".into(),
        Type::Char => return "char".into(),
        Type::String => return "string".into(),
        Type::ErrorContext => return "error-context".into(),
    };
    let def = &resolve.types[id];
    if let Some(name) = &def.name {
        return name.clone();
    }
    let name = |ty: &Type| type_name(resolve, ty);
    let or_nothing = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), name);
    match &def.kind {
        TypeDefKind::List(ty) => format!("list<{}>", name(ty)),
        TypeDefKind::Option(ty) => format!("option<{}>", name(ty)),
        TypeDefKind::Result(result) => {
            format!(
                "result<{}, {}>",
                or_nothing(&result.ok),
                or_nothing(&result.err)
            )
        }
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(name).collect();
            format!("tuple<{}>", types.join(", "))
        }
        TypeDefKind::Handle(Handle::Borrow(id)) => {
            format!(
                "borrow<{}>",
                resolve.types[*id].name.as_deref().unwrap_or("resource")
            )
        }
        TypeDefKind::Handle(Handle::Own(id)) => resolve.types[*id]
            .name
            .clone()
            .unwrap_or_else(|| "resource".into()),
        TypeDefKind::Type(ty) => name(ty),
        kind => kind.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_the_comments_say() {
        let repository = crate::repository();
        let present =
            fs::read_to_string(repository.join("docs/wit-reference.md")).unwrap_or_default();
        let text = reference(&repository).unwrap();
        assert!(
            present == text,
            "docs/wit-reference.md is stale: run `cargo xtask docs` and commit it"
        );
    }
}

//! The modules of a crate, read from its files: what each defines, and what it has in scope.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::{Attribute, Item, ItemMod, UseTree, Visibility};

/// A module, by its number in the [`Tree`].
pub(crate) type Id = usize;

/// A module: a file, or a part of one.
pub(crate) struct Module {
    /// `crate::a::b`.
    pub(crate) path: String,
    pub(crate) parent: Option<Id>,
    /// The module that is the whole file which this one stands in.
    pub(crate) file: Id,
    pub(crate) at: PathBuf,
    pub(crate) children: BTreeMap<String, Id>,
    /// Names of what is defined here.
    pub(crate) items: Vec<String>,
    pub(crate) uses: Vec<Use>,
    /// All of it but modules and what is for tests alone.
    pub(crate) content: Vec<Item>,
}

/// One name of a `use`.
pub(crate) struct Use {
    pub(crate) path: Vec<String>,
    /// What it is called here; `*` for all that there is.
    pub(crate) name: String,
    pub(crate) is_public: bool,
    pub(crate) line: usize,
}

/// The modules of a crate, its root first.
pub(crate) struct Tree(pub(crate) Vec<Module>);

impl Tree {
    /// Reads a crate from its root on.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self(Vec::new());
        tree.file("crate".to_owned(), None, root, &folder(root));
        tree
    }

    fn file(&mut self, path: String, parent: Option<Id>, at: &Path, below: &Path) -> Id {
        let text = std::fs::read_to_string(at).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        let file = self.0.len();
        self.module(path, parent, file, at, below, parsed.items)
    }

    fn module(
        &mut self,
        path: String,
        parent: Option<Id>,
        file: Id,
        at: &Path,
        below: &Path,
        items: Vec<Item>,
    ) -> Id {
        let id = self.0.len();
        self.0.push(Module {
            path: path.clone(),
            parent,
            file,
            at: at.to_owned(),
            children: BTreeMap::new(),
            items: Vec::new(),
            uses: Vec::new(),
            content: Vec::new(),
        });
        for item in items {
            if is_for_tests(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(module) => {
                    let name = module.ident.unraw().to_string();
                    let child = self.child(&name, module, &path, id, below);
                    self.0[id].children.insert(name, child);
                }
                Item::Use(item) => {
                    let is_public = !matches!(item.vis, Visibility::Inherited);
                    let line = line(item.use_token.span);
                    let uses = &mut self.0[id].uses;
                    leaves(&item.tree, &mut Vec::new(), &mut |path, name| {
                        uses.push(Use {
                            path,
                            name,
                            is_public,
                            line,
                        });
                    });
                }
                item => {
                    self.0[id].items.extend(name(&item));
                    self.0[id].content.push(item);
                }
            }
        }
        id
    }

    fn child(&mut self, name: &str, module: ItemMod, path: &str, id: Id, below: &Path) -> Id {
        let path = format!("{path}::{name}");
        let at = self.0[id].at.clone();
        if let Some((_, items)) = module.content {
            let file = self.0[id].file;
            return self.module(path, Some(id), file, &at, &below.join(name), items);
        }
        let elsewhere = module.attrs.iter().find_map(|attribute| {
            let value = attribute.meta.require_name_value().ok()?;
            let syn::Expr::Lit(literal) = &value.value else {
                return None;
            };
            match &literal.lit {
                syn::Lit::Str(text) if value.path.is_ident("path") => Some(text.value()),
                _ => None,
            }
        });
        if let Some(elsewhere) = elsewhere {
            let at = folder(&at).join(elsewhere);
            return self.file(path, Some(id), &at, &folder(&at));
        }
        let below = below.join(name);
        let alone = below.with_extension("rs");
        let at = if alone.exists() {
            alone
        } else {
            below.join("mod.rs")
        };
        self.file(path, Some(id), &at, &below)
    }

    /// Where a path leads that stands in a module: to the module that defines it. `None`: out of the crate, or to a module itself.
    pub(crate) fn resolve(&self, from: Id, path: &[String]) -> Option<Id> {
        self.lookup(from, path, 0)
    }

    fn lookup(&self, from: Id, path: &[String], depth: usize) -> Option<Id> {
        // Names that are re-exported in a circle do not compile.
        let deeper = (depth < 32).then_some(depth + 1)?;
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.walk(0, rest, deeper),
            "self" => self.walk(from, rest, deeper),
            "super" => self.walk(self.0[from].parent?, rest, deeper),
            _ => self.walk(from, path, deeper),
        }
    }

    /// The same for a path that begins in a module.
    fn walk(&self, id: Id, path: &[String], depth: usize) -> Option<Id> {
        let deeper = (depth < 32).then_some(depth + 1)?;
        let (first, rest) = path.split_first()?;
        let module = &self.0[id];
        if first == "super" {
            return self.walk(module.parent?, rest, deeper);
        }
        if let Some(&child) = module.children.get(first) {
            return self.walk(child, rest, deeper);
        }
        if module.items.contains(first) {
            return Some(id);
        }
        let through = |at: &Use| {
            let path: Vec<_> = at.path.iter().chain(rest).cloned().collect();
            self.lookup(id, &path, deeper)
        };
        if let Some(at) = module.uses.iter().find(|at| at.name == *first) {
            // `use path;` of another crate would be looked for here again.
            return if at.path.first() == Some(first) {
                None
            } else {
                through(at)
            };
        }
        module
            .uses
            .iter()
            .filter(|at| at.name == "*")
            .find_map(|at| {
                let path: Vec<_> = at.path.iter().chain(path).cloned().collect();
                self.lookup(id, &path, deeper)
            })
    }
}

pub(crate) fn line(span: Span) -> usize {
    span.start().line
}

fn folder(file: &Path) -> PathBuf {
    file.parent().map(Path::to_owned).unwrap_or_default()
}

/// Tells each name of a `use`, by its path and as what it is called.
pub(crate) fn leaves(
    tree: &UseTree,
    path: &mut Vec<String>,
    found: &mut impl FnMut(Vec<String>, String),
) {
    let mut leaf = |path: &[String], name: String, called: String| {
        let mut path = path.to_vec();
        if name != "self" {
            path.push(name.clone());
        }
        let called = if called == "self" {
            path.last().cloned().unwrap_or_default()
        } else {
            called
        };
        found(path, called);
    };
    match tree {
        UseTree::Path(next) => {
            path.push(next.ident.unraw().to_string());
            leaves(&next.tree, path, found);
            path.pop();
        }
        UseTree::Name(name) => {
            let name = name.ident.unraw().to_string();
            leaf(path, name.clone(), name);
        }
        UseTree::Rename(name) => {
            leaf(
                path,
                name.ident.unraw().to_string(),
                name.rename.unraw().to_string(),
            );
        }
        UseTree::Glob(_) => found(path.clone(), "*".to_owned()),
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, path, found);
            }
        }
    }
}

/// Whether something is compiled for tests alone.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.unraw().to_string())
}

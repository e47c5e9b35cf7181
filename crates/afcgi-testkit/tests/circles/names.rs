//! What the files of a crate name of each other.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};

use super::tree::{Id, Tree, is_for_tests, leaves, line};

/// For each file and each that it depends on: where it first names something of that, and what.
pub(crate) type Names = BTreeMap<(Id, Id), (usize, String)>;

/// Finds them.
pub(crate) fn of(tree: &Tree) -> Names {
    let mut names = Names::new();
    for (id, module) in tree.0.iter().enumerate() {
        let mut visitor = Paths(Vec::new());
        for item in &module.content {
            visitor.visit_item(item);
        }
        let mut add = |line: usize, path: &[String]| {
            let Some(to) = tree.resolve(id, path).map(|to| tree.0[to].file) else {
                return;
            };
            if to != module.file {
                names
                    .entry((module.file, to))
                    .or_insert_with(|| (line, path.join("::")));
            }
        };
        for at in &module.uses {
            let is_used = || {
                visitor
                    .0
                    .iter()
                    .any(|(_, path)| path.first() == Some(&at.name))
            };
            let is_below = |to: Id| tree.0[to].path.starts_with(&format!("{}::", module.path));
            let exports = at.is_public && tree.resolve(id, &at.path).is_some_and(is_below);
            if at.name != "*" && (!exports || is_used()) {
                add(at.line, &at.path);
            }
        }
        for (line, path) in &visitor.0 {
            add(*line, path);
        }
    }
    names
}

/// Paths, with the lines they begin in.
struct Paths(Vec<(usize, Vec<String>)>);

impl Paths {
    /// Looks for paths in what a macro gets.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut at, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.end(at, &mut path);
                    }
                    if path.is_empty() {
                        at = line(name.span());
                    }
                    path.push(name.unraw().to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.end(at, &mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end(at, &mut path);
    }

    fn end(&mut self, at: usize, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.0.push((at, std::mem::take(path)));
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path
            .segments
            .first()
            .filter(|_| path.leading_colon.is_none())
        {
            let names = path
                .segments
                .iter()
                .map(|segment| segment.ident.unraw().to_string());
            self.0.push((line(first.ident.span()), names.collect()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // Within a function.
        let line = line(item.use_token.span);
        leaves(&item.tree, &mut Vec::new(), &mut |path, _| {
            self.0.push((line, path))
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }
}

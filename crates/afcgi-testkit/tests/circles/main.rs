//! No two files depend on each other, in any crate: neither directly nor in a circle through others.
//!
//! The rule: in each module its own file and its children, each child with all that is below it, are the nodes of a graph. One
//! depends on another when a path in it names something that is defined there, in a `use` or anywhere else. There is no circle in any
//! of these graphs, so there is none between files or folders at all. Two things are no dependency:
//!
//! - a parent's `pub use` of something below it, if the parent's file does not use that name itself: a name that comes by a
//!   re-export counts for the file that defines it;
//! - `mod child;`, and what stands in `#[cfg(test)]`: a test may look at whatever shows that something works.
//!
//! What is not seen: methods, since no path names where they are defined, and paths that macros put together.

mod circle;
mod known;
mod names;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use known::KNOWN;
use tree::Tree;

/// A target of the workspace: its name with its kind, and its root.
fn targets() -> Vec<(String, PathBuf)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut targets = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for target in package["targets"].as_array().unwrap() {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let name = match text(&target["kind"][0]).as_str() {
                "lib" | "cdylib" => text(&package["name"]),
                kind => format!(
                    "{} ({kind} {})",
                    text(&package["name"]),
                    text(&target["name"])
                ),
            };
            targets.push((name, text(&target["src_path"]).into()));
        }
    }
    targets
}

/// Circles of a crate: the module, those in it, and how they come about.
fn circles(root: &Path) -> Vec<(String, Vec<String>, String)> {
    let tree = Tree::read(root);
    let named = names::of(&tree);
    circle::find(&tree, &named)
}

#[test]
fn there_are_none() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (target, root) in targets() {
        for (module, members, how) in circles(&root) {
            let known = KNOWN.iter().find(|(of, at, those)| {
                (*of, *at) == (&*target, &*module)
                    && members.iter().all(|member| those.contains(&&**member))
            });
            match known {
                Some(known) => _ = seen.insert(*known),
                None => wrong.push(format!("{target}: {how}")),
            }
        }
    }
    for known in KNOWN.iter().filter(|known| !seen.contains(*known)) {
        wrong.push(format!("{known:?} is a circle no more: it leaves the list"));
    }
    assert!(
        wrong.is_empty(),
        "{} circles:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A crate of a test, whose files these are.
fn of(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let found = circles(&dir.path().join("lib.rs"));
    let named =
        |(module, members, _): (String, Vec<String>, _)| format!("{module}: {}", members.join(" "));
    found.into_iter().map(named).collect()
}

#[test]
fn what_is_a_circle() {
    let root = ("lib.rs", "mod a; mod b;");
    for (a, b) in [
        (
            "use crate::b::B; pub struct A(B);",
            "use super::a::A; pub struct B(A);",
        ),
        (
            "use crate::b; pub struct A(b::B);",
            "pub struct B(Option<crate::a::A>);",
        ),
        (
            "use super::b::{self as other, C}; pub fn a(_: C) { other::c() }",
            "pub use crate::a::a as c; pub struct C;",
        ),
        (
            "use crate::b::*; pub struct A(B);",
            "use crate::a::A; pub struct B(A);",
        ),
        (
            "pub fn a() { println!(\"{}\", crate::b::b()) }",
            "pub fn b() -> u8 { super::a::a(); 1 }",
        ),
        (
            "mod inner { use super::super::b::b; } pub fn a() {}",
            "pub fn b() { crate::a::a() }",
        ),
    ] {
        let found = of(&[root, ("a.rs", a), ("b.rs", b)]);
        assert_eq!(found, ["crate: a b"], "{a} {b}");
    }
}

#[test]
fn what_is_none() {
    for (a, b) in [
        ("use crate::b::B; pub struct A(B);", "pub struct B;"),
        (
            "use crate::b; pub struct A(b::B);",
            "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
        ),
        (
            "use crate::b::B; pub struct A(B);",
            "/// See [`crate::a::A`].\npub struct B(std::sync::Arc<u8>);",
        ),
    ] {
        let root = ("lib.rs", "mod a; mod b;");
        assert_eq!(of(&[root, ("a.rs", a), ("b.rs", b)]), [""; 0], "{a} {b}");
    }
}

#[test]
fn parents_and_folders() {
    let child = ("a/child.rs", "use super::A; pub struct Child(A);");
    // The parent uses what uses the parent.
    let root = ("lib.rs", "mod a; mod b;");
    let (uses, b) = (
        "mod child; use child::Child; pub struct A; fn f(_: Child) {}",
        ("b.rs", ""),
    );
    assert_eq!(
        of(&[root, ("a.rs", uses), child, b]),
        ["crate::a: child its own file"]
    );
    // It names it for others alone, who get it from where it is.
    let names = "mod child; pub use child::Child; pub struct A;";
    let b = ("b.rs", "use crate::a::Child; pub struct B(Child);");
    assert_eq!(of(&[root, ("a/mod.rs", names), child, b]), [""; 0]);
    // It names it for others, and uses it.
    let both = "mod child; pub use child::Child; pub struct A; fn f(_: Child) {}";
    assert_eq!(
        of(&[root, ("a/mod.rs", both), child, b]),
        ["crate::a: child its own file"]
    );
    // Files that do not depend on each other, in folders that do.
    let found = of(&[
        root,
        ("a/mod.rs", "pub mod one; pub mod two;"),
        ("a/one.rs", "pub struct One;"),
        (
            "a/two.rs",
            "use crate::b::three::Three; pub struct Two(Three);",
        ),
        ("b/mod.rs", "pub mod three;"),
        (
            "b/three.rs",
            "use crate::a::one::One; pub struct Three(One);",
        ),
    ]);
    assert_eq!(found, ["crate: a b"]);
    // Three in a circle, below a module.
    let found = of(&[
        ("lib.rs", "mod m;"),
        ("m/mod.rs", "mod a; mod b; mod c;"),
        ("m/a.rs", "use super::b::B; pub struct A(B);"),
        ("m/b.rs", "use super::c::C; pub struct B(C);"),
        ("m/c.rs", "use super::a::A; pub struct C(A);"),
    ]);
    assert_eq!(found, ["crate::m: a b c"]);
}

//! The Rust of README.md and docs/, compiled as its readers would: what is shown is copied into a fresh crate as it
//! stands, with the dependencies that are shown beside it. Only the source of `afcgi` is this folder's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents that show Rust.
const DOCUMENTS: [&str; 2] = ["README.md", "docs/rust.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes a file unless it is so already: what is older than what was made of it is not compiled again.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The blocks of a document in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut block) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut block) {
            (Some(opened), None) => block = Some((opened.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (None, Some((_, content))) => {
                content.push_str(line);
                content.push('\n');
            }
            (None, None) => {}
        }
    }
    let wanted = blocks.into_iter().filter(|block| block.0 == language);
    wanted.map(|block| block.1).collect()
}

/// The manifest of a crate with the lines that are shown.
fn manifest(name: &str, shown: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).display();
    let mut lines = Vec::new();
    let mut replaced = 0;
    for line in shown.lines() {
        match line.strip_prefix("afcgi = { git = ") {
            Some(_) => {
                replaced += 1;
                lines.push(format!("afcgi = {{ path = \"{path}\" }}"));
            }
            None => lines.push(line.to_owned()),
        }
    }
    assert_eq!(replaced, 1, "how to depend on the library: {shown}");
    let lines = lines.join("\n");
    format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n\n{lines}\n\n[workspace]\n")
}

fn compiles(document: &str) {
    let text = read(&root().join(document));
    let name = format!("docs-{}", document.replace(['/', '.'], "-"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
    let examples = folder.join("examples");
    fs::create_dir_all(&examples).expect("a folder");
    let shown = blocks(&text, "toml");
    write(&folder.join("Cargo.toml"), &manifest(&name, &shown[0]));
    // The versions that everything else here is tested with.
    write(
        &folder.join("Cargo.lock"),
        &read(&root().join("Cargo.lock")),
    );
    let rust = blocks(&text, "rust");
    assert!(!rust.is_empty());
    for old in fs::read_dir(&examples).expect("a folder") {
        let old = old.expect("an entry").path();
        let known = (0..rust.len()).any(|number| old.ends_with(format!("{name}-{number}.rs")));
        if !known {
            fs::remove_file(old).expect("an example that was");
        }
    }
    for (number, block) in rust.iter().enumerate() {
        let hidden = |line: &str| line == "#" || line.starts_with("# ");
        assert!(!block.lines().any(hidden), "a hidden line: {block}");
        assert!(block.contains("fn main()"), "no program: {block}");
        write(&examples.join(format!("{name}-{number}.rs")), block);
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--examples", "--offline", "--quiet"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", target.expect("the target folder"))
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !said.contains("warning"),
        "{said}"
    );
}

#[test]
fn what_is_shown_compiles() {
    for document in DOCUMENTS {
        compiles(document);
    }
}

#[test]
fn no_other_document_shows_rust() {
    let root = root();
    let mut folders = vec![root.clone(), root.join("docs"), root.join("servers")];
    for entry in fs::read_dir(root.join("crates")).expect("the crates") {
        folders.push(entry.expect("a crate").path());
    }
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "md")
                && read(&path).contains("```rust")
            {
                let path = path.strip_prefix(&root).expect("below it");
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    assert_eq!(found, DOCUMENTS);
}

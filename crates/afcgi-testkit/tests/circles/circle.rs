//! Circles in what depends on what.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Names;
use super::tree::{Id, Tree};

/// The file of a module, beside its children.
const OWN: &str = "its own file";

type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, String>>;

/// Circles in each module: where, between whom, and how they come about.
pub(crate) fn find(tree: &Tree, names: &Names) -> Vec<(String, Vec<String>, String)> {
    let mut found = Vec::new();
    for (id, module) in tree
        .0
        .iter()
        .enumerate()
        .filter(|(id, module)| module.file == *id)
    {
        let graph = graph(tree, names, id);
        for members in strong(&graph) {
            let mut how = format!("a circle in {}:", module.path);
            for from in &members {
                for (to, why) in graph.get(from).into_iter().flatten() {
                    if members.contains(to) {
                        how.push_str(&format!("\n  {from} -> {to}: {why}"));
                    }
                }
            }
            let members = members.iter().map(|&member| member.to_owned()).collect();
            found.push((module.path.clone(), members, how));
        }
    }
    found
}

/// What depends on what in a module, and where that is to be seen.
fn graph<'a>(tree: &'a Tree, names: &Names, id: Id) -> Graph<'a> {
    let path = &tree.0[id].path;
    let part = |other: Id| {
        let below = tree.0[other].path.strip_prefix(path.as_str())?;
        match below.strip_prefix("::") {
            Some(below) => below.split("::").next(),
            None => below.is_empty().then_some(OWN),
        }
    };
    let mut graph = Graph::new();
    for (&(from, to), (line, name)) in names {
        if let (Some(one), Some(other)) = (part(from), part(to))
            && one != other
        {
            let why = || format!("{}:{line} names {name}", tree.0[from].at.display());
            graph
                .entry(one)
                .or_default()
                .entry(other)
                .or_insert_with(why);
        }
    }
    graph
}

/// Those that each depend on all others of them: sets of two or more.
fn strong<'a>(graph: &Graph<'a>) -> Vec<BTreeSet<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = (graph.keys())
        .map(|&from| (from, reached(graph, from)))
        .collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
    let sets: BTreeSet<BTreeSet<&str>> = (graph.keys().copied())
        .filter(|from| reaches(from, from))
        .map(|from| {
            let others = graph.keys().copied();
            others
                .filter(|&to| reaches(from, to) && reaches(to, from))
                .collect()
        })
        .collect();
    sets.into_iter().collect()
}

/// All that something depends on, if not directly.
fn reached<'a>(graph: &Graph<'a>, from: &str) -> BTreeSet<&'a str> {
    let (mut all, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(next) = left.pop() {
        for &to in graph.get(next).into_iter().flat_map(BTreeMap::keys) {
            if all.insert(to) {
                left.push(to);
            }
        }
    }
    all
}

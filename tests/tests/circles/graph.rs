//! Circles among the children of a module.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Module;

/// Children of one module that import each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    /// Whose children they are.
    pub(crate) parent: String,
    /// Their names, in order.
    pub(crate) members: BTreeSet<String>,
}

/// All circles. An import counts for the two siblings that it goes between, however deep it lies in
/// them; one between a module and what is inside it goes between no siblings.
pub(crate) fn circles(edges: &BTreeSet<(Module, Module)>) -> Vec<Circle> {
    let mut levels: BTreeMap<&[String], Level<'_>> = BTreeMap::new();
    for (from, to) in edges {
        let common = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
            let level = levels.entry(&from[..common]).or_default();
            level.entry(one).or_default().insert(other);
        }
    }
    let all = levels.into_iter().map(|(parent, level)| {
        let parent = parent.join("::");
        among(&level).into_iter().map(move |members| Circle { parent: parent.clone(), members })
    });
    all.flatten().collect()
}

type Level<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Sets of those that reach each other.
fn among(level: &Level<'_>) -> BTreeSet<BTreeSet<String>> {
    let reached: Level<'_> = level.keys().map(|name| (*name, reach(level, name))).collect();
    let in_circle = |name: &&&str| reached[**name].contains(**name);
    let mates = |name: &&str| {
        let both = |other: &&&str| reached.get(**other).is_some_and(|it| it.contains(name));
        reached[name].iter().filter(both).map(|it| (*it).to_owned()).collect()
    };
    reached.keys().filter(in_circle).map(mates).collect()
}

/// Whom one imports, and those import, and so on.
fn reach<'a>(level: &Level<'a>, start: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = vec![start];
    while let Some(next) = open.pop() {
        open.extend(level.get(next).into_iter().flatten().filter(|it| seen.insert(**it)));
    }
    seen
}

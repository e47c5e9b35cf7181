//! What a case is, and what can come of it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::transcript::Transcript;

/// How much weight a case has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The specification demands it, or peers cannot work together without it.
    Must,
    /// The specification recommends it, or peers count on it. It matters to the exit status with `--strict` only.
    Should,
    /// What a hostile or broken peer does must hurt nobody else.
    Robust,
}

impl Level {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Robust => "robust",
        }
    }
}

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer did something else.
    Deviation {
        /// What was expected.
        expected: String,
        /// What came.
        came: String,
    },
    /// The case cannot be judged, with the reason.
    Skip(String),
}

/// `Ok`: it passes.
pub type Outcome = Result<(), Failure>;

/// A deviation.
pub(crate) fn deviation(expected: impl Into<String>, came: impl Into<String>) -> Failure {
    Failure::Deviation {
        expected: expected.into(),
        came: came.into(),
    }
}

/// A reason not to judge.
pub(crate) fn skip(reason: impl Into<String>) -> Failure {
    Failure::Skip(reason.into())
}

/// A deviation unless it is so.
pub(crate) fn ensure(is_so: bool, expected: &str, came: impl Into<String>) -> Outcome {
    match is_so {
        true => Ok(()),
        false => Err(deviation(expected, came)),
    }
}

/// What runs a case.
pub(crate) type Run<P> = for<'a> fn(&'a P) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A case, for a probe `P`.
#[derive(Debug)]
pub struct Case<P: 'static> {
    /// The section and a number: `3.3/4`.
    pub id: &'static str,
    /// What must be so.
    pub name: &'static str,
    /// Its weight.
    pub level: Level,
    /// The rules of `docs/protocol.md` that it is about.
    pub rules: &'static [u8],
    pub(crate) run: Run<P>,
}

/// The cases of one section of the specification, or of an extension.
#[derive(Debug)]
pub struct Section<P: 'static> {
    /// What it is called: `abort`.
    pub slug: &'static str,
    /// Where that stands, and about what it is.
    pub title: &'static str,
    /// In their order.
    pub cases: &'static [Case<P>],
}

/// A case that is over.
#[derive(Debug)]
pub struct Done<P: 'static> {
    /// The section.
    pub section: &'static Section<P>,
    /// Which case.
    pub case: &'static Case<P>,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    pub(crate) transcript: Transcript,
}

/// Writes a table of cases: id, level, rules, name, function.
macro_rules! cases {
    ($probe:ty: $($id:literal $level:ident [$($rule:literal)*] $name:literal $run:ident;)*) => {
        pub(super) const CASES: &[$crate::check::case::Case<$probe>] = &[$($crate::check::case::Case {
            id: $id,
            name: $name,
            level: $crate::check::case::Level::$level,
            rules: &[$($rule),*],
            run: |probe| Box::pin($run(probe)),
        }),*];
    };
}
pub(crate) use cases;

/// Which cases are run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these; empty: all.
    pub only: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
}

impl Selection {
    /// Whether a case is run.
    pub fn takes<P>(&self, section: &Section<P>, case: &Case<P>) -> bool {
        let named = |word: &String| names(word, section, case);
        (self.only.is_empty() || self.only.iter().any(named)) && !self.skip.iter().any(named)
    }

    /// A word that names no case.
    pub fn unknown<P>(&self, sections: &[Section<P>]) -> Option<&str> {
        let known = |word: &String| {
            sections
                .iter()
                .any(|section| section.cases.iter().any(|case| names(word, section, case)))
        };
        let mut words = self.only.iter().chain(&self.skip);
        words.find(|word| !known(word)).map(String::as_str)
    }
}

/// Whether a word means a case: its id, the beginning of that up to a `.` or `/`, its section, its level, or a rule.
fn names<P>(word: &str, section: &Section<P>, case: &Case<P>) -> bool {
    let begins = |rest: &str| rest.is_empty() || rest.starts_with(['.', '/']);
    word == section.slug
        || word == case.level.name()
        || case.id.strip_prefix(word).is_some_and(begins)
        || word
            .strip_prefix("R-")
            .and_then(|number| number.parse::<u8>().ok())
            .is_some_and(|rule| case.rules.contains(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_: &()) -> Outcome {
        Ok(())
    }

    cases! { ():
        "3.3/1" Must [4 3] "one" nothing;
        "3.3/12" Robust [57] "two" nothing;
    }

    const SECTION: Section<()> = Section {
        slug: "records",
        title: "3.3 Records",
        cases: CASES,
    };

    #[test]
    fn words_name_cases() {
        let taken = |only: &[&str], skip: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            let selection = Selection {
                only: words(only),
                skip: words(skip),
            };
            let takes = |case: &&Case<()>| selection.takes(&SECTION, case);
            CASES
                .iter()
                .filter(takes)
                .map(|case| case.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(taken(&[], &[]), ["one", "two"]);
        assert_eq!(taken(&["3"], &[]), ["one", "two"]);
        assert_eq!(taken(&["3.3/1"], &[]), ["one"]);
        assert_eq!(taken(&["R-57"], &[]), ["two"]);
        assert_eq!(taken(&["records"], &["robust"]), ["one"]);
        assert_eq!(taken(&["R-5", "3.", "rec"], &[]), [""; 0]);
        let selection = Selection {
            only: vec!["3.3".to_owned(), "none".to_owned()],
            skip: Vec::new(),
        };
        assert_eq!(selection.unknown(&[SECTION]), Some("none"));
    }
}

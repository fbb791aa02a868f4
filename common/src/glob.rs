//! Globs: the patterns of `:matches` parameters.
//!
//! `*` stands for any text, the empty one included, `?` for exactly one Unicode character; everything else stands for
//! itself, and there is no escape. A glob always speaks about the whole value.

use std::fmt;

/// A pattern in its one canonical spelling: patterns that differ only in how a run of wildcards is written are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Glob(Box<str>);

impl Glob {
    /// Every text is a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut canonical = String::with_capacity(pattern.len());
        let mut star = false;
        for character in pattern.chars() {
            match character {
                '*' => star = true,
                '?' => canonical.push('?'),
                literal => {
                    if std::mem::take(&mut star) {
                        canonical.push('*');
                    }
                    canonical.push(literal);
                }
            }
        }
        if star {
            canonical.push('*');
        }
        Self(canonical.into())
    }

    /// The canonical pattern: in a run of wildcards every `?` stands before the only `*`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_run_of_wildcards_has_one_spelling() {
        for (pattern, canonical) in [
            ("", ""),
            ("plain", "plain"),
            ("*", "*"),
            ("**", "*"),
            ("*?", "?*"),
            ("?*", "?*"),
            ("*?*?*", "??*"),
            ("a**b", "a*b"),
            ("a*?b?*c*", "a?*b?*c*"),
            (r"\*%_", r"\*%_"),
        ] {
            assert_eq!(Glob::new(pattern).as_str(), canonical, "{pattern}");
        }
    }

    /// By the definition, character by character, with backtracking.
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(('*', rest)), None) => matches(rest, text),
            (Some(('*', rest)), Some((_, tail))) => matches(rest, text) || matches(pattern, tail),
            (Some(_), None) => false,
            (Some((wanted, rest)), Some((found, tail))) => (*wanted == '?' || wanted == found) && matches(rest, tail),
        }
    }

    proptest! {
        #[test]
        fn the_canonical_spelling_matches_the_same_texts(
            pattern in "[ab?*]{0,8}", text in "[abé]{0,6}",
        ) {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let glob = Glob::new(&pattern);
            prop_assert_eq!(
                matches(&chars(&pattern), &chars(&text)),
                matches(&chars(glob.as_str()), &chars(&text))
            );
        }

        #[test]
        fn the_canonical_spelling_is_stable(pattern in any::<String>()) {
            let glob = Glob::new(&pattern);
            prop_assert_eq!(Glob::new(glob.as_str()), glob);
        }
    }
}

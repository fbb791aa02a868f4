//! Which repositories exist as far as Flagstate is concerned.
//!
//! A pattern is compared with the whole name: `**` stands for any characters, `*` for any but `/`, `?` for one
//! but `/`; everything else stands for itself.

use std::str::FromStr;

use thiserror::Error;

use crate::repository_name::{ParseRepositoryNameError, RepositoryName};

/// Include and exclude patterns; a repository is indexed when some include matches and no exclude does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryFilter {
    include: Vec<RepositoryPattern>,
    exclude: Vec<RepositoryPattern>,
}

/// One glob over repository names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern {
    text: Box<str>,
    tokens: Box<[Token]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(u8),
    OneButSlash,
    ManyButSlash,
    Many,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseRepositoryPatternError {
    /// Without a wildcard it must be a name, or it could never match.
    #[error("holds no wildcard and is no repository name: {0}")]
    NoName(#[from] ParseRepositoryNameError),
    /// It holds a character that no repository name does.
    #[error("holds {0:?}, which no repository name does")]
    ForeignCharacter(char),
}

impl RepositoryFilter {
    /// A filter of these patterns; nothing is allowed without an include.
    #[must_use]
    pub fn new(include: Vec<RepositoryPattern>, exclude: Vec<RepositoryPattern>) -> Self {
        Self { include, exclude }
    }

    /// Whether the repository is indexed and shown.
    #[must_use]
    pub fn allows(&self, name: &RepositoryName) -> bool {
        let matches = |pattern: &RepositoryPattern| pattern.matches(name);
        self.include.iter().any(matches) && !self.exclude.iter().any(matches)
    }

    /// The names under `include` that hold no wildcard and are not excluded: what is scanned without a catalog.
    #[must_use]
    pub fn literal_names(&self) -> Vec<RepositoryName> {
        self.include
            .iter()
            .filter_map(RepositoryPattern::literal)
            .filter(|name| self.allows(name))
            .collect()
    }
}

impl Default for RepositoryFilter {
    /// Every repository.
    fn default() -> Self {
        let every_name = RepositoryPattern {
            text: "**".into(),
            tokens: [Token::Many].into(),
        };
        Self::new(vec![every_name], Vec::new())
    }
}

impl RepositoryPattern {
    /// Whether the pattern matches the whole name.
    #[must_use]
    pub fn matches(&self, name: &RepositoryName) -> bool {
        // reached[i]: the tokens before i can match what was read of the name so far.
        let mut reached = vec![false; self.tokens.len() + 1];
        reached[0] = true;
        self.skip_empty(&mut reached);
        for byte in name.as_str().bytes() {
            let mut next = vec![false; reached.len()];
            for (index, token) in self.tokens.iter().enumerate() {
                if !reached[index] {
                    continue;
                }
                match token {
                    Token::Literal(literal) if *literal == byte => next[index + 1] = true,
                    Token::OneButSlash if byte != b'/' => next[index + 1] = true,
                    Token::ManyButSlash if byte != b'/' => next[index] = true,
                    Token::Many => next[index] = true,
                    Token::Literal(_) | Token::OneButSlash | Token::ManyButSlash => {}
                }
            }
            self.skip_empty(&mut next);
            reached = next;
        }
        reached[self.tokens.len()]
    }

    /// `*` and `**` may stand for nothing.
    fn skip_empty(&self, reached: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            if reached[index] && matches!(token, Token::Many | Token::ManyButSlash) {
                reached[index + 1] = true;
            }
        }
    }

    /// The name that a pattern without wildcards is.
    fn literal(&self) -> Option<RepositoryName> {
        let is_literal = |token: &Token| matches!(token, Token::Literal(_));
        if self.tokens.iter().all(is_literal) {
            self.text.parse().ok()
        } else {
            None
        }
    }
}

impl FromStr for RepositoryPattern {
    type Err = ParseRepositoryPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains(['*', '?']) {
            let _name: RepositoryName = text.parse()?;
        }
        let mut tokens = Vec::with_capacity(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' if characters.next_if_eq(&'*').is_some() => Token::Many,
                '*' => Token::ManyButSlash,
                '?' => Token::OneButSlash,
                'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/' => Token::Literal(character as u8),
                _ => return Err(ParseRepositoryPatternError::ForeignCharacter(character)),
            });
        }
        Ok(Self {
            text: text.into(),
            tokens: tokens.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<RepositoryPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn matches_the_whole_name_by_glob() {
        for (pattern, text, matches) in [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "b/a", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", false),
            ("a/*", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "a", true),
            ("a**", "ab/c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "c", false),
            ("**c", "c", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a?c", "ac", false),
            ("*-dev", "app-dev", true),
            ("*-dev", "apps/app-dev", false),
            ("**-dev", "apps/app-dev", true),
            ("a.c", "abc", false),
            ("a.c", "a.c", true),
            ("***", "a/b", true),
            ("*a*b*c*", "xaybzc", true),
            ("*a*b*c*", "xayczb", false),
        ] {
            let parsed: RepositoryPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(&name(text)), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn takes_no_longer_than_pattern_times_name() {
        let pattern: RepositoryPattern = "*a".repeat(100).parse().unwrap();
        assert!(!pattern.matches(&name(&format!("{}b", "a".repeat(200)))));
    }

    #[test]
    fn exclude_wins_over_include() {
        let filter = RepositoryFilter::new(patterns(&["apps/**", "base"]), patterns(&["apps/secret", "**-dev"]));
        for (text, allowed) in [
            ("apps/a", true),
            ("apps/a/b", true),
            ("base", true),
            ("other", false),
            ("apps/secret", false),
            ("apps/secret/deeper", true),
            ("apps/a-dev", false),
        ] {
            assert_eq!(filter.allows(&name(text)), allowed, "{text}");
        }
    }

    #[test]
    fn allows_everything_by_default_and_nothing_without_includes() {
        assert!(RepositoryFilter::default().allows(&name("a/b")));
        assert!(!RepositoryFilter::new(vec![], vec![]).allows(&name("a")));
    }

    #[test]
    fn lists_the_names_without_wildcards_that_are_not_excluded() {
        let filter = RepositoryFilter::new(patterns(&["apps/*", "apps/one", "two", "gone"]), patterns(&["gone"]));
        assert_eq!(filter.literal_names(), [name("apps/one"), name("two")]);
    }

    #[test]
    fn refuses_patterns_that_never_match() {
        for text in ["", "Apps", "apps//x", "/apps", "Apps/*", "a b*", "ä*"] {
            assert!(text.parse::<RepositoryPattern>().is_err(), "{text:?}");
        }
    }
}

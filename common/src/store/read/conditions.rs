//! What a query asks, as SQL conditions.
//!
//! Conditions on labels, annotations, digests and artifact types are asked twice: of `terms`, whose index finds the
//! rows, and of the value itself, which decides.

use std::collections::BTreeSet;

use super::statement::{Bind, Binds};
use crate::glob::Glob;
use crate::search_query::{SearchQuery, TextFilter};
use crate::terms::Term;

/// The conditions of one query; the binds that they name belong to the statement they were made for.
pub(super) struct Conditions {
    /// On the name of the repository.
    repository: Vec<Comparison>,
    /// On the name of one tag.
    tag: Vec<Comparison>,
    os: Option<Comparison>,
    architecture: Option<Comparison>,
    artifact_type: Option<Comparison>,
    digest: Option<Comparison>,
    /// On the label of a key.
    labels: Vec<(Key, Comparison)>,
    /// On the annotation of a key.
    annotations: Vec<(Key, Comparison)>,
    /// Bound arrays of terms; a match has some of each.
    terms: Vec<String>,
}

/// The bind of a label's or annotation's key.
type Key = String;

/// The columns that conditions on an image are asked of.
pub(super) struct Columns {
    /// Alias of the row of `manifest`.
    pub(super) manifest: &'static str,
    /// Alias of the row that tells platform and terms.
    pub(super) image: &'static str,
    /// Column of the image indexes that the image stands in.
    pub(super) via: Option<&'static str>,
}

/// Comparisons of which one must hold.
struct Comparison(Vec<String>);

impl Comparison {
    fn is_text<'a>(values: impl IntoIterator<Item = &'a str>, binds: &mut Binds) -> Self {
        let values = values.into_iter().map(str::to_owned).collect();
        Self(vec![format!("= ANY ({})", binds.push(Bind::Texts(values)))])
    }

    /// One `LIKE` for each glob: unlike an array of patterns they can use a trigram index.
    fn like(globs: &BTreeSet<Glob>, binds: &mut Binds) -> Self {
        let like = |glob| format!("LIKE {}", binds.push(Bind::Text(like_pattern(glob))));
        Self(globs.iter().map(like).collect())
    }

    fn exists() -> Self {
        Self(vec!["IS NOT NULL".to_owned()])
    }

    /// The condition on a column or expression.
    fn on(&self, expression: &str) -> String {
        let comparisons: Vec<_> = self.0.iter().map(|test| format!("{expression} {test}")).collect();
        format!("({})", comparisons.join(" OR "))
    }
}

impl Conditions {
    pub(super) fn new(query: &SearchQuery, binds: &mut Binds) -> Self {
        let mut conditions = Self {
            repository: Vec::new(),
            tag: Vec::new(),
            os: None,
            architecture: None,
            artifact_type: None,
            digest: None,
            labels: Vec::new(),
            annotations: Vec::new(),
            terms: Vec::new(),
        };
        if let Some(names) = &query.repositories {
            let names = names.iter().map(|name| name.as_str());
            conditions.repository.push(Comparison::is_text(names, binds));
        }
        if let Some(globs) = &query.repository_globs {
            conditions.repository.push(Comparison::like(globs, binds));
        }
        if let Some(tags) = &query.tags {
            let tags = tags.iter().map(|tag| tag.as_str());
            conditions.tag.push(Comparison::is_text(tags, binds));
        }
        if let Some(globs) = &query.tag_globs {
            conditions.tag.push(Comparison::like(globs, binds));
        }
        let mut texts = |values: &Option<BTreeSet<String>>| {
            values
                .as_ref()
                .map(|values| Comparison::is_text(values.iter().map(String::as_str), binds))
        };
        conditions.os = texts(&query.os);
        conditions.architecture = texts(&query.architectures);
        conditions.artifact_type = texts(&query.artifact_types);
        if let Some(types) = &query.artifact_types
            // Where there is no artifact type there is no term of it.
            && !types.contains("")
        {
            conditions.add_terms(types.iter().map(|value| Term::ArtifactType(value)), binds);
        }
        if let Some(digests) = &query.digests {
            let bytes = digests.iter().map(|digest| digest.to_bytes()).collect();
            let comparison = format!("= ANY ({})", binds.push(Bind::Bytes(bytes)));
            conditions.digest = Some(Comparison(vec![comparison]));
            conditions.add_terms(digests.iter().map(Term::Digest), binds);
        }
        for (key, filter) in &query.labels {
            let comparisons =
                conditions.text_filter(filter, Term::LabelExists(key), |value| Term::Label(key, value), binds);
            let bind = binds.push(Bind::Text(key.clone()));
            conditions
                .labels
                .extend(comparisons.into_iter().map(|test| (bind.clone(), test)));
        }
        for (key, filter) in &query.annotations {
            let comparisons = conditions.text_filter(
                filter,
                Term::AnnotationExists(key),
                |value| Term::Annotation(key, value),
                binds,
            );
            let bind = binds.push(Bind::Text(key.clone()));
            conditions
                .annotations
                .extend(comparisons.into_iter().map(|test| (bind.clone(), test)));
        }
        conditions
    }

    /// The comparisons of one key; its terms are added on the way.
    fn text_filter<'a>(
        &mut self,
        filter: &'a TextFilter,
        exists: Term<'a>,
        is: impl Fn(&'a str) -> Term<'a>,
        binds: &mut Binds,
    ) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        if let Some(values) = &filter.values {
            self.add_terms(values.iter().map(|value| is(value)), binds);
            comparisons.push(Comparison::is_text(values.iter().map(String::as_str), binds));
        }
        if filter.exists || filter.globs.is_some() {
            self.add_terms([exists], binds);
        }
        if filter.exists {
            comparisons.push(Comparison::exists());
        }
        if let Some(globs) = &filter.globs {
            comparisons.push(Comparison::like(globs, binds));
        }
        comparisons
    }

    fn add_terms<'a>(&mut self, terms: impl IntoIterator<Item = Term<'a>>, binds: &mut Binds) {
        let hashes = terms.into_iter().map(|term| term.hash()).collect();
        self.terms.push(binds.push(Bind::Numbers(hashes)));
    }

    /// On the column of a repository's name; empty when nothing is asked.
    pub(super) fn on_repository(&self, name: &str) -> String {
        all(self.repository.iter().map(|test| test.on(name)))
    }

    /// On the column of a tag's name; empty when nothing is asked.
    pub(super) fn on_tag(&self, name: &str) -> String {
        all(self.tag.iter().map(|test| test.on(name)))
    }

    /// On a column of terms; empty when no condition has terms.
    pub(super) fn on_terms(&self, terms: &str) -> String {
        all(self.terms.iter().map(|wanted| format!("{terms} && {wanted}")))
    }

    /// On an image; empty when nothing is asked.
    ///
    /// Digest and annotations are also looked for in the image indexes that the image stands in.
    pub(super) fn on_image(&self, columns: &Columns) -> String {
        let Columns { manifest, image, via } = columns;
        let here_or_via = |test: &Comparison, expression: &dyn Fn(&str) -> String| {
            let here = test.on(&expression(manifest));
            match via {
                None => here,
                Some(via) => {
                    let there = test.on(&expression("v"));
                    format!("({here} OR EXISTS (SELECT FROM manifest v WHERE v.id = ANY ({via}) AND {there}))")
                }
            }
        };
        let os = self.os.iter().map(|test| test.on(&format!("{image}.os")));
        let architecture = self
            .architecture
            .iter()
            .map(|test| test.on(&format!("{image}.architecture")));
        let artifact_type = self
            .artifact_type
            .iter()
            .map(|test| test.on(&format!("{manifest}.artifact_type")));
        let digest = self
            .digest
            .iter()
            .map(|test| here_or_via(test, &|manifest| format!("{manifest}.digest")));
        let labels = self
            .labels
            .iter()
            .map(|(key, test)| test.on(&format!("({manifest}.labels ->> {key})")));
        let annotations = self
            .annotations
            .iter()
            .map(|(key, test)| here_or_via(test, &|manifest| format!("({manifest}.annotations ->> {key})")));
        let terms = self.on_terms(&format!("{image}.terms"));
        let rest = os.chain(architecture).chain(artifact_type).chain(digest);
        terms + &all(rest.chain(labels).chain(annotations))
    }
}

/// Each condition with ` AND ` before it.
fn all(conditions: impl IntoIterator<Item = String>) -> String {
    conditions
        .into_iter()
        .map(|condition| format!(" AND {condition}"))
        .collect()
}

/// The `LIKE` pattern that matches what the glob matches, with the standard escape character.
fn like_pattern(glob: &Glob) -> String {
    let mut pattern = String::with_capacity(glob.as_str().len());
    for character in glob.as_str().chars() {
        match character {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            literal => pattern.push(literal),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn only_wildcards_are_special_in_like_patterns() {
        for (glob, pattern) in [
            ("", ""),
            ("a*b?", "a%b_"),
            (r"100%_\*", r"100\%\_\\%"),
            ("é?🦀", "é_🦀"),
        ] {
            assert_eq!(like_pattern(&Glob::new(glob)), pattern, "{glob}");
        }
    }

    #[test]
    fn values_are_bound_and_never_in_the_text() {
        let evil = "'); DROP TABLE tag; --";
        let names = [
            "os".to_owned(),
            "architecture".to_owned(),
            "artifact_type".to_owned(),
            "tag:matches".to_owned(),
            "repository:matches".to_owned(),
            format!("label:{evil}"),
            format!("label:{evil}:matches"),
            format!("annotation:{evil}"),
            format!("annotation:{evil}:matches"),
        ];
        let pairs = names.map(|name| (name, evil.to_owned()));
        let query = SearchQuery::from_pairs(pairs, &Limits::default()).expect("a query");
        let conditions = Conditions::new(&query, &mut Binds::default());
        let image = conditions.on_image(&Columns {
            manifest: "m",
            image: "l",
            via: Some("l.via"),
        });
        let text = conditions.on_repository("r.name") + &conditions.on_tag("t.name") + &image;
        assert_eq!(text.matches(" AND ").count(), 16, "{text}");
        assert!(!text.contains("DROP"), "{text}");
    }
}

//! The names of parameters, and which known one a name that is unknown looks most like.

/// A known parameter; the names of labels and annotations may be any text, the empty one included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Parameter {
    Repository,
    RepositoryMatches,
    Tag,
    TagMatches,
    Os,
    Architecture,
    Digest,
    ArtifactType,
    AsOf,
    Label(String, TextTest),
    Annotation(String, TextTest),
}

/// What is asked about a label or an annotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextTest {
    Is,
    Exists,
    Matches,
}

const LABEL: &str = "label:";
const ANNOTATION: &str = "annotation:";

/// Parameters whose names are fixed.
const FIXED: [(&str, Parameter); 9] = [
    ("repository", Parameter::Repository),
    ("repository:matches", Parameter::RepositoryMatches),
    ("tag", Parameter::Tag),
    ("tag:matches", Parameter::TagMatches),
    ("os", Parameter::Os),
    ("architecture", Parameter::Architecture),
    ("digest", Parameter::Digest),
    ("artifact_type", Parameter::ArtifactType),
    ("as_of", Parameter::AsOf),
];

impl Parameter {
    /// Reads a decoded name; `None` when it is unknown.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if let Some(key) = name.strip_prefix(LABEL) {
            let (key, test) = split_test(key);
            return Some(Self::Label(key.to_owned(), test));
        }
        if let Some(key) = name.strip_prefix(ANNOTATION) {
            let (key, test) = split_test(key);
            return Some(Self::Annotation(key.to_owned(), test));
        }
        FIXED
            .into_iter()
            .find_map(|(known, parameter)| (known == name).then_some(parameter))
    }
}

/// Only the last `:exists` or `:matches` is the test; what stands before it is the key.
fn split_test(key: &str) -> (&str, TextTest) {
    if let Some(key) = key.strip_suffix(":exists") {
        (key, TextTest::Exists)
    } else if let Some(key) = key.strip_suffix(":matches") {
        (key, TextTest::Matches)
    } else {
        (key, TextTest::Is)
    }
}

/// The known name that looks most like `name`.
///
/// Labels and annotations are compared by what stands before the first `:`, for their keys are the asker's own.
pub(super) fn nearest(name: &str, also_known: &[&str]) -> String {
    let family = name.split_once(':').map_or(name, |(family, _)| family);
    let fixed = FIXED.iter().map(|(known, _)| *known);
    let families = [
        ("label:<key>", strsim::jaro_winkler(family, "label")),
        ("annotation:<key>", strsim::jaro_winkler(family, "annotation")),
    ];
    fixed
        .chain(also_known.iter().copied())
        .map(|known| (known, strsim::jaro_winkler(name, known)))
        .chain(families)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map_or_else(String::new, |(known, _)| known.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_suffix_is_the_test() {
        for (name, key, test) in [
            ("label:a", "a", TextTest::Is),
            ("label:a:exists", "a", TextTest::Exists),
            ("label:a:matches", "a", TextTest::Matches),
            ("label:a:exists:exists", "a:exists", TextTest::Exists),
            ("label:a:exists:matches", "a:exists", TextTest::Matches),
            ("label:a:matches:exists", "a:matches", TextTest::Exists),
            ("label:", "", TextTest::Is),
            ("label::exists", "", TextTest::Exists),
            ("label::matches", "", TextTest::Matches),
            ("label:exists", "exists", TextTest::Is),
            ("label:a:Exists", "a:Exists", TextTest::Is),
            ("label:a:", "a:", TextTest::Is),
            ("label:label:a", "label:a", TextTest::Is),
        ] {
            assert_eq!(
                Parameter::parse(name),
                Some(Parameter::Label(key.to_owned(), test)),
                "{name}"
            );
            let name = name.replacen("label", "annotation", 1);
            let expected = Parameter::Annotation(key.to_owned(), test);
            assert_eq!(Parameter::parse(&name), Some(expected), "{name}");
        }
    }

    #[test]
    fn names_are_case_sensitive_and_whole() {
        for (name, parameter) in FIXED {
            assert_eq!(Parameter::parse(name), Some(parameter), "{name}");
        }
        for name in [
            "",
            "Tag",
            "tag ",
            "tags",
            "label",
            "os:matches",
            "tag:exists",
            "digest:matches",
        ] {
            assert_eq!(Parameter::parse(name), None, "{name}");
        }
    }

    #[test]
    fn names_the_nearest_known_parameter() {
        for (name, expected) in [
            ("Tag", "tag"),
            ("tags", "tag"),
            ("architekture", "architecture"),
            ("arch", "architecture"),
            ("lable:org.flatpak.ref:exists", "label:<key>"),
            ("label", "label:<key>"),
            ("annotations:a", "annotation:<key>"),
            ("repo", "repository"),
            ("repository:match", "repository:matches"),
            ("asof", "as_of"),
            ("limits", "limit"),
        ] {
            assert_eq!(nearest(name, &["limit", "cursor"]), expected, "{name}");
        }
    }
}

//! The human name and description of an image, by the first known key with a value.

use crate::annotations::Annotations;

const TITLE: [&str; 5] = [
    "org.opencontainers.image.title",
    "org.label-schema.name",
    "io.k8s.display-name",
    "name",
    "Name",
];

const DESCRIPTION: [&str; 5] = [
    "org.opencontainers.image.description",
    "org.label-schema.description",
    "io.k8s.description",
    "description",
    "Description",
];

/// The image's title: for each known key, the annotation, else the label.
#[must_use]
pub fn title<'a>(annotations: &'a Annotations, labels: &'a Annotations) -> Option<&'a str> {
    first(&TITLE, annotations, labels)
}

/// The image's description, found as [`title`] is.
#[must_use]
pub fn description<'a>(annotations: &'a Annotations, labels: &'a Annotations) -> Option<&'a str> {
    first(&DESCRIPTION, annotations, labels)
}

fn first<'a>(keys: &[&str], annotations: &'a Annotations, labels: &'a Annotations) -> Option<&'a str> {
    keys.iter()
        .flat_map(|key| [annotations.get(*key), labels.get(*key)])
        .flatten()
        .map(String::as_str)
        .find(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Annotations {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_known_key_wins_wherever_it_stands() {
        let labels = texts(&[
            ("name", "short"),
            ("io.k8s.display-name", "K8s"),
            ("Description", "old"),
        ]);
        let annotations = texts(&[
            ("org.opencontainers.image.title", ""),
            ("org.label-schema.name", "Schema"),
        ]);
        assert_eq!(title(&annotations, &labels), Some("Schema"));
        assert_eq!(title(&Annotations::new(), &labels), Some("K8s"));
        assert_eq!(description(&annotations, &labels), Some("old"));
        assert_eq!(title(&Annotations::new(), &Annotations::new()), None);
    }
}

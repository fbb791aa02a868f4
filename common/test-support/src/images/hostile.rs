//! Documents that a hostile or broken registry may serve; for the fake registry, since real ones refuse most of them.

use flagstate_common::digest::Digest;
use flagstate_common::media_type::{OCI_INDEX, OCI_MANIFEST};
use serde_json::json;

use super::{Blob, ImageBuilder, IndexBuilder, Manifest};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Stands in JSON text for what `serde_json` would not write.
const PLACEHOLDER: &str = "PLACEHOLDER";

/// An image with a config of these bytes, whatever they are.
#[must_use]
pub fn image_with_config(seed: &str, config: Vec<u8>) -> Manifest {
    ImageBuilder::new(seed).config(Blob::new(CONFIG, config)).build()
}

/// An honest config, with `text` as it stands in JSON in place of a label's value.
fn config_with_raw_label(seed: &str, text: &[u8]) -> Manifest {
    let config = ImageBuilder::new(seed)
        .layer(seed)
        .label("raw", PLACEHOLDER)
        .label("well", "formed");
    let config = config.config_document().to_string();
    let (before, after) = config.split_once(PLACEHOLDER).unwrap_or_default();
    image_with_config(seed, [before.as_bytes(), text, after.as_bytes()].concat())
}

/// The label `raw` holds U+0000, which PostgreSQL refuses.
#[must_use]
pub fn nul_in_label(seed: &str) -> Manifest {
    config_with_raw_label(seed, br"a\u0000b")
}

/// The label `raw` holds half of a surrogate pair, which is no Unicode text.
#[must_use]
pub fn lone_surrogate_in_label(seed: &str) -> Manifest {
    config_with_raw_label(seed, br"a\ud800b")
}

/// The label `raw` holds a byte that is no UTF-8.
#[must_use]
pub fn invalid_utf8_in_label(seed: &str) -> Manifest {
    config_with_raw_label(seed, b"a\xffb")
}

/// An image with so many labels.
#[must_use]
pub fn many_labels(seed: &str, count: usize) -> Manifest {
    (0..count)
        .fold(ImageBuilder::new(seed), |image, number| {
            image.label(&format!("label-{number:05}"), "value")
        })
        .build()
}

/// The label `huge` has a value of so many bytes.
#[must_use]
pub fn huge_label(seed: &str, length: usize) -> Manifest {
    ImageBuilder::new(seed).label("huge", &"x".repeat(length)).build()
}

/// A manifest of more than so many bytes.
#[must_use]
pub fn huge_manifest(seed: &str, length: usize) -> Manifest {
    ImageBuilder::new(seed).annotation("huge", &"x".repeat(length)).build()
}

/// The descriptor of the config tells another size than the config has.
#[must_use]
pub fn config_size_lie(seed: &str, claimed: u64) -> Manifest {
    let document = ImageBuilder::new(seed).layer(seed).config_document();
    ImageBuilder::new(seed)
        .config(Blob {
            size: claimed,
            ..Blob::json(CONFIG, &document)
        })
        .build()
}

/// The config that is served does not have the digest that the manifest names.
#[must_use]
pub fn wrong_config_digest(seed: &str) -> Manifest {
    let document = ImageBuilder::new(seed).layer(seed).config_document();
    let digest = Digest::of(format!("not {seed}").as_bytes());
    ImageBuilder::new(seed)
        .config(Blob {
            digest,
            ..Blob::json(CONFIG, &document)
        })
        .build()
}

/// The manifest that is served does not have the digest that it is served as.
#[must_use]
pub fn wrong_manifest_digest(seed: &str) -> Manifest {
    ImageBuilder::new(seed)
        .build()
        .claiming(Digest::of(format!("not {seed}").as_bytes()))
}

/// A config of arrays in arrays.
#[must_use]
pub fn deeply_nested_config(seed: &str, depth: usize) -> Manifest {
    let config = format!(
        "{{\"architecture\":\"amd64\",\"nest\":{}{}}}",
        "[".repeat(depth),
        "]".repeat(depth)
    );
    image_with_config(seed, config.into_bytes())
}

/// A manifest that stops in the middle of its JSON.
#[must_use]
pub fn truncated_manifest(seed: &str) -> Manifest {
    let body = ImageBuilder::new(seed).build().body;
    Manifest::new(OCI_MANIFEST, body.slice(..body.len() / 2))
}

/// A manifest that is JSON and no object.
#[must_use]
pub fn manifest_is_an_array(seed: &str) -> Manifest {
    Manifest::new(OCI_MANIFEST, json!([seed]).to_string())
}

/// A manifest whose parts have types that they should not.
#[must_use]
pub fn manifest_of_wrong_types(seed: &str) -> Manifest {
    let document = json!({
        "schemaVersion": "2", "mediaType": OCI_MANIFEST, "config": [seed], "layers": {"0": null}, "annotations": ["a"],
    });
    Manifest::new(OCI_MANIFEST, document.to_string())
}

/// An image index of so many members, which are all the same image.
#[must_use]
pub fn index_of_many(seed: &str, count: usize) -> Manifest {
    let image = ImageBuilder::new(seed).build();
    let descriptor = image.descriptor();
    (1..count)
        .fold(IndexBuilder::new().member(image), |index, _| {
            index.descriptor(descriptor.clone())
        })
        .build()
}

/// Image indexes within image indexes: depth 1 is an index of one image.
#[must_use]
pub fn index_of_depth(seed: &str, depth: usize) -> Manifest {
    (0..depth).fold(ImageBuilder::new(seed).build(), |member, _| {
        IndexBuilder::new().member(member).build()
    })
}

/// An image index that lists itself, under a digest that cannot be its own.
#[must_use]
pub fn self_containing_index(seed: &str) -> Manifest {
    let digest = Digest::of(seed.as_bytes());
    let descriptor = json!({"mediaType": OCI_INDEX, "digest": digest.to_string(), "size": 400});
    IndexBuilder::new().descriptor(descriptor).build().claiming(digest)
}

/// Two image indexes that list each other, under digests that cannot be theirs.
#[must_use]
pub fn indexes_containing_each_other(seed: &str) -> [Manifest; 2] {
    let digests = ["a", "b"].map(|name| Digest::of(format!("{seed}/{name}").as_bytes()));
    let listing = |digest: &Digest| json!({"mediaType": OCI_INDEX, "digest": digest.to_string(), "size": 400});
    let [a, b] = &digests;
    [
        IndexBuilder::new().descriptor(listing(b)).build().claiming(a.clone()),
        IndexBuilder::new().descriptor(listing(a)).build().claiming(b.clone()),
    ]
}

/// An image index with a good image, and a member that no registry has.
#[must_use]
pub fn index_with_missing_member(seed: &str) -> Manifest {
    let missing = ImageBuilder::new(&format!("missing-{seed}")).build().descriptor();
    IndexBuilder::new()
        .descriptor(missing)
        .member(ImageBuilder::new(seed).build())
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn raw_labels_stand_in_the_config_as_they_were_given() {
        let config = |image: Manifest| image.blobs[0].bytes.clone();
        assert!(config(nul_in_label("a")).windows(6).any(|text| text == br"\u0000"));
        assert!(
            config(lone_surrogate_in_label("a"))
                .windows(6)
                .any(|text| text == br"\ud800")
        );
        assert!(std::str::from_utf8(&config(invalid_utf8_in_label("a"))).is_err());
        let parsed: Value = serde_json::from_slice(&config(nul_in_label("a"))).unwrap();
        assert_eq!(parsed["config"]["Labels"]["well"], "formed");
    }

    #[test]
    fn lies_are_lies() {
        let size = config_size_lie("a", 7);
        assert_ne!(size.blobs[0].bytes.len(), 7);
        assert_eq!(
            serde_json::from_slice::<Value>(&size.body).unwrap()["config"]["size"],
            7
        );
        let config = &wrong_config_digest("a").blobs[0];
        assert!(!config.digest.matches(&config.bytes));
        for manifest in [wrong_manifest_digest("a"), self_containing_index("a")] {
            assert!(!manifest.digest.matches(&manifest.body));
        }
    }

    #[test]
    fn sizes_and_depths_are_as_asked() {
        let labels: Value = serde_json::from_slice(&many_labels("a", 1_001).blobs[0].bytes).unwrap();
        assert_eq!(labels["config"]["Labels"].as_object().unwrap().len(), 1_001);
        let index: Value = serde_json::from_slice(&index_of_many("a", 1_001).body).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1_001);
        assert_eq!(
            index_of_depth("a", 3).members[0].members[0].members[0]
                .platform
                .as_ref()
                .unwrap()
                .os,
            "linux"
        );
        assert!(huge_manifest("a", 1024).body.len() > 1024);
    }
}

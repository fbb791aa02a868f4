//! Texts by key: annotations of manifests and labels of configs (OCI image specification, "Annotations").

use std::collections::BTreeMap;

/// Keys and values in byte order of the keys, free of U+0000 and lone surrogates.
pub type Annotations = BTreeMap<String, String>;

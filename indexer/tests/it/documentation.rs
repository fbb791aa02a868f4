//! What the documents say about the indexer.

use flagstate_indexer::{metrics, registry};
use flagstate_test_support::documented;

#[test]
fn metrics_are_documented() {
    documented::metrics("both", &flagstate_common::metrics::METRICS).unwrap();
    documented::metrics("indexer", &[&metrics::METRICS[..], &registry::METRICS[..]].concat()).unwrap();
}

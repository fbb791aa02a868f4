//! What the documents say about query-api.

use flagstate_query_api::metrics::METRICS;
use flagstate_test_support::documented;

#[test]
fn metrics_are_documented() {
    documented::metrics("query-api", &METRICS).unwrap();
}

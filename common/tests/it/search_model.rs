//! The query language as a whole: thousands of random questions, answered by PostgreSQL and by the model.

use std::collections::{BTreeMap, BTreeSet};

use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::ReadStore;
use flagstate_test_support::model::{OPERATORS, ask, generate};
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::seed::seed;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::pools;

const REGISTRIES: u64 = 20;
const QUESTIONS: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_answers_equal_those_of_the_model() {
    let mut not_empty = 0;
    let mut uses: BTreeMap<&str, u64> = BTreeMap::new();
    for number in 0..REGISTRIES {
        let registry = generate(number);
        let database = TestDatabase::create().await.expect("a database");
        let mut client = database.client().await.expect("a connection");
        seed(&mut client, &registry).await.expect("a seeded database");
        let store = ReadStore::new(pools::reader(&database.reader_url()), RepositoryFilter::default());
        let questions = (0..QUESTIONS).map(|question| ask(&registry, number * QUESTIONS + question));
        let outcomes: Vec<_> = stream::iter(questions)
            .map(|question| {
                let (store, registry) = (&store, &registry);
                async move {
                    let query = SearchQuery::parse_index(&question.query_string, &Limits::default())?;
                    let found = store.search(&query).await?;
                    let expected = registry.answer(&question.parameters);
                    assert_eq!(found.value, expected, "registry {number}: {question:#?}");
                    anyhow::Ok((question, !expected.is_empty()))
                }
            })
            .buffer_unordered(4)
            .try_collect()
            .await
            .expect("answers");
        for (question, is_answered) in &outcomes {
            not_empty += u64::from(*is_answered);
            for operator in &question.operators {
                *uses.entry(operator).or_default() += 1;
            }
        }
        let asked: BTreeSet<_> = outcomes.iter().filter_map(|(question, _)| question.number).collect();
        assert_eq!(
            asked,
            (0..registry.states.len()).collect(),
            "every state was asked about"
        );
    }
    assert!(
        not_empty >= REGISTRIES * QUESTIONS / 2,
        "only {not_empty} answers are not empty"
    );
    for operator in OPERATORS {
        let count = uses.get(operator).copied().unwrap_or_default();
        assert!(count >= 500, "{operator} was used only {count} times");
    }
    eprintln!(
        "{not_empty} of {} answers are not empty; {uses:?}",
        REGISTRIES * QUESTIONS
    );
}

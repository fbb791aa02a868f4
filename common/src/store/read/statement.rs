//! A statement whose text is put together from fixed pieces, and whose values are always bound.

use diesel::pg::Pg;
use diesel::sql_types::{Array, BigInt, Binary, Text};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

/// The values of a statement, in the order of their numbers; a number may stand in the text more than once.
#[derive(Default)]
pub(super) struct Binds(Vec<Bind>);

/// A value to bind.
pub(super) enum Bind {
    Number(i64),
    Numbers(Vec<i64>),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<Vec<u8>>),
}

impl Binds {
    /// Takes a value and returns what stands for it in the text: `$1`, `$2`, …
    pub(super) fn push(&mut self, value: Bind) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }

    /// Runs the statement of `text` with these values.
    pub(super) async fn load<R>(
        self,
        text: String,
        connection: &mut AsyncPgConnection,
    ) -> Result<Vec<R>, diesel::result::Error>
    where
        R: QueryableByName<Pg> + Send + 'static,
    {
        let query = sql_query(text).into_boxed();
        self.0
            .into_iter()
            .fold(query, |query, value| match value {
                Bind::Number(number) => query.bind::<BigInt, _>(number),
                Bind::Numbers(numbers) => query.bind::<Array<BigInt>, _>(numbers),
                Bind::Text(text) => query.bind::<Text, _>(text),
                Bind::Texts(texts) => query.bind::<Array<Text>, _>(texts),
                Bind::Bytes(bytes) => query.bind::<Array<Binary>, _>(bytes),
            })
            .load(connection)
            .await
    }
}

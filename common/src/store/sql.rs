//! SQL as text, with binds, whose prepared form a connection keeps.
//!
//! diesel's own `sql_query` is prepared anew for each execution, because its text may be assembled from anything. What
//! is built here comes from constants, so a connection prepares each text once.

use std::marker::PhantomData;

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};

/// A statement, or the part of it that has been bound so far.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    text: &'static str,
}

/// A statement with one more bind.
#[derive(Clone, Copy, Debug)]
pub struct Bound<S, T, V> {
    statement: S,
    value: V,
    sql_type: PhantomData<T>,
}

/// A statement of this text, `$1` and so on standing for the binds.
#[must_use]
pub fn sql(text: &'static str) -> Sql {
    Sql { text }
}

impl Sql {
    /// Binds the next value.
    #[must_use]
    pub fn bind<T, V>(self, value: V) -> Bound<Self, T, V> {
        Bound {
            statement: self,
            value,
            sql_type: PhantomData,
        }
    }
}

impl<S, U, W> Bound<S, U, W> {
    /// Binds the next value.
    #[must_use]
    pub fn bind<T, V>(self, value: V) -> Bound<Self, T, V> {
        Bound {
            statement: self,
            value,
            sql_type: PhantomData,
        }
    }
}

impl QueryFragment<Pg> for Sql {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.text);
        Ok(())
    }
}

impl<S, T, V> QueryFragment<Pg> for Bound<S, T, V>
where
    S: QueryFragment<Pg>,
    Pg: HasSqlType<T>,
    V: ToSql<T, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.statement.walk_ast(out.reborrow())?;
        out.push_bind_param_value_only(&self.value)
    }
}

// No static id: the text itself is the key of the cache.
impl QueryId for Sql {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<S, T, V> QueryId for Bound<S, T, V> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Sql {
    type SqlType = Untyped;
}

impl<S, T, V> Query for Bound<S, T, V> {
    type SqlType = Untyped;
}

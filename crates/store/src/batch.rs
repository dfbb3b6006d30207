//! Several statements in one round trip.
//!
//! What a transaction costs is its round trips: to PostgreSQL over the network, to SQLite over to the thread that has the
//! connection. Statements that do not need each other's answers go together: SQLite takes them one after the other in one
//! text, PostgreSQL as the parts of one `with`. Parts of a `with` do not see each other's work, so no statement of a batch
//! may read what another one writes; keys that refer to each other's rows are checked when all are done.

use std::fmt::Write as _;

use futures::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Either, Row as _, SqlSafeStr as _, SqliteConnection, postgres::PgArguments, sqlite::SqliteArguments,
};

use crate::{
    db::{AsConn, ConnRef, Dialect, Tx},
    error::{Error, Result},
    postgres::PgConn,
};

/// Longer batches are as long as there happens to be work, so their texts hardly come again: prepared anew, they leave the
/// connection's prepared statements to those that do.
const MAX_KEPT: usize = 8;
/// PostgreSQL's code for it.
const DIVISION_BY_ZERO: &str = "22012";

/// Statements with their values; [`add_to!`](crate::add_to) adds one.
#[derive(Debug)]
pub struct Batch {
    values: Values,
    statements: Vec<Statement>,
    error: Option<sqlx::Error>,
}

/// The values of all statements, in order.
#[doc(hidden)]
#[derive(Debug)]
pub enum Values {
    /// As PostgreSQL takes them.
    Postgres(PgArguments),
    /// As SQLite takes them.
    Sqlite(SqliteArguments),
}

#[derive(Debug)]
struct Statement {
    text: &'static str,
    /// How many values come before its first.
    offset: usize,
}

impl Batch {
    /// An empty one for the database of the transaction in which it will be executed.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        let values = match dialect {
            Dialect::Postgres => Values::Postgres(PgArguments::default()),
            Dialect::Sqlite => Values::Sqlite(SqliteArguments::default()),
        };
        Self {
            values,
            statements: Vec::new(),
            error: None,
        }
    }

    /// Which dialect it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.values {
            Values::Postgres(_) => Dialect::Postgres,
            Values::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// How many statements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    #[doc(hidden)]
    pub fn begin(&mut self, text: &'static str) -> &mut Values {
        let offset = match &self.values {
            Values::Postgres(values) => sqlx::Arguments::len(values),
            Values::Sqlite(values) => sqlx::Arguments::len(values),
        };
        self.statements.push(Statement { text, offset });
        &mut self.values
    }

    #[doc(hidden)]
    pub fn note(&mut self, added: std::result::Result<(), sqlx::error::BoxDynError>) {
        if let Err(error) = added {
            self.error.get_or_insert(sqlx::Error::Encode(error));
        }
    }

    /// Runs them all; how many rows each touched.
    ///
    /// # Errors
    /// One failed: the transaction is to be given up.
    pub async fn execute(self, tx: &mut Tx) -> Result<Vec<u64>> {
        match tx.conn() {
            ConnRef::Postgres(connection) => {
                let is_fenced = false;
                Ok(self.execute_as_parts(connection, is_fenced).await?.unwrap_or_default())
            }
            ConnRef::Sqlite(connection) => self.execute_between(&[], connection, "", false).await,
        }
    }

    /// Itself, where it is for the database and all its values could be put into it.
    pub(crate) fn whole(self, dialect: Dialect) -> Result<Self> {
        match self.error {
            Some(error) => Err(error.into()),
            None if self.dialect() == dialect => Ok(self),
            None => Err(other_database()),
        }
    }

    /// Runs them on PostgreSQL; outside of a transaction they are one. `None`, and nothing was done, where they are fenced
    /// and the first one touched no row.
    pub(crate) async fn execute_as_parts(self, connection: &mut PgConn, is_fenced: bool) -> Result<Option<Vec<u64>>> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        if self.statements.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let Values::Postgres(values) = self.values else {
            return Err(other_database());
        };
        let is_kept = self.statements.len() <= MAX_KEPT;
        // Safe: put together from constants; values are bound.
        let text = AssertSqlSafe(as_parts(&self.statements, is_fenced)).into_sql_str();
        let query = sqlx::query_with(text, values).persistent(is_kept);
        let (connection, step) = connection.step()?;
        let row = match step.run(query.fetch_one(connection)).await {
            Err(sqlx::Error::Database(error)) if is_fenced && error.code().as_deref() == Some(DIVISION_BY_ZERO) => {
                return Ok(None);
            }
            row => row?,
        };
        let mut rows = Vec::with_capacity(self.statements.len());
        let first = usize::from(is_fenced);
        for index in first..first + self.statements.len() {
            rows.push(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or_default());
        }
        Ok(Some(rows))
    }

    /// Runs them on SQLite, after some statements and before another, which may be empty. Where they are fenced and the
    /// first one touched no row, it does not matter what became of the others: their rows so far tell.
    pub(crate) async fn execute_between(
        self,
        opening: &[&'static str],
        connection: &mut SqliteConnection,
        closing: &'static str,
        is_fenced: bool,
    ) -> Result<Vec<u64>> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let Values::Sqlite(values) = self.values else {
            return Err(other_database());
        };
        let is_kept = self.statements.len() <= MAX_KEPT;
        // Safe: put together from constants; values are bound.
        let text = AssertSqlSafe(in_a_row(opening, &self.statements, closing)).into_sql_str();
        let mut done = sqlx::Executor::fetch_many(connection, sqlx::query_with(text, values).persistent(is_kept));
        let mut rows = Vec::with_capacity(opening.len() + self.statements.len() + 1);
        loop {
            match done.try_next().await {
                Ok(Some(Either::Left(done))) => rows.push(done.rows_affected()),
                Ok(Some(Either::Right(_))) => {}
                Ok(None) => break,
                Err(_) if is_fenced && rows.get(opening.len()) == Some(&0) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(rows
            .into_iter()
            .skip(opening.len())
            .take(self.statements.len())
            .collect())
    }
}

fn other_database() -> Error {
    sqlx::Error::Configuration("a batch for the other database".into()).into()
}

/// `with s0 as (… returning 1), … select (select count(*) from s0), …`. A fence is a division by the rows of the first
/// statement: where there are none, it undoes everything. It comes first, so that nothing else is refused before it.
fn as_parts(statements: &[Statement], is_fenced: bool) -> String {
    let mut text = String::with_capacity(statements.iter().map(|statement| statement.text.len() + 64).sum());
    for (index, statement) in statements.iter().enumerate() {
        text.push_str(if index == 0 { "with " } else { ", " });
        let _ = write!(text, "s{index} as (");
        renumbered(statement, &mut text);
        text.push_str(" returning 1)");
    }
    text.push_str(if is_fenced {
        " select 1 / (select count(*) from s0), "
    } else {
        " select "
    });
    for index in 0..statements.len() {
        text.push_str(if index == 0 { "" } else { ", " });
        let _ = write!(text, "(select count(*) from s{index})");
    }
    text
}

fn in_a_row(opening: &[&str], statements: &[Statement], closing: &str) -> String {
    let length: usize = statements.iter().map(|statement| statement.text.len() + 16).sum();
    let mut text = String::with_capacity(length + 32 + closing.len());
    for statement in opening {
        text.push_str(statement);
        text.push(';');
    }
    for statement in statements {
        renumbered(statement, &mut text);
        text.push(';');
    }
    text.push_str(closing);
    text
}

/// The text with its placeholders numbered among those of the whole batch.
fn renumbered(statement: &Statement, text: &mut String) {
    let mut rest = statement.text;
    while let Some((before, after)) = rest.split_once('$') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = after.split_at(digits);
        text.push_str(before);
        match number.parse::<usize>() {
            Ok(number) => {
                let _ = write!(text, "${}", statement.offset + number);
            }
            Err(_) => text.push('$'),
        }
        rest = after;
    }
    text.push_str(rest);
}

/// Adds a statement to a [`Batch`](crate::Batch): `add_to!(batch, SQL, value, …)`. It inserts, updates or deletes, and
/// returns nothing.
#[macro_export]
macro_rules! add_to {
    ($batch:expr, $sql:expr $(, $value:expr)* $(,)?) => {{
        let batch: &mut $crate::Batch = &mut $batch;
        #[allow(unused_mut, reason = "without values nothing can fail")]
        let mut added = Ok(());
        match batch.begin($sql) {
            $crate::Values::Postgres(values) => {
                let _ = &values;
                $(added = added.and_then(|()| $crate::sqlx::Arguments::add(values, $value));)*
            }
            $crate::Values::Sqlite(values) => {
                let _ = &values;
                $(added = added.and_then(|()| $crate::sqlx::Arguments::add(values, $value));)*
            }
        }
        batch.note(added);
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_through() {
        let statements = [
            Statement {
                text: "update a set b = $2, c = $10 where d = $1",
                offset: 0,
            },
            Statement {
                text: "delete from e",
                offset: 10,
            },
            Statement {
                text: "insert into f values ($1, $2)",
                offset: 10,
            },
        ];
        assert_eq!(
            in_a_row(&["begin"], &statements, "commit"),
            "begin;update a set b = $2, c = $10 where d = $1;delete from e;insert into f values ($11, $12);commit"
        );
        assert_eq!(
            as_parts(&statements[1..], false),
            "with s0 as (delete from e returning 1), s1 as (insert into f values ($11, $12) returning 1) \
             select (select count(*) from s0), (select count(*) from s1)"
        );
        assert_eq!(
            as_parts(&statements[1..2], true),
            "with s0 as (delete from e returning 1) select 1 / (select count(*) from s0), (select count(*) from s0)"
        );
    }
}

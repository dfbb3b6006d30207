//! The macros that run one SQL text on either database.
//!
//! The text must be a constant (the type `&'static str` is enforced by `sqlx`), placeholders are `$1`, `$2`, …; values
//! are bound in order. Row types derive `sqlx::FromRow` or are tuples.

/// What a statement gives on either database; each step on PostgreSQL has a limit.
#[doc(hidden)]
#[macro_export]
macro_rules! __on_either {
    ($conn:expr, $connection:ident => $work:expr, $answer:ident => $result:expr) => {
        match $crate::AsConn::conn(&mut *$conn) {
            $crate::ConnRef::Postgres(connection) => match connection.step() {
                Ok(($connection, step)) => step.run($work).await.map(|$answer| $result),
                Err(error) => Err(error),
            },
            $crate::ConnRef::Sqlite($connection) => $work.await.map(|$answer| $result),
        }
        .map_err($crate::Error::from)
    };
}

/// All rows of a query: `fetch_all!(conn, Row, SQL, value, …)`.
#[macro_export]
macro_rules! fetch_all {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_all(connection), rows => rows)
    }};
}

/// The first row of a query, if there is one.
#[macro_export]
macro_rules! fetch_optional {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_optional(connection), rows => rows)
    }};
}

/// The one row of a query that always has one.
#[macro_export]
macro_rules! fetch_one {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_one(connection), rows => rows)
    }};
}

/// Runs a statement and returns how many rows it touched.
#[macro_export]
macro_rules! execute {
    ($conn:expr, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query($sql)$(.bind($value))*.execute(connection), done => done.rows_affected())
    }};
}

//! The macros that run one SQL text on either database.
//!
//! The text must be a constant (the type `&'static str` is enforced by `sqlx`), placeholders are `$1`, `$2`, …; values
//! are bound in order. Row types derive `sqlx::FromRow` or are tuples.

#[doc(hidden)]
#[macro_export]
macro_rules! __on_either {
    ($conn:expr, $connection:ident => $body:expr) => {
        match $crate::AsConn::conn(&mut *$conn) {
            $crate::ConnRef::Postgres($connection) => $body,
            $crate::ConnRef::Sqlite($connection) => $body,
        }
    };
}

/// All rows of a query: `fetch_all!(conn, Row, SQL, value, …)`.
#[macro_export]
macro_rules! fetch_all {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_all(connection).await)
            .map_err($crate::Error::from)
    }};
}

/// The first row of a query, if there is one.
#[macro_export]
macro_rules! fetch_optional {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_optional(connection).await)
            .map_err($crate::Error::from)
    }};
}

/// The one row of a query that always has one.
#[macro_export]
macro_rules! fetch_one {
    ($conn:expr, $row:ty, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query_as::<_, $row>($sql)$(.bind($value))*.fetch_one(connection).await)
            .map_err($crate::Error::from)
    }};
}

/// Runs a statement and returns how many rows it touched.
#[macro_export]
macro_rules! execute {
    ($conn:expr, $sql:expr $(, $value:expr)* $(,)?) => {{
        let connection = &mut $conn;
        $crate::__on_either!(connection, connection =>
            $crate::sqlx::query($sql)$(.bind($value))*.execute(connection).await.map(|done| done.rows_affected()))
            .map_err($crate::Error::from)
    }};
}

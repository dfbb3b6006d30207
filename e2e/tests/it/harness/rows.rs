//! A look into the database, for what no client may see any more.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// The one number that a query gives.
pub(crate) async fn count(database_url: &str, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    if database_url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database_url)
            .await
            .expect("the database file");
        let count = sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .expect("a number");
        connection.close().await.expect("closed");
        count
    } else {
        let mut connection = PgConnection::connect(database_url).await.expect("the database");
        let count = sqlx::query_scalar(sql)
            .fetch_one(&mut connection)
            .await
            .expect("a number");
        connection.close().await.expect("closed");
        count
    }
}

/// Changes rows behind the system's back.
pub(crate) async fn execute(database_url: &str, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    if database_url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(database_url)
            .await
            .expect("the database file");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("executed");
        connection.close().await.expect("closed");
    } else {
        let mut connection = PgConnection::connect(database_url).await.expect("the database");
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("executed");
        connection.close().await.expect("closed");
    }
}

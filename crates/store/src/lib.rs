//! One store on two databases (`design.md` 5).
//!
//! One SQL text serves both: PostgreSQL in production, SQLite embedded. [`Db`] holds the pools, [`Conn`] and [`Tx`] are
//! what store functions take, and the macros [`fetch_all!`], [`fetch_optional!`], [`fetch_one!`] and [`execute!`] expand
//! the same constant text for whichever database is behind them; a [`Batch`] takes several statements there at once. Where the dialects really differ there are two
//! constants side by side, chosen with [`AsConn::dialect`].

pub mod audit;
mod batch;
mod db;
mod error;
pub mod idempotency;
pub mod inbox;
mod migrate;
pub mod outbox;
mod postgres;
#[macro_use]
mod query;
mod writer;

pub use batch::Batch;
#[doc(hidden)]
pub use batch::Values;
pub use db::{AsConn, Conn, ConnRef, Db, Dialect, Tx};
pub use error::{Error, OpenError, Result};
pub use postgres::PgConn;
#[doc(hidden)]
pub use sqlx;
pub use sqlx::types::Json;
pub use writer::{SqliteTx, Writer};

//! End to end tests: the real binary as its users start it, `copass dev` and five `copass serve` processes, driven over
//! HTTP and signals. Everything is under `tests/it`; the package has no code of its own.
//!
//! `cargo build -p copass-cli` first (the tests run `target/debug/copass`, or what `COPASS_BIN` names), and
//! `eval "$(scripts/services start)"` for the shape that needs PostgreSQL and RabbitMQ.

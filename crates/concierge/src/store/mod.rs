//! The service's SQL, one file per aggregate. Functions write what they are given; rules live in `app`.

pub(crate) mod api_keys;
pub(crate) mod audit;
pub(crate) mod connections;
pub(crate) mod login;
pub(crate) mod sandboxes;
pub(crate) mod users;

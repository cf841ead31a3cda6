//! What the tests share.

pub(crate) mod database;
pub(crate) mod postgres;

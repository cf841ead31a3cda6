//! What the tests share.

pub(crate) mod database;
pub(crate) mod postgres;
pub(crate) mod scratch;
pub(crate) mod sessions;

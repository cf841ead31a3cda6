//! What the tests share.

pub(crate) mod api;
pub(crate) mod data_plane;
pub(crate) mod database;
pub(crate) mod postgres;
pub(crate) mod sessions;

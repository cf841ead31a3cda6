//! The product's pure modules and no others, under the paths that they have in the product.

pub mod data_plane;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/seam/mod.rs"]
pub mod seam;
#[path = "../../src/secrets.rs"]
pub mod secrets;

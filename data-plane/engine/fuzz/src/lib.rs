//! What the fuzz targets share: the oracles, and the naive model and generators of `tests/routing`.

#[path = "../../tests/routing/generate.rs"]
mod generate;
#[path = "../../tests/routing/model.rs"]
mod model;
mod oracle;

/// See [`oracle::compile`].
pub fn compile(data: &[u8]) {
    oracle::compile(data);
}

/// See [`oracle::route`].
pub fn route(data: &[u8]) {
    oracle::route(data);
}

/// See [`oracle::normalize`].
pub fn normalize(data: &[u8]) {
    oracle::normalize(data);
}

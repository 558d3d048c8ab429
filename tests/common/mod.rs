//! Shared by the tests of the kinds.

pub mod kinds;
pub mod rules;

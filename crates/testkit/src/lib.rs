//! Workshop tools: what tests and benchmarks need and the product does not.

pub mod load;
pub mod registry;

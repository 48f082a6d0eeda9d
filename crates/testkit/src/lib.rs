//! Workshop tools: what tests, the demo and measurements need and no room of the product may use.

pub mod browser;
pub mod load;
pub mod openclaw;
pub mod registry;
pub mod sealed;
pub mod slow;

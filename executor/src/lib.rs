//! Outlive.

pub mod shim;
pub mod freeze;
pub mod driver;
pub mod chunk;
pub mod manifest;
pub mod scan;
pub mod checkpoint;
pub mod restore;

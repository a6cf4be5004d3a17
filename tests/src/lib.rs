//! Outlive.

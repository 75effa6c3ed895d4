//! The master daemon's parts.

pub mod accounts;
pub mod config;
pub mod core;
pub mod driver;
pub mod files;
pub mod import;
pub mod init;
pub mod membership;
pub mod metrics;
pub mod node_setting;

//! The real drivers, one folder a port: a driver does what it is asked and reports.

#[cfg(target_os = "linux")]
pub mod files;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
pub mod packets;
pub mod port;
#[cfg(target_os = "linux")]
mod readable;
#[cfg(target_os = "linux")]
pub mod rules;
#[cfg(target_os = "linux")]
mod turn;

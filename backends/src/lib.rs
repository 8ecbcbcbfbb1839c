//! The real drivers, one folder a port: a driver does what it is asked and reports.

#[cfg(all(target_os = "linux", feature = "cri"))]
pub mod cni;
#[cfg(target_os = "linux")]
pub mod containers;
#[cfg(all(target_os = "linux", feature = "cri"))]
pub mod cri;
#[cfg(target_os = "linux")]
pub mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(target_os = "linux")]
pub mod namespace;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(target_os = "linux")]
pub mod packets;
pub mod port;
pub mod probe;
#[cfg(target_os = "linux")]
mod readable;
#[cfg(target_os = "linux")]
pub mod rules;
pub mod store;
#[cfg(all(target_os = "linux", feature = "cri", feature = "http"))]
pub mod tunnel;
#[cfg(target_os = "linux")]
mod turn;
#[cfg(target_os = "linux")]
pub mod volumes;

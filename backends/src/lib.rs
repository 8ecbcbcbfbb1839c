//! The real drivers, one folder a port: a driver does what it is asked and reports.

pub mod netlink;
pub mod port;
pub mod rules;
mod turn;

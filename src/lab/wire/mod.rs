//! The modelled wire's messages in bytes.

pub mod dhcp;
pub mod frame;

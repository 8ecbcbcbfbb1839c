//! The modelled kernel of one machine.

pub mod netfilter;
pub mod packet;

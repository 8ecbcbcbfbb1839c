//! Facts of netfilter, each by a packet or a command.

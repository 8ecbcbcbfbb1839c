//! From the kernel's error numbers to those that actors know.

use kubesim_actors::ports::network::Errno;
use nix::errno::Errno as Raw;
use std::io;

/// `number` is positive, as errno(3) has it.
pub fn from_raw(number: i32) -> Errno {
    match Raw::from_raw(number) {
        Raw::ESRCH => Errno::Esrch,
        Raw::ENODEV => Errno::Enodev,
        Raw::EEXIST => Errno::Eexist,
        Raw::EINVAL => Errno::Einval,
        Raw::EOPNOTSUPP => Errno::Eopnotsupp,
        Raw::EADDRINUSE => Errno::Eaddrinuse,
        Raw::EADDRNOTAVAIL => Errno::Eaddrnotavail,
        Raw::ENETDOWN => Errno::Enetdown,
        Raw::ENETUNREACH => Errno::Enetunreach,
        Raw::EHOSTUNREACH => Errno::Ehostunreach,
        Raw::ECONNREFUSED => Errno::Econnrefused,
        Raw::ECONNRESET => Errno::Econnreset,
        Raw::ETIMEDOUT => Errno::Etimedout,
        Raw::EMSGSIZE => Errno::Emsgsize,
        Raw::EPERM => Errno::Eperm,
        Raw::ERANGE => Errno::Erange,
        _ => Errno::Other(u16::try_from(number).unwrap_or(u16::MAX)),
    }
}

/// An error that is none of the system's counts as `EIO`.
pub fn from_io(error: &io::Error) -> Errno {
    from_raw(error.raw_os_error().unwrap_or(Raw::EIO as i32))
}

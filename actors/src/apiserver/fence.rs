//! Writes of one of several that take turns (schedulers, controllers): each names the lease by
//! which its writer leads, and is one transaction with a comparison of that lease. So a writer that
//! was paused, or whose write was long on its way, changes nothing after another one leads, however
//! late it wakes up and whatever it believes of the time.

use super::{Cache, errors};
use crate::objects::{Key, Kind};
use crate::ports::api::Error;
use crate::ports::store::StoreKey;
use smol_str::SmolStr;

/// By what somebody writes: only as long as this one holds that lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    pub lease: Key,
    pub holder: SmolStr,
}

impl Hold {
    /// The version that the lease must have in the store, which is the one in which the holder
    /// holds it; refused if it does not, as far as is known.
    pub(super) fn expected(&self, cache: &Cache) -> Result<(StoreKey, u64), Error> {
        let object = cache.object(Kind::Lease, &self.lease);
        let spec = object.and_then(|object| object.lease());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        match object {
            Some(object) if holder == self.holder.as_str() => {
                Ok(((Kind::Lease, self.lease.clone()), object.version))
            }
            _ => {
                let why = format_args!(
                    "the writer leads no more: it is {:?}, and the lease is held by {holder:?}",
                    self.holder
                );
                Err(errors::conflict(Kind::Lease, &self.lease.name, why))
            }
        }
    }
}

//! A pod's loopback, set up.

use super::call::Attachment;
use super::failure::{Code, Failure};
use crate::namespace::Namespace;
use crate::network::admin::Admin;
use crate::network::errno_of;
use crate::network::pod::LO;
use kubesim_actors::ports::network::Errno;
use serde_json::{Value, json};
use std::path::Path;

/// Whatever the interface is called in the call: upstream's plugin does not look at it either.
pub fn add(at: &Attachment) -> Result<Value, Failure> {
    in_space(&at.space()?, |admin| admin.set_up(LO, true))?;
    // What came before it in a list stays.
    Ok(at.configuration.prev_result.clone().unwrap_or_else(|| {
        let lo = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": at.netns });
        json!({ "interfaces": [lo] })
    }))
}

pub fn check(at: &Attachment) -> Result<(), Failure> {
    let up = in_space(&at.space()?, |admin| admin.find(|link| link.index == LO && link.up))?;
    let down = || Failure::new(Code::Damaged, "the pod's loopback is down");
    up.map(drop).ok_or_else(down)
}

/// With the namespace it is gone.
pub fn del(at: &Attachment) {
    if let Ok(space) = Namespace::open(Path::new(&at.netns)) {
        let _ = in_space(&space, |admin| admin.set_up(LO, false));
    }
}

fn in_space<T: Send>(
    space: &Namespace,
    act: impl FnOnce(&mut Admin) -> Result<T, Errno> + Send,
) -> Result<T, Failure> {
    let done = space.run(|| Ok(act(&mut Admin::open()?)));
    done.unwrap_or_else(|error| Err(errno_of(&error)))
        .map_err(|errno| Failure::new(Code::Refused, format!("the pod's loopback: {errno}")))
}
